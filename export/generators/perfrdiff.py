"""PerFRDiff: the speaker's window in one graph, a denoising step in another, a person's in a third, emotion last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pflx.engines import Array, GeneratorInfo, TensorSpec
from pflx.export.generators.protocol import ExportSettings, GeneratorFamily
from pflx.export.models import EmotionRegressor, PerFRDiff, PerFRDiffCondition, PerFRDiffDenoise, PerFRDiffPersonal
from pflx.export.models.perfrdiff import DIM, EMOTION, MFCC, N_HEADS, N_LAYERS, WINDOW
from pflx.export.recipes import COEFFICIENTS, Recipe, floats
from pflx.runtime.generators import SpeakerWindow
from pflx.runtime.generators.diffusion import TIMESTEPS

HOP = 25
MFCC_RANGE = (-110.0, 85.0)
"""Bounds of scaled MFCC where the checkpoint's are not known: those of a typical clip of speech.

The public code scales every clip by its own smallest and largest value. These are the medians of such values, rounded,
over four clips of speech of 7 to 30 s at 44.1 kHz (-125 to -73, and 83 to 105).
"""
_SOURCE = "PFLPosNet 6c274a2, TransformerDenoiser_v5, config/pos/pos.yaml"


class PerFRDiffParts:
    """PerFRDiff on its way into a bundle; see `GeneratorParts`."""

    name = "perfrdiff"
    window, hop = WINDOW, HOP
    sample_rate_hz = 44_100

    def __init__(self, network: PerFRDiff, emotion: EmotionRegressor | None, settings: ExportSettings) -> None:
        """Take the networks.

        Args:
            network: the denoiser.
            emotion: from coefficients; None to go without.
            settings: `mfcc_range`, `use_past_frames` and `persons` count.
        """
        self._network, self._emotion = network, emotion
        self._mfcc_range = settings.mfcc_range or MFCC_RANGE
        self._use_past_frames, self._persons = settings.use_past_frames, settings.persons

    @property
    def info(self) -> GeneratorInfo:
        """What the manifest says of it."""
        optional = {"personal": self._persons, "emotion": self._emotion is not None}
        roles = ("condition", "denoise", *(role for role, is_there in optional.items() if is_there))
        return GeneratorInfo(
            name=self.name,
            window=self.window,
            hop=self.hop,
            needs=["coefficients", "mfcc"],
            graphs={role: f"perfrdiff_{role}" for role in roles},
            settings=dict(zip(("mfcc_min", "mfcc_max"), self._mfcc_range, strict=True)),
        )

    @property
    def recipes(self) -> Sequence[Recipe]:
        """Its graphs."""
        made = [*recipes(use_past_frames=self._use_past_frames)]
        if self._persons:
            made.append(personal_recipe(use_past_frames=self._use_past_frames))
        return made if self._emotion is None else [*made, EMOTION_RECIPE]

    @property
    def generic(self) -> Mapping[str, Tensor]:
        """Weights in whose place a person's come; see `GeneratorParts`."""
        weights = self._network.state_dict() if self._persons else {}
        return {key: value for key, value in weights.items() if key in PerFRDiffPersonal.EDITED}

    def modules(self) -> Mapping[str, nn.Module]:
        """Graph → the module that is exported."""
        past = self._use_past_frames
        made: dict[str, nn.Module] = {
            "perfrdiff_condition": PerFRDiffCondition(self._network, use_past_frames=past).eval(),
            "perfrdiff_denoise": PerFRDiffDenoise(self._network, use_past_frames=past).eval(),
        }
        if self._persons:
            made["perfrdiff_personal"] = PerFRDiffPersonal(self._network, use_past_frames=past).eval()
        return made if self._emotion is None else {**made, "perfrdiff_emotion": self._emotion}

    def published(self, windows: Sequence[SpeakerWindow], noise: Sequence[Array]) -> Tensor:
        """The reaction of the network as published, all 50 calls; MFCC are scaled as in a live session."""
        start, made = torch.from_numpy(noise[0]).reshape(-1, WINDOW, COEFFICIENTS), list[Tensor]()
        past = torch.zeros_like(start) if self._use_past_frames else None
        low, high = (np.float32(bound) for bound in self._mfcc_range)
        for step, speaker in enumerate(windows):
            if step == 1:
                continue  # the second half of window 0
            mfcc = torch.from_numpy((speaker["mfcc"] - low) / (high - low))[None].clamp(0, 1)
            window = self._network.sample(start, torch.from_numpy(speaker["coefficients"])[None], mfcc, past)
            past = None if past is None else window
            made.append(window[:, HOP:] if step else window)
        return torch.cat(made, dim=1)[:, : HOP * len(windows)]


