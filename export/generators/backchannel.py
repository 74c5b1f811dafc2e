"""The backchannel listener: rules of the runtime, without any network or graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pflx.engines import Array, GeneratorInfo
from pflx.export.generators.protocol import ExportSettings, GeneratorFamily
from pflx.export.recipes import Recipe
from pflx.runtime.generators import SpeakerWindow, make_generator
from pflx.runtime.speaker.hearing import SAMPLE_RATE_HZ

HOP = 8
"""Frames of a step: the shortest hop that there is a PosNet for and that whole looks of the voice network fill."""


class BackchannelParts:
    """The backchannel listener on its way into a bundle; see `GeneratorParts`."""

    name = "backchannel"
    window = hop = HOP
    sample_rate_hz = SAMPLE_RATE_HZ
    recipes: Sequence[Recipe] = ()

    @property
    def info(self) -> GeneratorInfo:
        """What the manifest says of it."""
        return GeneratorInfo(
            name=self.name, window=self.window, hop=self.hop, needs=["audio", "coefficients"], graphs={}
        )

    @property
    def generic(self) -> Mapping[str, Tensor]:
        """None: it takes no persons."""
        return {}

    def modules(self) -> Mapping[str, nn.Module]:
        """None."""
        return {}

    def published(self, windows: Sequence[SpeakerWindow], noise: Sequence[Array]) -> Tensor:
        """The reaction of the runtime's generator, for there is no other."""
        generator = make_generator(self.info, {})
        state, segments = generator.start(1), []
        for window, draws in zip(windows, noise, strict=True):
            reaction, state = generator.step(window, state, draws)
            segments.append(reaction.coefficients)
        return torch.from_numpy(np.concatenate(segments, axis=1))


def _make(_: Mapping[str, nn.Module], __: ExportSettings) -> BackchannelParts:
    return BackchannelParts()


FAMILY = GeneratorFamily(name="backchannel", networks=(), make=_make)
