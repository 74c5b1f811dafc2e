"""Pictures for a source to give, and what a track gave: its pictures, its sound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pflx.runtime.media.sources import Timed

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]


def bgr(level: int = 0, size: tuple[int, int] = (64, 48)) -> UInt8Array:
    """A picture as OpenCV gives it: blue 200, green `level`, red 10."""
    return np.full((size[1], size[0], 3), (200, level, 10), np.uint8)


def sound(items: Sequence[Timed]) -> Float32Array:
    """All sound that a track gave."""
    return np.concatenate([item.audio for item in items if item.audio is not None])


def pictures(items: Sequence[Timed]) -> list[UInt8Array]:
    """All pictures that a track gave."""
    return [item.video for item in items if item.video is not None]
