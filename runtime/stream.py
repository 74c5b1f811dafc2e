"""The online listener: speaker frames and sound in, listener frames out, in any portions."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np

from pflx.engines import Array, FeedError, PflxError
from pflx.runtime.chain import Chain, ListenerFrame, Noise
from pflx.runtime.generators import State, reach
from pflx.runtime.inbox import Arrival, Float32Array, Inbox, UInt8Array, Window
from pflx.runtime.latency import Ledger, Rung
from pflx.runtime.pace import UNHURRIED, Pace
from pflx.runtime.rendering import WINDOW_RADIUS, Portrait
from pflx.runtime.segment import Segment, SegmentStamps, Shot, hold_good, is_finite
from pflx.runtime.smoothing import POSE
from pflx.runtime.snapshot import prefixed, unprefixed
from pflx.runtime.speaker import FaceTrack
from pflx.runtime.speaker_window import Ahead, SpeakerState

log = logging.getLogger(__name__)


class StreamError(PflxError, RuntimeError):
    """A stream was used after its end, or a snapshot does not fit it."""


class Stream:
    """M reactions to one speaker. The caller owns the clock; there are no threads and no waiting.

    `push` takes what there is, `pull` does the work that is due and yields its frames one by one. How the input is
    cut into pushes, and when pull is called, changes nothing in the frames. Input that is pushed and not pulled waits
    in memory.

    Frame k is rendered when the segment that holds frame k + lookahead is closed, and not before the speaker's frame k
    is there. Its window reaches as far as the segments closed by then, at most 13 frames; beyond, the last known frame
    is repeated.

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
        self._inbox = Inbox(silent=not audio, start_s=start_s, sample_rate_hz=chain.speaker.sample_rate_hz)
        self._portraits = list(chain.portraits)
        self._speaker = chain.speaker.start(track)
        self._ahead = Ahead()
        self._generator_state: State = chain.generator.start(samples)
        self._smoother_state: State = chain.smoother.start()
        self._segments: dict[int, Segment] = {}
        self._names: dict[int, tuple[int, float]] = {}  # position → number and time of a speaker's frame
        self._n_taken = 0  # speaker frames that segments were made of; the others wait in the inbox
        self._n_closed = 0
        self._n_emitted = 0
        self._n_speaker: int | None = None
        self._rung = Rung.FULL
        self._shots: dict[int, Shot] = {}  # by sample, of a pair of frames that shares its pictures
        self._second_of_pair = -1
        self._repaired = 0
        self._warned = False

    @property
    def next_frame(self) -> int:
        """Number that the next frame pushed without an arrival gets."""
        return self._inbox.next_number

    @property
    def repaired(self) -> int:
        """Coefficient frames that were not finite, for which the last good ones were held."""
        return self._repaired

    def push(
        self, *, video: UInt8Array | None = None, audio: Float32Array | None = None, arrival: Arrival | None = None
    ) -> None:
        """Add speaker frames, sound, or both; neither has to fit the other yet.

        Args:
            video: uint8 [T, H, W, 3] RGB at 25 fps, whole frames of one size.
            audio: float32 [N], mono in [-1, 1], at the bundle's rate R (`Listener.sample_rate_hz`). Sample R/25·k
                belongs to the start of frame k.
            arrival: numbers, time and stamps of `video`, which is then handed over; by default the frames follow the
                last ones, came now, and are copied.

        Raises:
            FeedError: another dtype or shape, a frame size that changed, or NaN in the sound.
            StreamError: `finish` was called.
        """
        if self._n_speaker is not None:
            raise StreamError("The stream was finished; open another one for more input.")
        before = self._inbox.n_frames
        self._inbox.add(video, audio, self._chain.clock(), arrival)
        self._name_frames(before)

    def finish(self) -> None:
        """Tell that the speaker's input is over: the rest comes out of the next `pull`.

        The pictures decide the length. Missing sound is silence, sound after the last picture is dropped, and a segment
        that lacks frames repeats the last picture.
        """
        if self._n_speaker is None:
            before = self._inbox.n_frames
            self._n_speaker = self._n_taken + before
            segments = -(-self._n_speaker // self._chain.generator.hop)
            self._inbox.complete(max(before, reach(self._chain.generator, segments - 1) - self._n_taken))
            self._name_frames(before)

    def pull(self, pace: Pace = UNHURRIED) -> Iterator[ListenerFrame]:
        """The frames that are due, oldest first and sample by sample within a frame; ends when input is lacking.

        Work is done as frames are taken: what is not taken comes with the next pull. When an engine fails, or Ctrl-C
        comes, the stream is as it was before that piece of work, and the next pull tries again.

        Args:
            pace: may have work left out to save time; frames on HOLD do not come out at all.
        """
        while True:
            while self._n_emitted < self._n_due() * self._samples:
                position, sample = divmod(self._n_emitted, self._samples)
                if sample == 0:
                    self._rung = self._choose(position, pace)
                if self._rung is Rung.HOLD:
                    self._n_emitted += self._samples
                    continue
                rendered = self._render(position, sample, pace)
                self._n_emitted += 1
                yield rendered
            if not self._is_segment_due():
                self._look_ahead()
                return
            self._close_segment(pace)

    def flush(self) -> None:
        """Forget the input that waits and the frames not rendered yet; the motion goes on with the next input.

        Input that frames were shown for already stays: a segment that lies ahead of the speaker is still to be made of
        it.
        """
        shown = -(-self._n_emitted // self._samples)
        here = max(self._n_taken, shown)
        self._inbox.keep(here - self._n_taken)
        self._names = {position: name for position, name in self._names.items() if position < here}
        self._ahead = Ahead()
        self._part_pair()
        self._n_emitted = here * self._samples
        if self._n_speaker is not None:
            self._n_speaker = here

    def reopen(self) -> None:
        """Take new input after `finish`; it goes on where the motion ended, the padding of the last window included."""
        self._n_speaker = None

    def set_portrait(self, portrait: Portrait, sample: int | None = None) -> None:
        """Show another portrait from the next frame on; it is no part of snapshots.

        Args:
            portrait: a picture file, or uint8 [H, W, 3] RGB.
            sample: whose; None for all reactions.

        Raises:
            PortraitError: it cannot be read.
            FeedError: there is no such sample.
        """
        if sample is not None and not 0 <= sample < self._samples:
            raise FeedError(f"sample is {sample}; this stream has 0 to {self._samples - 1}.")
        features = self._chain.renderer.prepare(portrait)
        shown = [self._portraits[index % len(self._portraits)] for index in range(self._samples)]
        self._portraits = [features if sample in (None, index) else old for index, old in enumerate(shown)]
        self._part_pair()

    def snapshot(self) -> dict[str, Array]:
        """Everything the stream knows, as plain arrays; `Listener.resume` goes on from there in any process."""
        arrays = {
            "samples": np.array([self._samples]),
            "counts": np.array(
                [self._n_taken, self._n_closed, self._n_emitted, -1 if self._n_speaker is None else self._n_speaker]
            ),
            "positions": np.array(list(self._names), np.int64),
            "names": np.array(list(self._names.values()), np.float64).reshape(-1, 2),
            **prefixed("speaker", self._speaker.to_arrays()),
            **prefixed("generator", self._generator_state),
            **prefixed("smoother", self._smoother_state),
            **prefixed("inbox", self._inbox.to_arrays()),
        }
        for index, segment in self._segments.items():
            arrays |= prefixed(f"segment{index}", segment.to_arrays())
        return {name: np.array(value) for name, value in arrays.items()}

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take over a snapshot; one that is refused changes nothing.

        Raises:
            StreamError: it is of another number of samples or another generator, or not a snapshot of this pflx.
        """
        try:
            samples = int(arrays["samples"][0])
            n_taken, n_closed, n_emitted, n_speaker = (int(count) for count in arrays["counts"])
            named = zip(arrays["positions"].tolist(), arrays["names"].tolist(), strict=True)
            names = {position: (int(number), time_s) for position, (number, time_s) in named}
            speaker = SpeakerState.from_arrays(unprefixed("speaker", arrays))
            rate = self._chain.speaker.sample_rate_hz
            inbox = Inbox.from_arrays(unprefixed("inbox", arrays), self._chain.clock(), rate)
            kept = sorted({int(name.split(".")[0][7:]) for name in arrays if name.startswith("segment")})
            segments = {index: Segment.from_arrays(unprefixed(f"segment{index}", arrays)) for index in kept}
        except (KeyError, ValueError, IndexError) as error:
            raise StreamError(f"This is no snapshot of a stream ({error}). Take one with Stream.snapshot.") from error
        if samples != self._samples:
            raise StreamError(f"The snapshot holds {samples} samples, the stream {self._samples}.")
        state = unprefixed("generator", arrays)
        if not _fits(state, self._chain.generator.start(samples)):
            raise StreamError("The snapshot is of another generator. Resume it on the bundle that it was taken on.")
        self._generator_state, self._smoother_state = state, unprefixed("smoother", arrays)
        self._n_taken, self._n_closed, self._n_emitted, self._names = n_taken, n_closed, n_emitted, names
        self._n_speaker = None if n_speaker < 0 else n_speaker
        self._speaker, self._inbox, self._segments = speaker, inbox, segments
        self._rung = Rung.FULL
        self._part_pair()
        self._ahead = Ahead()

    def close(self) -> None:
        """Drop what the stream holds and end it; the engines belong to the listener."""
        self._n_speaker = 0
        self._inbox.clear()
        self._segments.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _n_due(self) -> int:
        """How many frames can be rendered with the segments closed so far."""
        known = self._n_closed * self._chain.generator.hop
        if self._n_speaker is not None and not self._is_segment_due():
            return self._n_speaker
        return min(max(0, known - self._chain.lookahead), self._n_taken + self._inbox.n_frames)

    def _name_frames(self, before: int) -> None:
        """Remember what the frames are called that came after the first `before` ones of the inbox."""
        start = self._n_taken + before
        self._names |= {start + index: name for index, name in enumerate(self._inbox.names(before))}

    def _n_missing(self) -> int:
        """How many frames the next segment takes from the inbox."""
        return max(0, reach(self._chain.generator, self._n_closed) - self._n_taken)

    def _is_segment_due(self) -> bool:
        if self._n_speaker is not None and self._n_closed * self._chain.generator.hop >= self._n_speaker:
            # What lies ahead of the end is made as if the end were not known: the last frames look at it.
            return bool(self._n_speaker) and reach(self._chain.generator, self._n_closed) <= self._n_speaker
        return self._inbox.has(max(self._n_missing(), 0 if self._n_taken else 1))

    def _look_ahead(self) -> None:
        """See to what waits for the next segment already, so that the segment does not wait for it."""
        length = self._n_missing()
        pictures, numbers = self._inbox.pictures(length)
        self._ahead = self._chain.speaker.look_ahead(pictures, numbers, length, self._speaker, self._ahead)

    def _close_segment(self, pace: Pace) -> None:
        """Work out the next segment, then take it over in one go."""
        chain, index = self._chain, self._n_closed
        begun = chain.clock()
        taken = self._inbox.window(self._n_missing())
        steps = pace.steps(self._expected_number(index * chain.generator.hop), chain.generator.steps)
        size = chain.generator.noise_size
        noise = np.stack([self._noise(index, sample, size) for sample in range(self._samples)])
        window, speaker = chain.speaker.step(taken, self._speaker, self._ahead)
        started = chain.clock()
        reaction, generator_state = chain.generator.step(window, self._generator_state, noise, steps)
        generated_at = chain.clock()
        generated, n_bad = self._repair(reaction.coefficients)
        spoilt = n_bad > 0 or not is_finite(generator_state)
        if spoilt:
            generator_state = self._generator_state  # what is not finite would spoil every segment after it
        if taken.video or not index:
            smoothed, smoother_state = chain.smoother.step(generated, self._smoother_state)
        else:  # made of no new input, in one piece with the segment before: there is no seam
            smoothed, smoother_state = generated, chain.smoother.resume(generated)
        smoothed, n_bad_poses = self._repair(smoothed)
        torn = n_bad_poses > 0 or not is_finite(smoother_state)
        if torn:
            smoother_state = chain.smoother.resume(smoothed)
        posnet_end = chain.clock()
        pace.generated(steps, posnet_end - begun)
        few = steps is not None and steps < max(chain.generator.steps)
        self._segments[index] = Segment(
            coefficients=smoothed,
            generated_pose=np.ascontiguousarray(generated[..., POSE]),
            emotion=reaction.emotion,
            face=speaker.face.watch.state,
            rung=Rung.FEWER_STEPS if few else Rung.FULL,
            stamps=self._stamped(taken, started, generated_at, posnet_end),
        )
        self._speaker, self._generator_state, self._smoother_state = speaker, generator_state, smoother_state
        self._repaired += n_bad + n_bad_poses
        if (spoilt or torn) and not self._warned:
            self._warned = True
            log.warning("The numbers of generator or PosNet are not finite; the last good ones are held. Said once.")
        self._inbox.drop(len(taken.video))
        self._n_taken += len(taken.video)
        self._ahead = Ahead()
        self._n_closed += 1
        self._forget_segments()

    def _stamped(self, taken: Window, started: int, generated: int, posnet_end: int) -> SegmentStamps:
        """The stamps of a new segment; one that took no new input depends on what the last one depends on."""
        stamps = SegmentStamps(
            taken.scheduled, taken.read, taken.closed, started, generated, posnet_end, taken.av_offset_ns
        )
        before = self._segments.get(self._n_closed - 1)
        if len(taken.video) or before is None:
            return stamps
        old = before.stamps
        return replace(stamps, scheduled=old.scheduled, read=old.read, closed=old.closed, av_offset_ns=old.av_offset_ns)

    def _repair(self, segment: Array) -> tuple[Array, int]:
        """Hold the last good coefficients wherever a frame is not finite; the segment and how many frames that were."""
        before = self._segments.get(self._n_closed - 1)
        last = np.zeros_like(segment[:, 0]) if before is None else before.coefficients[:, -1]
        return hold_good(segment, last)

    def _forget_segments(self) -> None:
        """Keep the segments that the window of the next frame to render can reach."""
        oldest_frame = self._n_emitted // self._samples - WINDOW_RADIUS
        for index in [i for i in self._segments if (i + 1) * self._chain.generator.hop <= oldest_frame]:
            del self._segments[index]
        oldest = self._n_emitted // self._samples - 1  # a pair of frames asks for the one before
        self._names = {position: name for position, name in self._names.items() if position >= oldest}

    def _choose(self, position: int, pace: Pace) -> Rung:
        """How to make a frame; the second of a pair is made already, unless input was left out between the two."""
        if position == self._second_of_pair and self._number(position) == self._number(position - 1) + 1:
            return Rung.HALF_RATE
        rung = pace.rung(self._number(position), ahead=self._n_due() - 1 - position)
        self._second_of_pair = position + 1 if rung is Rung.HALF_RATE else -1
        return rung

    def _part_pair(self) -> None:
        """Let the second frame of a pair be made for itself: what its picture was made of has changed."""
        self._second_of_pair = -1
        self._shots.clear()

    def _number(self, position: int) -> int:
        """The number of the frame at a position: they differ where input was left out."""
        return self._names[position][0]

    def _expected_number(self, position: int) -> int:
        """The same of a frame that may be still to come."""
        if position in self._names:
            return self._number(position)
        last = max(self._names)
        return self._number(last) + position - last

    def _render(self, position: int, sample: int, pace: Pace) -> ListenerFrame:
        segment, row = self._segments[position // self._chain.generator.hop], position % self._chain.generator.hop
        shot = self._shots.pop(sample, None) if position == self._second_of_pair else None
        if shot is None:
            shot = self._shoot(position, sample)
            pace.rendered(shot.on_host - shot.render_start)
        if self._rung is Rung.HALF_RATE and position != self._second_of_pair:
            self._shots[sample] = shot
        stamps, (number, time_s) = segment.stamps, self._names[position]
        ledger = Ledger(
            frame=number,
            sample=sample,
            segment=position // self._chain.generator.hop,
            picture=shot.picture,
            rung=max(shot.rung, segment.rung),
            time_s=time_s,
            scheduled=stamps.scheduled,
            read=stamps.read,
            closed=stamps.closed,
            generator_start=stamps.generator_start,
            generator_end=stamps.generator_end,
            posnet_end=stamps.posnet_end,
            render_start=shot.render_start,
            render_end=shot.render_end,
            on_host=shot.on_host,
            newest=shot.newest,
            av_offset_ns=stamps.av_offset_ns,
        )
        return ListenerFrame(
            image=shot.image,
            coefficients=shot.coefficients,
            generated_pose=segment.generated_pose[sample, row] + self._chain.mean_face[POSE],
            time_s=ledger.time_s,
            sample=sample,
            face=segment.face,
            ledger=ledger,
            emotion=None if segment.emotion is None else segment.emotion[sample, row],
        )

    def _shoot(self, position: int, sample: int) -> Shot:
        """Render a frame; on HALF_RATE, the mean of it and the next, which it then stands for."""
        chain = self._chain
        track = self._track(position, sample)
        if self._rung is Rung.HALF_RATE:
            track = (track + self._track(position + 1, sample)) / np.float32(2)
        portrait = self._portraits[sample % len(self._portraits)]
        started = chain.clock()
        image = chain.renderer.render(track, WINDOW_RADIUS, portrait)
        rendered = chain.clock()
        image = image.copy()
        newest = min((position + WINDOW_RADIUS) // chain.generator.hop, self._n_closed - 1)
        return Shot(
            image=image,
            coefficients=track[WINDOW_RADIUS] + chain.mean_face,
            picture=self._number(position),
            rung=self._rung,
            render_start=started,
            render_end=rendered,
            on_host=chain.clock(),
            newest=self._segments[newest].stamps.scheduled,
        )

    def _track(self, frame: int, sample: int) -> Array:
        """The 27 coefficient frames around `frame`, edges repeated, float32 [27, 58]."""
        hop = self._chain.generator.hop
        wanted = np.arange(frame - WINDOW_RADIUS, frame + WINDOW_RADIUS + 1)
        rows = np.clip(wanted, 0, self._n_closed * hop - 1)
        return np.stack([self._segments[row // hop].coefficients[sample, row % hop] for row in rows.tolist()])


def _fits(state: Mapping[str, Array], start: Mapping[str, Array]) -> bool:
    """Whether a state may have come of `start`: the same names and shapes, but for axes that may grow."""
    if state.keys() != start.keys() or any(state[name].ndim != start[name].ndim for name in start):
        return False
    pairs = (pair for name in start for pair in zip(state[name].shape, start[name].shape, strict=True))
    return all(size in (now, 0) for now, size in pairs)
