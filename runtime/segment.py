"""A segment that was generated, and the pictures made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np

from pflx.engines import Array
from pflx.runtime.faces import FaceState
from pflx.runtime.inbox import Float32Array, UInt8Array
from pflx.runtime.latency import Rung


@dataclass(frozen=True)
class Segment:
    """A closed segment: what frames that are still to be rendered may read of it.

    Attributes:
        coefficients: float32 [M, hop, 58], mean face subtracted.
        generated_pose: float32 [M, hop, 6], before PosNet.
        emotion: float32 [M, hop, 25], of generators that tell it.
        face: the speaker's face.
        rung: FULL, or FEWER_STEPS.
        stamps: when it was made.
    """

    coefficients: Array
    generated_pose: Array
    emotion: Array | None
    face: FaceState
    rung: Rung
    stamps: SegmentStamps

    def to_arrays(self) -> dict[str, Array]:
        """As plain arrays, for a snapshot."""
        arrays = {
            "coefficients": self.coefficients,
            "generated_pose": self.generated_pose,
            "made": np.array([self.face, self.rung]),
            "stamps": np.array(astuple(self.stamps)),
        }
        return arrays if self.emotion is None else {**arrays, "emotion": self.emotion}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Segment:
        """What `to_arrays` wrote."""
        face, rung = (int(value) for value in arrays["made"])
        return cls(
            coefficients=arrays["coefficients"],
            generated_pose=arrays["generated_pose"],
            emotion=arrays.get("emotion"),
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


def is_finite(arrays: Mapping[str, Array]) -> bool:
    """Whether all numbers are finite."""
    return all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")
