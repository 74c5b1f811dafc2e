"""What a stream knows, as a snapshot holds it; taken out again only after all of it was looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pflx.engines import Array
from pflx.runtime.frames.coefficients import COEFFICIENTS, POSE, WINDOW_RADIUS
from pflx.runtime.frames.event import are_events
from pflx.runtime.frames.snapshot import prefixed, sealed, unprefixed, unsealed
from pflx.runtime.generators.personal import person_of
from pflx.runtime.generators.speaker_window import SpeakerState
from pflx.runtime.stream import turn_taking
from pflx.runtime.stream.chain import Chain, ChainSettings, Noise
from pflx.runtime.stream.hop import HopState
from pflx.runtime.stream.inbox import Inbox
from pflx.runtime.stream.segment import Segment
from pflx.runtime.stream.turn_book import TurnBook

_MOST = 1 << 40
"""Frames that no stream gets to."""
_MOST_SAMPLES = 1 << 10
"""Reactions that nobody asks for at once."""
_SHA256_BYTES = 32
_SIDE = 1 << 15
"""Pixels that no picture has on one side."""


@dataclass(frozen=True)
class Saved:
    """A stream between two calls.

    Attributes:
        samples: reactions.
        settings: of the chain that made them.
        seed: of their noise; None for a noise of the caller's own.
        portraits: uint8 [P, 32], SHA-256 of what is shown, of sample m in row m modulo P.
        person: whose weights made them, SHA-256 in hexadecimal; empty for nobody's.
        n_taken: speaker frames that segments were made of.
        n_closed: segments.
        n_emitted: pictures handed out, of all samples.
        n_speaker: length of the input; None as long as more may come.
        names: position to number and time of the speaker's frames.
        state: what the last hop left to the next.
        inbox: the input that waits.
        segments: index to segment, those that frames to be rendered may read.
        turns: what the listener was told.
    """

    samples: int
    settings: ChainSettings
    seed: int | None
    portraits: Array
    person: str
    n_taken: int
    n_closed: int
    n_emitted: int
    n_speaker: int | None
    names: Mapping[int, tuple[int, float]]
    state: HopState
    inbox: Inbox
    segments: Mapping[int, Segment]
    turns: TurnBook

    def to_snapshot(self) -> dict[str, Array]:
        """As plain arrays, copied and sealed."""
        n_speaker = -1 if self.n_speaker is None else self.n_speaker
        arrays = {
            "samples": np.array([self.samples]),
            "chain": np.frombuffer(_words(self.settings).encode(), np.uint8),
            "seed": np.frombuffer(b"" if self.seed is None else str(self.seed).encode(), np.uint8),
            "portraits": self.portraits,
            "person": np.frombuffer(bytes.fromhex(self.person), np.uint8),
            "counts": np.array([self.n_taken, self.n_closed, self.n_emitted, n_speaker]),
            "positions": np.array(list(self.names), np.int64),
            "names": np.array(list(self.names.values()), np.float64).reshape(-1, 2),
            **prefixed("speaker", self.state.speaker.to_arrays()),
            **prefixed("generator", self.state.generator),
            **prefixed("turns", self.state.turns),
            "told": self.turns.to_array(),
            **prefixed("smoother", self.state.pose),
            **prefixed("inbox", self.inbox.to_arrays()),
        }
        for index, segment in self.segments.items():
            arrays |= prefixed(f"segment{index}", segment.to_arrays())
        return sealed(arrays)

    @classmethod
    def from_snapshot(cls, snapshot: Mapping[str, Any], chain: Chain, samples: int) -> Saved:
        """What `to_snapshot` wrote, of a stream with the same bundle and look-ahead.

        Raises:
            ValueError: it is something else, or was changed or damaged since.
            OtherStreamError: it is of other samples, of a chain with other settings, or of another generator.
        """
        arrays = unsealed(snapshot)
        try:
            return _read(arrays, chain, samples)
        except KeyError as error:
            raise ValueError(f"it has no {error}") from error
        except (TypeError, IndexError, OverflowError, AttributeError) as error:
            raise ValueError(str(error)) from error


class OtherStreamError(ValueError):
    """A whole snapshot, of another stream; the message is a sentence."""


def snapshot_samples(snapshot: Mapping[str, Any]) -> int:
    """How many reactions a snapshot is of; 1 for what is none, which is told when it is taken."""
    samples: Any = snapshot.get("samples")
    return int(samples[0]) if _is_whole(samples, 1) and 1 <= samples[0] <= _MOST_SAMPLES else 1


def chosen_seed(given: int | Noise | None, snapshot: Mapping[str, Any] | None) -> int | Noise:
    """What a stream is given, or else what the snapshot knows that it goes on from; 0 if neither says."""
    return given if given is not None else _seed(snapshot or {}) or 0


def _seed(snapshot: Mapping[str, Any]) -> int | None:
    digits = snapshot.get("seed")
    text = digits.tobytes() if isinstance(digits, np.ndarray) and digits.dtype == np.uint8 else b""
    return int(text) if text.isdigit() and len(text) < 100 else None


def _read(arrays: Mapping[str, Array], chain: Chain, samples: int) -> Saved:
    _require(_is_whole(arrays["samples"], 1) and _is_whole(arrays["counts"], 4), "its counts are none")
    if arrays["samples"][0] != samples:
        raise OtherStreamError(f"The snapshot holds {arrays['samples'][0]} samples, the stream {samples}.")
    _check_settings(arrays["chain"], chain.settings)
    person = _person(arrays["person"], person_of(chain.generator))
    n_taken, n_closed, n_emitted, n_speaker = arrays["counts"].tolist()
    hop = chain.generator.hop
    _require(min(n_taken, n_closed, n_emitted, n_speaker + 1) >= 0, "its counts are below 0")
    _require(max(n_taken, n_closed * hop, n_emitted, n_speaker) < _MOST, "its counts are too large")
    portraits = arrays["portraits"]
    is_hash = portraits.dtype == np.uint8 and portraits.ndim == 2 and portraits.shape[1] == _SHA256_BYTES
    _require(is_hash and 0 < len(portraits) <= _MOST_SAMPLES, "the hashes of its portraits are none")
    state = unprefixed("generator", arrays)
    if not _fits(state, chain.generator.start(samples)):
        raise OtherStreamError("The snapshot is of another generator. Resume it on the bundle that it was taken on.")
    indices = sorted({name.partition(".")[0].removeprefix("segment") for name in arrays if name.startswith("segment")})
    segments = {int(index): _segment(unprefixed(f"segment{index}", arrays), samples, hop) for index in indices}
    first = max(0, n_emitted // samples - WINDOW_RADIUS) // hop
    _require(_covers(segments, first, n_closed), "segments are missing")
    _require(not segments or max(segments) < n_closed, "it has more segments than it counts")
    names, inbox = _names(arrays), _inbox(unprefixed("inbox", arrays), chain)
    named_to = n_taken + inbox.n_frames
    _require(_covers(names, n_emitted // samples, named_to), "frames without a name are left")
    _require(bool(names) or not max(n_emitted, n_closed), "no frame has a name")
    _require(n_speaker <= named_to, "it ends after its last frame")
    pose = unprefixed("smoother", arrays)
    _require(all(_is_pose(value, samples) for value in pose.values()), "its last pose is none")
    turns = unprefixed("turns", arrays)
    _require(turn_taking.fits(turns, samples), "how it takes turns does not fit")
    return Saved(
        samples,
        chain.settings,
        _seed(arrays),
        portraits,
        person,
        n_taken,
        n_closed,
        n_emitted,
        None if n_speaker < 0 else n_speaker,
        names,
        HopState(_speaker(unprefixed("speaker", arrays), chain), state, turns, pose),
        inbox,
        segments,
        TurnBook.from_array(arrays["told"]),
    )


def _check_settings(saved: Array, wanted: ChainSettings) -> None:
    _require(saved.dtype == np.uint8, "the settings of its chain are none")
    found, now = saved.tobytes().decode().split(), _words(wanted).split()
    _require([word.partition("=")[0] for word in found] == [*asdict(wanted)], "the settings of its chain are none")
    for one, other in zip(found, now, strict=True):
        if one != other:
            raise OtherStreamError(
                f"The snapshot is of a chain with {one}, the stream of one with {other}. Open its listener with "
                f"ChainSettings({one})."
            )


def _person(saved: Array, now: str) -> str:
    """Whose weights made the snapshot; they must be those of the stream."""
    is_hash = saved.dtype == np.uint8 and saved.shape in ((0,), (_SHA256_BYTES,))
    _require(is_hash, "whose weights made it is no hash")
    found = saved.tobytes().hex()
    if found != now:
        one, other = (f"the person of SHA-256 {each[:12]}…" if each else "nobody" for each in (found, now))
        raise OtherStreamError(f"The snapshot is of {one}, the stream of {other}. Resume it with the same person.")
    return found


def _words(settings: ChainSettings) -> str:
    return " ".join(f"{name}={value!r}" for name, value in asdict(settings).items())


def _names(arrays: Mapping[str, Array]) -> dict[int, tuple[int, float]]:
    positions, names = arrays["positions"], arrays["names"]
    _require(_is_rising(positions) and names.shape == (len(positions), 2), "the names of its frames do not fit")
    _require(bool(np.isfinite(names).all()), "the names of its frames are not finite")
    named = zip(positions.tolist(), names.tolist(), strict=True)
    return {position: (int(number), time_s) for position, (number, time_s) in named}


def _speaker(arrays: Mapping[str, Array], chain: Chain) -> SpeakerState:
    """The speaker's state: a region of pixels, and a window of the kind that the generator reads."""
    region, boxes, seen = (arrays[f"face.{name}"] for name in ("region", "boxes", "seen"))
    is_region = region.size == 0 or (
        _is_whole(region, 4) and np.abs(region).max() < _SIDE and region[0] < region[2] and region[1] < region[3]
    )
    _require(bool(is_region), "its region is none")
    _require(boxes.ndim == 2 and boxes.shape[1] == 4 and bool(np.isfinite(boxes).all()), "its boxes are none")
    nose = arrays["face.nose"]
    _require(nose.shape in ((0,), (2,)) and bool(np.isfinite(nose).all()), "where its nose is is nowhere")
    _require(_is_whole(seen, 2) and _is_whole(arrays["face.watch"], 2), "what it saw of the face is no number")
    state = SpeakerState.from_arrays(arrays)
    start = chain.speaker.start(state.face)
    _require(all(np.isfinite(place).all() for place in state.places.values()), "where its face was is no place")
    for found, wanted in ((state.rows, start.rows), (state.held, start.held), (state.places, start.places)):
        _require({*found} == {*wanted}, "it is of a speaker with other numbers")
        for name, value in found.items():
            _require((value.dtype, value.shape) == (wanted[name].dtype, wanted[name].shape), f"'{name}' does not fit")
    return state


