"""A portrait with its eyes closed, made of the portrait: lids of its own skin, and the line of its own lashes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pflx.runtime.frames.arrays import BoolArray, Float32Array, Float64Array, UInt8Array

LIDS = (
    ((33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133)),
    ((362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263)),
)
"""Landmarks of MediaPipe's face mesh along the upper and the lower lid, from the picture's left to its right, corners
included; first of the eye on the picture's left."""

# In half widths of an eye. They were chosen by how closed MediaPipe's face mesh finds the eyes of nine portraits.
_ABOVE, _BELOW, _BESIDE = 0.55, 0.12, 0.22  # how far a lid covers beyond the opening
_FADE_ABOVE, _FADE_BELOW, _FADE_BESIDE = 0.4, 0.15, 0.2  # over how much of that it fades
_SKIN = 0.3  # how much of the skin above and below is looked at, for its colour
_LINE = 0.07  # half of the thickness of the line of closed lashes
_SHADOW = 0.17  # width of the shade in which that line lies

_DARKEST_LID = 1.0
"""Brightness of the lid, of the skin below the eye; deep eyes lie in shade, which a closed lid leaves."""
_SHADE, _LASHES = 0.55, 0.95
"""How dark the shade and the line are, in the middle."""


@dataclass(frozen=True)
class ClosedEyes:
    """What a blink is made of.

    Attributes:
        closed: uint8 [S, S, 3] RGB, the portrait with lids over its eyes.
        lashed: uint8 [S, S, 3], that with lashes wherever their line comes by.
        lids: float32 [S, S, 3]. The first two numbers of a pixel, times how far the left and the right eye of the
            picture are closed, less the third, tell how deep it lies under a lid: 0 or less is bare, 1 is on the line
            of lashes, and covered.
    """

    closed: UInt8Array
    lashed: UInt8Array
    lids: Float32Array


def close_eyes(picture: UInt8Array, points: Float64Array) -> ClosedEyes:
    """Close both eyes of a portrait.

    Args:
        picture: uint8 [S, S, 3] RGB.
        points: [478, 2 or more], landmarks in pixels, pixel centres at whole numbers.
    """
    closed, lashed = picture.astype(np.float64), picture.astype(np.float64)
    lids = np.zeros((*picture.shape[:2], 3), np.float32)
    for at, (upper, lower) in enumerate(LIDS):
        eye = _Eye(points[list(upper), :2], points[list(lower), :2], len(picture))
        pixels = picture[eye.window].astype(np.float64)
        lid = pixels + eye.covered[..., None] * (eye.lid(pixels) - pixels)
        closed[eye.window] = lid
        lashed[eye.window] = lid + eye.lashes[..., None] * (eye.ink(pixels) - lid)
        window = lids[eye.window]
        window[..., at], window[..., 2] = eye.depth
    return ClosedEyes(_levels(closed), _levels(lashed), lids)


def _levels(picture: Float64Array) -> UInt8Array:
    return (picture + 0.5).clip(0, 255).astype(np.uint8)


