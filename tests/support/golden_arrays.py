"""How tests/golden keeps pictures small: differences of neighbouring pixels compress ten times better."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from support.places import GOLDEN

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


def moving_picture(name: str, count: int, side: int, seed: int = 1) -> Pixels:
    """Drifting waves and a bright spot, uint8 [count, side, side, 3]: the video of the Trans-VAE fixture."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(f"video:{name}".encode())])))
    y, x = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side), indexing="ij")
    limits = ((0.3, 3.0), (0.3, 3.0), (0, 2 * np.pi), (-0.25, 0.25), (0.1, 0.5))
    waves = [[_drawn(rng, limits) for _ in range(5)] for _ in range(3)]
    middle_x, middle_y, speed_x, speed_y = _drawn(rng, ((0.4, 0.6), (0.4, 0.6), (0.05, 0.12), (0.05, 0.12)))
    frames = np.zeros((count, side, side, 3), np.uint8)
    for t in range(count):
        spot_x, spot_y = middle_x + 0.1 * np.sin(speed_x * t), middle_y + 0.1 * np.sin(speed_y * t + 1.0)
        spot = 0.9 * np.exp(-(((y - spot_y) / 0.22) ** 2 + ((x - spot_x) / 0.17) ** 2))
        for colour, parts in enumerate(waves):
            total = np.zeros((side, side))
            for fy, fx, phase, speed, height in parts:
                total += height * np.sin(2 * np.pi * (fy * y + fx * x) + phase + speed * t)
            frames[t, ..., colour] = np.clip(np.rint((0.45 + 0.26 * (total + spot)) * 255.0), 0, 255)
    return frames


def coefficient_track(name: str, count: int, seed: int = 1) -> npt.NDArray[np.float32]:
    """Slow waves and a little noise, float32 [count, 58]: the personal clips of the PerFRDiff fixture."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(f"coeffs:{name}".encode())])))
    frame, track, row = np.arange(count)[:, None], np.zeros((count, 58)), (1, 58)
    for _ in range(4):
        height, speed, phase = (rng.uniform(*limits, row) for limits in ((0.1, 0.6), (0.02, 0.35), (0, 2 * np.pi)))
        track += height * np.sin(speed * frame + phase)
    return (track + rng.uniform(-0.3, 0.3, row) + 0.02 * rng.standard_normal((count, 58))).astype(np.float32)


def _drawn(rng: np.random.Generator, limits: Sequence[tuple[float, float]]) -> list[float]:
    return [float(rng.uniform(low, high)) for low, high in limits]
