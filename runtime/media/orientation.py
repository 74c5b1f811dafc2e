"""Pictures as a player shows them: upright, as the display matrix of their clip says, and of square pixels."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.media.decoding.colours import to_rgb

if TYPE_CHECKING:
    import av

    from pflx.runtime.media.decoding.converter import Converter

_WIDEST_PIXEL = 4  # what is stated beyond is a mistake of the file
_AS_GOOD_AS_SQUARE = 0.005  # of 1080 lines that is 5; many files state 1.0007 and the like, and mean 1


def orientation_of(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Transpose first, then mirror left to right, then top to bottom, as the display matrix says."""
    from av.sidedata.sidedata import Type

    side_data: Any = frame.side_data
    matrix = side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return (True, c < 0, b < 0) if abs(a) < abs(b) else (False, a < 0, d < 0)


def square_size(frame: av.VideoFrame, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Width and height of a picture with its pixels made square, not turned: none is lost, the short side grows.

    Args:
        frame: as it is stored.
        pixel_aspect: width of a pixel to its height; None for square ones.
    """
    width, height, aspect = frame.width, frame.height, pixel_aspect or Fraction(1)
    if abs(aspect - 1) <= _AS_GOOD_AS_SQUARE or not Fraction(1, _WIDEST_PIXEL) <= aspect <= _WIDEST_PIXEL:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def upright(
    frame: av.VideoFrame, size: tuple[int, int], turn: tuple[bool, bool, bool], converter: Converter
) -> UInt8Array:
    """The picture as uint8 [H, W, 3] RGB, as a player would show it.

    Args:
        frame: as it was decoded.
        size: width and height to give it before it is turned.
        turn: see `orientation_of`.
        converter: does the work.
    """
    transpose, mirror, flip = turn
    rgb = to_rgb(frame, size, converter)
    rgb = rgb.swapaxes(0, 1) if transpose else rgb
    rgb = rgb[:, ::-1] if mirror else rgb
    return rgb[::-1] if flip else rgb
