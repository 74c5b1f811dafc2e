"""How steady rendered pictures are, and how much moves in them, by optical flow (OpenCV's DIS, preset medium).

Pictures are scaled down to a shorter side of 256 pixels first, so that figures of different sizes can be compared; but
VBench's temporal flickering is of the pictures as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pflx.engines import Array
from pflx.runtime.evaluation.results import PictureFigures, UndefinedError
from pflx.runtime.evaluation.smoothness import compare_borders

if TYPE_CHECKING:
    from cv2 import DISOpticalFlow

SIDE = 256
"""Pixels of the shorter side at which pictures are compared: that of PIRender."""

_FASTEST = 0.05
"""Share of pixels that the dynamic degree is the mean of. Source: VBench (Huang et al. 2024), dynamic_degree; it uses
RAFT, here it is DIS."""
_RELATIVE, _ABSOLUTE = 0.01, 0.5
"""How well flow there and back must meet. Source: Sundaram, Brox, Keutzer 2010, eq. 5."""


@dataclass(frozen=True)
class Steps:
    """From picture to picture of one video, float64 [T - 1] each.

    Attributes:
        difference: mean absolute difference at the compared size, levels of 255.
        whole: the same of the pictures as they are.
        unexplained: what is left of it after the motion was taken out; NaN where no pixel could be followed.
        fastest: mean of the fastest 5 % of the flow, pixels.
        speed: mean of the flow, pixels.
    """

    difference: Array
    whole: Array
    unexplained: Array
    fastest: Array
    speed: Array


def judge_pictures(
    pictures: Iterable[Array], *, hop: int | None = None, path: str = "", part: str = ""
) -> PictureFigures:
    """Tell how steady the pictures of one video are. Only two of them are held at a time.

    Args:
        pictures: uint8 [H, W, 3] RGB, one by one.
        hop: frames of a segment; None: not known, and nothing is told of borders.
        path: name for the result.
        part: name for the result.

    Raises:
        UndefinedError: fewer than two pictures.
        FeedError: the hop is below 1.
    """
    return summarise([compare_pictures(pictures)], hop=hop, path=path, part=part)


def compare_pictures(pictures: Iterable[Array]) -> Steps:
    """Compare each picture of a video with the one before.

    Args:
        pictures: uint8 [H, W, 3] RGB, one by one.

    Raises:
        UndefinedError: fewer than two pictures.
    """
    flow = _Flow()
    steps = [flow.compare(*before, *after) for before, after in pairwise((each, _scaled(each)) for each in pictures)]
    if not steps:
        raise UndefinedError("flicker takes two pictures or more")
    return Steps(*map(np.array, zip(*steps, strict=True)))


def summarise(videos: Sequence[Steps], *, hop: int | None = None, path: str = "", part: str = "") -> PictureFigures:
    """The figures of videos of one length: means over all of their steps.

    Args:
        videos: one or more.
        hop: frames of a segment; None: not known, and nothing is told of borders.
        path: name for the result.
        part: name for the result.

    Raises:
        FeedError: the hop is below 1.
    """
    unexplained = np.stack([steps.unexplained for steps in videos])
    known = unexplained[np.isfinite(unexplained)]
    return PictureFigures(
        path=path,
        part=part,
        videos=len(videos),
        frames=unexplained.shape[1] + 1,
        flicker=float(np.mean([steps.difference for steps in videos])),
        temporal_flickering=float(np.mean([(255 - steps.whole.mean()) / 255 for steps in videos])),
        unexplained_flicker=float(known.mean()) if known.size else None,
        dynamic_degree=float(np.mean([steps.fastest for steps in videos])),
        flicker_at_borders=compare_borders(unexplained, hop, first=1, reach=0),
        flow_at_borders=compare_borders(np.stack([steps.speed for steps in videos]), hop, first=1, reach=0),
    )


class _Flow:
    """Compares two pictures of one size."""

    def __init__(self) -> None:
        import cv2

        self._cv2: Any = cv2
        self._dis: DISOpticalFlow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def compare(self, *pictures: Array) -> tuple[float, float, float, float, float]:
        """A step's row of `Steps`, of two pictures, each as it is and then scaled."""
        whole_before, before, whole_after, after = pictures
        difference = _difference(before, after)
        there = self._flow(before, after)
        back = self._flow(after, before)
        speeds = np.linalg.norm(there, axis=2)
        fastest = np.partition(speeds.ravel(), -(n := max(1, int(_FASTEST * speeds.size))))[-n:]
        whole = difference if before is whole_before else _difference(whole_before, whole_after)
        unexplained = self._unexplained(before, after, there, back)
        return difference, whole, unexplained, float(fastest.mean()), float(speeds.mean())

    def _flow(self, source: Array, target: Array) -> Array:
        """Pixels [H, W, 2] from each point of the source to where it is in the target."""
        grey = [self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2GRAY) for picture in (source, target)]
        return np.asarray(self._dis.calc(grey[0], grey[1], None))  # type: ignore[call-overload]

    def _unexplained(self, before: Array, after: Array, there: Array, back: Array) -> float:
        """Mean absolute difference to the picture before, moved along the flow, where the flow can be trusted."""
        height, width = after.shape[:2]
        columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        x, y = columns + back[..., 0], rows + back[..., 1]
        moved = self._cv2.remap(before, x, y, self._cv2.INTER_LINEAR, borderMode=self._cv2.BORDER_REPLICATE)
        again = self._cv2.remap(there, x, y, self._cv2.INTER_LINEAR, borderMode=self._cv2.BORDER_REPLICATE)
        apart, size = np.square(back + again).sum(axis=2), (np.square(back) + np.square(again)).sum(axis=2)
        trusted = (apart < _RELATIVE * size + _ABSOLUTE) & (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        if not trusted.any():
            return float("nan")
        return float(np.abs(after[trusted].astype(np.float32) - moved[trusted]).mean())


def _difference(before: Array, after: Array) -> float:
    return float(np.abs(after.astype(np.int16) - before).mean())


def _scaled(picture: Array) -> Array:
    """The picture at a shorter side of 256; as it is where that is smaller."""
    import cv2

    height, width = picture.shape[:2]
    scale = SIDE / min(height, width)
    if scale >= 1:
        return picture
    return np.asarray(cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA))
