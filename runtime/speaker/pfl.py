"""Portrait face localisation: one fixed crop rectangle for a whole session."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pflx.engines import PflxError
from pflx.runtime.frames.arrays import UInt8Array

Box: TypeAlias = Sequence[float]
"""A face as x, y, width, height in pixels."""

Mode: TypeAlias = Literal["release", "paper"]
CropMode: TypeAlias = Literal["release", "paper", "floating"]
"""The two fixed regions, and the one that follows the nose: see `fixed_region` and `floating_region`."""
Edges: TypeAlias = tuple[float, float, float, float]

# The released tracker starts from this previous box (l, t, r, b), which it uses when frame 0 has no face.
_NO_PREVIOUS: Edges = (2000.0, 2000.0, 0.0, 0.0)


class PflError(PflxError, ValueError):
    """Boxes, a mode or a region that no crop can be made of."""


@dataclass(frozen=True)
class Region:
    """A crop rectangle in frame pixels, right and bottom exclusive. It may leave the frame (see `crop`)."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.bottom - self.top

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom."""
        return self.left, self.top, self.right, self.bottom


def fixed_region(
    boxes: npt.ArrayLike,
    frame_size: tuple[int, int],
    mode: Mode = "release",
    window: int = 256,
    padding: int = 20,
) -> Region:
    """The one rectangle that holds the face for the whole session.

    `release` is the arithmetic of the released code, to the pixel: always a `window` square, truncated
    toward zero, `(0, 0, window, window)` when there is no box. In a frame smaller than the window, or with
    a face larger than it, the square may leave the frame; `crop` then repeats the border pixels, where the
    released code cuts a wrong rectangle or drops the frame.

    `paper` is the formula: centred on the mean of the face centres, as wide and high as the faces reached,
    at most `window`. What the formula leaves open is decided here: everything stays float until the end;
    the size is at least 1 px and at most the frame; a rectangle that leaves the frame is shifted back in;
    the four edges are rounded half up last; no box gives the centre square. `padding` is not used.

    Args:
        boxes: float or int [N, 4], x, y, width, height in pixels of the chosen face, one row per frame
            that has one.
        frame_size: (width, height) in pixels.
        mode: which of the two.
        window: side of the square, or the largest side, in pixels.
        padding: pixels around the mean box (release only).

    Raises:
        PflError: boxes are not [N, 4] finite numbers, the frame is empty, or the mode is unknown.

    Source: PFL, Eq. 7-8 (paper); PFLPosNet, `PFL/`, third bounds routine (release).
    """
    rows = _rows(boxes)
    if min(*frame_size, window) < 1:
        raise PflError(f"A crop needs a frame and a window of at least 1 px, got {frame_size} and {window}.")
    if mode == "release":
        return _release(rows, frame_size, window, padding)
    if mode == "paper":
        return _paper(rows, frame_size, window)
    raise PflError(f"Unknown PFL mode '{mode}'. Take 'release' or 'paper'.")


def _rows(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    rows = np.asarray(boxes, np.float64)
    rows = rows.reshape(0, 4) if rows.size == 0 else rows
    if rows.ndim != 2 or rows.shape[1] != 4 or not np.isfinite(rows).all():
        raise PflError(f"Boxes are finite numbers [N, 4] (x, y, width, height), got shape {list(rows.shape)}.")
    return rows


def _release(rows: npt.NDArray[np.float64], frame_size: tuple[int, int], window: int, padding: int) -> Region:
    if len(rows) == 0:
        return Region(0, 0, window, window)
    corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)
    left, top, right, bottom = (int(math.fsum(edge) / len(rows)) for edge in corners.T)
    left, top = max(0, left - padding), max(0, top - padding)
    right, bottom = min(frame_size[0], right + padding), min(frame_size[1], bottom + padding)
    longest = max(right - left, bottom - top)
    if longest > window:
        left, top = _shrunk(left, right, window / longest), _shrunk(top, bottom, window / longest)
        return Region(left, top, left + window, top + window)
    left, right = _released_span(left, right, frame_size[0], window)
    top, bottom = _released_span(top, bottom, frame_size[1], window)
    return Region(left, top, right, bottom)


def _shrunk(low: int, high: int, ratio: float) -> int:
    return int(low + ((high - low) - (high - low) * ratio) / 2)


def _released_span(low: int, high: int, limit: int, window: int) -> tuple[int, int]:
    """`window` pixels around the middle, shifted inside 0..limit; the upper border has the last word."""
    middle = (low + high) / 2
    low, high = int(middle - window / 2), int(middle + window / 2)
    if low < 0:
        low, high = 0, window
    if high > limit:
        low, high = limit - window, limit
    return low, high


def _paper(rows: npt.NDArray[np.float64], frame_size: tuple[int, int], window: int) -> Region:
    if len(rows) == 0:
        return centre_square(frame_size, window)
    left, right = _paper_span(rows[:, 0], rows[:, 2], frame_size[0], window)
    top, bottom = _paper_span(rows[:, 1], rows[:, 3], frame_size[1], window)
    return Region(left, top, right, bottom)


def _paper_span(
    starts: npt.NDArray[np.float64], lengths: npt.NDArray[np.float64], limit: int, window: int
) -> tuple[int, int]:
    extent = float((starts + lengths).max() - starts.min())
    size = min(max(extent, 1.0), window, limit)
    low = math.fsum(starts + lengths / 2) / len(starts) - size / 2
    low = min(max(low, 0.0), limit - size)
    return math.floor(low + 0.5), math.floor(low + size + 0.5)


def centre_square(frame_size: tuple[int, int], side: int | None = None) -> Region:
    """The square in the middle of the frame, of `side` pixels or as large as the frame allows."""
    width, height = frame_size
    side = min(width, height, side or width)
    left, top = (width - side) // 2, (height - side) // 2
    return Region(left, top, left + side, top + side)


def choose_face(boxes: Sequence[Box], previous: Box | None) -> int | None:
    """Index of the face to follow: at first the largest, then the one nearest to `previous`; None if none.

    Nearest is the smallest sum of absolute edge differences; the first wins ties. The released code starts
    with the topmost face instead (`track_boxes`), which with several people is rarely the one who speaks to
    the camera.
    """
    if not boxes:
        return None
    if previous is None:
        return max(range(len(boxes)), key=lambda i: boxes[i][2] * boxes[i][3])
    return _nearest(boxes, _edges(previous))


def track_boxes(detections: Sequence[Sequence[Box]]) -> npt.NDArray[np.float64]:
    """The face the released code chooses in each frame, float64 [N, 4]; frames without a face give no row.

    Frame 0 takes the topmost face, later frames the one nearest to the last chosen box; the first wins
    ties. When frame 0 has no face, the released code compares with an artificial box, which amounts to the
    smallest face.

    Args:
        detections: per frame, the boxes found in it.

    Source: PFLPosNet, `PFL/`, per-frame choice.
    """
    chosen: list[Box] = []
    for index, boxes in enumerate(detections):
        box = choose_released(boxes, chosen[-1] if chosen else None, index)
        chosen += [] if box is None else [box]
    return _rows(chosen)


def choose_released(boxes: Sequence[Box], previous: Box | None, index: int) -> Box | None:
    """One step of `track_boxes`: the face of a frame; None if it has none.

    Args:
        boxes: found in the frame.
        previous: the box that was chosen last, if any was.
        index: of the frame in the clip.
    """
    if not boxes:
        return None
    if index == 0:
        return min(boxes, key=lambda box: box[1])
    return boxes[_nearest(boxes, _NO_PREVIOUS if previous is None else _edges(previous))]


def floating_region(nose: tuple[float, float], window: int = 256) -> Region:
    """The `window` square around the nose of one frame, rounded half up; it may leave the frame (see `crop`).

    Cropping by it takes the translation of the head out of the pictures: a baseline to compare a fixed region with.

    Args:
        nose: x, y in pixels.
        window: side of the square in pixels.

    Raises:
        PflError: the nose is nowhere, or the window is empty.
    """
    if window < 1 or not all(map(math.isfinite, nose)):
        raise PflError(f"A window of {window} px around {nose} is none. Give finite numbers and at least 1 px.")
    left, top = (math.floor(middle - window / 2 + 0.5) for middle in nose)
    return Region(left, top, left + window, top + window)


def _edges(box: Box) -> Edges:
    x, y, width, height = box
    return x, y, x + width, y + height


def _nearest(boxes: Sequence[Box], previous: Edges) -> int:
    def distance(index: int) -> float:
        return sum(abs(a - b) for a, b in zip(_edges(boxes[index]), previous, strict=True))

    return min(range(len(boxes)), key=distance)


def crop(frames: UInt8Array, region: Region, size: int = 256) -> UInt8Array:
    """The region of every frame, `size` pixels square.

    Where the region leaves the frame the border pixels are repeated. Bilinear resize (OpenCV's default)
    only if the region is not already `size` square; a region inside the frame that needs none is returned
    as a view.

    Args:
        frames: uint8 [T, H, W, 3].
        region: the rectangle in pixels of `frames`.
        size: side of the result in pixels.

    Returns:
        uint8 [T, size, size, 3].
    """
    import cv2

    found = cut(frames, region)
    if found.shape[1:3] == (size, size):
        return found
    resized = np.empty((len(found), size, size, 3), np.uint8)
    for source, target in zip(found, resized, strict=True):
        cv2.resize(source, (size, size), dst=target)
    return resized


def cut(frames: UInt8Array, region: Region) -> UInt8Array:
    """The region of every frame in its own size; a view, where it lies in the frame.

    Args:
        frames: uint8 [T, H, W, 3].
        region: the rectangle in pixels of `frames`. Where it leaves the frame the border pixels are repeated.

    Returns:
        uint8 [T, region height, region width, 3].
    """
    if region.width < 1 or region.height < 1:
        raise PflError(f"{region} is empty: there is nothing to crop.")
    height, width = frames.shape[1:3]
    if region.left >= 0 and region.top >= 0 and region.right <= width and region.bottom <= height:
        return frames[:, region.top : region.bottom, region.left : region.right]
    rows = np.clip(np.arange(region.top, region.bottom), 0, height - 1)
    columns = np.clip(np.arange(region.left, region.right), 0, width - 1)
    found: UInt8Array = frames[:, rows[:, None], columns[None]]
    return found


def centred(frame: UInt8Array, nose: tuple[float, float] | None) -> UInt8Array:
    """A whole frame, moved by whole pixels so that the nose is in its middle; border pixels are repeated.

    What `floating_region` is to a crop this is to the whole picture: it takes the head's translation out.

    Args:
        frame: uint8 [H, W, 3].
        nose: x, y in pixels; None leaves the frame as it is.
    """
    if nose is None:
        return frame
    height, width = frame.shape[:2]
    left, top = (math.floor(middle - side / 2 + 0.5) for middle, side in zip(nose, (width, height), strict=True))
    moved: UInt8Array = cut(frame[None], Region(left, top, left + width, top + height))[0]
    return moved


def centre_crop(frames: UInt8Array, size: int) -> UInt8Array:
    """The middle `size` square of uint8 [..., H, W, 3], as a view.

    Source: torchvision `center_crop` (offsets rounded half to even), with which the public models cut 256
    to 224.
    """
    height, width = frames.shape[-3:-1]
    if min(height, width) < size:
        raise PflError(f"A {width}x{height} picture has no {size} px centre square.")
    top, left = round((height - size) / 2), round((width - size) / 2)
    return frames[..., top : top + size, left : left + size, :]
