"""The online listener: speaker frames and sound in, listener frames out, in any portions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from pflx.engines import Array, FeedError, PflxError
from pflx.runtime.faces import FaceState
from pflx.runtime.generators import Generator, SpeakerWindow, State
from pflx.runtime.latency import Ledger
from pflx.runtime.media import FPS, SAMPLES_PER_FRAME
from pflx.runtime.rendering import WINDOW_RADIUS, Renderer
from pflx.runtime.smoothing import POSE, Smoother
from pflx.runtime.speaker import FaceTrack, SpeakerView

UInt8Array: TypeAlias = npt.NDArray[np.uint8]
Float32Array: TypeAlias = npt.NDArray[np.float32]
Noise: TypeAlias = Callable[[int, int, int], Float32Array]
"""(segment, sample, size) → float32 [size], standard normal. A function of its arguments alone."""
Clock: TypeAlias = Callable[[], int]
"""Monotonic time in ns."""


class StreamError(PflxError, RuntimeError):
    """A stream was used after its end, or a snapshot does not fit it."""


@dataclass(frozen=True)
class ListenerFrame:
    """One frame of one reaction.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        coefficients: float32 [58] that it shows, mean face added.
        generated_pose: float32 [6], the generator's own pose before PosNet, mean face added.
        time_s: on the speaker's media clock.
        sample: which of the M reactions.
        face: whether the speaker's face was there when the segment was made.
        ledger: when each stage finished with the frame.
    """

    image: UInt8Array
    coefficients: Float32Array
    generated_pose: Float32Array
    time_s: float
    sample: int
    face: FaceState
    ledger: Ledger


@dataclass(frozen=True)
class Chain:
    """The stages that all streams of a listener share; they hold no state of a session.

    Attributes:
        view: crops the speaker.
        generator: speaker window → segment.
        smoother: segment → segment without a jump.
        renderer: track → picture.
        mean_face: float32 [58], added at the edge.
        lookahead: coefficient frames to wait for before a frame is rendered, 0…13.
        clock: stamps the ledgers.
    """

    view: SpeakerView
    generator: Generator
    smoother: Smoother
    renderer: Renderer
    mean_face: Float32Array
    lookahead: int
    clock: Clock


@dataclass(frozen=True)
class _Segment:
    """A closed segment: what frames that are still to be rendered may read of it."""

    coefficients: Array
    generated_pose: Array
    face: FaceState
    received: int
    generated: int
    smoothed: int


def seeded_noise(seed: int) -> Noise:
    """Noise that depends on seed, segment and sample only: sample m is the same whatever M is.

    Raises:
        FeedError: the seed is negative.
    """
    if seed < 0:
        raise FeedError(f"seed is {seed}; take 0 or more.")

    def noise(segment: int, sample: int, size: int) -> Float32Array:
        return np.random.default_rng((seed, sample, segment)).standard_normal(size, np.float32)

    return noise


class Stream:
    """M reactions to one speaker. The caller owns the clock; there are no threads and no waiting.

    `push` takes what there is, `pull` does the work that is due and yields its frames one by one. How the input is
    cut into pushes, and when pull is called, changes nothing in the frames. Input that is pushed and not pulled waits
    in memory.

    Frame k is rendered when the segment that holds frame k + lookahead is closed. Its window reaches as far as
    the segments closed by then, at most 13 frames; beyond, the last known frame is repeated.

    Made by `Listener.stream`.
    """

    def __init__(
        self,
        chain: Chain,
        *,
        samples: int,
        noise: Noise,
        track: FaceTrack,
        audio: bool = True,
        start_s: float = 0.0,
    ) -> None:
        if samples < 1:
            raise FeedError(f"samples is {samples}; a stream makes at least 1 reaction.")
        self._chain = chain
        self._noise = noise
        self._samples = samples
        self._start_s = start_s
        self._inbox = _Inbox(silent=not audio)
        self._face = track
        self._generator_state: State = chain.generator.start(samples)
        self._smoother_state: State = chain.smoother.start()
        self._segments: dict[int, _Segment] = {}
        self._n_closed = 0
        self._n_emitted = 0
        self._n_speaker: int | None = None

    def push(self, *, video: UInt8Array | None = None, audio: Float32Array | None = None) -> None:
        """Add speaker frames, sound, or both; neither has to fit the other yet.

        Args:
            video: uint8 [T, H, W, 3] RGB at 25 fps, whole frames of one size.
            audio: float32 [N], 16 kHz mono in [-1, 1]. Sample 640·k belongs to the start of frame k.

        Raises:
            FeedError: another dtype or shape, a frame size that changed, or NaN in the sound.
            StreamError: `finish` was called.
        """
        if self._n_speaker is not None:
            raise StreamError("The stream was finished; open another one for more input.")
        self._inbox.add(video, audio, self._chain.clock())

    def finish(self) -> None:
        """Tell that the speaker's input is over: the rest comes out of the next `pull`.

        The pictures decide the length. Missing sound is silence, sound after the last picture is dropped, and a window
        that is not full repeats the last picture.
        """
        if self._n_speaker is None:
            self._n_speaker = self._n_closed * self._chain.generator.hop + self._inbox.n_frames
            self._inbox.complete(self._chain.generator.window)

    def pull(self) -> Iterator[ListenerFrame]:
        """The frames that are due, oldest first and sample by sample within a frame; ends when input is lacking.

        Work is done as frames are taken: what is not taken comes with the next pull. When an engine fails, or Ctrl-C
        comes, the stream is as it was before that piece of work, and the next pull tries again.
        """
        while True:
            while self._n_emitted < self._n_due() * self._samples:
                rendered = self._render(*divmod(self._n_emitted, self._samples))
                self._n_emitted += 1
                yield rendered
            if not self._inbox.has(self._chain.generator.window):
                return
            self._close_segment()

    def snapshot(self) -> dict[str, Array]:
        """Everything the stream knows, as plain arrays; `Listener.resume` goes on from there in any process."""
        arrays = {
            "samples": np.array([self._samples]),
            "counts": np.array([self._n_closed, self._n_emitted, -1 if self._n_speaker is None else self._n_speaker]),
            "start_s": np.array([self._start_s]),
            **_prefixed("face", self._face.to_arrays()),
            **_prefixed("generator", self._generator_state),
            **_prefixed("smoother", self._smoother_state),
            **_prefixed("inbox", self._inbox.to_arrays()),
        }
        for index, segment in self._segments.items():
            arrays |= _prefixed(f"segment{index}", _segment_arrays(segment))
        return {name: np.array(value) for name, value in arrays.items()}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take over a snapshot; one that is refused changes nothing.

        Raises:
            StreamError: it is of another number of samples or another generator, or not a snapshot of this pflx.
        """
        try:
            samples = int(arrays["samples"][0])
            n_closed, n_emitted, n_speaker = (int(count) for count in arrays["counts"])
            start_s = float(arrays["start_s"][0])
            face = FaceTrack.from_arrays(_unprefixed("face", arrays))
            inbox = _Inbox.from_arrays(_unprefixed("inbox", arrays), self._chain.clock())
            kept = sorted({int(name.split(".")[0][7:]) for name in arrays if name.startswith("segment")})
            segments = {index: _segment(_unprefixed(f"segment{index}", arrays)) for index in kept}
        except (KeyError, ValueError, IndexError) as error:
            raise StreamError(f"This is no snapshot of a stream ({error}). Take one with Stream.snapshot.") from error
        if samples != self._samples:
            raise StreamError(f"The snapshot holds {samples} samples, the stream {self._samples}.")
        state = _unprefixed("generator", arrays)
        if _shapes(state) != _shapes(self._chain.generator.start(samples)):
            raise StreamError("The snapshot is of another generator. Resume it on the bundle that it was taken on.")
        self._generator_state, self._smoother_state = state, _unprefixed("smoother", arrays)
        self._n_closed, self._n_emitted = n_closed, n_emitted
        self._n_speaker = None if n_speaker < 0 else n_speaker
        self._start_s, self._face, self._inbox, self._segments = start_s, face, inbox, segments

    def close(self) -> None:
        """Drop what the stream holds and end it; the engines belong to the listener."""
        self._n_speaker = 0
        self._inbox = _Inbox(silent=False)
        self._segments.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _n_due(self) -> int:
        """How many frames can be rendered with the segments closed so far."""
        known = self._n_closed * self._chain.generator.hop
        if self._n_speaker is not None and known >= self._n_speaker:
            return self._n_speaker
        return max(0, known - self._chain.lookahead)

    def _close_segment(self) -> None:
        """Work out the next segment, then take it over in one go."""
        chain, index = self._chain, self._n_closed
        frames, audio, received = self._inbox.window(chain.generator.window)
        pictures, face = chain.view.step(frames, self._face)
        size = chain.generator.noise_size
        noise = np.stack([self._noise(index, sample, size) for sample in range(self._samples)])
        generated, generator_state = chain.generator.step(SpeakerWindow(pictures, audio), self._generator_state, noise)
        generated_at = chain.clock()
        smoothed, smoother_state = chain.smoother.step(generated, self._smoother_state)
        self._segments[index] = _Segment(
            coefficients=smoothed,
            generated_pose=np.ascontiguousarray(generated[..., POSE]),
            face=face.watch.state,
            received=received,
            generated=generated_at,
            smoothed=chain.clock(),
        )
        self._face, self._generator_state, self._smoother_state = face, generator_state, smoother_state
        self._inbox.drop(chain.generator.window)
        self._n_closed += 1
        self._forget_segments()

    def _forget_segments(self) -> None:
        """Keep the segments that the window of the next frame to render can reach."""
        oldest_frame = self._n_emitted // self._samples - WINDOW_RADIUS
        for index in [i for i in self._segments if (i + 1) * self._chain.generator.hop <= oldest_frame]:
            del self._segments[index]

    def _render(self, frame: int, sample: int) -> ListenerFrame:
        chain, hop = self._chain, self._chain.generator.hop
        segment, row = self._segments[frame // hop], frame % hop
        image = chain.renderer.render(self._track(frame, sample), WINDOW_RADIUS, sample)
        return ListenerFrame(
            image=image,
            coefficients=segment.coefficients[sample, row] + chain.mean_face,
            generated_pose=segment.generated_pose[sample, row] + chain.mean_face[POSE],
            time_s=self._start_s + frame / FPS,
            sample=sample,
            face=segment.face,
            ledger=Ledger(segment.received, segment.generated, segment.smoothed, chain.clock()),
        )

    def _track(self, frame: int, sample: int) -> Array:
        """The 27 coefficient frames around `frame`, edges repeated, float32 [27, 58]."""
        hop = self._chain.generator.hop
        wanted = np.arange(frame - WINDOW_RADIUS, frame + WINDOW_RADIUS + 1)
        rows = np.clip(wanted, 0, self._n_closed * hop - 1)
        return np.stack([self._segments[row // hop].coefficients[sample, row % hop] for row in rows.tolist()])


class _Inbox:
    """Speaker input that no window has taken yet."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._frames: list[UInt8Array] = []
        self._audio = np.zeros(0, np.float32)
        self._marks: list[tuple[int, int, int]] = []  # frames and samples waiting after each push, and its time
        self._frame_shape: tuple[int, ...] | None = None

    @property
    def n_frames(self) -> int:
        return len(self._frames)

    def add(self, video: UInt8Array | None, audio: Float32Array | None, now: int) -> None:
        if video is not None:
            self._check_video(video)
        if audio is not None:
            self._check_audio(audio)
        if video is not None:
            self._frames.extend(np.array(video))
            self._frame_shape = video.shape[1:]
            if self._silent:
                audio = np.zeros(SAMPLES_PER_FRAME * len(video), np.float32)
        if audio is not None:
            self._audio = np.concatenate([self._audio, audio])
        self._marks.append((len(self._frames), len(self._audio), now))

    def has(self, n_frames: int) -> bool:
        return len(self._frames) >= n_frames and len(self._audio) >= n_frames * SAMPLES_PER_FRAME

    def window(self, n_frames: int) -> tuple[UInt8Array, Float32Array, int]:
        """The first frames, their sound, and when the push came that completed them."""
        n_samples = n_frames * SAMPLES_PER_FRAME
        received = next((at for v, a, at in self._marks if v >= n_frames and a >= n_samples), self._marks[-1][2])
        return np.stack(self._frames[:n_frames]), self._audio[:n_samples], received

    def drop(self, n_frames: int) -> None:
        """Forget the first frames and their sound."""
        n_samples = n_frames * SAMPLES_PER_FRAME
        self._frames, self._audio = self._frames[n_frames:], self._audio[n_samples:]
        left = [(v - n_frames, a - n_samples, at) for v, a, at in self._marks]
        self._marks = [mark for mark in left[:-1] if mark[0] > 0 or mark[1] > 0] + left[-1:]

    def complete(self, n_frames: int) -> None:
        """Cut the sound where the pictures end, then fill up to whole windows with silence and the last picture."""
        heard = self._audio[: len(self._frames) * SAMPLES_PER_FRAME]
        if self._frames:
            self._frames += [self._frames[-1]] * (-len(self._frames) % n_frames)
        self._audio = np.zeros(len(self._frames) * SAMPLES_PER_FRAME, np.float32)
        self._audio[: len(heard)] = heard

    def to_arrays(self) -> dict[str, Array]:
        video = np.stack(self._frames) if self._frames else np.zeros((0, *(self._frame_shape or (0, 0, 3))), np.uint8)
        return {"video": video, "audio": self._audio, "silent": np.array([self._silent])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], now: int) -> _Inbox:
        inbox = cls(silent=bool(arrays["silent"][0]))
        inbox._frames = list(arrays["video"])
        inbox._audio = np.asarray(arrays["audio"], np.float32)
        inbox._frame_shape = arrays["video"].shape[1:] if arrays["video"].shape[1] else None
        inbox._marks = [(len(inbox._frames), len(inbox._audio), now)]
        return inbox

    def _check_video(self, video: UInt8Array) -> None:
        shape, dtype = _described(video)
        if shape is None or dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape[1:]:
            raise FeedError(f"Speaker frames are uint8 [T, H, W, 3] RGB, got {dtype} {list(shape or ())}.")
        if self._frame_shape not in (None, shape[1:]):
            old, new = self._frame_shape, shape[1:]
            raise FeedError(
                f"Speaker frames were {old[1]}x{old[0]}, now {new[1]}x{new[0]}. Resize them, or open a new stream."
            )

    def _check_audio(self, audio: Float32Array) -> None:
        if self._silent:
            raise FeedError("The stream was opened with audio=False, and was given sound. Open it with audio=True.")
        shape, dtype = _described(audio)
        if shape is None or dtype != np.float32 or len(shape) != 1:
            raise FeedError(f"Sound is float32 [N], 16 kHz mono in [-1, 1], got {dtype} {list(shape or ())}.")
        if not np.isfinite(audio).all():
            raise FeedError("Sound holds NaN or infinite samples; replace them with 0.")


def _described(given: object) -> tuple[tuple[int, ...] | None, Any]:
    """Shape and dtype, or None and the type of what is no array."""
    return getattr(given, "shape", None), getattr(given, "dtype", type(given).__name__)


def _segment_arrays(segment: _Segment) -> dict[str, Array]:
    return {
        "coefficients": segment.coefficients,
        "generated_pose": segment.generated_pose,
        "face": np.array([segment.face]),
        "stamps": np.array([segment.received, segment.generated, segment.smoothed]),
    }


def _segment(arrays: Mapping[str, Array]) -> _Segment:
    received, generated, smoothed = (int(stamp) for stamp in arrays["stamps"])
    face = FaceState(int(arrays["face"][0]))
    return _Segment(arrays["coefficients"], arrays["generated_pose"], face, received, generated, smoothed)


def _shapes(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def _prefixed(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{prefix}.{name}": value for name, value in arrays.items()}


def _unprefixed(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
