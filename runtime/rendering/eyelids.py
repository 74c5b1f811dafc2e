"""A portrait with its eyes closed, made of the portrait: lids of its own skin, and the line of its own lashes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pflx.runtime.frames.arrays import Float32Array, Float64Array, UInt8Array
from pflx.runtime.rendering.lid_skin import shade_above, skin_around

LIDS = (
    ((33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133)),
    ((362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263)),
)
"""Landmarks of MediaPipe's face mesh along the upper and the lower lid, from the picture's left to its right, corners
included; first of the eye on the picture's left."""

# In half widths of an eye. Chosen by looking at portraits, and by how closed MediaPipe's face mesh finds their eyes.
_DROP = 0.14  # how far below the edge of the lower lid the closed lashes lie
_ABOVE, _BELOW, _BESIDE = 0.83, 0.035, 1.63  # how far a lid is painted, from the edges of the lids and from the middle
_FADE_ABOVE, _FADE_BELOW, _FADE_BESIDE = 0.45, 0.12, 0.45  # over how much of that it fades
_KEPT_FROM = 0.38  # above the upper edge, from where on a rim of glasses or a brow is left as it is
_LINE = 0.063  # half of the thickness of the line of closed lashes
_SHADE_ABOVE, _SHADE_BELOW = 0.16, 0.18  # width of the shade in which that line lies

_LASHES, _SHADE = 0.85, 0.37
"""How dark the line and the shade are, in the middle."""
_SOCKET = 0.27
"""How much of the shade above an eye its closed lid lies in, as an exponent; the eyeball lifts it out of the rest."""
_BULGE, _CREASE = 0.08, 0.045
"""How much lighter the lid is where it stands out, and how much darker where it is folded."""
_OTHER = 25.0, 55.0
"""Levels from and up to which a pixel far above an eye differs from skin, to be left as it is."""


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
        closed[eye.window] = lid = eye.closed(pixels)
        lashed[eye.window] = lid + eye.lashes[..., None] * (eye.ink(pixels) - lid)
        window = lids[eye.window]
        window[..., at], window[..., 2] = eye.depth
    return ClosedEyes(_levels(closed), _levels(lashed), lids)


def _levels(picture: Float64Array) -> UInt8Array:
    return (picture + 0.5).clip(0, 255).astype(np.uint8)


