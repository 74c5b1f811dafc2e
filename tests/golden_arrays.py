"""How tests/golden keeps pictures small: differences of neighbouring pixels compress ten times better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

GOLDEN = Path(__file__).parent / "golden"
Pixels = npt.NDArray[np.uint8]


def pack_pixels(pixels: Pixels) -> Pixels:
    """Differences along height, then width, modulo 256, of uint8 [..., H, W, 3]."""
    for axis in (-3, -2):
        first = np.take(pixels, [0], axis)
        pixels = np.diff(pixels, axis=axis, prepend=np.zeros_like(first))
    return pixels


def unpack_pixels(packed: Pixels) -> Pixels:
    for axis in (-2, -3):
        packed = np.cumsum(packed, axis=axis, dtype=np.uint8)
    return packed


def to_float(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Uint8 [..., H, W, 3] → float32 [..., 3, H, W] in [-1, 1]."""
    values = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    return np.ascontiguousarray(np.moveaxis(values, -1, -3))


def statistics(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    wide = values.astype(np.float64)
    return np.array([wide.mean(), wide.std(), wide.min(), wide.max()])


def golden(name: str) -> dict[str, Any]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)
