"""Speaker input of a stream that no window has taken yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pflx.engines import Array, FeedError
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.timing import FPS, samples_per_frame
from pflx.runtime.generators.speaker_window import Window


@dataclass(frozen=True)
class Arrival:
    """Where pushed frames belong, for a caller who knows it better than "right after the last ones, just now".

    Frames that come with an arrival are kept as they are, not copied: the caller hands them over.

    Attributes:
        frame: number of the first of them; not below any earlier one.
        time_s: of the first of them on the speaker's media clock.
        scheduled: when the last of them was due, in ns on the clock of the ledgers.
        read: when the last of them was read.
        av_offset_ns: see `Ledger`.
    """

    frame: int
    time_s: float
    scheduled: int
    read: int
    av_offset_ns: int = 0


@dataclass(frozen=True)
class _Mark:
    """Frames and samples waiting after a push, and its stamps."""

    frames: int
    samples: int
    scheduled: int
    read: int
    pushed: int
    av_offset_ns: int


class Inbox:
    """Frames and sound in order, with their numbers and times.

    Attributes:
        next_number: of the next frame that comes without an arrival.

    Args:
        silent: sound is made of silence.
        start_s: time of the first frame, where no arrival says otherwise.
        sample_rate_hz: of the sound.
    """

    def __init__(self, *, silent: bool, start_s: float = 0.0, sample_rate_hz: int) -> None:
        self._silent = silent
        self._per_frame = samples_per_frame(sample_rate_hz)
        self.next_number = 0
        self._origin = (0, start_s)  # number and time of the frame that the times of later ones are counted from
        self._frame_shape: tuple[int, ...] | None = None
        self.clear()

    @property
    def n_frames(self) -> int:
        """Frames that wait."""
        return len(self._frames)

    def clear(self) -> None:
        """Forget all that waits."""
        self._frames: list[UInt8Array] = []
        self._numbers: list[int] = []
        self._times_s: list[float] = []
        self._audio = np.zeros(0, np.float32)
        self._marks: list[_Mark] = []

    def add(
        self, video: UInt8Array | None, audio: Float32Array | None, now: int, arrival: Arrival | None = None
    ) -> None:
        """Append one push; see `Stream.push`. What is refused changes nothing."""
        if video is not None:
            self._check_video(video)
        if audio is not None:
            self._check_audio(audio)
        if arrival is not None and arrival.frame < self.next_number:
            raise FeedError(f"Frame {arrival.frame} comes after frame {self.next_number - 1}; numbers only grow.")
        if video is not None:
            self._append(video, arrival)
            if self._silent:
                audio = np.zeros(self._per_frame * len(video), np.float32)
        if audio is not None:
            self._audio = np.concatenate([self._audio, audio])
        stamps = (now, now, now, 0) if arrival is None else _stamps(arrival, now)
        self._marks.append(_Mark(len(self._frames), len(self._audio), *stamps))

    def has(self, n_frames: int) -> bool:
        """Whether so many frames wait, with their sound."""
        return len(self._frames) >= n_frames and len(self._audio) >= n_frames * self._per_frame

    def pictures(self, n_frames: int) -> tuple[list[UInt8Array], list[int]]:
        """The first frames, or as many as there are, uint8 [H, W, 3] RGB each, and their numbers."""
        return self._frames[:n_frames], self._numbers[:n_frames]

    def release(self, n_frames: int) -> None:
        """Let the first frames all show the last of them, so that the others need no memory."""
        self._frames[:n_frames] = self._frames[n_frames - 1 : n_frames] * n_frames

    def names(self, start: int) -> list[tuple[int, float]]:
        """Number, and time on the speaker's media clock, of every frame that waits from the `start`-th on."""
        return list(zip(self._numbers[start:], self._times_s[start:], strict=True))

    def window(self, n_frames: int) -> Window:
        """The first frames and their sound, with the stamps of the push that completed them."""
        n_samples = n_frames * self._per_frame
        complete = (mark for mark in self._marks if mark.frames >= n_frames and mark.samples >= n_samples)
        mark = next(complete, self._marks[-1])
        return Window(
            video=self._frames[:n_frames],
            audio=self._audio[:n_samples],
            frames=np.array(self._numbers[:n_frames], np.int64),
            scheduled=mark.scheduled,
            read=mark.read,
            closed=mark.pushed,
            av_offset_ns=mark.av_offset_ns,
        )

    def drop(self, n_frames: int) -> None:
        """Forget the first frames and their sound."""
        n_samples = n_frames * self._per_frame
        self._frames, self._audio = self._frames[n_frames:], self._audio[n_samples:]
        self._numbers, self._times_s = self._numbers[n_frames:], self._times_s[n_frames:]
        left = [replace(mark, frames=mark.frames - n_frames, samples=mark.samples - n_samples) for mark in self._marks]
        self._marks = [mark for mark in left[:-1] if mark.frames > 0 or mark.samples > 0] + left[-1:]

    def keep(self, n_frames: int) -> None:
        """Forget all frames but the first ones, and the sound that belongs to them."""
        if not n_frames:
            self.clear()
        del self._frames[n_frames:], self._numbers[n_frames:], self._times_s[n_frames:]
        self._audio = self._audio[: n_frames * self._per_frame]
        self._marks = [
            replace(mark, frames=min(mark.frames, n_frames), samples=min(mark.samples, len(self._audio)))
            for mark in self._marks
        ]

    def complete(self, n_frames: int) -> None:
        """Cut the sound where the pictures end, and fill up to so many frames with silence and the last picture."""
        heard = self._audio[: len(self._frames) * self._per_frame]
        missing = n_frames - len(self._frames)
        if self._frames and missing > 0:
            self._append(np.stack([self._frames[-1]] * missing), None)
        self._audio = np.zeros(len(self._frames) * self._per_frame, np.float32)
        self._audio[: len(heard)] = heard

    def to_arrays(self) -> dict[str, Array]:
        """As plain arrays, for a snapshot."""
        video = np.stack(self._frames) if self._frames else np.zeros((0, *(self._frame_shape or (0, 0, 3))), np.uint8)
        return {
            "video": video,
            "audio": self._audio,
            "silent": np.array([self._silent]),
            "numbers": np.array([*self._numbers, self.next_number], np.int64),
            "times_s": np.array(self._times_s, np.float64),
            "origin": np.array(self._origin, np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], now: int, sample_rate_hz: int) -> Inbox:
        """What `to_arrays` wrote; all of it came `now`."""
        inbox = cls(silent=bool(arrays["silent"][0]), sample_rate_hz=sample_rate_hz)
        inbox._frames = list(arrays["video"])
        inbox._audio = np.asarray(arrays["audio"], np.float32)
        *inbox._numbers, inbox.next_number = arrays["numbers"].tolist()
        inbox._times_s = arrays["times_s"].tolist()
        number, time_s = arrays["origin"].tolist()
        inbox._origin = (int(number), time_s)
        inbox._frame_shape = arrays["video"].shape[1:] if arrays["video"].shape[1] else None
        inbox._marks = [_Mark(len(inbox._frames), len(inbox._audio), now, now, now, 0)]
        return inbox

    def _append(self, video: Sequence[UInt8Array] | UInt8Array, arrival: Arrival | None) -> None:
        if arrival is not None:
            self.next_number, self._origin = arrival.frame, (arrival.frame, arrival.time_s)
        count = len(video)
        self._frames.extend(np.array(video) if arrival is None else video)
        numbers = range(self.next_number, self.next_number + count)
        self._numbers += numbers
        self._times_s += [self._origin[1] + (number - self._origin[0]) / FPS for number in numbers]
        self.next_number += count
        self._frame_shape = self._frames[-1].shape if self._frames else self._frame_shape

    def _check_video(self, video: UInt8Array) -> None:
        shape, dtype = described(video)
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
        check_sound(audio)


def _stamps(arrival: Arrival, now: int) -> tuple[int, int, int, int]:
    return arrival.scheduled, arrival.read, now, arrival.av_offset_ns


_LOUDEST = 8.0  # floats from a decoder may pass 1 a little; what passes this was scaled for integers


def check_sound(audio: Float32Array) -> None:
    """Refuse what is no sound, with a FeedError."""
    shape, dtype = described(audio)
    if shape is None or dtype != np.float32 or len(shape) != 1:
        raise FeedError(f"Sound is float32 [N], mono in [-1, 1], got {dtype} {list(shape or ())}.")
    if not np.isfinite(audio).all():
        raise FeedError("Sound holds NaN or infinite samples; replace them with 0.")
    if len(audio) and (loudest := float(np.abs(audio).max())) > _LOUDEST:
        raise FeedError(
            f"Sound lies in [-1, 1], got a sample of {loudest:g}: these are floats in the range of 16-bit integers. "
            "Divide them by 32768; or give an int16 array to PushSource."
        )


def described(given: object) -> tuple[tuple[int, ...] | None, Any]:
    """Shape and dtype, or None and the type of what is no array."""
    return getattr(given, "shape", None), getattr(given, "dtype", type(given).__name__)
