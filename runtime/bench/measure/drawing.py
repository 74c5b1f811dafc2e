"""A face drawn with numbers: a speaker and a portrait where no picture was given, which face detectors find."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pflx.runtime.frames.arrays import UInt8Array

_Float64Array = npt.NDArray[np.float64]

_SKY, _SHIRT, _HAIR, _NECK, _SKIN = (
    (0.55, 0.62, 0.70),
    (0.25, 0.30, 0.45),
    (0.22, 0.15, 0.10),
    (0.75, 0.56, 0.46),
    (0.87, 0.68, 0.57),
)
# Ellipses from back to front, in units of half the side, from the middle:
# x, y, radius x, radius y, softness of the edge, opacity, colour.
_BACK = (
    (0, 1.15, 0.85, 0.50, 0.12, 1.0, _SHIRT),
    (0, -0.12, 0.60, 0.75, 0.12, 1.0, _HAIR),
    (0, 0.62, 0.22, 0.35, 0.12, 1.0, _NECK),
    (0, 0.03, 0.47, 0.62, 0.12, 1.0, _SKIN),
    (0, -0.30, 0.40, 0.22, 0.80, 0.35, (0.95, 0.80, 0.70)),  # forehead
)
_SIDE = (
    (0.20, -0.08, 0.13, 0.09, 0.60, 0.50, (0.60, 0.42, 0.35)),  # eye socket
    (0.20, -0.06, 0.10, 0.05, 0.12, 1.0, (0.96, 0.95, 0.93)),
    (0.20, -0.06, 0.047, 0.047, 0.12, 1.0, (0.20, 0.13, 0.10)),
    (0.20, -0.19, 0.14, 0.03, 0.50, 1.0, (0.25, 0.17, 0.12)),  # brow
    (0.05, 0.19, 0.04, 0.025, 0.60, 0.70, (0.50, 0.30, 0.25)),  # nostril
    (0.27, 0.20, 0.12, 0.10, 0.90, 0.35, (0.90, 0.55, 0.50)),  # cheek
)
_FRONT = (
    (0, 0.10, 0.05, 0.16, 0.90, 0.35, (0.97, 0.80, 0.70)),  # nose
    (0, 0.36, 0.17, 0.06, 0.30, 1.0, (0.72, 0.36, 0.35)),  # lips
    (0, 0.36, 0.15, 0.012, 0.60, 0.80, (0.40, 0.15, 0.15)),
    (0, 0.50, 0.12, 0.03, 0.90, 0.40, (0.70, 0.50, 0.42)),  # chin
)


def draw_face(side: int = 256) -> UInt8Array:
    """A face, uint8 [side, side, 3] RGB; always the same."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float64) / side * 2 - 1
    picture = np.stack([level - 0.1 * y for level in _SKY], axis=-1)
    mirrored = tuple((-part[0], *part[1:]) for part in _SIDE)
    for left, top, width, height, softness, opacity, colour in (*_BACK, *_SIDE, *mirrored, *_FRONT):
        distance = np.hypot((x - left) / width, (y - top) / height)
        cover: _Float64Array = opacity * np.clip((1 - distance) / softness, 0, 1)[..., None]
        picture += cover * (np.array(colour) - picture)
    return np.asarray(np.clip(picture, 0, 1) * 255, np.uint8)
