"""Pictures of the weightless renderer on a CPU: the field by its graph, and what is looked up by OpenCV.

ONNX Runtime looks up pixel by pixel what OpenCV does with the CPU's vectors. Pictures are those of the whole graph, but
for the rounding of one pixel in ten thousand by one level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pflx.engines import Array, Engine
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.rendering.warp import geometry_part

_STRIDE = 2
"""Pixels from one point of the field to the next."""
_LEVELS = np.float32(255)


def looks_up_exactly() -> bool:
    """Whether this OpenCV looks up between pixels with all digits; before version 5 it took 32nds of a pixel."""
    import cv2

    return int(cv2.__version__.partition(".")[0]) >= 5


@dataclass(frozen=True)
class Window:
    """What changes around an eye when it closes.

    Attributes:
        place: rows and columns of the picture.
        closing: float32 [h, w, 3], what a closed lid adds.
        lashes: float32 [h, w, 3], what their line adds to that.
        lids: float32 [3, h, w], see `ClosedEyes.lids`.
    """

    place: tuple[slice, slice]
    closing: Float32Array
    lashes: Float32Array
    lids: Float32Array


@dataclass(frozen=True)
class Canvas:
    """What the graph `warp_portrait` makes of a portrait, laid out for OpenCV.

    Attributes:
        person: float32 [S, S, 4], what the person adds to the background, and how much of that it covers.
        behind: float32 [S, S, 3], the background.
        windows: around the eyes.
        dark: float32 [3], the colour inside of the mouth; `teeth` what teeth add to it.
    """

    person: Float32Array
    behind: Float32Array
    windows: tuple[Window, ...]
    dark: Float32Array
    teeth: Float32Array


def make_canvas(features: Mapping[str, Array], geometry: Float32Array) -> Canvas:
    """Of the outputs of `warp_portrait`, of one portrait, and float32 [G]."""
    source, closing, lashes, lids, behind = (
        np.asarray(features[name])[0] for name in ("source", "closing", "lashes", "lids", "behind")
    )
    dark, teeth = _inks(geometry)
    return Canvas(
        person=_interleaved(source),
        behind=_interleaved(behind),
        windows=tuple(
            Window(place, _interleaved(closing[:3][:, *place]), _interleaved(lashes[:3][:, *place]), lids[:, *place])
            for place in _places(closing, lashes)
        ),
        dark=dark,
        teeth=teeth,
    )


def whole_canvas(picture: UInt8Array, geometry: Float32Array) -> Canvas:
    """Of a picture that is all person, and whose eyes stay as they are: what `make_canvas` gives of its `one_layer`.

    Args:
        picture: uint8 [S, S, 3] RGB.
        geometry: float32 [G].
    """
    person = np.ones((*picture.shape[:2], 4), np.float32)
    behind = person[..., :3] = picture + np.float32(0.5)
    return Canvas(person, behind, (), *_inks(geometry))


def _inks(geometry: Float32Array) -> tuple[Float32Array, Float32Array]:
    """`Canvas.dark` and `Canvas.teeth`."""
    dark = geometry_part(geometry, "mouth_inside")
    return _LEVELS * dark + np.float32(0.5), _LEVELS * (geometry_part(geometry, "teeth")[:3] - dark)


class Painter:
    """Paints frames of a canvas.

    Args:
        field: the graph `warp_field`.
        size: side of a picture in pixels.
    """

    def __init__(self, field: Engine, size: int) -> None:
        self._field, self._size = field, size
        middles = np.arange(size // _STRIDE, dtype=np.float32) * _STRIDE + np.float32((_STRIDE - 1) / 2)
        self._points = np.stack(np.meshgrid(middles, middles))
        self._at = np.stack(np.meshgrid(*[np.arange(size, dtype=np.float32)] * 2), axis=-1)

    def paint(self, canvas: Canvas, feeds: Mapping[str, Array], frames: npt.NDArray[np.int64]) -> UInt8Array:
        """Paint frames.

        Args:
            canvas: of the portrait.
            feeds: `geometry`, `shown` and `coefficients` as `warp_frame` takes them, of one portrait.
            frames: int64 [K], indices into the track.

        Returns:
            uint8 [K, S, S, 3] RGB.
        """
        found = self._field.run({**feeds, "points": self._points, "frames": frames})
        moved = zip(np.asarray(found["maps"])[0], np.asarray(found["closed"])[0], strict=True)
        return np.stack([self._painted(canvas, maps, closed) for maps, closed in moved])

    def _painted(self, canvas: Canvas, maps: Float32Array, closed: Float32Array) -> UInt8Array:
        """As few calls as it takes: between any two, threads of other sessions may take the interpreter."""
        import cv2

        at = cv2.scaleAdd(self._enlarged(maps[:2]), self._size / 2, self._at)
        lidded = _with_lids(canvas, closed)
        person = cv2.remap(lidded, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        shown, seen_through = cv2.cvtColor(person, cv2.COLOR_RGBA2RGB), np.float32(1) - cv2.extractChannel(person, 3)
        for place in _opened(maps[2]):
            inside, teeth = np.split(self._enlarged(maps[2:])[place].clip(0, 1), 2, axis=-1)
            shown[place] = shown[place] * (1 - inside) + inside * canvas.dark + teeth * canvas.teeth
        cv2.accumulateProduct(cv2.cvtColor(seen_through, cv2.COLOR_GRAY2RGB), canvas.behind, shown)
        return np.asarray(shown.clip(0, 255, out=shown).astype(np.uint8))

    def _enlarged(self, maps: Float32Array) -> Float32Array:
        """Of two maps of the field, [S, S, 2]."""
        import cv2

        larger = cv2.resize(cv2.merge([*maps]), (self._size, self._size), interpolation=cv2.INTER_LINEAR)
        return np.asarray(larger, np.float32)


def _with_lids(canvas: Canvas, closed: Float32Array) -> Float32Array:
    """The person with eyes as far closed as `closed` [2] says. An eye that is open is not looked at closely."""
    depths = [closed[0] * left + closed[1] * right - offset for left, right, offset in (w.lids for w in canvas.windows)]
    moved = [(window, depth) for window, depth in zip(canvas.windows, depths, strict=True) if depth.max() > 0]
    person = canvas.person.copy() if moved else canvas.person
    for window, depth in moved:
        line = np.maximum(1 - np.abs(depth - 1), 0)[..., None]
        person[window.place][..., :3] += depth.clip(0, 1)[..., None] * window.closing + line * window.lashes
    return person


def _interleaved(planes: Float32Array) -> Float32Array:
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def _places(closing: Float32Array, lashes: Float32Array) -> Iterator[tuple[slice, slice]]:
    """Where lids add anything, in the left and in the right half of it."""
    adds = (closing != 0).any(axis=0) | (lashes != 0).any(axis=0)
    columns = np.flatnonzero(adds.any(axis=0))
    if not len(columns):
        return
    gaps = np.diff(columns)
    cut = int(columns[gaps.argmax()]) + 1 if len(gaps) and gaps.max() > 1 else int(columns[-1]) + 1
    for start, stop in ((0, cut), (cut, adds.shape[1])):
        part = adds[:, start:stop]
        if part.any():
            rows, inner = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
            yield np.s_[rows[0] : rows[-1] + 1, start + inner[0] : start + inner[-1] + 1]


def _opened(inside: Float32Array) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the picture that an opened mouth takes: points of the field in it, and those around."""
    rows, columns = np.flatnonzero((inside > 0).any(axis=1)), np.flatnonzero((inside > 0).any(axis=0))
    if len(rows):
        yield tuple(slice(max(0, _STRIDE * (each[0] - 1)), _STRIDE * (each[-1] + 2)) for each in (rows, columns))  # type: ignore[misc]
