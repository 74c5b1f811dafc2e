"""BeLFusion: one graph from the speaker's emotion to M reactions, its ten denoising steps unrolled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pflx.engines import Array, GeneratorInfo
from pflx.export.generators.protocol import ExportSettings, GeneratorFamily
from pflx.export.models import BeLFusion, BeLFusionWindow
from pflx.export.models.belfusion import EMOTION, LATENT, WINDOW
from pflx.export.recipes import COEFFICIENTS, Recipe, floats
from pflx.runtime.generators import SpeakerWindow

RECIPE = Recipe(
    "belfusion",
    inputs={"speaker_emotion": floats(1, WINDOW, EMOTION), "noise": floats("samples", LATENT)},
    outputs={
        "coefficients": floats("samples", WINDOW, COEFFICIENTS),
        "emotion": floats("samples", WINDOW, EMOTION),
    },
    tolerance={"coefficients": 1e-4, "emotion": 1e-4},
    source="baseline_react2024 0c3ce58, BeLFusion, online",
)


class BeLFusionParts:
    """BeLFusion on its way into a bundle; see `GeneratorParts`."""

    name = "belfusion"
    window = hop = WINDOW
    sample_rate_hz = 16_000
    info = GeneratorInfo(name="belfusion", window=WINDOW, hop=WINDOW, needs=["emotion"], graphs={"react": RECIPE.graph})
    recipes: Sequence[Recipe] = (RECIPE,)

    def __init__(self, network: BeLFusion) -> None:
        self._network = network

    @property
    def generic(self) -> Mapping[str, Tensor]:
        """None: it takes no persons."""
        return {}

    def modules(self) -> Mapping[str, nn.Module]:
        """Graph → the module that is exported."""
        return {RECIPE.graph: BeLFusionWindow(self._network).eval()}

    def published(self, windows: Sequence[SpeakerWindow], noise: Sequence[Array]) -> Tensor:
        """The reaction of the network as published: every window by itself."""
        segments = [
            self._network(torch.from_numpy(speaker["emotion"][None]), torch.from_numpy(given))[0]
            for speaker, given in zip(windows, noise, strict=True)
        ]
        return torch.cat(segments, dim=1)


def _make(networks: Mapping[str, nn.Module], _: ExportSettings) -> BeLFusionParts:
    return BeLFusionParts(cast(BeLFusion, networks["belfusion"]))


FAMILY = GeneratorFamily(
    name="belfusion", networks=("belfusion",), make=_make, files={"belfusion": ("belfusion_mlp", "belfusion_vae")}
)
