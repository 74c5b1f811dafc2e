"""The pictures of a clip at 25 a second: which one is shown when, and turned upright."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.frames.timing import FPS
from pflx.runtime.media.decoder import LONGEST_GAP_S, TIME_TOLERANCE_S, DecodedStream, stamp_s
from pflx.runtime.media.orientation import orientation_of, upright

if TYPE_CHECKING:
    import av


_SHORTEST_PICTURE_S = 0.002  # files of uneven rate often state one tick as the duration of every picture


def fit_picture(picture: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """A picture, whole, in a black one of another size; as it is where the size is right.

    Args:
        picture: uint8 [H, W, 3].
        size: width and height in pixels.
    """
    import cv2

    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture
    scale = min(size[0] / width, size[1] / height)
    fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture, fitted, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    whole = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = (size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2
    whole[top : top + fitted[1], left : left + fitted[0]] = small
    return whole


@dataclass
class _PictureClock:
    """Gives each picture its time from the clip's start; it never runs back and never leaps over a minute."""

    origin_s: float
    last_s: float | None = None
    gap_s: float = 1 / FPS

    def place(self, frame: av.VideoFrame) -> float:
        raw = stamp_s(frame)
        start = self._start(None if raw is None else raw - self.origin_s)
        duration_s = float((frame.duration or 0) * (frame.time_base or 0))
        if duration_s > _SHORTEST_PICTURE_S:
            self.gap_s = duration_s
        elif self.last_s is not None and start > self.last_s:
            self.gap_s = start - self.last_s
        self.last_s = start
        return start

    def _start(self, raw: float | None) -> float:
        if self.last_s is None:
            return max(raw or 0.0, 0.0)
        if raw is None or not self.last_s - TIME_TOLERANCE_S <= raw <= self.last_s + LONGEST_GAP_S:
            return self.last_s + self.gap_s
        return max(raw, self.last_s)


def shown_pictures(stream: DecodedStream, origin_s: float, size: tuple[int, int]) -> Iterator[UInt8Array]:
    """The picture shown at 0, 1/25, 2/25 … s, uint8 [H, W, 3] each; only what is shown is made RGB."""
    from av.video.reformatter import VideoReformatter

    # One converter for all, and one look at the side data: asking a frame for either makes a reference cycle with it,
    # and hundreds of whole pictures would wait for Python's garbage collector.
    reformatter, turn = VideoReformatter(), None
    index = 0
    for frame, until_s in _spans(stream, _PictureClock(origin_s)):
        turn = turn or orientation_of(frame)
        rgb = None
        while index / FPS + TIME_TOLERANCE_S < until_s:
            rgb = upright(frame, size, turn, reformatter) if rgb is None else rgb
            yield rgb
            index += 1


def _spans(stream: DecodedStream, clock: _PictureClock) -> Iterator[tuple[av.VideoFrame, float]]:
    """Each picture with the time at which it gives way to the next."""
    held = None
    for frame in stream:
        start = clock.place(frame)
        if held is not None:
            yield held, start
        held = frame
    if held is not None:
        yield held, max((clock.last_s or 0.0) + clock.gap_s, 2 * TIME_TOLERANCE_S)
