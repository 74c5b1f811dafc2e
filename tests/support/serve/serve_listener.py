"""A listener for the browser's tests: it shows the portrait, moved by the pose, and nods when somebody speaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import msgspec
import numpy as np
from support.fakes import FUNCTIONS, HOP, INPUTS, ONE_FACE, OUTPUTS, fake_manifest
from support.sample_bundle import F32

from pflx.engines import Array, Engine, FakeEngine, TensorSpec
from pflx.runtime import Listener, SpeakerSettings

SIDE = 128
PITCH = 52
SHIFT_PX = 24
"""How far down the picture goes at a pitch of 1."""

LOUD = 0.02
"""Root mean square of sound that is taken for speech."""

_NOD_HZ = 1.5
_SOURCE = TensorSpec(("portraits", SIDE, SIDE, 3), np.dtype(np.uint8))
_TRACK = {
    "coefficients": TensorSpec(("portraits", "track", 58), F32),
    "frames": TensorSpec(("frames",), np.dtype(np.int64)),
}


def nodding_listener(portrait: Any, *, before: Callable[[], object] = lambda: None) -> Listener:
    """A listener of `SIDE` px; `before` is called before each picture."""

    def show(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        before()
        pitches = feeds["coefficients"][0, feeds["frames"], PITCH]
        return {"image": np.stack([moved(feeds["source"][0], float(pitch)) for pitch in pitches])[None]}

    images = TensorSpec(("portraits", "frames", SIDE, SIDE, 3), np.dtype(np.uint8))
    engines: dict[str, Engine] = {
        "reactface_speaker": FakeEngine(_hear, INPUTS["reactface_speaker"], OUTPUTS["reactface_speaker"]),
        "reactface_listener": FakeEngine(_nod, INPUTS["reactface_listener"], OUTPUTS["reactface_listener"]),
        "posnet": FakeEngine(FUNCTIONS["posnet"], INPUTS["posnet"], OUTPUTS["posnet"]),
        "pirender_portrait": FakeEngine(
            lambda feeds: {"source": feeds["portrait"]}, {"portrait": _SOURCE}, {"source": _SOURCE}
        ),
        "pirender_frame": FakeEngine(show, {"source": _SOURCE, **_TRACK}, {"image": images}),
    }
    manifest = fake_manifest(untrained=None)
    renderer = msgspec.structs.replace(manifest.renderer, size=SIDE)
    manifest = msgspec.structs.replace(manifest, renderer=renderer)
    return Listener(manifest, engines, portrait, lookahead=0, speaker=SpeakerSettings(detector=ONE_FACE))


def moved(portrait: Array, pitch: float) -> Array:
    """The portrait, so many px further down; what is missing above is the first row."""
    matrix = np.array([[1, 0, 0], [0, 1, SHIFT_PX * pitch]], np.float32)
    return np.asarray(cv2.warpAffine(portrait, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _hear(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    loudness = np.sqrt((feeds["audio"].reshape(1, 2 * HOP, 320) ** 2).mean(axis=-1))
    sound = np.zeros((1, 2 * HOP, 128), np.float32)
    sound[..., 0] = loudness
    return {"speaker_motion": np.zeros((1, HOP, 128), np.float32), "speaker_audio": sound}


def _nod(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    """Nods as long as it is loud; the phase goes on from segment to segment in the past motion."""
    past = feeds["past_motion"]
    speaks = float(feeds["speaker_audio"][0, :, 0].max() > LOUD)
    phase = past[:, :1] + np.arange(1, HOP + 1, dtype=np.float32) / 25 * _NOD_HZ * speaks
    reaction = np.zeros((len(past), HOP, 58), np.float32)
    reaction[..., PITCH] = np.abs(np.sin(np.pi * phase)) * speaks
    motion = np.zeros_like(past)
    motion[:, 0] = phase[:, -1]
    return {"reaction": reaction, "motion": motion}


def slow(clock: Callable[[], float]) -> Callable[[], None]:
    """What takes as long as the clock says, in s."""
    return lambda: time.sleep(clock())
