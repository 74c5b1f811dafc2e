"""A speaker's head that turns and smiles, as coefficients."""

from __future__ import annotations

import numpy as np

from pflx.engines import Array
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

SMILE = ARKIT_NAMES.index("mouthSmileLeft")


def turning_head(frames: int) -> Array:
    """float32 [frames, 58]: a speaker who looks about and smiles now and then, before a camera that stands askew."""
    time_s = np.arange(frames) / 25
    face = np.zeros((frames, 58), np.float32)
    face[:, 52] = 0.2 + 0.1 * np.sin(time_s)
    face[:, 53] = -0.3 + 0.4 * np.sin(0.7 * time_s)
    face[:, [SMILE, SMILE + 1]] = np.maximum(0, np.sin(0.3 * time_s))[:, None]
    return face
