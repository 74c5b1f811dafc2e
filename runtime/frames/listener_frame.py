"""What comes out: one frame of one reaction."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.event import Event
from pflx.runtime.frames.face_state import FaceState
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.pixels import to_i420

if TYPE_CHECKING:
    import av

_STAMP_HZ = 90_000  # of time stamps of video in RTP and MPEG


@dataclass(frozen=True)
class ListenerFrame:
    """One frame of one reaction.

    Attributes:
        image: uint8 [H, W, 3] RGB. Frames that show one picture share the array. Where nothing is rendered, it is
            [0, 0, 3].
        coefficients: float32 [58] that it shows, mean face added.
        generated_pose: float32 [6], the generator's own pose before PosNet, mean face added.
        time_s: on the speaker's media clock.
        sample: which of the M reactions.
        face: whether the speaker's face was there when the segment was made.
        emotion: float32 [25] of the frame, from a generator that tells it.
        ledger: what happened to the frame, and when.
        events: what the listener begins to do in it, as far as its generator tells: it nods, smiles, blinks, attends.
    """

    image: UInt8Array
    coefficients: Float32Array
    generated_pose: Float32Array
    time_s: float
    sample: int
    face: FaceState
    ledger: Ledger
    emotion: Float32Array | None = None
    events: tuple[Event, ...] = ()

    @property
    def degraded(self) -> Rung:
        """How it was made; `Rung.FULL` unless a live session ran short of time."""
        return self.ledger.rung

    @property
    def due_ns(self) -> int | None:
        """When to show it, in ns on the session's clock (`time.perf_counter_ns`); None of a frame without a deadline.

        A live session hands a frame out at this moment, so show what comes at once; whoever has a buffer of their own
        shows it by this, plus a constant.
        """
        return self.ledger.deadline

    def to_bgr(self) -> UInt8Array:
        """The picture as OpenCV has it, uint8 [H, W, 3]; a copy."""
        return np.ascontiguousarray(self.image[..., ::-1])

    def to_rgba(self) -> UInt8Array:
        """The picture, uint8 [H, W, 4], opaque; a copy."""
        return np.concatenate([self.image, np.full((*self.image.shape[:2], 1), 255, np.uint8)], axis=2)

    def to_i420(self) -> UInt8Array:
        """The picture in the planes Y, U and V, uint8 [H · 3 / 2, W], BT.601, limited range.

        Width and height become even: an odd edge is doubled.
        """
        return to_i420(self.image)

    def to_av(self) -> av.VideoFrame:
        """The picture as a frame of PyAV, rgb24, stamped with `time_s` in units of 1/90000 s."""
        import av

        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(self.image), format="rgb24")
        frame.pts, frame.time_base = round(self.time_s * _STAMP_HZ), Fraction(1, _STAMP_HZ)
        return frame
