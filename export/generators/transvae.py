"""Trans-VAE: one graph for the first step, one for all later ones, which look back on a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pflx.engines import Array, GeneratorInfo, TensorSpec
from pflx.export.errors import ComponentError
from pflx.export.generators.protocol import ExportSettings, GeneratorFamily
from pflx.export.models import TransVAE, TransVAEFirst, TransVAENext
from pflx.export.models.transvae import DIM, EMOTION, MAX_FRAMES, MFCC
from pflx.export.recipes import COEFFICIENTS, FRAME_SIDE, UINT8, Recipe, floats
from pflx.runtime.generators import SpeakerWindow

WINDOW = 8
WINDOWS = (8, 16)
HISTORY = 64
"""Frames that the runtime looks back on unless asked otherwise: 2.6 s. See docs/decisions.md for what it costs."""
SAMPLE_RATE_HZ = 44_100
_SOURCE = "baseline_react2024 0c3ce58, Trans-VAE, online"


class TransVAEParts:
    """Trans-VAE on its way into a bundle; see `GeneratorParts`."""

    name = "transvae"
    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, network: TransVAE, history: int = HISTORY) -> None:
        if history > MAX_FRAMES - network.window:
            raise ComponentError(
                f"A history of {history} frames is more than Trans-VAE takes. Give at most "
                f"{MAX_FRAMES - network.window}, or 0 for all frames of a clip of up to 30 s."
            )
        self._network, self._history = network, history
        self.window = self.hop = network.window

    @property
    def info(self) -> GeneratorInfo:
        """What the manifest says of it."""
        return GeneratorInfo(
            name=self.name,
            window=self.window,
            hop=self.hop,
            needs=["video", "mfcc"],
            graphs={"first": "transvae_first", "next": "transvae_next"},
            settings={"history": float(self._history)},
        )

    @property
    def recipes(self) -> Sequence[Recipe]:
        """Its graphs."""
        return _first_recipe(self.window), _next_recipe(self.window)

    @property
    def generic(self) -> Mapping[str, Tensor]:
        """None: it takes no persons."""
        return {}

    def modules(self) -> Mapping[str, nn.Module]:
        """Graph → the module that is exported."""
        return {
            "transvae_first": TransVAEFirst(self._network).eval(),
            "transvae_next": TransVAENext(self._network).eval(),
        }

    def published(self, windows: Sequence[SpeakerWindow], noise: Sequence[Array]) -> Tensor:
        """The reaction of the network as published, which starts from the first frame in every step.

        With a bounded history it starts as many frames before the window.
        """
        video = torch.cat([torch.from_numpy(speaker["video"]) for speaker in windows])[None]
        mfcc = torch.cat([torch.from_numpy(speaker["mfcc"]) for speaker in windows])[None]
        coefficients, emotion = torch.zeros(1, 0, COEFFICIENTS), torch.zeros(1, 0, EMOTION)
        for step, eps in enumerate(noise):
            begin, now = self._history_of(step), step * self.window
            seen = slice(begin, now + self.window)
            pictures = video[:, seen].float().permute(0, 1, 4, 2, 3) / 127.5 - 1
            past = coefficients[:, begin:], emotion[:, begin:]
            new = self._network(pictures, mfcc[:, seen], *past, torch.from_numpy(eps))
            coefficients, emotion = torch.cat((coefficients, new[0]), 1), torch.cat((emotion, new[1]), 1)
        return coefficients

    def _history_of(self, step: int) -> int:
        """The first frame that a step looks back on."""
        return max(0, step * self.window - self._history) if self._history else 0


def _outputs(window: int) -> dict[str, TensorSpec]:
    return {
        "coefficients": floats("samples", window, COEFFICIENTS),
        "emotion": floats("samples", window, EMOTION),
        "features": floats(window, 32, 55, 55),
        "moments": floats(window, 2, 32),
    }


def _inputs(window: int) -> dict[str, TensorSpec]:
    return {
        "video": TensorSpec((1, window, FRAME_SIDE, FRAME_SIDE, 3), UINT8),
        "mfcc": floats(1, window, MFCC),
        "eps": floats("samples", DIM),
    }


_TOLERANCE = {"coefficients": 1e-4, "emotion": 1e-4, "features": 1e-4, "moments": 1e-4}


def _first_recipe(window: int) -> Recipe:
    return Recipe("transvae_first", _inputs(window), _outputs(window), _TOLERANCE, _SOURCE)


def _next_recipe(window: int) -> Recipe:
    past = {
        "past_features": floats("history", 32, 55, 55),
        "past_moments": floats("history", 2, 32),
        "past_mfcc": floats(1, "history", MFCC),
        "past_coefficients": floats("samples", "history", COEFFICIENTS),
        "past_emotion": floats("samples", "history", EMOTION),
    }
    scale = {"past_coefficients": 0.3, "past_emotion": 0.3}
    return Recipe("transvae_next", _inputs(window) | past, _outputs(window), _TOLERANCE, _SOURCE, scale)


def _config(_: str, settings: ExportSettings) -> Mapping[str, int]:
    window = settings.window or WINDOW
    if window not in WINDOWS:
        raise ComponentError(f"Trans-VAE was trained with windows of 8 or 16 frames, got {window}. Give one of these.")
    return {"window": window}


def _make(networks: Mapping[str, nn.Module], settings: ExportSettings) -> TransVAEParts:
    history = HISTORY if settings.history is None else settings.history
    return TransVAEParts(cast(TransVAE, networks["transvae"]), history)


FAMILY = GeneratorFamily(
    name="transvae",
    networks=("transvae",),
    make=_make,
    settings=frozenset({"window", "history"}),
    config=_config,
)