class _Eye:
    """The pixels of a window around an eye, along (u) and across (v) the line through its corners.

    Args:
        upper: [n, 2], points along the upper lid, corners included.
        lower: [n, 2], along the lower one.
        size: of the picture, in pixels.
    """

    def __init__(self, upper: Float64Array, lower: Float64Array, size: int) -> None:
        left, right = upper[0], upper[-1]
        self._middle, self._half = (left + right) / 2, max(float(np.linalg.norm(right - left)) / 2, 1.0)
        self._axis = (right - left) / (2 * self._half)
        low, high = (np.round(self._middle + sign * 1.6 * self._half).astype(int) for sign in (-1, 1))
        (x0, y0), (x1, y1) = low.clip(0, size - 4), high.clip(3, size - 1)
        self.window = np.s_[y0 : y1 + 1, x0 : x1 + 1]
        at = np.stack(np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1)), axis=-1) - self._middle
        self._u, self._v = self._along(at), self._across(at)
        self._upper = self._edge(upper)
        self._lower = np.maximum(self._edge(lower), self._upper)

    def _along(self, offsets: Float64Array) -> Float64Array:
        return np.asarray(offsets @ self._axis)

    def _across(self, offsets: Float64Array) -> Float64Array:
        return np.asarray(offsets @ [-self._axis[1], self._axis[0]])

    def _edge(self, points: Float64Array) -> Float64Array:
        """How far a lid's edge is below the corners, at every pixel; beyond them it is level."""
        offsets = points - self._middle
        curve = np.polynomial.Polynomial.fit(self._along(offsets), self._across(offsets), 4)
        return np.asarray(curve(self._u.clip(-self._half, self._half)))

    @property
    def covered(self) -> Float64Array:
        """How much of each pixel a closed lid may cover: the opening, its lashes, and the fold above it."""
        half = self._half
        insides = [
            (self._v - self._upper + _ABOVE * half) / (_FADE_ABOVE * half),
            (self._lower + _BELOW * half - self._v) / (_FADE_BELOW * half),
            (half * (1 + _BESIDE) - np.abs(self._u)) / (_FADE_BESIDE * half),
        ]
        return _smooth(np.minimum.reduce(insides))

    @property
    def depth(self) -> tuple[Float64Array, Float64Array]:
        """The two numbers of this eye in `ClosedEyes.lids`: a straight way from the upper edge to the lower one."""
        soft, opening = max(1.0, _LINE * self._half), self._lower - self._upper
        share = (self._v - self._upper) / np.maximum(opening, 1e-6)
        return opening / soft + 1, opening / soft * share.clip(0, 1)

    @property
    def lashes(self) -> Float64Array:
        """How dark the line of lashes is where it comes by: less towards the corners, and below where lids meet."""
        taper = 1 - (np.abs(self._u) / self._half).clip(0, 1) ** 4
        below = (1 - (self._v - self._lower) / (_LINE * self._half + 0.5)).clip(0, 1)
        return np.asarray(_LASHES * taper * below * (1 + self._v - self._upper).clip(0, 1))

    def lid(self, pixels: Float64Array) -> Float64Array:
        """The closed lid, [h, w, 3]: of the colour of the skin above and then below, with a shade at the lashes."""
        half, v = self._half, self._v
        above, below = self._upper - 0.1 * half - v, v - self._lower - _BELOW * half
        upper, lower = (
            self._colour_of(pixels, (side > 0) & (side < _SKIN * half) & (np.abs(self._u) < 1.1 * half))
            for side in (above, below)
        )
        light, least = (side.mean(axis=2, keepdims=True) for side in (upper, lower))
        upper = upper * np.maximum(1, _DARKEST_LID * least / np.maximum(light, 1))
        share = (v - self._upper) / np.maximum(self._lower - self._upper, 1.0)
        mixed = (0.5 * share + 0.5 * _smooth((share - 0.8) / 0.4)).clip(0, 1)[..., None]
        shade = _SHADE * np.exp(-(((v - self._lower) / (_SHADOW * half)) ** 2))
        return np.asarray((upper + mixed * (lower - upper)) * (1 - shade[..., None]))

    def _colour_of(self, pixels: Float64Array, chosen: BoolArray) -> Float64Array:
        """A colour for every u: a parabola through the chosen pixels that passes over what differs from most of them.

        What is darker counts for less: brows, lashes, rims of glasses.
        """
        if chosen.sum() < 12:
            return np.broadcast_to(np.median(pixels.reshape(-1, 3), axis=0), pixels.shape)
        along, colours = self._u[chosen] / self._half, pixels[chosen]
        basis = np.stack([np.ones_like(along), along, along**2], axis=1)
        stiff, trust = np.diag([0.0, 0.1, 0.2]) * len(along), np.ones(len(along))
        fit = np.zeros((3, 3))
        for _ in range(12):
            weighted = basis * trust[:, None]
            fit = np.linalg.solve(basis.T @ weighted + stiff, weighted.T @ colours)
            off = (colours - basis @ fit).mean(axis=1)
            usual = max(float(np.median(np.abs(off))), 2.0)
            trust = np.where(off < 0, 0.25, 1.0) / (1 + (off / usual) ** 2)
        u = (self._u / self._half).clip(-1.1, 1.1)[..., None]
        return np.asarray((fit[0] + u * fit[1] + u**2 * fit[2]).clip(0, 255))

    def ink(self, pixels: Float64Array) -> Float64Array:
        """The lashes' colour, [3]: the darkest tenth along the upper lid."""
        near = (np.abs(self._v - self._upper) < 0.12 * self._half + 0.5) & (np.abs(self._u) < 0.8 * self._half)
        colours = pixels[near] if near.any() else pixels.reshape(-1, 3)
        darkest = np.argsort(colours.sum(axis=1))[: max(1, len(colours) // 10)]
        return np.asarray(colours[darkest].mean(axis=0))


def _smooth(share: Float64Array) -> Float64Array:
    share = share.clip(0, 1)
    return share * share * (3 - 2 * share)
