"""How steady rendered pictures are, and how much moves in them, by optical flow (OpenCV's DIS, preset medium).

Pictures are scaled down to a shorter side of 256 pixels first, so that figures of different sizes can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable
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


def judge_pictures(
    pictures: Iterable[Array], *, hop: int | None = None, path: str = "", part: str = ""
) -> PictureFigures:
    """Tell how steady pictures are. Only two of them are held at a time.

    Args:
        pictures: uint8 [H, W, 3] RGB, one by one.
        hop: frames of a segment; None: not known, and nothing is told of borders.
        path: name for the result.
        part: name for the result.

    Raises:
        UndefinedError: fewer than two pictures.
        FeedError: the hop is below 1.
    """
    flow = _Flow()
    steps = [flow.compare(before, after) for before, after in pairwise(map(_scaled, pictures))]
    if not steps:
        raise UndefinedError("flicker takes two pictures or more")
    unexplained = np.array([step.unexplained for step in steps])
    known = unexplained[np.isfinite(unexplained)]
    speeds = np.array([step.speed for step in steps])
    return PictureFigures(
        path=path,
        part=part,
        frames=len(steps) + 1,
        flicker=float(np.mean([step.difference for step in steps])),
        unexplained_flicker=float(known.mean()) if known.size else None,
        dynamic_degree=float(np.mean([step.fastest for step in steps])),
        flicker_at_borders=compare_borders(unexplained[None], hop, first=1, reach=0),
        flow_at_borders=compare_borders(speeds[None], hop, first=1, reach=0),
    )


@dataclass(frozen=True)
class _Step:
    """From one picture to the next: levels of 255, and pixels.

    `unexplained` is NaN where no pixel could be followed there and back.
    """

    difference: float
    unexplained: float
    fastest: float
    speed: float


class _Flow:
    """Compares two pictures of one size."""

    def __init__(self) -> None:
        import cv2

        self._cv2: Any = cv2
        self._dis: DISOpticalFlow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def compare(self, before: Array, after: Array) -> _Step:
        there = self._flow(before, after)
        back = self._flow(after, before)
        speeds = np.linalg.norm(there, axis=2)
        fastest = np.partition(speeds.ravel(), -(n := max(1, int(_FASTEST * speeds.size))))[-n:]
        return _Step(
            difference=float(np.abs(after.astype(np.int16) - before).mean()),
            unexplained=self._unexplained(before, after, there, back),
            fastest=float(fastest.mean()),
            speed=float(speeds.mean()),
        )

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


def _scaled(picture: Array) -> Array:
    """The picture at a shorter side of 256; as it is where that is smaller."""
    import cv2

    height, width = picture.shape[:2]
    scale = SIDE / min(height, width)
    if scale >= 1:
        return picture
    return np.asarray(cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA))
