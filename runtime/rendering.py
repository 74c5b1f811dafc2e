"""Coefficient tracks → pictures of the portraits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pflx.engines import Array, Engine
from pflx.engines.placement import fetch, kept
from pflx.runtime.pace import BATCHES
from pflx.runtime.portrait import load_portrait

Portrait: TypeAlias = str | Path | npt.NDArray[np.uint8]
Features: TypeAlias = Mapping[str, Array]
"""What the renderer keeps of one portrait, by name."""

COEFFICIENTS = 58

WINDOW_RADIUS = 13
"""Coefficient frames that a rendered frame reads on each side. Source: PIRender, semantic radius."""


class Renderer:
    """PIRender.

    Args:
        engines: the `portrait` and `frame` graphs.
        size: side of a picture in pixels.
        ahead: pictures that are put under way before the first of them is waited for. On a CPU it is 1: a batch is no
            faster there, costs memory, and delays the first.
    """

    def __init__(self, engines: Mapping[str, Engine], size: int, ahead: int = 1) -> None:
        self._portrait, self._frame = engines["portrait"], engines["frame"]
        self._size, self.ahead = size, ahead

    def prepare(self, portrait: Portrait) -> Features:
        """What depends on a portrait alone, computed once.

        Args:
            portrait: a picture file, or uint8 [H, W, 3] RGB.

        Raises:
            PortraitError: it cannot be read.
        """
        picture = load_portrait(portrait, self._size)
        return {name: kept(value) for name, value in self._portrait.run({"portrait": picture[None]}).items()}

    def warm_up(self, features: Features) -> None:
        """Have every batch captured that may be rendered ahead, so that no session waits for it.

        Args:
            features: of any portrait.
        """
        for count in (size for size in BATCHES if size <= self.ahead and self.ahead > 1):
            track = np.zeros((count + 2 * WINDOW_RADIUS, COEFFICIENTS), np.float32)
            self.render(track, count, features)
            fetch(self.render(track, count, features)).wait()  # captured when it comes for the second time

    def render(self, track: Array, count: int, features: Features) -> Array:
        """Render frames that follow one another.

        Args:
            track: float32 [count + 26, 58], mean face subtracted: 13 frames before the first one and 13 after the last.
            count: how many.
            features: of the portrait, from `prepare`.

        Returns:
            uint8 [count, size, size, 3] RGB, which the engine may reuse in its next call. On a GPU it is being made.
        """
        frames = np.arange(WINDOW_RADIUS, WINDOW_RADIUS + count)
        images: Array = self._frame.run({**features, "coefficients": track[None], "frames": frames})["image"][0]
        return images
