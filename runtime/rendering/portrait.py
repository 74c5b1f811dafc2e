"""The listener's portrait: any picture as the square the renderer takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.rendering.picture_file import PortraitError, read_picture
from pflx.runtime.speaker.pfl import centre_crop

if TYPE_CHECKING:
    from PIL.Image import Image


SMALLEST_SIDE = 64
"""Pixels on the shorter side below which there is no face worth animating."""

_FULL_SIDE = 256  # the public models' pictures; their 224 px inputs are the middle of these


_MOST_OBLONG = 8
"""Longer side by shorter: of what is longer, the middle is scaled, for the whole could fill the memory."""


def load_portrait(source: str | Path | npt.NDArray[Any], size: int = 256) -> UInt8Array:
    """The portrait as uint8 [size, size, 3] RGB.

    The shorter side is scaled to `size` (Pillow's antialiased bilinear filter) and the middle square is cut
    out; for 224, the shorter side is scaled to 256 first, as the public code does. Files are read as
    `read_picture` does; in arrays too, transparency is laid on white, grey becomes RGB, 16-bit is reduced to 8.

    Args:
        source: a picture file, or uint8 or uint16 [H, W], [H, W, 1], [H, W, 3] RGB or [H, W, 4] RGBA.
        size: side of the result in pixels.

    Raises:
        PortraitError: no such file, no picture, damaged, another dtype or shape, or smaller than 64 px.
    """
    return _square(_opened(source), size)


def load_picture(source: str | Path | npt.NDArray[Any], longest: int = 1024) -> UInt8Array:
    """The whole of a portrait as uint8 [H, W, 3] RGB, its longer side scaled down to `longest` pixels if it has more.

    Raises:
        PortraitError: see `load_portrait`.
    """
    from PIL import Image

    picture = _opened(source).copy()
    picture.thumbnail((longest, longest), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def load_whole(source: str | Path | npt.NDArray[Any]) -> UInt8Array:
    """The whole of a portrait as uint8 [H, W, 3] RGB, which the other functions here take for the portrait.

    Raises:
        PortraitError: see `load_portrait`.
    """
    return np.asarray(_opened(source))


def load_square(source: str | Path | npt.NDArray[Any], box: tuple[float, float, float], size: int) -> UInt8Array:
    """A square of a portrait as uint8 [size, size, 3] RGB, scaled as `load_portrait` does.

    Args:
        source: see `load_portrait`.
        box: left edge, upper edge and side, as shares of the picture's shorter side; inside of the picture.
        size: side of the result in pixels.

    Raises:
        PortraitError: see `load_portrait`.
    """
    from PIL import Image

    picture = _opened(source)
    left, top, side = (value * min(picture.size) for value in box)
    right, bottom = min(left + side, picture.width), min(top + side, picture.height)
    scaled = picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    return np.array(scaled)


def _opened(source: str | Path | npt.NDArray[Any]) -> Image:
    """The whole portrait in RGB."""
    picture = _on_white(_from_array(source)) if isinstance(source, np.ndarray) else read_picture(Path(source))
    if min(picture.size) < SMALLEST_SIDE:
        raise PortraitError(
            f"The portrait is {picture.width}x{picture.height} px. Take one of at least {SMALLEST_SIDE} px a side."
        )
    return picture


def _from_array(array: npt.NDArray[Any]) -> Image:
    from PIL import Image

    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise PortraitError(f"A portrait is uint8 or uint16, grey, RGB or RGBA, got {array.dtype} {list(array.shape)}.")
    return Image.fromarray(np.ascontiguousarray(array))


def _on_white(picture: Image) -> Image:
    from PIL import Image

    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _square(picture: Image, size: int) -> UInt8Array:
    from PIL import Image

    full = _FULL_SIDE if size == 224 else size
    short = min(picture.size)
    if max(picture.size) > _MOST_OBLONG * short:
        width, height = (min(side, _MOST_OBLONG * short) for side in picture.size)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    if short != full:
        scaled = (full * picture.width // short, full * picture.height // short)
        picture = picture.resize(scaled, Image.Resampling.BILINEAR)
    return np.ascontiguousarray(centre_crop(np.asarray(picture), size))