def _inbox(arrays: Mapping[str, Array], chain: Chain) -> Inbox:
    video, audio, numbers, times_s = (arrays[name] for name in ("video", "audio", "numbers", "times_s"))
    _require(video.dtype == np.uint8 and video.ndim == 4 and video.shape[3] == 3, "its pictures are none")
    _require(audio.dtype == np.float32 and audio.ndim == 1 and bool(np.isfinite(audio).all()), "its sound is none")
    _require(_is_rising(numbers) and len(numbers) == len(video) + 1, "the numbers of its pictures do not fit")
    _require(times_s.shape == (len(video),) and bool(np.isfinite(times_s).all()), "its pictures' times do not fit")
    _require(arrays["silent"].shape == (1,), "it does not tell whether there is sound")
    _require(arrays["origin"].shape == (2,) and bool(np.isfinite(arrays["origin"]).all()), "its origin is none")
    return Inbox.from_arrays(arrays, chain.clock(), chain.speaker.sample_rate_hz)


def _segment(arrays: Mapping[str, Array], samples: int, hop: int) -> Segment:
    widths = {"coefficients": COEFFICIENTS, "generated_pose": POSE.stop - POSE.start}
    for name, width in widths.items():
        value = arrays[name]
        fits = value.dtype == np.float32 and value.shape == (samples, hop, width) and np.isfinite(value).all()
        _require(bool(fits), f"a segment's {name} do not fit")
    emotion = arrays.get("emotion")
    _require(are_events(arrays["events"], samples, hop), "a segment's events do not fit")
    _require(emotion is None or (emotion.ndim == 3 and emotion.shape[:2] == (samples, hop)), "an emotion does not fit")
    _require(_is_whole(arrays["made"], 2) and _is_whole(arrays["stamps"], 7), "a segment's stamps are no numbers")
    return Segment.from_arrays(arrays)


