"""Coefficient tracks → pictures of the portraits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pflx.engines import Array, Engine

WINDOW_RADIUS = 13
"""Coefficient frames that a rendered frame reads on each side. Source: PIRender, semantic radius."""


class Renderer:
    """PIRender for one or more portraits.

    What depends on a portrait alone is computed here, once. Frames are rendered one at a time: on a CPU a batch is
    no faster, costs memory for every frame in it, and delays the first.

    Args:
        engines: the `portrait` and `frame` graphs.
        portraits: uint8 [size, size, 3] RGB each; sample m shows portrait m modulo their number.
    """

    def __init__(self, engines: Mapping[str, Engine], portraits: Sequence[npt.NDArray[np.uint8]]) -> None:
        self._engine = engines["frame"]
        self._features = [_kept(engines["portrait"].run({"portrait": portrait[None]})) for portrait in portraits]

    def render(self, track: Array, frame: int, sample: int) -> npt.NDArray[np.uint8]:
        """Render one frame.

        Args:
            track: float32 [T, 58] of this sample, mean face subtracted.
            frame: index into `track`; the window around it is clamped to the track's ends.
            sample: chooses the portrait.

        Returns:
            uint8 [size, size, 3] RGB.
        """
        features = self._features[sample % len(self._features)]
        feeds = {**features, "coefficients": track[None], "frames": np.array([frame])}
        image: npt.NDArray[np.uint8] = self._engine.run(feeds)["image"][0, 0].copy()
        return image


def _kept(results: Mapping[str, Array]) -> dict[str, Array]:
    """Copies of what an engine returned and may reuse in its next call."""
    return {name: value.copy() for name, value in results.items()}
