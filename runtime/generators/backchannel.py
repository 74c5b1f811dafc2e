"""A listener without a network: it nods where the speaker's prosody invites it, mirrors, sways and blinks."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from pflx.engines import Array, BundleError, Engine, GeneratorInfo
from pflx.runtime.frames.coefficients import POSE
from pflx.runtime.frames.event import as_events
from pflx.runtime.generators.behaviour import (
    attending,
    breathing,
    cues,
    gestures,
    glancing,
    liveliness,
    mirroring,
    nodding,
)
from pflx.runtime.generators.behaviour.attending import Attention
from pflx.runtime.generators.behaviour.gestures import AXES, BLINK_NOISE, TO_PICTURE
from pflx.runtime.generators.behaviour.habits import habit
from pflx.runtime.generators.protocol import GeneratorOptions, Reaction, SpeakerWindow, State
from pflx.runtime.speaker.hearing import BLOCK_FRAMES, TICKS_PER_S, Hearing
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

_FPS = 25
_FRAME_S = 1 / _FPS
_TICKS = TICKS_PER_S // _FPS
_PITCH = 0
_UP, _NEARER = POSE.stop - 2, POSE.stop - 1


class BackchannelGenerator:
    """M listener reactions from the speaker's sound and coefficients, made by rules; what is random is noise.

    All that it does comes later than what it answers by more than a segment lasts: so a segment lies a whole hop ahead
    of the speaker, and waits for nothing.

    The head's angles are the sum of nods, mirrored pose, idle sway and a lean towards who speaks, followed with bounded
    velocity and acceleration; it comes a little nearer to who speaks, and rises and falls with the breath. Eyes stay
    with the speaker while the head turns, and step from point to point of that face.

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
    is_joined = True
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
        sizes = (self._sway_noise, nodding.NOISE, BLINK_NOISE, breathing.NOISE, glancing.NOISE)
        *self._cuts, self.noise_size = accumulate(sizes)

    def start(self, samples: int) -> State:
        """The state before the first step: a listener at rest, and silence."""
        return {
            **self._hearing.start(),
            **cues.start(),
            **liveliness.start(),
            **mirroring.start(),
            **nodding.start(samples),
            **attending.start(),
            "smile": np.zeros(3),
            "blinks": gestures.no_blinks(samples),
            "sway": gestures.no_sway(samples),
            "breath": breathing.start(samples),
            "eyes": glancing.start(samples),
            "head": np.zeros((samples, 2, AXES)),
            "answers": np.ones(1),
        }

    def told(self, state: State, *, answers: bool) -> State:
        """See `TurnTaker.told`."""
        nods = state["nods"] if answers else gestures.without_plans(state["nods"])
        return {**state, "nods": nods, "answers": np.array([float(answers)])}

    def step(
        self, speaker: SpeakerWindow, state: State, noise: Array, steps: int | None = None
    ) -> tuple[Reaction, State]:
        """One step; see `Generator.step`."""
        draws = np.asarray(noise, np.float64)
        sway_draws, nod_draws, blink_draws, breath_draws, eye_draws = np.split(draws, self._cuts, axis=1)
        heard, hearing = self._hearing.step(speaker["audio"].reshape(-1), state)
        found, cue_state = cues.find_cues(heard, state)
        nods, spoken = nodding.answer(found, state, nod_draws) if state["answers"][0] else nodding.as_before(state)
        voice = heard.voice.reshape(self.hop, _TICKS).mean(axis=1)
        attention, attending_state = attending.attend(voice, found.beginning, state, _FRAME_S)
        lively, lively_state = liveliness.liveliness(heard, state)
        closed, blinks = gestures.blink(state["blinks"], self._times, self._step_s, blink_draws)
        idle, sway = gestures.sway(state["sway"], _FRAME_S, sway_draws.reshape(len(draws), self.hop, AXES, 2))
        rise, breath = breathing.breathe(state["breath"], self._times, self._step_s, breath_draws)
        glances, eyes = glancing.glance(state["eyes"], self._times, self._step_s, eye_draws)
        mirrored, mirror_state = mirroring.mirror(speaker["coefficients"], state, _FRAME_S)
        smile, smile_state = mirroring.smile_at(habit("lively_smile") * lively, mirrored[:, AXES], state, _FRAME_S)
        targets = idle + mirrored[:, :AXES] * TO_PICTURE
        targets[..., _PITCH] += gestures.nod_pitch(nods, self._times) + habit("attention_deg") * attention.level
        heads = self._followed(state["head"], targets)
        events = [
            *gestures.begun_nods(nods, self._times, _FRAME_S),
            *gestures.begun_blinks(state["blinks"], blinks, self._times, _FRAME_S),
            *attending.begun(attending_state, self._times, _FRAME_S, len(draws)),
            *mirroring.begun_smile(smile, mirrored[:, AXES], float(state["smile"][2]), len(draws)),
        ]
        after = {
            **hearing,
            **cue_state,
            **lively_state,
            **mirror_state,
            **attending.later(attending_state, self._step_s),
            "nods": gestures.later_nods(nods, self._step_s),
            "spoken": spoken,
            "smile": smile_state,
            "blinks": blinks,
            "sway": sway,
            "breath": breath,
            "eyes": eyes,
            "head": heads[-1],
            "answers": state["answers"],
        }
        angles = np.stack([head[:, 0] for head in heads], axis=1)
        made = _listening(_seen(angles, closed, angles * attention.gaze[:, None], glances, rise), smile, attention)
        return Reaction(made, rest=_seen(idle, closed, idle, glances, rise), events=as_events(events)), after

    def _followed(self, head: Array, targets: Array) -> list[Array]:
        heads = []
        for target in np.moveaxis(targets, 1, 0):
            head = gestures.follow_bounded(head, target, _FRAME_S)
            heads.append(head)
        return heads


def _seen(angles: Array, closed: Array, away: Array, glances: Array, rise: Array) -> Array:
    """`gestures.head_and_eyes`, looking aside by [M, hop, 2] in deg, and up with the breath by [M, hop] in dm."""
    away = away + np.pad(glances, ((0, 0), (0, 0), (0, AXES - 2)))
    coefficients = gestures.head_and_eyes(angles, closed, away)
    coefficients[..., _UP] = rise
    return coefficients


def _listening(coefficients: Array, smile: Array, attention: Attention) -> Array:
    """The same with a smile [hop], and attention."""
    brows = habit("beginning_brow") * attention.beginning
    weights = {
        **dict.fromkeys(("mouthSmileLeft", "mouthSmileRight"), smile),
        **dict.fromkeys(("cheekSquintLeft", "cheekSquintRight"), smile / 2),
        **dict.fromkeys(("browOuterUpLeft", "browOuterUpRight"), brows),
        "browInnerUp": np.maximum(habit("attention_brow") * attention.level, brows),
    }
    for name, weight in weights.items():
        coefficients[..., ARKIT_NAMES.index(name)] = weight
    coefficients[..., _NEARER] = habit("attention_near") * attention.level
    return coefficients
