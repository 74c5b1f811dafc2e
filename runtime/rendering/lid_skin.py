"""Skin where a portrait shows an eye: what is around it, drawn on over it."""

from __future__ import annotations

import cv2
import numpy as np

from pflx.runtime.frames.arrays import BoolArray, Float64Array

# Dark pixels around an eye are lashes, brows, rims of glasses, more often than skin.
_DARK = 0.36
"""What a pixel counts that is darker than the skin, of one that is lighter."""
_SPREADS = (0.8, 0.4, 0.2, 0.1)
"""In half widths of the eye: over how much colours are carried, from far to near."""
_FAR = 0.03
"""Share of pixels around below which the wider spread counts more."""
_NO_NOISE = 18.0
"""Levels by which a pixel of the skin may differ from a smooth surface."""


def skin_around(pixels: Float64Array, at: Float64Array, around: BoolArray, half: float) -> Float64Array:
    """Colours of the skin at every pixel, smooth where it is not seen.

    Args:
        pixels: [h, w, 3].
        at: [h, w, 2], where they are, along and across the eye from its middle, in half widths of it.
        around: [h, w], pixels that may show skin.
        half: half width of the eye in pixels.

    Returns:
        [h, w, 3].
    """
    smooth, trust = _surface(pixels, at, around)
    found = smooth
    for spread in _SPREADS:
        sums, shares = (_blurred(each, spread * half) for each in (trust * pixels, trust))
        found = (sums + _FAR * found) / (shares[..., None] + _FAR)
    return found


def shade_above(pixels: Float64Array, skin: Float64Array, above: Float64Array, half: float) -> Float64Array:
    """How much darker it is above an eye than the skin around that would be there, [h, w, 1] in 0.4…1.

    Args:
        pixels: [h, w, 3].
        skin: of `skin_around`.
        above: [h, w] in 0…1, what is above the eye.
        half: half width of the eye in pixels.
    """
    light = np.maximum(skin.mean(axis=2), 1.0)
    seen, shares = (_blurred(each, 0.25 * half) for each in (above * pixels.mean(axis=2), above))
    return np.asarray(((seen + 0.02 * light) / ((shares + 0.02) * light)).clip(0.4, 1)[..., None])


def _surface(pixels: Float64Array, at: Float64Array, around: BoolArray) -> tuple[Float64Array, Float64Array]:
    """A smooth surface through most of the pixels around, [h, w, 3], and how far each is trusted, [h, w, 1] in 0…1."""
    u, v = np.moveaxis(at.clip(-1.5, 1.5), -1, 0)
    basis = np.stack([np.ones_like(u), u, v, u * u, u * v], axis=-1)
    trust = np.zeros(around.shape)
    if around.sum() < 12:
        return np.broadcast_to(np.median(pixels.reshape(-1, 3), axis=0), pixels.shape).copy(), trust[..., None]
    points, colours, weights = basis[around], pixels[around], np.ones(int(around.sum()))
    stiff = np.diag([0.0, 0.05, 0.05, 0.1, 0.1]) * len(points)
    fit, off, usual = np.zeros((5, 3)), weights, 1.0
    for _ in range(12):
        weighted = points * weights[:, None]
        fit = np.linalg.solve(points.T @ weighted + stiff, weighted.T @ colours)
        off = (colours - points @ fit).mean(axis=1)
        usual = max(float(np.median(np.abs(off))), 2.0)
        weights = np.where(off < 0, _DARK, 1.0) / (1 + (off / usual) ** 2)
    trust[around] = np.where(off < 0, _DARK, 1.0) / (1 + (off / max(_NO_NOISE, 2 * usual)) ** 4)
    return (basis @ fit).clip(0, 255), trust[..., None]


def _blurred(values: Float64Array, sigma: float) -> Float64Array:
    return np.asarray(
        cv2.GaussianBlur(values, (0, 0), sigmaX=max(sigma, 0.7), borderType=cv2.BORDER_REPLICATE), np.float64
    )
