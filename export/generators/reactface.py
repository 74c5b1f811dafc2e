"""ReactFace in window mode: the speaker's side in one graph, M reactions to it in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pflx.engines import Array, GeneratorInfo, TensorSpec
from pflx.export.generators.protocol import ExportSettings, GeneratorFamily
from pflx.export.models import ReactFace, ReactFaceListener, ReactFaceSpeaker
from pflx.export.recipes import COEFFICIENTS, FRAME_SIDE, UINT8, Recipe, floats
from pflx.runtime.generators import SpeakerWindow
from pflx.runtime.generators.reactface import add_moments, normalise

WINDOW = 8
SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = 640
FEATURES = 128
_SOURCE = "ReactFace fa4b3a4, window mode"


class ReactFaceParts:
    """ReactFace on its way into a bundle; see `GeneratorParts`."""

    name = "reactface"
    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, network: ReactFace) -> None:
        self._network = network
        self.window = self.hop = network.window

    @property
    def info(self) -> GeneratorInfo:
        """What the manifest says of it."""
        return GeneratorInfo(
            name=self.name,
            window=self.window,
            hop=self.hop,
            needs=["video", "audio"],
            graphs={"speaker": "reactface_speaker", "listener": "reactface_listener"},
        )

    @property
    def recipes(self) -> Sequence[Recipe]:
        """Its graphs."""
        return recipes(self.window)

    @property
    def generic(self) -> Mapping[str, Tensor]:
        """None: it takes no persons."""
        return {}

    def modules(self) -> Mapping[str, nn.Module]:
        """Graph → the module that is exported."""
        return {
            "reactface_speaker": ReactFaceSpeaker(self._network),
            "reactface_listener": ReactFaceListener(self._network),
        }

    def published(self, windows: Sequence[SpeakerWindow], noise: Sequence[Array]) -> Tensor:
        """The reaction of the network as published; sound is normalised as in a live session."""
        moments = np.zeros(3)
        reaction, motion = torch.zeros(1, self.window, COEFFICIENTS), torch.zeros(1, FEATURES)
        segments = []
        for step, (speaker, eps) in enumerate(zip(windows, noise, strict=True)):
            video = torch.from_numpy(speaker["video"][None]).float().permute(0, 1, 4, 2, 3) / 127.5 - 1
            sound = speaker["audio"].reshape(-1)
            moments = add_moments(moments, sound)
            audio = torch.from_numpy(normalise(sound, moments)[None])
            reaction, motion = self._network(video, audio, reaction, motion, torch.from_numpy(eps), step == 0)
            segments.append(reaction)
        return torch.cat(segments, dim=1)


def recipes(window: int) -> tuple[Recipe, Recipe]:
    """The graphs of a generator that takes `window` frames per step."""
    return _speaker_recipe(window), _listener_recipe(window)


def _speaker_recipe(window: int) -> Recipe:
    return Recipe(
        "reactface_speaker",
        inputs={
            "video": TensorSpec(("speakers", window, FRAME_SIDE, FRAME_SIDE, 3), UINT8),
            "audio": floats("speakers", SAMPLES_PER_FRAME * window),
        },
        outputs={
            "speaker_motion": floats("speakers", window, FEATURES),
            "speaker_audio": floats("speakers", 2 * window, FEATURES),
        },
        tolerance={"speaker_motion": 2e-4, "speaker_audio": 1e-3},
        source=_SOURCE,
    )


def _listener_recipe(window: int) -> Recipe:
    return Recipe(
        "reactface_listener",
        inputs={
            "speaker_motion": floats(1, window, FEATURES),
            "speaker_audio": floats(1, 2 * window, FEATURES),
            "past_reaction": floats("samples", window, COEFFICIENTS),
            "past_motion": floats("samples", FEATURES),
            "eps": floats("samples", FEATURES),
            "first": TensorSpec((1,), np.dtype(np.bool_)),
        },
        outputs={"reaction": floats("samples", window, COEFFICIENTS), "motion": floats("samples", FEATURES)},
        tolerance={"reaction": 2e-4, "motion": 2e-4},
        source=_SOURCE,
        scale={"past_reaction": 0.3},
    )


def _config(_: str, settings: ExportSettings) -> Mapping[str, int]:
    return {"window": settings.window or WINDOW}


def _make(networks: Mapping[str, nn.Module], _: ExportSettings) -> ReactFaceParts:
    return ReactFaceParts(cast(ReactFace, networks["reactface"]))


FAMILY = GeneratorFamily(
    name="reactface", networks=("reactface",), make=_make, settings=frozenset({"window"}), config=_config
)
