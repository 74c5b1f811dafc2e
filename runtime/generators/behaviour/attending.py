"""How a listener shows that it attends: to a voice as long as it is there, and most when somebody begins to speak."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from pflx.engines import Array
from pflx.runtime.frames.event import Noted, note
from pflx.runtime.generators.behaviour import gestures
from pflx.runtime.generators.behaviour.habits import habit

_SHOWN = 6  # rises, after which the brows are down again


class Attention(NamedTuple):
    """In each of T frames.

    Attributes:
        level: to the voice, [T] in 0…1.
        beginning: how much it shows that somebody has begun to speak, [T] in 0…1.
        gaze: share of the head's turns that the eyes make up for, [T] in 0…1.
    """

    level: Array
    beginning: Array
    gaze: Array


def start() -> dict[str, Array]:
    """The state before the first frame: how much it attends, and how long ago it showed that somebody began."""
    return {"attention": np.zeros(1), "begun": gestures.no_nods(1)[0, 0, :1]}


def attend(
    voice: Array, beginning: float | None, state: Mapping[str, Array], frame_s: float
) -> tuple[Attention, dict[str, Array]]:
    """Attention in a segment.

    Args:
        voice: [T], the probability that somebody speaks, in each frame.
        beginning: when somebody began to, in s, counted back from now; None if nobody did.
        state: of `start`, or of `later`.
        frame_s: from frame to frame.

    Returns:
        It, and the state as of the segment's beginning: the time since the brows began to rise is below 0 if they do in
        it.
    """
    share, level, levels = 1 - math.exp(-frame_s / habit("attention_after")), float(state["attention"][0]), []
    for probability in voice.tolist():
        level += share * (probability - level)
        levels.append(level)
    begun = state["begun"] if beginning is None else np.array([-max(0.0, beginning + habit("beginning_wait"))])
    since = (begun[0] + np.arange(len(voice)) * frame_s) / habit("beginning_rise")
    since = np.where((since > 0) & (since < _SHOWN), since, 0.0)
    shown = np.square(since) * np.exp(2 * (1 - since))
    gaze = habit("attention_gaze") + (1 - habit("attention_gaze")) * np.array(levels)
    return Attention(np.array(levels), shown, gaze), {"attention": np.array(levels[-1:]), "begun": begun}


def begun(state: Mapping[str, Array], times: Array, frame_s: float, samples: int) -> Iterator[Noted]:
    """The event, if the brows begin to rise in one of the frames at times from now."""
    row = math.floor(-state["begun"][0] / frame_s)
    if 0 <= row < len(times):
        yield from (note(sample, row, "attention", "voice", size=1.0) for sample in range(samples))


def later(state: Mapping[str, Array], step_s: float) -> dict[str, Array]:
    """The state after a segment."""
    return {**state, "begun": gestures.later(state["begun"], step_s)}
