"""How lively a voice is: how far its pitch goes up and down."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from pflx.engines import Array
from pflx.runtime.generators.behaviour.habits import habit
from pflx.runtime.speaker.hearing import TICKS_PER_S, Heard

_FADING = math.exp(-1 / (habit("lively_memory") * TICKS_PER_S))
_KNOWN = habit("lively_known") * TICKS_PER_S
_REFERENCE_HZ = 100.0


def start() -> dict[str, Array]:
    """The state before the first sound: of pitches in semitones the number, their sum and that of their squares."""
    return {"excursions": np.zeros(3)}


def liveliness(heard: Heard, state: Mapping[str, Array]) -> tuple[float, dict[str, Array]]:
    """How lively the voice is at the end of a piece, 0…1: by the deviation of its pitch lately, in semitones.

    Args:
        heard: of the piece.
        state: of `start`, or of the last piece.
    """
    pitched = (heard.voice >= habit("voice")) & (heard.pitch_hz > 0)
    semitones = 12 * np.log2(heard.pitch_hz[pitched].astype(np.float64) / _REFERENCE_HZ)
    weights = _FADING ** np.arange(len(semitones) - 1, -1, -1)
    fresh = np.array([weights.sum(), weights @ semitones, weights @ np.square(semitones)])
    count, total, squares = sums = state["excursions"] * _FADING ** len(semitones) + fresh
    if count < _KNOWN:
        return 0.0, {"excursions": sums}
    deviation = math.sqrt(max(squares / count - (total / count) ** 2, 0.0))
    lowest, highest = habit("lively_from"), habit("lively_to")
    return min(max((deviation - lowest) / (highest - lowest), 0.0), 1.0), {"excursions": sums}
