"""A segment that was generated, and the pictures made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np

from pflx.engines import Array
from pflx.engines.placement import Fetching, Here, fetch
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.face_state import FaceState
from pflx.runtime.frames.ledger import Rung


@dataclass(frozen=True)
class Segment:
    """A closed segment: what frames that are still to be rendered may read of it.

    Attributes:
        coefficients: float32 [M, hop, 58], mean face subtracted, where the renderer reads it.
        shown: the same, on its way to the host.
        generated_pose: float32 [M, hop, 6], before PosNet, likewise.
        emotion: float32 [M, hop, 25], likewise, of generators that tell it.
        face: the speaker's face.
        rung: FULL, or FEWER_STEPS.
        stamps: when it was made.
    """

    coefficients: Array
    shown: Fetching
    generated_pose: Fetching
    emotion: Fetching | None
    face: FaceState
    rung: Rung
    stamps: SegmentStamps

    def to_arrays(self) -> dict[str, Array]:
        """As plain arrays, for a snapshot."""
        arrays = {
            "coefficients": self.shown.wait(),
            "generated_pose": self.generated_pose.wait(),
            "made": np.array([self.face, self.rung]),
            "stamps": np.array(astuple(self.stamps)),
        }
        return arrays if self.emotion is None else {**arrays, "emotion": self.emotion.wait()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Segment:
        """What `to_arrays` wrote."""
        face, rung = (int(value) for value in arrays["made"])
        return cls(
            coefficients=arrays["coefficients"],
            shown=Here(arrays["coefficients"]),
            generated_pose=Here(arrays["generated_pose"]),
            emotion=Here(arrays["emotion"]) if "emotion" in arrays else None,
            face=FaceState(face),
            rung=Rung(rung),
            stamps=SegmentStamps(*(int(stamp) for stamp in arrays["stamps"])),
        )


@dataclass(frozen=True)
class SegmentStamps:
    """The part of the ledger that all frames of a segment share."""

    scheduled: int
    read: int
    closed: int
    generator_start: int
    generator_end: int
    posnet_end: int
    av_offset_ns: int


@dataclass(frozen=True)
class Draft:
    """The segment made last, as long as nobody has looked at its numbers.

    Attributes:
        index: of the segment.
        generated: float32 [M, hop, 58], before PosNet, on its way to the host.
        is_seam: whether PosNet had a seam to close before it.
        generator_after: numbers of the generator's state after it, on their way to the host.
        is_all: whether these are all numbers of that state.
        generator_before: the generator's state before it.
        smoother_after: numbers of PosNet's state after it, on their way to the host.
        smoother_before: PosNet's state before it.
        begun: when its work began.
        steps: denoising steps it was made with.
        is_late: whether its numbers were not here yet when it was closed.
    """

    index: int
    generated: Fetching
    is_seam: bool
    generator_after: Mapping[str, Fetching]
    is_all: bool
    generator_before: Mapping[str, Array]
    smoother_after: Mapping[str, Fetching]
    smoother_before: Mapping[str, Array]
    begun: int
    steps: int | None
    is_late: bool


@dataclass(frozen=True)
class Shot:
    """A rendered picture and what it shows."""

    image: UInt8Array
    coefficients: Float32Array
    picture: int
    rung: Rung
    render_start: int
    render_end: int
    on_host: int
    newest: int


@dataclass(frozen=True)
class Flight:
    """A picture that is being rendered, or one that is left out.

    Attributes:
        position: of its frame.
        sample: whose.
        rung: HOLD for one that is left out.
        image: uint8 [H, W, 3], on its way to the host; None for one that is left out, or the second of a pair.
        coefficients: float32 [58], mean face subtracted, where it is not its own segment's that the picture shows.
        known: how many segments its window could reach.
        begun: when the renderer was called.
        rendered: when it returned the finished picture; None where it does not wait for the GPU.
        batch: how many pictures the call made.
    """

    position: int
    sample: int
    rung: Rung
    image: Fetching | None
    coefficients: Float32Array | None
    known: int
    begun: int = 0
    rendered: int | None = None
    batch: int = 1


SMALL = 1 << 16
"""Bytes up to which an array of a state is brought from a GPU to be looked at."""


def to_check(state: Mapping[str, Array]) -> tuple[dict[str, Fetching], bool]:
    """The numbers of a state that are looked at, on their way to the host, and whether these are all.

    A state on a GPU may be large. What is spoilt in the large part of it shows in the segment that is made of it.
    """
    numbers = {name: array for name, array in state.items() if array.dtype.kind == "f"}
    small = {name: array for name, array in numbers.items() if _is_here(array) or array.nbytes <= SMALL}
    return {name: fetch(array) for name, array in small.items()}, len(small) == len(numbers)


def _is_here(array: Array) -> bool:
    return isinstance(array, np.ndarray)


def hold_good(coefficients: Array, last: Array) -> tuple[Array, int]:
    """Replace frames that are not finite by the last good ones.

    Args:
        coefficients: float32 [M, T, 58].
        last: float32 [M, 58], good, for a first frame that is not.

    Returns:
        The coefficients, and how many frames were replaced.
    """
    bad = np.asarray(~np.isfinite(coefficients).all(axis=-1, keepdims=True))
    if not bad.any():
        return coefficients, 0
    held = coefficients.copy()
    for row in range(coefficients.shape[1]):
        last = np.where(bad[:, row], last, coefficients[:, row])
        held[:, row] = last
    return held, int(bad.sum())


def is_finite(arrays: Mapping[str, Fetching]) -> bool:
    """Whether all numbers are finite."""
    return all(bool(np.isfinite(array.wait()).all()) for array in arrays.values())
