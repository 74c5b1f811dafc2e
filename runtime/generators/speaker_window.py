"""The speaker as the generator reads it: every need of every frame, and the newest of them as a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pflx.engines import Array
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.snapshot import prefixed, unprefixed
from pflx.runtime.frames.timing import samples_per_frame
from pflx.runtime.generators import Generator, SpeakerWindow
from pflx.runtime.speaker.extractor import NOWHERE, SIZES, Extractor, Place, follow
from pflx.runtime.speaker.face_track import GENERATOR_SIDE, Cropped, FaceTrack, SpeakerView
from pflx.runtime.speaker.mfcc import MFCC_SIZE, mfcc
from pflx.runtime.speaker.pfl import centred


@dataclass(frozen=True)
class Window:
    """New frames for one generator step.

    Attributes:
        video: T frames, uint8 [H, W, 3] RGB.
        audio: float32 [sample rate / 25 · T].
        frames: int64 [T], numbers of the frames.
        scheduled, read, closed, av_offset_ns: see `Ledger`.
    """

    video: list[UInt8Array]
    audio: Float32Array
    frames: npt.NDArray[np.int64]
    scheduled: int
    read: int
    closed: int
    av_offset_ns: int


def blank_window(generator: Generator, sample_rate_hz: int) -> SpeakerWindow:
    """A window of a speaker of whom nothing is seen or heard: zeros."""
    frame: dict[str, Array] = {
        "video": np.zeros((GENERATOR_SIDE, GENERATOR_SIDE, 3), np.uint8),
        "audio": np.zeros(samples_per_frame(sample_rate_hz), np.float32),
        "mfcc": np.zeros(MFCC_SIZE, np.float32),
        **{need: np.zeros(size, np.float32) for need, size in SIZES.items()},
    }
    return {need: np.stack([frame[need]] * generator.window) for need in generator.needs}


@dataclass(frozen=True)
class SpeakerState:
    """What is known of the speaker between two segments; a value.

    Attributes:
        face: where the face is.
        rows: need to [window, …], the end of the last window, where the next one begins with some of it.
        held: need to the numbers last found in a picture.
        places: need to where its extractor saw the face.
    """

    face: FaceTrack
    rows: Mapping[str, Array]
    held: Mapping[str, Array]
    places: Mapping[str, Place]

    def to_arrays(self) -> dict[str, Array]:
        """As plain arrays, for a snapshot."""
        return {
            **prefixed("face", self.face.to_arrays()),
            **prefixed("rows", self.rows),
            **prefixed("held", self.held),
            **prefixed("places", self.places),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> SpeakerState:
        """What `to_arrays` wrote."""
        face = FaceTrack.from_arrays(unprefixed("face", arrays))
        return cls(face, *(unprefixed(part, arrays) for part in ("rows", "held", "places")))


@dataclass(frozen=True)
class Ahead:
    """What was done for the first frames of a segment before the rest of it is there.

    Attributes:
        cropped: what was seen of the face.
        numbers: need to what was found in each picture.
        places: need to where the face was in the last of them.
    """

    cropped: Cropped | None = None
    numbers: Mapping[str, list[Array]] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)


class SpeakerWindows:
    """Makes the generator's windows.

    Pictures are cropped, and searched for coefficients and emotion, one by one and in order, so that the result does
    not depend on how they come. Where an extractor finds no face, its last numbers are held; before the first, zeros.
    Extractors see whole pictures; those of a crop that floats are moved, so that the nose is in the middle.

    Args:
        generator: whose windows.
        view: crops the speaker and watches the face.
        extractors: need to what finds it in a picture.
        sample_rate_hz: of the sound.
    """

    def __init__(
        self, generator: Generator, view: SpeakerView, extractors: Mapping[str, Extractor], sample_rate_hz: int
    ) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._generator, self._view, self._needs = generator, view, generator.needs
        self._extractors = {need: extractors[need] for need in generator.needs if need in extractors}
        self._window = generator.window
        self._overlaps = generator.window > generator.hop or generator.lead > 0

    def with_extractors(self, extractors: Mapping[str, Extractor]) -> SpeakerWindows:
        """The same with other extractors."""
        return SpeakerWindows(self._generator, self._view, extractors, self.sample_rate_hz)

    def needs_again(self, face: FaceTrack) -> bool:
        """See `SpeakerView.needs_again`."""
        return self._view.needs_again(face)

    def start(self, face: FaceTrack) -> SpeakerState:
        """The state before the first frame: a window of zeros."""
        rows = blank_window(self._generator, self.sample_rate_hz) if self._overlaps else {}
        held = {need: np.zeros(SIZES[need], np.float32) for need in self._extractors}
        return SpeakerState(face, rows, held, dict.fromkeys(self._extractors, NOWHERE))

    def look_ahead(
        self, pictures: Sequence[UInt8Array], frames: Sequence[int], length: int, state: SpeakerState, ahead: Ahead
    ) -> Ahead:
        """Do what can be done while a segment waits for its last frames.

        Args:
            pictures: its first, uint8 [H, W, 3] RGB each, whole frames.
            frames: their numbers.
            length: how many frames it takes.
            state: before the first of them.
            ahead: what was done for the first of them so far.
        """
        cropped = self._view.crop_ahead(pictures, length, state.face, ahead.cropped)
        seen = replace(ahead, cropped=cropped)
        return Ahead(cropped, *self._extract(pictures, frames, state, seen))

    def step(self, taken: Window, state: SpeakerState, ahead: Ahead) -> tuple[SpeakerWindow, SpeakerState]:
        """The window that ends with the frames taken, and the next state.

        Args:
            taken: the new frames; there may be none.
            state: before the first of them.
            ahead: what `look_ahead` made of the first of them.
        """
        new: dict[str, Array] = {}
        face = state.face
        if taken.video and self._view.floats:  # what extractors see depends on where the nose is
            ahead = replace(ahead, cropped=self._view.crop_ahead(taken.video, len(taken.video), face, ahead.cropped))
        if taken.video:
            new["video"], face = self._view.step(taken.video, face, ahead.cropped)
        numbers, places = self._extract(taken.video, taken.frames.tolist(), state, ahead)
        new |= {need: np.stack(rows) for need, rows in numbers.items() if rows}
        new |= self._hear(taken.audio)
        window = {need: self._rolled(state.rows.get(need), new.get(need)) for need in self._needs}
        held = {need: rows[-1] if rows else state.held[need] for need, rows in numbers.items()}
        return window, SpeakerState(face, window if self._overlaps else {}, held, places)

    def _rolled(self, old: Array | None, new: Array | None) -> Array:
        if old is None or (new is not None and len(new) >= self._window):
            assert new is not None
            return new[-self._window :]
        return old if new is None else np.concatenate([old[len(new) :], new])

    def _extract(
        self,
        pictures: Sequence[UInt8Array],
        frames: Sequence[int],
        state: SpeakerState,
        before: Ahead,
    ) -> tuple[dict[str, list[Array]], dict[str, Place]]:
        """What is found in each picture, after what was found in the first of them before; and where."""
        found, places = {}, {}
        noses = before.cropped.noses if self._view.floats and before.cropped is not None else (None,) * len(pictures)
        for need, extractor in self._extractors.items():
            rows, place = list(before.numbers.get(need, ())), before.places.get(need, state.places[need])
            rest = slice(len(rows), None)
            for picture, nose, frame in zip(pictures[rest], noses[rest], frames[rest], strict=True):
                numbers, place = follow(extractor, centred(picture, nose), frame, place)
                last = rows[-1] if rows else state.held[need]
                rows.append(last if numbers is None else np.asarray(numbers, np.float32))
            found[need], places[need] = rows, place
        return found, places

    def _hear(self, sound: Array) -> dict[str, Array]:
        if not len(sound):
            return {}
        heard = {"audio": sound.reshape(-1, samples_per_frame(self.sample_rate_hz))} if "audio" in self._needs else {}
        return heard | ({"mfcc": mfcc(sound, self.sample_rate_hz)} if "mfcc" in self._needs else {})
