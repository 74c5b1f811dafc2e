"""Where on the speaker's face a listener looks: eyes rest on a point of it, and step on to another."""

from __future__ import annotations

import numpy as np

from pflx.engines import Array
from pflx.runtime.generators.behaviour.habits import habit

NOISE = 3
"""Normal numbers that a step takes."""

_TWO = 2.0  # deviations that a draw is cut at


def start(samples: int) -> Array:
    """Float64 [M, 3]: how far up and to the picture's left the eyes look, in deg, and the time until they step on."""
    return np.zeros((samples, 3))


def glance(eyes: Array, times: Array, step_s: float, noise: Array) -> tuple[Array, Array]:
    """Eyes over one step, in which they may step on once. That takes less than a frame.

    Args:
        eyes: of `start`, or of the last step.
        times: [T] from now.
        step_s: duration of the step, no longer than the shortest look.
        noise: [M, 3], standard normal: the next point, up and left, and how long it is looked at.

    Returns:
        How far the eyes turn up and to the picture's left, [M, T, 2] in deg, beside whatever else turns them; and the
        next state.
    """
    until = eyes[:, 2]
    point = np.clip(noise[:, :2], -_TWO, _TWO) * [habit("glance_up"), habit("glance_aside")]
    mean = np.log(habit("glances_for")) - habit("glance_spread") ** 2 / 2
    look = np.clip(np.exp(mean + habit("glance_spread") * noise[:, 2]), habit("glance_least"), habit("glance_most"))
    stepped = times >= until[:, None]
    made = np.where(stepped[..., None], point[:, None], eyes[:, None, :2])
    steps = until < step_s
    kept = np.where(steps[:, None], point, eyes[:, :2])
    return made, np.column_stack([kept, np.where(steps, until + look, until) - step_s])
