"""Turning pictures upright, as the display matrix of their clip says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pflx.runtime.frames.arrays import UInt8Array

if TYPE_CHECKING:
    import av
    from av.video.reformatter import VideoReformatter


def orientation_of(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Transpose first, then mirror left to right, then top to bottom, as the display matrix says."""
    from av.sidedata.sidedata import Type

    side_data: Any = frame.side_data
    matrix = side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return (True, c < 0, b < 0) if abs(a) < abs(b) else (False, a < 0, d < 0)


def upright(
    frame: av.VideoFrame, size: tuple[int, int], turn: tuple[bool, bool, bool], reformatter: VideoReformatter
) -> UInt8Array:
    """The picture as uint8 [H, W, 3] RGB of `size` (width, height), as a player would show it."""
    transpose, mirror, flip = turn
    width, height = size[::-1] if transpose else size
    converted = reformatter.reformat(frame, width=width, height=height, format="rgb24")
    rgb = np.asarray(converted.to_ndarray(), np.uint8)
    rgb = rgb.swapaxes(0, 1) if transpose else rgb
    rgb = rgb[:, ::-1] if mirror else rgb
    return rgb[::-1] if flip else rgb
