"""Coefficient tracks → pictures of the portraits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pflx.engines import Array, BundleError, Engine, RendererInfo
from pflx.engines.placement import fetch, kept
from pflx.runtime.landmarks import FaceMesh
from pflx.runtime.pace import BATCHES
from pflx.runtime.portrait import load_portrait
from pflx.runtime.warp import frame_portrait

Portrait: TypeAlias = str | Path | npt.NDArray[np.uint8]
Features: TypeAlias = Mapping[str, Array]
"""What the renderer keeps of one portrait, by name."""

COEFFICIENTS = 58

WINDOW_RADIUS = 13
"""Coefficient frames that a renderer may read on each side of a frame. Source: PIRender, semantic radius."""


class Renderer:
    """PIRender.

    Args:
        engines: the `portrait` and `frame` graphs.
        size: side of a picture in pixels.
        ahead: pictures that are put under way before the first of them is waited for. On a CPU it is 1: a batch is no
            faster there, costs memory, and delays the first.

    Attributes:
        radius: coefficient frames that a picture reads on each side of its own.
    """

    radius = WINDOW_RADIUS

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


class WarpRenderer(Renderer):
    """The portrait itself, moved: no network but the one that finds the face in it.

    Args:
        engines: see `Renderer`.
        size: see `Renderer`.
        ahead: see `Renderer`.
        mesh: finds the face.

    Raises:
        DetectorFileError: a model file is missing or its SHA-256 is wrong.
    """

    radius = 0

    def __init__(
        self, engines: Mapping[str, Engine], size: int, ahead: int = 1, *, mesh: FaceMesh | None = None
    ) -> None:
        super().__init__(engines, size, ahead)
        self._mesh = mesh or FaceMesh()

    def prepare(self, portrait: Portrait) -> Features:
        """See `Renderer.prepare`. The picture is cut around the head of its largest face.

        Raises:
            PortraitError: it cannot be read, or shows no face.
        """
        picture, geometry = frame_portrait(portrait, self._size, self._mesh)
        return {"source": kept(self._portrait.run({"portrait": picture[None]})["source"]), "geometry": geometry[None]}


RENDERERS: Mapping[str, type[Renderer]] = {"pirender": Renderer, "warp": WarpRenderer}


def make_renderer(info: RendererInfo, engines: Mapping[str, Engine], ahead: int = 1) -> Renderer:
    """The renderer a bundle names.

    Args:
        info: of the manifest.
        engines: by graph name.
        ahead: see `Renderer`.

    Raises:
        BundleError: there is no such renderer.
    """
    by_role = {role: engines[graph] for role, graph in info.graphs.items()}
    return _kind(info)(by_role, info.size, ahead)


def reach(info: RendererInfo) -> int:
    """Coefficient frames that a picture of a bundle's renderer reads on each side of its own.

    Raises:
        BundleError: there is no such renderer.
    """
    return _kind(info).radius


def _kind(info: RendererInfo) -> type[Renderer]:
    if info.name not in RENDERERS:
        raise BundleError(
            f"The bundle's renderer is '{info.name}'; this pflx has {', '.join(RENDERERS)}. Export it again."
        )
    return RENDERERS[info.name]
