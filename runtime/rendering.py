"""Coefficient tracks → pictures of the portraits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pflx.engines import Array, Engine
from pflx.runtime.portrait import load_portrait

Portrait: TypeAlias = str | Path | npt.NDArray[np.uint8]
Features: TypeAlias = Mapping[str, Array]
"""What the renderer keeps of one portrait, by name."""

WINDOW_RADIUS = 13
"""Coefficient frames that a rendered frame reads on each side. Source: PIRender, semantic radius."""


class Renderer:
    """PIRender. Frames are rendered one at a time: on a CPU a batch is no faster, costs memory, and delays the first.

    Args:
        engines: the `portrait` and `frame` graphs.
        size: side of a picture in pixels.
    """

    def __init__(self, engines: Mapping[str, Engine], size: int) -> None:
        self._portrait, self._frame = engines["portrait"], engines["frame"]
        self._size = size

    def prepare(self, portrait: Portrait) -> Features:
        """What depends on a portrait alone, computed once.

        Args:
            portrait: a picture file, or uint8 [H, W, 3] RGB.

        Raises:
            PortraitError: it cannot be read.
        """
        picture = load_portrait(portrait, self._size)
        # Copies, for an engine may reuse what it returns.
        return {name: value.copy() for name, value in self._portrait.run({"portrait": picture[None]}).items()}

    def render(self, track: Array, frame: int, features: Features) -> npt.NDArray[np.uint8]:
        """Render one frame.

        Args:
            track: float32 [T, 58], mean face subtracted.
            frame: index into `track`; the window around it is clamped to the track's ends.
            features: of the portrait, from `prepare`.

        Returns:
            uint8 [size, size, 3] RGB, which the engine may reuse in its next call.
        """
        feeds = {**features, "coefficients": track[None], "frames": np.array([frame])}
        image: npt.NDArray[np.uint8] = self._frame.run(feeds)["image"][0, 0]
        return image
