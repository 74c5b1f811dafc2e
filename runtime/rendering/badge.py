"""A label in a corner of a picture that says "AI" to whoever looks at it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pflx.runtime.frames.arrays import Float32Array, UInt8Array

_TEXT = "AI"
_SHARE = 11  # of the picture's shorter side is the label's height
_LEAST = 16  # px: what is smaller cannot be read
_GROUND, _OPACITY = 20, 0.7


def badged(image: UInt8Array) -> UInt8Array:
    """The picture with the label in its upper left corner, white on dark; an empty one stays empty.

    Args:
        image: uint8 [H, W, 3] RGB, which stays as it is.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = image.shape[:2]
    label, opacity = _label(max(_LEAST, min(height, width) // _SHARE))
    margin = label.shape[0] // 3
    rows, columns = slice(margin, margin + label.shape[0]), slice(margin, margin + label.shape[1])
    if columns.stop > width or rows.stop > height:
        return image
    marked = image.copy()
    below = marked[rows, columns].astype(np.float32)
    marked[rows, columns] = np.rint(below + (label[..., None] - below) * opacity[..., None])
    return marked


@lru_cache(maxsize=8)
def _label(height: int) -> tuple[Float32Array, Float32Array]:
    """Brightness 0…255 and opacity 0…1 of the label, float32 [height, W]."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(0.8 * height)
    left, top, right, bottom = font.getbbox(_TEXT)
    width = round(right - left + 0.7 * height)
    ground, text = Image.new("L", (width, height), 0), Image.new("L", (width, height), 0)
    ImageDraw.Draw(ground).rounded_rectangle((0, 0, width - 1, height - 1), radius=height // 4, fill=255)
    place = ((width - right - left) / 2, (height - bottom - top) / 2)
    ImageDraw.Draw(text).text(place, _TEXT, fill=255, font=font)
    opacity, letters = (_shares(each) for each in (ground, text))
    return _GROUND + (255 - _GROUND) * letters, np.maximum(opacity * np.float32(_OPACITY), letters)


def _shares(picture: object) -> npt.NDArray[np.float32]:
    return np.asarray(picture, np.float32) / np.float32(255)
