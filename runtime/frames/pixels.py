"""Pictures in the layouts that cameras, codecs and other libraries have, to and from RGB."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np

from pflx.engines import FeedError
from pflx.runtime.frames.arrays import UInt8Array


class PixelFormat(StrEnum):
    """How a picture's bytes are laid out; all of them uint8."""

    RGB = "rgb"
    """[H, W, 3]."""
    BGR = "bgr"
    """[H, W, 3], as OpenCV has it."""
    RGBA = "rgba"
    """[H, W, 4]; what it lets through is left out."""
    GREY = "grey"
    """[H, W] or [H, W, 1]."""
    I420 = "i420"
    """Planes one after the other: Y [H, W], U and V of half the size, rounded up; BT.601, limited range."""
    NV12 = "nv12"
    """As I420, with U and V by turns in one plane."""


_CHANNELS = {PixelFormat.RGB: 3, PixelFormat.BGR: 3, PixelFormat.RGBA: 4, PixelFormat.GREY: 1}


Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""


def shaped(image: Any, format: PixelFormat | str, size: Size | None) -> tuple[UInt8Array, PixelFormat, Size]:
    """A picture as its format has it: [H, W, C]; of I420 and NV12 a flat run of bytes.

    Args:
        image: uint8 array, or bytes.
        format: see `PixelFormat`.
        size: width and height in pixels; may be left out where the array's shape tells them.

    Returns:
        The picture, no copy where none is needed; its format; its size.

    Raises:
        FeedError: an unknown format, or bytes that are no picture of this size.
    """
    if format not in list(PixelFormat):
        raise FeedError(f"The picture format {format!r} is none of {', '.join(PixelFormat)}.")
    kind = PixelFormat(format)
    given = np.frombuffer(image, np.uint8) if isinstance(image, bytes | bytearray | memoryview) else image
    if not isinstance(given, np.ndarray) or given.dtype != np.uint8:
        found = given.dtype if isinstance(given, np.ndarray) else type(given).__name__
        raise FeedError(f"A picture is a uint8 array or bytes, got {found}. Levels go from 0 to 255.")
    if kind in _CHANNELS:
        packed = _packed(given, kind, size)
        return packed, kind, (packed.shape[1], packed.shape[0])
    if size is None:
        size = _planar_size(given, kind)
    return _planar(given, kind, size), kind, size


def to_rgb(image: UInt8Array, format: PixelFormat, size: Size) -> UInt8Array:
    """uint8 [H, W, 3] RGB of what `shaped` gave.

    Args:
        image: of `shaped`.
        format: its format.
        size: width and height in pixels.
    """
    import cv2

    codes = {
        PixelFormat.BGR: cv2.COLOR_BGR2RGB,
        PixelFormat.RGBA: cv2.COLOR_RGBA2RGB,
        PixelFormat.GREY: cv2.COLOR_GRAY2RGB,
    }
    if format is PixelFormat.RGB:
        return image
    if format in codes:
        return np.asarray(cv2.cvtColor(image, codes[format]), np.uint8)
    width, height = size
    planes = _even_i420(image, format, width, height)
    return np.asarray(cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420), np.uint8)[:height, :width]


def to_i420(image: UInt8Array) -> UInt8Array:
    """uint8 [H, W, 3] RGB as I420, uint8 [H · 3 / 2, W], BT.601, limited range; an odd edge is doubled first."""
    import cv2

    height, width = image.shape[:2]
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    return np.asarray(cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420), np.uint8)


def _packed(image: UInt8Array, format: PixelFormat, size: Size | None) -> UInt8Array:
    channels = _CHANNELS[format]
    if size is not None:
        width, height = size
        if min(size) < 1 or image.size != width * height * channels:
            wanted = max(0, width * height * channels)
            raise FeedError(f"A {format} picture of {width}x{height} has {wanted} bytes, got {image.size}.")
        image = image.reshape(height, width, channels)
    elif format is PixelFormat.GREY and image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] != channels or 0 in image.shape:
        raise FeedError(
            f"A {format} picture is uint8 [H, W, {channels}], got {list(image.shape)}. Give its size=(width, height), "
            "if it is a flat run of bytes, or its right format."
        )
    return image


def _planar_size(image: UInt8Array, format: PixelFormat) -> Size:
    rows, width = image.shape if image.ndim == 2 else (0, 0)
    if not rows or not width or rows % 3 or width % 2:
        raise FeedError(
            f"An {format} picture is uint8 [H · 3 / 2, W], got {list(image.shape)}. Give its size=(width, height)."
        )
    return width, rows * 2 // 3


def _planar(image: UInt8Array, format: PixelFormat, size: Size) -> UInt8Array:
    width, height = size
    wanted = width * height + 2 * (-(-width // 2)) * (-(-height // 2))
    if min(size) < 1 or image.size != wanted:
        raise FeedError(
            f"An {format} picture of {width}x{height} has {max(0, wanted)} bytes, got {image.size}. Leave out the "
            "padding of its rows."
        )
    return image.reshape(-1)


def _even_i420(flat: UInt8Array, format: PixelFormat, width: int, height: int) -> UInt8Array:
    """As OpenCV takes it: I420 of even size, [H · 3 / 2, W]."""
    half_width, half_height = -(-width // 2), -(-height // 2)
    bright, colour = flat[: width * height].reshape(height, width), flat[width * height :]
    if format is PixelFormat.NV12:
        colour = colour.reshape(-1, 2).T.reshape(-1)
    bright = np.pad(bright, ((0, height % 2), (0, width % 2)), "edge")
    return np.concatenate([bright.reshape(-1), colour]).reshape(-1, 2 * half_width)[: 3 * half_height]
