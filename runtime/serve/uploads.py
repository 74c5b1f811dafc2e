"""A portrait that a visitor sends: bytes that nothing is known about → a picture, or a refusal."""

from __future__ import annotations

import ctypes
import sys
from io import BytesIO

import numpy as np

from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.rendering.picture_file import PortraitError, read_picture

MAX_BYTES = 12 * 1024 * 1024
"""Of a file: a photograph of a telephone has less."""

MAX_PIXELS = 7680 * 4320
"""Of a picture: 8 K. It is looked at before anything is decoded."""

FORMATS = ("JPEG", "PNG", "WEBP")
"""What is decoded at all; Pillow's other decoders never see a visitor's bytes."""

_SIDE = 1024  # px; a larger picture is scaled down, for a session keeps it


def decode_portrait(data: bytes) -> UInt8Array:
    """The picture in a file, upright, with its longer side at most 1024 px.

    Args:
        data: of a JPEG, PNG or WebP file.

    Returns:
        uint8 [H, W, 3] RGB; what is transparent is white.

    Raises:
        PortraitError: no such file, damaged, or larger than is allowed.
    """
    if len(data) > MAX_BYTES:
        raise PortraitError(f"The picture has more than {MAX_BYTES // 1024**2} MB. Send a smaller one.")
    try:
        picture = read_picture(data, formats=FORMATS, most_pixels=MAX_PIXELS, enough=_SIDE)
        picture.thumbnail((_SIDE, _SIDE))
        return np.array(picture, np.uint8)
    finally:
        _give_memory_back()


def _give_memory_back() -> None:
    """Have glibc return what was freed: it keeps 30 MB or more of a large picture for each thread that decoded one."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def encode_portrait(portrait: UInt8Array) -> bytes:
    """A picture as PNG, for the page.

    Args:
        portrait: uint8 [H, W, 3] RGB.
    """
    from PIL import Image

    file = BytesIO()
    Image.fromarray(portrait).save(file, "PNG")
    return file.getvalue()
