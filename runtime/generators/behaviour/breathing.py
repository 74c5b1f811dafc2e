"""How a listener breathes: its head and, with it, its shoulders rise and fall a little."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from pflx.engines import Array
from pflx.runtime.generators.behaviour import gestures
from pflx.runtime.generators.behaviour.habits import habit

NOISE = 2
"""Normal numbers that a step takes."""

_TWO = 2.0  # deviations that a draw is cut at
_NORMAL = NormalDist()


def start(samples: int) -> Array:
    """Float64 [M, 2]: time since the breath began, and how long it lasts; below 0, that is still to be drawn."""
    return np.tile([0.0, -1.0], (samples, 1))


def breathe(breath: Array, times: Array, step_s: float, noise: Array) -> tuple[Array, Array]:
    """The rise over one step, in which one breath may end and the next one begin.

    Args:
        breath: of `start`, or of the last step.
        times: [T] from now.
        step_s: duration of the step, shorter than a breath.
        noise: [M, 2], standard normal: how long the next breath lasts, and how much of the first one is over when the
            listener begins.

    Returns:
        By how much the head is up, [M, T] in dm, 0 or more; and the next state.
    """
    since, lasts = breath.T
    drawn = 60 / habit("breaths") * (1 + habit("breath_spread") * np.clip(noise[:, 0], -_TWO, _TWO))
    begins = lasts < 0
    since = np.where(begins, drawn * [_NORMAL.cdf(share) for share in noise[:, 1].tolist()], since)
    lasts = np.where(begins, drawn, lasts)
    at = since[:, None] + times
    shares = at / np.maximum(lasts, 1e-3)[:, None], (at - lasts[:, None]) / drawn[:, None]
    rise = habit("breath_rise") * np.maximum(*map(_lung, shares))
    ends = since + step_s >= lasts
    after = np.where(ends, since + step_s - lasts, since + step_s), np.where(ends, drawn, lasts)
    return rise, np.stack(after, axis=-1)


def _lung(share: Array) -> Array:
    """How full it is, in 0…1, when that share of a breath is over; empty before and after."""
    drawn = habit("breath_in")
    level = np.clip(np.where(share < drawn, share / drawn, (1 - share) / (1 - drawn)), 0, 1)
    return gestures.eased(level)