def recipes(*, use_past_frames: bool = False) -> tuple[Recipe, Recipe]:
    """The graphs of a window and of a step."""
    n_samples, n_tokens = ("samples", 3 * WINDOW) if use_past_frames else (1, 2 * WINDOW)
    window = floats("samples", WINDOW, COEFFICIENTS)
    memory = {
        "keys": floats(N_LAYERS, 2, n_samples, N_HEADS, DIM // N_HEADS, n_tokens),
        "values": floats(N_LAYERS, 2, n_samples, N_HEADS, n_tokens, DIM // N_HEADS),
    }
    shift = {"shift": window} if use_past_frames else {}
    speaker = {"coefficients": floats(1, WINDOW, COEFFICIENTS), "mfcc": floats(1, WINDOW, MFCC)}
    condition = Recipe(
        "perfrdiff_condition",
        inputs={**speaker, **({"past": window} if use_past_frames else {})},
        outputs={**memory, **shift},
        tolerance=dict.fromkeys((*memory, *shift), 1e-4),
        source=_SOURCE,
        scale={"coefficients": 0.3, "mfcc": 0.3, "past": 0.3},
    )
    step = {"step": TensorSpec((1,), np.dtype(np.int64)), "update": floats(3)}
    denoise = Recipe(
        "perfrdiff_denoise",
        inputs={"x": window, "previous": window, **step, **memory, **shift},
        outputs={"next": window, "clean": window},
        tolerance={"next": 1e-4, "clean": 1e-4},
        source=_SOURCE,
        scale={"previous": 0.3, "shift": 0.1},
        below={"step": len(TIMESTEPS)},
    )
    return condition, denoise


def personal_recipe(*, use_past_frames: bool = False) -> Recipe:
    """The graph of a step with the weights of a person."""
    _, denoise = recipes(use_past_frames=use_past_frames)
    own = {name: floats(*shape) for name, shape in PerFRDiffPersonal.EDITED.items()}
    shift = {name: spec for name, spec in denoise.inputs.items() if name == "shift"}
    rest = {name: spec for name, spec in denoise.inputs.items() if name not in shift}
    scale = {**denoise.scale, **dict.fromkeys(own, DIM**-0.5)}
    return replace(denoise, graph="perfrdiff_personal", inputs={**rest, **own, **shift}, scale=scale)


EMOTION_RECIPE = Recipe(
    "perfrdiff_emotion",
    inputs={"coefficients": floats("samples", HOP, COEFFICIENTS)},
    outputs={"emotion": floats("samples", HOP, EMOTION)},
    tolerance={"emotion": 1e-5},
    source="PFLPosNet 6c274a2, coeff_reg",
    scale={"coefficients": 0.3},
)


def _make(networks: Mapping[str, nn.Module], settings: ExportSettings) -> PerFRDiffParts:
    network, emotion = cast(PerFRDiff, networks["perfrdiff"]), networks.get("perfrdiff_emotion")
    return PerFRDiffParts(network, cast("EmotionRegressor | None", emotion), settings)


FAMILY = GeneratorFamily(
    name="perfrdiff",
    networks=("perfrdiff",),
    make=_make,
    optional=("perfrdiff_emotion",),
    settings=frozenset({"mfcc_range", "use_past_frames", "persons"}),
)
