"""The pictures of a clip at 25 a second: which one is shown when, and turned upright."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.frames.timing import FPS
from pflx.runtime.media.decoder import LONGEST_GAP_S, TIME_TOLERANCE_S, DecodedStream, stamp_s
from pflx.runtime.media.decoding.converter import Converter
from pflx.runtime.media.decoding.fields import whole_pictures
from pflx.runtime.media.orientation import orientation_of, square_size, upright

if TYPE_CHECKING:
    import av


_ROUNDING = 1e-6  # of a slot: what a sum of floats may be off
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


@dataclass(frozen=True)
class _Place:
    """When a picture is shown, in seconds from the clip's start, and at what width and height, not turned."""

    start_s: float
    end_s: float
    size: tuple[int, int]


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


def shown_pictures(
    stream: DecodedStream, origin_s: float, size: tuple[int, int], *, square: bool = True
) -> Iterator[UInt8Array]:
    """The picture shown at 0, 1/25, 2/25 … s, uint8 [H, W, 3] each; only what is shown is made RGB.

    Args:
        stream: the decoded pictures.
        origin_s: the stamp that is 0 s.
        size: width and height, upright; pictures of another shape are fitted into it.
        square: make pixels square that are not.
    """
    # One converter for all, and one look at the side data: asking a frame for either makes a reference cycle with it,
    # and hundreds of whole pictures would wait for Python's garbage collector.
    converter, turn = Converter(), None
    shown: av.VideoFrame | None = None
    rgb = np.zeros((0, 0, 3), np.uint8)
    for frame, own_size in _by_slot(whole_pictures(_placed(stream, _PictureClock(origin_s), square))):
        turn = turn or orientation_of(frame)
        if frame is not shown:
            shown, rgb = frame, fit_picture(upright(frame, own_size, turn, converter), size)
        yield rgb


def _placed(stream: DecodedStream, clock: _PictureClock, square: bool) -> Iterator[tuple[av.VideoFrame, _Place]]:
    """Each picture with its time and size."""
    for frame in stream:
        start_s = clock.place(frame)
        size = square_size(frame, stream.pixel_aspect if square else None)
        yield frame, _Place(start_s, start_s + clock.gap_s, size)


def _by_slot(pictures: Iterator[tuple[av.VideoFrame, _Place]]) -> Iterator[tuple[av.VideoFrame, tuple[int, int]]]:
    """What is shown in each 25th of a second.

    A picture belongs to the slot whose start it is nearest to, and of several the nearest is shown; a slot without one
    repeats the latest.
    """
    slot = 0
    nearest = latest = None
    for frame, place in pictures:
        new = (frame, place)
        own = max(0, _slot_of(place.start_s))
        if nearest is None or latest is None:
            yield from repeat((frame, place.size), own)
            slot, nearest = own, new
        elif own > slot:
            yield nearest[0], nearest[1].size
            yield from repeat((latest[0], latest[1].size), own - slot - 1)
            slot, nearest = own, new
        elif abs(place.start_s - slot / FPS) < abs(nearest[1].start_s - slot / FPS):
            nearest = new
        latest = new
    if nearest is not None and latest is not None:
        if slot == 0 or slot < n_slots(latest[1].end_s):  # else the last one is nearest to the end itself
            yield nearest[0], nearest[1].size
        yield from repeat((latest[0], latest[1].size), n_slots(latest[1].end_s) - slot - 1)


def n_slots(duration_s: float) -> int:
    """How many frames of 1/25 s come nearest to a time."""
    return _slot_of(duration_s)


def _slot_of(time_s: float) -> int:
    """The slot whose start is nearest; of two the earlier one."""
    return math.ceil(time_s * FPS - 0.5 - _ROUNDING)
