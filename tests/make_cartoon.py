"""Draw tests/media/portraits/cartoon.png: a face of plain shapes before stripes, for the weightless renderer to move.

python tests/make_cartoon.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

TARGET = Path(__file__).resolve().parent / "media" / "portraits" / "cartoon.png"
SIDE, FINER = 400, 3
Colour = tuple[int, int, int]

SKIN, SHADE, HAIR, LINE = (244, 204, 170), (226, 174, 140), (92, 52, 36), (70, 40, 34)
SHIRT, COLLAR, WALL, STRIPE = (58, 110, 165), (238, 238, 240), (214, 232, 222), (186, 212, 200)


class Canvas:
    """Shapes in shares of the picture's side, drawn at three times the size."""

    def __init__(self) -> None:
        self.pixels = np.full((SIDE * FINER, SIDE * FINER, 3), WALL, np.uint8)

    def ellipse(self, x: float, y: float, across: float, along: float, colour: Colour, **arc: float) -> None:
        """A whole one, filled; or, with `start`, `end` and `width`, an arc of it."""
        centre, axes = self._at((x, y)), self._at((across, along))
        width = round(arc.get("width", 0) * SIDE * FINER) or -1
        cv2.ellipse(self.pixels, centre, axes, 0, arc.get("start", 0), arc.get("end", 360), colour, width, cv2.LINE_AA)

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        """Filled."""
        cv2.fillPoly(self.pixels, [np.array([self._at(point) for point in points])], colour, cv2.LINE_AA)

    def _at(self, point: tuple[float, float]) -> tuple[int, int]:
        return round(point[0] * SIDE * FINER), round(point[1] * SIDE * FINER)

    def finished(self) -> npt.NDArray[np.uint8]:
        """uint8 [SIDE, SIDE, 3]."""
        return np.asarray(cv2.resize(self.pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def draw() -> npt.NDArray[np.uint8]:
    """The cartoon, uint8 [SIDE, SIDE, 3] RGB."""
    canvas = Canvas()
    for left in np.arange(0, 1, 0.1).tolist():
        canvas.polygon([(left, 0), (left + 0.04, 0), (left + 0.04, 1), (left, 1)], STRIPE)
    canvas.ellipse(0.5, 0.4, 0.235, 0.27, HAIR)
    canvas.ellipse(0.5, 1.05, 0.38, 0.25, SHIRT)
    canvas.polygon([(0.43, 0.6), (0.57, 0.6), (0.58, 0.84), (0.5, 0.88), (0.42, 0.84)], SHADE)
    canvas.polygon([(0.41, 0.8), (0.5, 0.89), (0.45, 0.95)], COLLAR)
    canvas.polygon([(0.59, 0.8), (0.5, 0.89), (0.55, 0.95)], COLLAR)
    for side in (-1, 1):
        canvas.ellipse(0.5 + 0.195 * side, 0.47, 0.03, 0.055, SHADE)
    canvas.ellipse(0.5, 0.455, 0.19, 0.25, SKIN)
    canvas.ellipse(0.5, 0.27, 0.2, 0.105, HAIR)
    for side in (-1, 1):
        x = 0.5 + 0.078 * side
        canvas.ellipse(x, 0.437, 0.04, 0.023, (252, 252, 250))
        canvas.ellipse(x, 0.437, 0.02, 0.022, (84, 120, 90))
        canvas.ellipse(x, 0.437, 0.01, 0.011, (20, 20, 24))
        canvas.ellipse(x - 0.006, 0.43, 0.004, 0.004, (255, 255, 255))
        canvas.ellipse(x, 0.437, 0.041, 0.025, LINE, start=185, end=355, width=0.008)
        canvas.ellipse(x, 0.437, 0.04, 0.024, SHADE, start=10, end=170, width=0.004)
        canvas.ellipse(x, 0.41, 0.05, 0.03, HAIR, start=205, end=335, width=0.014)
        canvas.ellipse(0.5 + 0.11 * side, 0.53, 0.035, 0.022, (240, 184, 156))
    canvas.ellipse(0.5, 0.52, 0.026, 0.022, SHADE, start=20, end=160, width=0.008)
    canvas.polygon([(0.495, 0.44), (0.505, 0.44), (0.51, 0.525), (0.49, 0.525)], (238, 194, 160))
    canvas.ellipse(0.5, 0.592, 0.062, 0.016, (204, 104, 98))
    canvas.ellipse(0.5, 0.582, 0.062, 0.014, LINE, start=10, end=170, width=0.006)
    return canvas.finished()


if __name__ == "__main__":
    cv2.imwrite(str(TARGET), draw()[..., ::-1])
