"""Frames of a listener, made by hand."""

from __future__ import annotations

import numpy as np

from pflx.runtime import FaceState, Ledger, ListenerFrame, Rung


def frame(number: int, level: int = 0, sample: int = 0, size: tuple[int, int] = (64, 48)) -> ListenerFrame:
    return ListenerFrame(
        image=np.full((size[1], size[0], 3), level, np.uint8),
        coefficients=np.zeros(58, np.float32),
        generated_pose=np.zeros(6, np.float32),
        time_s=number / 25,
        sample=sample,
        face=FaceState.LOCKED,
        ledger=Ledger(frame=number, sample=sample, segment=0, picture=number, rung=Rung.FULL, time_s=number / 25),
    )
