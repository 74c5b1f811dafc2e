"""Clips whose pictures carry two small numbers, and a detector that reads them, also after H.264."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pflx.runtime import Face
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.media.video_writer import VideoWriter

Boxes = Sequence[tuple[float, float, float, float]]


def write_noted(path: Path, clip: int, frames: int, size: tuple[int, int]) -> Path:
    """A grey clip that carries its own number, below 16, and that of each frame, below 64."""
    picture = np.full((size[1], size[0], 3), 128, np.uint8)
    picture[:16, :16] = 16 * clip + 8
    with VideoWriter(path, size=size) as writer:
        for frame in range(frames):
            picture[:16, 16:32] = 4 * frame + 2
            writer.write(picture[None])
    return path


class NotedFaces:
    """Finds in frame f of clip c what `faces[c][f]` says."""

    def __init__(self, faces: Sequence[Sequence[Boxes]]) -> None:
        self._faces = faces

    def detect(self, frame_rgb: UInt8Array) -> list[Face]:
        clip, frame = int(frame_rgb[8, 8, 0]) // 16, int(frame_rgb[8, 24, 0]) // 4
        return [Face((x, y, width, height), 1.0) for x, y, width, height in self._faces[clip][frame]]
