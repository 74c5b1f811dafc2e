"""A listener without a network: it nods where the speaker's prosody invites it, mirrors, sways and blinks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from pflx.engines import Array, BundleError, Engine, GeneratorInfo
from pflx.runtime.frames.coefficients import COEFFICIENTS
from pflx.runtime.generators import cues, gestures, mirroring
from pflx.runtime.generators.gestures import AXES, BLINK_NOISE, NOD_NOISE
from pflx.runtime.generators.habits import habit
from pflx.runtime.generators.protocol import GeneratorOptions, Reaction, SpeakerWindow, State
from pflx.runtime.speaker.hearing import BLOCK_FRAMES, TICKS_PER_S, Hearing
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

_FPS = 25
_FRAME_S = 1 / _FPS
_TICKS = TICKS_PER_S // _FPS
_PITCH, _YAW, _ROLL = range(AXES)


class BackchannelGenerator:
    """M listener reactions from the speaker's sound and coefficients, made by rules; what is random is noise.

    All that it does comes later than what it answers by more than a segment lasts: so a segment lies a whole hop ahead
    of the speaker, and waits for nothing.

    The head's angles are the sum of nods, mirrored pose, idle sway and a lean towards who speaks, followed with bounded
    velocity and acceleration. Eyes stay with the speaker while the head turns. Translation rests.

    Rotation is FaceVerse's, (pitch, -yaw, -roll) in rad. The listener at rest has the bundle's mean face, which is all
    zeros here, and carries the half turn by which FaceVerse's heads are turned.

    Args:
        info: from the manifest. The hop is a multiple of 4 frames, and the window as long.
        engines: none.
        options: none.
        hearing: what listens to the speaker.

    Raises:
        BundleError: another hop or window.

    Source: `habits`, constant by constant.
    """

    options: frozenset[str] = frozenset()
    needs: tuple[str, ...] = ("audio", "coefficients")
    steps: tuple[int, ...] = ()
    opening = 0
    LOOK = 5
    """Frames from one look at the speaker's face to the next: what is taken over is slower than 5 looks a second."""

    def __init__(
        self,
        info: GeneratorInfo,
        engines: Mapping[str, Engine],
        options: GeneratorOptions,
        *,
        hearing: Hearing | None = None,
    ) -> None:
        if info.hop % BLOCK_FRAMES or info.window != info.hop:
            raise BundleError(
                f"The bundle's {info.name} has a window of {info.window} and a hop of {info.hop} frames; both must be "
                f"the same multiple of {BLOCK_FRAMES}. Export it again."
            )
        self.window = self.hop = self.lead = info.hop
        self._step_s = self.hop * _FRAME_S
        self._times = np.arange(self.hop) * _FRAME_S
        self._hearing = hearing or Hearing()
        self._sway_noise = self.hop * AXES * 2
        self.noise_size = self._sway_noise + NOD_NOISE + BLINK_NOISE

    def start(self, samples: int) -> State:
        """The state before the first step: a listener at rest, and silence."""
        return {
            **self._hearing.start(),
            **cues.start(),
            **mirroring.start(),
            "attention": np.zeros(1),
            "nods": gestures.no_nods(samples),
            "blinks": gestures.no_blinks(samples),
            "sway": gestures.no_sway(samples),
            "head": np.zeros((samples, 2, AXES)),
        }

    def step(
        self, speaker: SpeakerWindow, state: State, noise: Array, steps: int | None = None
    ) -> tuple[Reaction, State]:
        """One step; see `Generator.step`."""
        draws = np.asarray(noise, np.float64)
        sway_draws, nod_draws, blink_draws = np.split(draws, [self._sway_noise, self._sway_noise + NOD_NOISE], axis=1)
        heard, hearing = self._hearing.step(speaker["audio"].reshape(-1), state)
        invited, cue_state = cues.find_cues(heard, state)
        nods = state["nods"]
        for moment_s in invited:
            nods = gestures.plan_nod(nods, max(0.0, moment_s + habit("wait")), nod_draws)
        closed, blinks = gestures.blink(state["blinks"], self._times, self._step_s, blink_draws[:, 0])
        idle, sway = gestures.sway(state["sway"], _FRAME_S, sway_draws.reshape(len(draws), self.hop, AXES, 2))
        mirrored, mirror_state = mirroring.mirror(speaker["coefficients"], state, _FRAME_S)
        attention = _attention(heard.voice.reshape(self.hop, _TICKS).mean(axis=1), float(state["attention"][0]))
        targets = idle + mirrored[:, :AXES] * _TO_PICTURE
        targets[..., _PITCH] += gestures.nod_pitch(nods, self._times) + habit("attention_deg") * attention
        heads = self._followed(state["head"], targets)
        after = {
            **hearing,
            **cue_state,
            **mirror_state,
            "attention": attention[-1:],
            "nods": np.concatenate([gestures.later(nods[..., :1], self._step_s), nods[..., 1:]], axis=-1),
            "blinks": blinks,
            "sway": sway,
            "head": heads[-1],
        }
        angles = np.stack([head[:, 0] for head in heads], axis=1)
        return Reaction(self._coefficients(angles, closed, mirrored[:, AXES], attention)), after

    def _followed(self, head: Array, targets: Array) -> list[Array]:
        heads = []
        for target in np.moveaxis(targets, 1, 0):
            head = gestures.follow_bounded(head, target, _FRAME_S)
            heads.append(head)
        return heads

    def _coefficients(self, angles: Array, closed: Array, smile: Array, attention: Array) -> Array:
        """float32 [M, hop, 58] of angles in deg [M, hop, 3], lids [M, hop], smile and attention [hop]."""
        coefficients = np.zeros((*closed.shape, COEFFICIENTS), np.float32)
        weights = {
            **dict.fromkeys(("eyeBlinkLeft", "eyeBlinkRight"), closed),
            **dict.fromkeys(("mouthSmileLeft", "mouthSmileRight"), smile),
            **dict.fromkeys(("cheekSquintLeft", "cheekSquintRight"), smile / 2),
            "browInnerUp": habit("attention_brow") * attention,
            **_gaze(angles),
        }
        for name, weight in weights.items():
            coefficients[..., ARKIT_NAMES.index(name)] = weight
        coefficients[..., mirroring.ROTATION] = np.radians(angles * _TO_PICTURE)
        return coefficients


_TO_PICTURE = np.array([1.0, -1.0, -1.0])
"""FaceVerse's angles to pitch, yaw and roll in the picture, and back."""


def _attention(voice: Array, before: float) -> Array:
    """How much the listener attends to a voice, [T] in 0…1, of its probability in each frame."""
    share, attention = 1 - math.exp(-_FRAME_S / habit("attention_after")), []
    for probability in voice.tolist():
        before += share * (probability - before)
        attention.append(before)
    return np.array(attention)


def _gaze(angles: Array) -> dict[str, Array]:
    """Weights that turn the eyes back by as much as the head is turned, each [M, hop]."""
    up, left = angles[..., _PITCH] / habit("eye_deg"), angles[..., _YAW] / habit("eye_deg")
    turns = {
        ("eyeLookUpLeft", "eyeLookUpRight"): up,
        ("eyeLookDownLeft", "eyeLookDownRight"): -up,
        ("eyeLookOutLeft", "eyeLookInRight"): left,
        ("eyeLookInLeft", "eyeLookOutRight"): -left,
    }
    return {name: np.clip(turn, 0, 1) for names, turn in turns.items() for name in names}
