"""A picture file → its pixels: the one place in which pflx opens pictures, whoever sends them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from pflx.engines import PflxError
from pflx.runtime.rendering.picture_kind import kind_of, other_kind

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "TIFF", "GIF", "BMP", "PPM")
"""What is decoded at all: any bytes may ask for any of Pillow's other 40 decoders, and one of them runs programs."""

MOST_PIXELS = 80_000_000
"""Of a picture; it is looked at before anything is decoded."""

_NAMES = {"WEBP": "WebP", "HEIF": "HEIC"}
_HEAD_BYTES = 512
_ORIENTATION = 0x0112
_TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
"""What undoes the orientations 2 to 8. Source: EXIF 2.32, tag 0x0112."""

_NEW_SUBFILE_TYPE, _DNG_VERSION = 254, 50_706
"""Source: TIFF 6.0; Adobe DNG 1.7."""


class PortraitError(PflxError, ValueError):
    """A picture that cannot serve as a portrait."""


def read_picture(
    source: Path | bytes,
    *,
    formats: Sequence[str] = FORMATS,
    most_pixels: int = MOST_PIXELS,
    enough: int | None = None,
) -> Image:
    """The picture as it is meant to be seen, in Pillow's RGB: upright, in sRGB, on white, in 8 bits.

    EXIF orientation is applied; an ICC profile is converted from (relative colorimetric, with black point
    compensation), and without one the numbers are taken for sRGB; what is transparent is laid on white; 16-bit grey is
    rounded. Of several pictures in a file the first is taken, and that is logged.

    Args:
        source: a path, or the bytes of a file.
        formats: those of `FORMATS` that are read. HEIC takes the package pillow-heif.
        most_pixels: of the picture; more are refused before they are decoded.
        enough: px of a side that are enough; a JPEG of several times that is decoded at a fraction of its size.

    Raises:
        PortraitError: no such file; none of these formats, with what it is; damaged or cut off; too many pixels.
    """
    if isinstance(source, bytes):
        return _decode(BytesIO(source), "This file", formats, most_pixels, enough)
    if not source.is_file():
        raise PortraitError(_no_file(source))
    try:
        stream = source.open("rb")
    except OSError as error:
        raise PortraitError(f"{source} cannot be read: {error.strerror}. Check its permissions.") from error
    with stream:
        return _decode(stream, str(source), formats, most_pixels, enough)


def _no_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder. Give a picture file."
    return f"{path} is a device or a pipe. Give a file." if path.exists() else f"{path} does not exist. Check the path."


def _decode(stream: IO[bytes], name: str, formats: Sequence[str], most_pixels: int, enough: int | None) -> Image:
    from PIL import Image

    kind = _known_kind(stream, name, formats)
    try:
        with warnings.catch_warnings():  # of tags that are passed over, and of sizes that are refused below
            warnings.simplefilter("ignore")
            opened = Image.open(stream, formats=(kind,))
            with opened:
                _check_size(opened, name, most_pixels)
                _check_whole(opened, name)
                if getattr(opened, "is_animated", False) and opened.format != "MPO":  # a camera's JPEG with its preview
                    _tell_of_several(name)
                if enough is not None:
                    opened.draft("RGB", (enough, enough))
                opened.load()
                return _in_srgb(_upright(opened), name)
    except (PortraitError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise PortraitError(f"{name} has more than {most_pixels / 1e6:.0f} million pixels. Scale it down.") from error
    except Exception as error:  # decoders of damaged files raise whatever they come upon
        raise PortraitError(f"{name} is damaged or cut off{_reason(error)}. Copy or download it again.") from error


def _known_kind(stream: IO[bytes], name: str, formats: Sequence[str]) -> str:
    """Pillow's name of the format, by the first bytes and never by the name of the file.

    Raises:
        PortraitError: it is not among the formats, or the package that reads it is not installed.
    """
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    kind = kind_of(head)
    if kind is not None and kind in formats:
        _require_decoder(kind, name)
        return kind
    *most, last = (_NAMES.get(each, each) for each in formats[:3])
    what, fix = (_NAMES.get(kind, kind), "") if kind else other_kind(head)
    fix = fix or f"Save it as {', '.join(most)} or {last}, and give that."
    raise PortraitError(f"{name} is no picture that can be read: it is {what}. {fix}")


def _require_decoder(kind: str, name: str) -> None:
    if kind == "HEIF":
        try:
            from pillow_heif import register_heif_opener
        except ImportError as error:
            raise PortraitError(
                f"{name} is HEIC, which takes the package pillow-heif. Install it: pip install 'pflx[heic]', or save "
                "the picture as JPEG."
            ) from error
        register_heif_opener()
    if kind == "AVIF":
        from PIL import features

        if not features.check("avif"):
            raise PortraitError(
                f"{name} is AVIF, which this Pillow does not read. Install another: pip install 'pillow>=11.3', or "
                "save the picture as JPEG."
            )


def _check_size(picture: Image, name: str, most_pixels: int) -> None:
    if picture.width * picture.height > most_pixels:
        size = f"{picture.width}x{picture.height} pixels"
        raise PortraitError(f"{name} has {size}, more than {most_pixels / 1e6:.0f} million. Scale it down.")


def _check_whole(picture: Image, name: str) -> None:
    """Refuse a camera's raw file, whose first picture is a preview the size of a stamp."""
    tags: Any = getattr(picture, "tag_v2", {})
    if picture.format == "TIFF" and (tags.get(_NEW_SUBFILE_TYPE, 0) & 1 or _DNG_VERSION in tags):
        raise PortraitError(
            f"{name} is no picture that can be read: it is a camera's raw file. Save it as JPEG or PNG, and give that."
        )


@cache  # a portrait may be read more than once
def _tell_of_several(name: str) -> None:
    log.warning("%s holds several pictures, such as an animation. The first one is taken.", name)


@cache
def _tell_of_profile(name: str) -> None:
    log.warning("%s: its colour profile cannot be read. Its colours are taken for sRGB.", name)


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):  # its text holds the name of an object in memory
        return ""
    lines = (getattr(error, "strerror", None) or str(error)).splitlines()
    return f" ({lines[0]})" if lines else ""