def _covers(kept: Mapping[int, object], start: int, stop: int) -> bool:
    """Whether all from `start` to before `stop` are kept; how many there would be may be made up."""
    return stop - start <= len(kept) and all(index in kept for index in range(start, stop))


def _fits(state: Mapping[str, Array], start: Mapping[str, Array]) -> bool:
    """Whether a state may have come of `start`: the same names, dtypes and shapes, but for axes that may grow."""
    if state.keys() != start.keys():
        return False
    if any((state[name].ndim, state[name].dtype) != (start[name].ndim, start[name].dtype) for name in start):
        return False
    pairs = (pair for name in start for pair in zip(state[name].shape, start[name].shape, strict=True))
    return all(size in (now, 0) for now, size in pairs)


def _is_pose(value: Array, samples: int) -> bool:
    return value.dtype == np.float32 and value.shape == (samples, 6) and bool(np.isfinite(value).all())


def _is_whole(value: Any, size: int) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.shape == (size,)


def _is_rising(values: Array) -> bool:
    """Whether it is one axis of counts, each larger than the one before."""
    if values.dtype.kind not in "iu" or values.ndim != 1:
        return False
    return not len(values) or bool(values[0] >= 0 and values[-1] < _MOST and (np.diff(values) > 0).all())


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise ValueError(fault)
