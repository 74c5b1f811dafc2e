"""A portrait that a visitor sends: bytes that nothing is known about → a picture, or a refusal."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.rendering.portrait import PortraitError, load_portrait

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 12 * 1024 * 1024
"""Of a file: a photograph of a telephone has less."""

MAX_PIXELS = 7680 * 4320
"""Of a picture: 8 K. It is looked at before anything is decoded."""

FORMATS = ("JPEG", "PNG", "WEBP")
"""What is decoded at all; the other 40 decoders of Pillow never see a visitor's bytes."""

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
    return _rgb(_opened(data))


def encode_portrait(portrait: UInt8Array) -> bytes:
    """A picture as PNG, for the page.

    Args:
        portrait: uint8 [H, W, 3] RGB.
    """
    from PIL import Image

    file = BytesIO()
    Image.fromarray(portrait).save(file, "PNG")
    return file.getvalue()


def _opened(data: bytes) -> Image:
    from PIL import Image, ImageOps

    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise PortraitError(
                    f"The picture has {picture.width}x{picture.height} px. Send one of at most 7680x4320."
                )
            picture.draft("RGB", (_SIDE, _SIDE))  # a large JPEG is decoded at a fraction of its size
            picture.load()
            return ImageOps.exif_transpose(picture)
    except PortraitError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PortraitError("This file is no JPEG, PNG or WebP picture that can be read. Send another one.") from error


def _rgb(picture: Image) -> UInt8Array:
    if picture.mode.startswith("I"):
        return load_portrait(np.asarray(picture).astype(np.uint16))
    if picture.has_transparency_data:
        from PIL import Image

        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    picture = picture.convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    return np.array(picture, np.uint8)