def _upright(picture: Image) -> Image:
    from PIL import Image

    try:
        turn = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged notes about a picture do not spoil the picture
        turn = 1
    if turn not in range(2, 9):
        return picture
    return picture.transpose(Image.Transpose[_TURNS[turn - 2]])


def _in_srgb(picture: Image, name: str) -> Image:
    """The colours of a picture in RGB, what is transparent on white."""
    from PIL import Image

    profile = picture.info.get("icc_profile")
    alpha = None
    if picture.mode.startswith("I"):
        picture = _in_eight_bits(picture, name)
    elif picture.mode == "F":
        raise PortraitError(f"{name} holds floats. Save it as {FORMATS[1]}, in 8 or 16 bits.")
    elif picture.has_transparency_data:
        layer = picture.convert("RGBA")
        alpha = layer.getchannel("A")
        picture = picture.convert("L") if picture.mode in ("LA", "La") else layer.convert("RGB")
    colours = _converted(picture, profile, name) if profile else picture.convert("RGB")
    if alpha is None:
        return colours
    return Image.composite(colours, Image.new("RGB", colours.size, "white"), alpha)


def _in_eight_bits(picture: Image, name: str) -> Image:
    from PIL import Image

    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 65_535:
        raise PortraitError(f"{name} has values from {values.min()} to {values.max()}. Save it in 8 or 16 bits.")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _converted(picture: Image, profile: bytes, name: str) -> Image:
    """From the colours of a profile to sRGB."""
    from PIL import Image, ImageCms

    try:
        given: Any = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = given.profile.xcolor_space.strip()
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
        if mode is None or (mode == "CMYK") != (picture.mode == "CMYK"):
            raise ValueError(f"a profile of {space} at a picture in {picture.mode}")
        transform = ImageCms.buildTransform(
            given,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        picture = picture.convert(mode)
        if mode == "RGB" and _changes_nothing(transform):
            return picture
        converted = ImageCms.applyTransform(picture, transform)
    except (ImageCms.PyCMSError, OSError, ValueError):
        _tell_of_profile(name)
        return picture.convert("RGB")
    assert isinstance(converted, Image.Image)
    return converted


def _changes_nothing(transform: Any) -> bool:
    """Whether the profile is sRGB, but for rounding: then pixels stay as they are."""
    from PIL import Image, ImageCms

    steps = np.linspace(0, 255, 18).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(18, -1, 3)
    converted: Any = ImageCms.applyTransform(Image.fromarray(colours), transform)
    return bool(np.abs(np.asarray(converted).astype(int) - colours).max() <= 1)
