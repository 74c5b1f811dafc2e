"""A segment that was generated, and the pictures made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy as np

from pflx.engines import Array
from pflx.engines.gpu.placement import Fetching, Here
from pflx.runtime.frames.event import Events
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
        events: what begins in it, [N, 6].
        face: the speaker's face.
        rung: FULL, or FEWER_STEPS.
        stamps: when it was made.
    """

    coefficients: Array
    shown: Fetching
    generated_pose: Fetching
    emotion: Fetching | None
    events: Events
    face: FaceState
    rung: Rung
    stamps: SegmentStamps

    def to_arrays(self) -> dict[str, Array]:
        """As plain arrays, for a snapshot."""
        arrays = {
            "coefficients": self.shown.wait(),
            "generated_pose": self.generated_pose.wait(),
            "events": self.events,
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
            events=arrays["events"],
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