class _Eye:
    """The pixels of a window around an eye, along (u) and across (v) the line through its corners, in half widths.

    Args:
        upper: [n, 2], points along the upper lid, corners included.
        lower: [n, 2], along the lower one.
        size: of the picture, in pixels.
    """

    def __init__(self, upper: Float64Array, lower: Float64Array, size: int) -> None:
        left, right = upper[0], upper[-1]
        self._middle, self._half = (left + right) / 2, max(float(np.linalg.norm(right - left)) / 2, 1.0)
        self._axis = (right - left) / (2 * self._half)
        low, high = (np.round(self._middle + sign * 1.8 * self._half).astype(int) for sign in (-1, 1))
        (x0, y0), (x1, y1) = low.clip(0, size - 4), high.clip(3, size - 1)
        self.window = np.s_[y0 : y1 + 1, x0 : x1 + 1]
        grid = np.stack(np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1)), axis=-1)
        self._u, self._v = self._places(grid.astype(np.float64))
        self._aside = np.abs(self._u)
        self._upper = self._edge(upper)
        self._line = np.maximum(self._edge(lower) + _DROP, self._upper + 0.5 / self._half)
        self._share = (self._v - self._upper) / (self._line - self._upper)

    def _places(self, points: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Points of the picture, [..., 2], along and across the eye."""
        offsets = (points - self._middle) / self._half
        return np.asarray(offsets @ self._axis), np.asarray(offsets @ [-self._axis[1], self._axis[0]])

    def _edge(self, points: Float64Array) -> Float64Array:
        """How far a lid's edge is below the corners, at every pixel; beyond them it is level."""
        curve = np.polynomial.Polynomial.fit(*self._places(points), 4)
        return np.asarray(curve(self._u.clip(-1, 1)))

    def _covered(self, above: float, below: float, beside: float) -> Float64Array:
        """How much of each pixel a lid covers that fades over so much: the opening, its lashes, the fold above it."""
        bow = np.sqrt((1 - np.square(self._aside / _BESIDE)).clip(0))
        over_upper = _smooth((self._v - self._upper + _ABOVE * bow) / above)
        over_lower = _smooth((self._line + _BELOW * bow - self._v) / below)
        return over_upper * over_lower * _smooth((_BESIDE - self._aside) / beside)

    def closed(self, pixels: Float64Array) -> Float64Array:
        """The eye with its lid closed, [h, w, 3]: the skin around it drawn on, with the shades of a lid."""
        middle = (self._upper + self._line) / 2
        around = (self._covered(0.1, 0.1, 0.1) < 0.02) & (self._aside < 1.5)
        around &= (self._v > self._upper - 1) & (self._v < self._line + 0.75)
        skin = skin_around(pixels, np.dstack([self._u, self._v - middle]), around, self._half)
        is_other = _smooth((np.abs(pixels - skin).mean(axis=2) - _OTHER[0]) / (_OTHER[1] - _OTHER[0]))
        kept = is_other * _smooth((self._upper - _KEPT_FROM - self._v) / 0.15)
        covered = self._covered(_FADE_ABOVE, _FADE_BELOW, _FADE_BESIDE) * (1 - kept)
        lid = skin * self._light(pixels, skin)[..., None]
        return np.asarray(pixels + covered[..., None] * (lid - pixels))

    def _light(self, pixels: Float64Array, skin: Float64Array) -> Float64Array:
        """How light each pixel of the closed lid is, of the skin around."""
        up, down = self._upper - self._v, self._v - self._line
        above = _smooth((up - 0.22) / 0.1) * _smooth((0.6 - up) / 0.1) * _smooth((1.3 - self._aside) / 0.2)
        shade = shade_above(pixels, skin, above, self._half)[..., 0] ** _SOCKET
        light = shade + (1 - shade) * _smooth((self._share + 0.6) / 1.4)
        rounded = (1 - np.square(self._aside)).clip(0)
        light *= 1 + _BULGE * rounded * np.exp(-np.square((self._share - 0.4) / 0.4))
        fold = (0.3 * np.sqrt((1 - np.square(self._aside / 1.1)).clip(0)) - up) / (0.1 + 0.5 / self._half)
        light *= 1 - _CREASE * _smooth((1.1 - self._aside) / 0.4) * np.exp(-np.square(fold))
        width = np.where(down < 0, _SHADE_ABOVE, _SHADE_BELOW) + 0.5 / self._half
        return np.asarray(light * (1 - _SHADE * _smooth((1.2 - self._aside) / 0.5) * np.exp(-np.square(down / width))))

    @property
    def depth(self) -> tuple[Float64Array, Float64Array]:
        """The two numbers of this eye in `ClosedEyes.lids`: a straight way from the upper edge to the line."""
        opening = (self._line - self._upper) / max(1.0 / self._half, _LINE)
        return opening + 1, opening * self._share.clip(0, 1)

    @property
    def lashes(self) -> Float64Array:
        """How dark the line of lashes is where it comes by: less towards the corners, and below where lids meet.

        A line that is thinner than a pixel is drawn a pixel wide and as much lighter.
        """
        thin = min(1.0, _LINE * self._half)
        below = (1 - (self._v - self._line) / (_LINE + 0.5 / self._half)).clip(0, 1)
        begun = (1 + (self._v - self._upper) * self._half).clip(0, 1)
        return np.asarray(_LASHES * thin * _smooth((1.1 - self._aside) / 0.4) * below * begun)

    def ink(self, pixels: Float64Array) -> Float64Array:
        """The lashes' colour, [3]: the darkest tenth along the upper lid."""
        near = (np.abs(self._v - self._upper) < 0.12 + 0.5 / self._half) & (self._aside < 0.8)
        colours = pixels[near] if near.any() else pixels.reshape(-1, 3)
        darkest = np.argsort(colours.sum(axis=1))[: max(1, len(colours) // 10)]
        return np.asarray(colours[darkest].mean(axis=0))


def _smooth(share: Float64Array) -> Float64Array:
    share = share.clip(0, 1)
    return share * share * (3 - 2 * share)
