"""What comes out: one frame of one reaction."""

from __future__ import annotations

from dataclasses import dataclass

from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.face_state import FaceState
from pflx.runtime.frames.ledger import Ledger, Rung


@dataclass(frozen=True)
class ListenerFrame:
    """One frame of one reaction.

    Attributes:
        image: uint8 [H, W, 3] RGB. Frames that show one picture share the array.
        coefficients: float32 [58] that it shows, mean face added.
        generated_pose: float32 [6], the generator's own pose before PosNet, mean face added.
        time_s: on the speaker's media clock.
        sample: which of the M reactions.
        face: whether the speaker's face was there when the segment was made.
        emotion: float32 [25] of the frame, from a generator that tells it.
        ledger: what happened to the frame, and when.
    """

    image: UInt8Array
    coefficients: Float32Array
    generated_pose: Float32Array
    time_s: float
    sample: int
    face: FaceState
    ledger: Ledger
    emotion: Float32Array | None = None

    @property
    def degraded(self) -> Rung:
        """How it was made; `Rung.FULL` unless a live session ran short of time."""
        return self.ledger.rung
