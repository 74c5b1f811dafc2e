"""Which invitations a listener answers with a nod, and how it acknowledges that somebody goes on speaking."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pflx.engines import Array
from pflx.runtime.frames.event import Cause
from pflx.runtime.generators.behaviour import gestures
from pflx.runtime.generators.behaviour.cues import Found
from pflx.runtime.generators.behaviour.gestures import NOD_NOISE, Manner
from pflx.runtime.generators.behaviour.habits import habit

_INVITED: Mapping[Cause, Manner] = {
    "low pitch": Manner("low pitch", "wait", "nod_share"),
    "pause": Manner("pause", "pause_wait", "pause_share"),
}
_ACKNOWLEDGED = Manner("long turn", "long_turn_wait", small=True)
_MOST = 2  # invitations in a segment that are looked at
_GAP = _MOST * NOD_NOISE

NOISE = _GAP + NOD_NOISE + 1
"""Normal numbers that a segment takes."""


def start(samples: int) -> dict[str, Array]:
    """The state before the first sound: no nods, and of the speech without one the seconds and how many are let go."""
    return {"nods": gestures.no_nods(samples), "spoken": np.zeros((samples, 2))}


def answer(found: Found, state: Mapping[str, Array], noise: Array) -> tuple[Array, Array]:
    """The nods with those that are planned in a step, and the speech without a nod.

    Args:
        found: in what was heard in it.
        state: of `start`, or of the last step.
        noise: float64 [M, NOISE], standard normal.
    """
    nods, (spoken, most) = state["nods"], state["spoken"].T
    draws = noise[:, : _GAP + NOD_NOISE].reshape(len(noise), _MOST + 1, NOD_NOISE)
    gap = 1 + habit("long_turn_spread") * np.clip(noise[:, -1], -2, 2)
    most = np.where(most > 0, most, habit("long_turn_first") * habit("long_turn") * gap)
    for index, (moment_s, cause) in enumerate(found.invitations[:_MOST]):
        manner = _INVITED[cause]
        planned = gestures.plan_nod(nods, max(0.0, moment_s + habit(manner.wait)), draws[:, index], manner)
        spoken = np.where(_differ(planned, nods), 0.0, spoken)
        nods = planned
    spoken = spoken + found.spoken_s
    if found.spoken_s > 0:
        due = spoken >= most
        planned = gestures.plan_nod(nods, habit(_ACKNOWLEDGED.wait), draws[:, -1], _ACKNOWLEDGED, due)
        is_new = _differ(planned, nods)
        nods = planned
        spoken, most = np.where(is_new, 0.0, spoken), np.where(is_new, habit("long_turn") * gap, most)
    return nods, np.stack([spoken, most], axis=-1)


def as_before(state: Mapping[str, Array]) -> tuple[Array, Array]:
    """The same of a listener who may not answer: nothing is planned, and what is said meanwhile needs no answer."""
    nods, spoken = state["nods"], state["spoken"]
    return nods, np.stack([np.zeros(len(spoken)), spoken[:, 1]], axis=-1)


def _differ(nods: Array, before: Array) -> Array:
    return np.asarray((nods != before).any(axis=(1, 2)))
