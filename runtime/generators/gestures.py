"""What a listener's head and lids do: nods, blinks, sway, and a head that follows with bounded acceleration.

Angles are in degrees: pitch (nose down is positive), yaw (nose to the picture's left), roll (clockwise in the picture).
States are float64 arrays of M samples; times are in s.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from pflx.engines import Array
from pflx.runtime.generators.habits import habit

NOD_NOISE, BLINK_NOISE, AXES = 5, 1, 3
"""Normal numbers that one nod and one gap between blinks take; and angles of the head."""

_LONG_AGO = 60.0
_TWO = 2.0  # deviations that a draw is cut at
_BLINK_S = habit("blink_closing") + habit("blink_opening")
_NORMAL = NormalDist()


def no_nods(samples: int) -> Array:
    """Float64 [M, 2, 4]: of the last two nods the time since their start, depth, period and number of dips."""
    nods = np.zeros((samples, 2, 4))
    nods[..., 0] = _LONG_AGO
    return nods


def plan_nod(nods: Array, start_s: float, noise: Array) -> Array:
    """The nods with one more, of the samples that answer and have done with the one before by then.

    Args:
        nods: of `no_nods`, or of the last step.
        start_s: when it is to start, 0 or more.
        noise: float64 [M, 5], standard normal.
    """
    answers, late, depth, period, dips = np.clip(noise, -_TWO, _TWO).T
    start = np.maximum(0.0, start_s + habit("nod_jitter") * late)
    new = np.stack(
        [
            -start,
            habit("nod_deg") * (1 + habit("nod_spread") * depth),
            habit("nod_period") * (1 + habit("nod_period_spread") * period),
            1 + (dips > _exceeded_by("nod_twice")) + (dips > _exceeded_by("nod_thrice")).astype(np.float64),
        ],
        axis=-1,
    )
    last = nods[:, 1]
    is_free = (start + last[:, 0] >= habit("apart")) & (last[:, 0] + start >= last[:, 2] * last[:, 3])
    has_place = nods[:, 0, 0] >= nods[:, 0, 2] * nods[:, 0, 3]
    planned = is_free & has_place & (answers < -_exceeded_by("nod_share"))
    return np.where(planned[:, None, None], np.stack([last, new], axis=1), nods)


def nod_pitch(nods: Array, times: Array) -> Array:
    """Pitch of the nods at times from now, [M, T]: dips that begin and end at rest, each less deep."""
    since, depth, period, dips = (nods[..., index, None] for index in range(4))
    phase = (since + times) / np.maximum(period, 1e-3)
    is_on = (phase >= 0) & (phase < dips)
    phase = np.where(is_on, phase, 0.0)
    dip = depth * habit("nod_fading") ** np.floor(phase) * (1 - np.cos(2 * np.pi * phase)) / 2
    return np.asarray(dip.sum(axis=1))


def later(ages: Array, step_s: float) -> Array:
    """Times since something, a step later; what is long ago stays so."""
    return np.minimum(ages + step_s, _LONG_AGO)


def no_blinks(samples: int) -> Array:
    """Float64 [M, 2]: time since the last blink began, and until the next one."""
    return np.tile([_LONG_AGO, 60 / habit("blinks") / 2], (samples, 1))


def blink(blinks: Array, times: Array, step_s: float, noise: Array) -> tuple[Array, Array]:
    """Lids over one step, in which one blink may begin.

    Args:
        blinks: of `no_blinks`, or of the last step.
        times: [T] from now.
        step_s: duration of the step, no longer than the shortest gap.
        noise: [M], standard normal: the gap after the blink that begins in the step.

    Returns:
        How far the lids are closed, [M, T] in 0…1, and the next state.
    """
    since, until = blinks.T
    closed = np.maximum(_lid(since[:, None] + times), _lid(times - until[:, None]))
    begins = until < step_s
    gap = np.clip(_median_gap() * np.exp(habit("blink_spread") * noise), habit("blink_least"), habit("blink_most"))
    after = np.where(begins, step_s - until, later(since, step_s)), np.where(begins, until + gap, until) - step_s
    return closed, np.stack(after, axis=-1)


def no_sway(samples: int) -> Array:
    """Float64 [M, 3, 2]: the three angles and their velocities."""
    return np.zeros((samples, AXES, 2))


def sway(state: Array, frame_s: float, noise: Array) -> tuple[Array, Array]:
    """The idle head: three Ornstein-Uhlenbeck processes of second order, sampled exactly, in soft bounds.

    Args:
        state: of `no_sway`, or of the last step.
        frame_s: from frame to frame.
        noise: [M, T, 3, 2], standard normal.

    Returns:
        Angles [M, T, 3], and the next state.
    """
    turn, spread = _sway_matrices(frame_s)
    frames = []
    for draws in np.moveaxis(noise, 1, 0):
        state = state @ turn.T + draws @ spread.T
        frames.append(state[..., 0])
    deviations = np.array([habit(f"idle_{axis}") for axis in ("pitch", "yaw", "roll")])
    bound = habit("idle_most")
    return deviations * bound * np.tanh(np.stack(frames, axis=1) / bound), state


def follow(position: Array, velocity: Array, target: Array, rate: Array | float, step_s: float) -> tuple[Array, Array]:
    """A critically damped second-order system a step later, exactly, for a target that stands still meanwhile."""
    away, fading = position - target, np.exp(-rate * step_s)
    pull = velocity + rate * away
    return target + (away + pull * step_s) * fading, (velocity - rate * pull * step_s) * fading


def follow_bounded(head: Array, target: Array, frame_s: float) -> Array:
    """The head a frame later, on its way to the target.

    Args:
        head: [M, 2, 3], angles and velocities.
        target: [M, 3].
        frame_s: from frame to frame.

    Returns:
        The same, whose velocities and their changes are within bounds, and whose angles changed by their mean.
    """
    angles, speed = head[:, 0], head[:, 1]
    _, wanted = follow(angles, speed, target, habit("follow_rate"), frame_s)
    most = habit("most_change") * frame_s
    after = np.clip(speed + np.clip(wanted - speed, -most, most), -habit("most_speed"), habit("most_speed"))
    return np.stack([angles + (speed + after) / 2 * frame_s, after], axis=1)


def _exceeded_by(name: str) -> float:
    """What a normal number exceeds with the probability of that name."""
    return _NORMAL.inv_cdf(1 - habit(name))


def _median_gap() -> float:
    """Of log-normal gaps with the mean that the rate of blinks asks for."""
    return 60 / habit("blinks") * float(np.exp(-(habit("blink_spread") ** 2) / 2))


def _lid(since: Array) -> Array:
    """How far a lid is closed at times since its blink began: down smoothly, up smoothly."""
    closing = np.clip(since / habit("blink_closing"), 0, 1)
    opening = np.clip((since - habit("blink_closing")) / habit("blink_opening"), 0, 1)
    return _eased(closing) - _eased(opening)


def _eased(share: Array) -> Array:
    return np.asarray(share * share * (3 - 2 * share))


def _sway_matrices(frame_s: float) -> tuple[Array, Array]:
    """What a frame does to (angle, velocity) of unit deviation, and what normal numbers add; both [2, 2].

    The process x'' = -2w·x' - w²·x + noise has in the long run deviations 1 of x and w of x'.
    """
    rate = habit("idle_rate")
    turn = np.exp(-rate * frame_s) * np.array(
        [[1 + rate * frame_s, frame_s], [-(rate**2) * frame_s, 1 - rate * frame_s]]
    )
    spread = np.diag([1, rate**2])
    return turn, np.linalg.cholesky(spread - turn @ spread @ turn.T)
