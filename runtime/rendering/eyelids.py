"""A portrait with its eyes closed, made of the portrait: lids of its own skin, and the line of its own lashes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
_ABOVE = 0.83  # how far a lid is painted above the edge of the upper one
_FADE_ABOVE, _FADE_BESIDE = 0.45, 0.45  # over how much of that it fades
_KEPT_FROM = 0.38  # above the upper edge, from where on a rim of glasses or a brow is left as it is
_SHADE_ABOVE, _SHADE_BELOW = 0.14, 0.17  # width of the shade in which the line of closed lashes lies

_LASHES = 0.8
"""How dark that line is, in the middle."""
_EASE = 0.9
"""How much slower than on the average a lid is in the end of a blink, at most."""
_SOCKET = 0.27
"""How much of the shade above an eye its closed lid lies in, as an exponent; the eyeball lifts it out of the rest."""
_BULGE, _CREASE = 0.08, 0.045
"""How much lighter the lid is where it stands out, and how much darker where it is folded."""
_OTHER = 25.0, 55.0
"""Levels from and up to which a pixel far above an eye differs from skin, to be left as it is."""


@dataclass(frozen=True)
class Lid:
    """How a closed lid is drawn, in what differs between people; lengths in half widths of an eye.

    Attributes:
        drop: how far below the edge of the lower lid the closed lashes lie.
        reach: how far from the middle of the eye their line ends; 1 is a corner.
        line: half of its thickness.
        shade: how dark the shade is in which it lies, in the middle, in 0…1.
        below: how far below the line the skin is drawn on.
        fade_below: over how much there it fades.
        beside: how far from the middle of the eye it is drawn on.
    """

    drop: float = 0.22
    reach: float = 1.3
    line: float = 0.07
    shade: float = 0.38
    below: float = 0.08
    fade_below: float = 0.2
    beside: float = 1.63


USUAL = Lid()


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


def close_eyes(picture: UInt8Array, points: Float64Array, drawn: Sequence[Lid] = (USUAL, USUAL)) -> ClosedEyes:
    """Close both eyes of a portrait.

    Args:
        picture: uint8 [S, S, 3] RGB.
        points: [478, 2 or more], landmarks in pixels, pixel centres at whole numbers.
        drawn: how the lid of the left and of the right eye of the picture is.
    """
    closed, lashed = picture.copy(), picture.copy()
    lids = np.zeros((*picture.shape[:2], 3), np.float32)
    for at, eye in enumerate(_eyes(len(picture), points, drawn)):
        closed[eye.window], lashed[eye.window] = eye.closed(picture[eye.window])
        window = lids[eye.window]
        window[..., at], window[..., 2] = eye.depth
    return ClosedEyes(closed, lashed, lids)


def shut(picture: UInt8Array, points: Float64Array, drawn: Sequence[Lid]) -> UInt8Array:
    """The portrait in a whole blink, as the graph `warp_frame` shows it; arguments as of `close_eyes`."""
    shown = picture.copy()
    for eye in _eyes(len(picture), points, drawn):
        closed, lashed = (layer.astype(np.float64) for layer in eye.closed(picture[eye.window]))
        in_all, above = eye.depth
        line = (1 - np.abs(in_all - above - 1)).clip(0)[..., None]
        shown[eye.window] = _levels(closed + line * (lashed - closed))
    return shown


def _eyes(size: int, points: Float64Array, drawn: Sequence[Lid]) -> Iterator[_Eye]:
    for (upper, lower), lid in zip(LIDS, drawn, strict=True):
        yield _Eye(points[list(upper), :2], points[list(lower), :2], size, lid)


def _levels(picture: Float64Array) -> UInt8Array:
    return (picture + 0.5).clip(0, 255).astype(np.uint8)


class _Eye:
    """The pixels of a window around an eye, along (u) and across (v) the line through its corners, in half widths.

    Args:
        upper: [n, 2], points along the upper lid, corners included.
        lower: [n, 2], along the lower one.
        size: of the picture, in pixels.
        lid: how it is drawn.
    """

    def __init__(self, upper: Float64Array, lower: Float64Array, size: int, lid: Lid) -> None:
        self._lid = lid
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
        self._opening = (self._edge(lower) - self._upper).clip(0)
        self._line = self._upper + np.maximum(self._opening + lid.drop, 0.5 / self._half)
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
        bow = np.sqrt((1 - np.square(self._aside / self._lid.beside)).clip(0))
        over_upper = _smooth((self._v - self._upper + _ABOVE * bow) / above)
        over_lower = _smooth((self._line + self._lid.below * bow - self._v) / below)
        return over_upper * over_lower * _smooth((self._lid.beside - self._aside) / beside)

    def closed(self, window: UInt8Array) -> tuple[UInt8Array, UInt8Array]:
        """The window with its lid closed, and with lashes wherever their line comes by, uint8 [h, w, 3] both."""
        pixels = window.astype(np.float64)
        lid = self._covered_with_skin(pixels)
        return _levels(lid), _levels(lid + self._lashes[..., None] * (self._ink(pixels) - lid))

    def _covered_with_skin(self, pixels: Float64Array) -> Float64Array:
        """The skin around the eye drawn on over it, with the shades of a lid, [h, w, 3]."""
        middle = (self._upper + self._line) / 2
        around = (self._covered(0.1, 0.1, 0.1) < 0.02) & (self._aside < 1.5)
        around &= (self._v > self._upper - 1) & (self._v < self._line + 0.75)
        skin = skin_around(pixels, np.dstack([self._u, self._v - middle]), around, self._half)
        is_other = _smooth((np.abs(pixels - skin).mean(axis=2) - _OTHER[0]) / (_OTHER[1] - _OTHER[0]))
        kept = is_other * _smooth((self._upper - _KEPT_FROM - self._v) / 0.15)
        covered = self._covered(_FADE_ABOVE, self._lid.fade_below, _FADE_BESIDE) * (1 - kept)
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
        dark = self._lid.shade * _smooth((self._lid.reach + 0.1 - self._aside) / 0.5)
        return np.asarray(light * (1 - dark * np.exp(-np.square(down / width))))

    @property
    def depth(self) -> tuple[Float64Array, Float64Array]:
        """The two numbers of this eye in `ClosedEyes.lids`.

        The lid goes from the upper edge to the line, which lies below the lower edge. It is slower in the end, so that
        in half a blink it is in the middle of the opening.
        """
        thick = max(1.0 / self._half, self._lid.line) / (self._line - self._upper)
        middle = (self._opening / (2 * (self._line - self._upper)) + thick) / (1 + thick)
        ease = ((0.5 - middle) / (middle * (1 - middle))).clip(0, _EASE)
        begin = self._share.clip(0, 1)
        bare, covered = (
            share + ease * share * (1 - share) for share in (begin / (1 + thick), (begin + thick) / (1 + thick))
        )
        return 1 / (covered - bare), bare / (covered - bare)

    @property
    def _lashes(self) -> Float64Array:
        """How dark the line of lashes is where it comes by: less towards the corners, and below where lids meet.

        A line that is thinner than a pixel is drawn a pixel wide and as much lighter.
        """
        thin = min(1.0, self._lid.line * self._half)
        below = (1 - (self._v - self._line) / (self._lid.line + 0.5 / self._half)).clip(0, 1)
        begun = (1 + (self._v - self._upper) * self._half).clip(0, 1)
        return np.asarray(_LASHES * thin * _smooth((self._lid.reach - self._aside) / 0.4) * below * begun)

    def _ink(self, pixels: Float64Array) -> Float64Array:
        """The lashes' colour, [3]: the darkest tenth along the upper lid."""
        near = (np.abs(self._v - self._upper) < 0.12 + 0.5 / self._half) & (self._aside < 0.8)
        colours = pixels[near] if near.any() else pixels.reshape(-1, 3)
        darkest = np.argsort(colours.sum(axis=1))[: max(1, len(colours) // 10)]
        return np.asarray(colours[darkest].mean(axis=0))


def _smooth(share: Float64Array) -> Float64Array:
    share = share.clip(0, 1)
    return share * share * (3 - 2 * share)
