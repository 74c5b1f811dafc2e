"""What the export asks of a renderer, and the two that there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pflx.engines import Array, RendererInfo
from pflx.export.models import PIRender
from pflx.export.models.pirender_deploy import FrameRenderer, PortraitFeatures
from pflx.export.models.warp import WarpField, WarpFrame, WarpPortrait
from pflx.export.recipes import Recipe, pirender_recipes, warp_recipes
from pflx.runtime.rendering.layers import one_layer
from pflx.runtime.rendering.warp import typical_geometry


class RendererParts(Protocol):
    """A renderer on its way into a bundle."""

    @property
    def name(self) -> str:
        """Its name in manifests; the runtime has a renderer of the same name."""
        ...

    @property
    def weights(self) -> int:
        """How many it has."""
        ...

    def info(self, size: int) -> RendererInfo:
        """What the manifest says of it, for frames of `size` pixels a side."""
        ...

    def recipes(self, size: int) -> Sequence[Recipe]:
        """Its graphs: the one of a portrait first, the one of a frame last."""
        ...

    def modules(self, mean_face: Tensor, size: int) -> Mapping[str, nn.Module]:
        """Graph → the module that is exported: eval mode, float32, takes and gives what the recipe says."""
        ...

    def found(self, portrait: Array) -> Mapping[str, Array]:
        """What the runtime finds in a portrait by itself and gives the graphs besides.

        Args:
            portrait: uint8 [1, size, size, 3], the one that the export is checked with.
        """
        ...

    def published(self, track: Tensor, mean_face: Tensor, portrait: Array, frames: Sequence[int]) -> Array:
        """Frames as the public code renders them, in PyTorch.

        Args:
            track: float32 [1, T, 58], mean face subtracted.
            mean_face: float32 [58].
            portrait: uint8 [1, size, size, 3].
            frames: indices into T.

        Returns:
            uint8 [K, size, size, 3].
        """
        ...


class PIRenderParts:
    """PIRender on its way into a bundle; see `RendererParts`."""

    name = "pirender"

    def __init__(self, network: PIRender) -> None:
        self._network = network

    @property
    def weights(self) -> int:
        """How many it has."""
        return sum(parameter.numel() for parameter in self._network.parameters())

    def info(self, size: int) -> RendererInfo:
        """What the manifest says of it."""
        return RendererInfo(
            name=self.name, size=size, graphs={"portrait": "pirender_portrait", "frame": "pirender_frame"}
        )

    def recipes(self, size: int) -> Sequence[Recipe]:
        """Its graphs."""
        return pirender_recipes(size)

    def modules(self, mean_face: Tensor, size: int) -> Mapping[str, nn.Module]:
        """Graph → the module that is exported."""
        return {
            "pirender_portrait": PortraitFeatures(self._network),
            "pirender_frame": FrameRenderer(self._network, mean_face),
        }

    def found(self, portrait: Array) -> Mapping[str, Array]:
        """Nothing."""
        return {}

    def published(self, track: Tensor, mean_face: Tensor, portrait: Array, frames: Sequence[int]) -> Array:
        """Frames of the network as published: the edge of the track is repeated, floats are truncated."""
        source = torch.from_numpy(portrait).float().permute(0, 3, 1, 2) / 127.5 - 1
        whole, images = track + mean_face, []
        with torch.inference_mode():
            for frame in frames:
                rows = torch.arange(frame - 13, frame + 14).clamp(0, track.shape[1] - 1)
                images.append(self._network(source, whole[:, rows].transpose(1, 2))["fake_image"])
            pixels = ((torch.cat(images).double() * 0.5 + 0.5) * 255).clamp(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).numpy()


class WarpParts:
    """The weightless renderer on its way into a bundle; see `RendererParts`."""

    name = "warp"
    weights = 0

    def info(self, size: int) -> RendererInfo:
        """What the manifest says of it."""
        graphs = {"portrait": "warp_portrait", "field": "warp_field", "frame": "warp_frame"}
        return RendererInfo(name=self.name, size=size, graphs=graphs)

    def recipes(self, size: int) -> Sequence[Recipe]:
        """Its graphs, which serve every size."""
        return warp_recipes()

    def modules(self, mean_face: Tensor, size: int) -> Mapping[str, nn.Module]:
        """Graph → the module that is exported. The portrait stands for the mean face."""
        return {"warp_portrait": WarpPortrait(), "warp_field": WarpField(), "warp_frame": WarpFrame()}

    def found(self, portrait: Array) -> Mapping[str, Array]:
        """The geometry of a typical portrait, which shows itself in one layer."""
        geometry = typical_geometry(portrait.shape[1])[None]
        return {**one_layer(portrait[0]).feeds(), "geometry": geometry, "shown": np.zeros((1, 6), np.float32)}

    def published(self, track: Tensor, mean_face: Tensor, portrait: Array, frames: Sequence[int]) -> Array:
        """Frames of the modules in PyTorch, for there is no other code."""
        *layers, geometry, shown = (torch.from_numpy(value) for value in self.found(portrait).values())
        with torch.inference_mode():
            features = WarpPortrait()(*layers)
            images: Array = WarpFrame()(*features, geometry, shown, track, torch.tensor(frames))[0].numpy()
        return images
