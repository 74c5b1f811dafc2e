"""What a listener's head and lids do: nods, blinks, sway, and a head that follows with bounded acceleration.

Angles are in degrees: pitch (nose down is positive), yaw (nose to the picture's left), roll (clockwise in the picture).
States are float64 arrays of M samples; times are in s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from pflx.engines import Array
from pflx.runtime.frames.coefficients import COEFFICIENTS, POSE
from pflx.runtime.frames.event import CAUSES, Cause, Noted, note
from pflx.runtime.generators.behaviour.habits import habit
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

NOD_NOISE, BLINK_NOISE, AXES = 5, 2, 3
"""Normal numbers that one nod and one gap between blinks take; and angles of the head."""

ROTATION = slice(POSE.start, POSE.start + AXES)
TO_PICTURE = np.array([1.0, -1.0, -1.0])
"""FaceVerse's angles to pitch, yaw and roll in the picture, and back."""

_LIDS = ("eyeBlinkLeft", "eyeBlinkRight")
_LONG_AGO = 60.0
_TINY_S = 1e-9
_TWO = 2.0  # deviations that a draw is cut at
_BLINK_S = habit("blink_closing") + habit("blink_shut") + habit("blink_opening")
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Manner:
    """How a listener nods.

    Attributes:
        cause: why.
        wait: name of the time from there to the nod.
        share: name of the share of listeners who do; None for all.
        small: whether it is no more than a small dip.
        apart: whether it keeps its distance from the nod before; else it only waits for its end.
    """

    cause: Cause
    wait: str
    share: str | None = None
    small: bool = False
    apart: bool = True


def no_nods(samples: int) -> Array:
    """Float64 [M, 2, 5]: of the last two nods the time since their start, depth, period, number of dips and cause."""
    nods = np.zeros((samples, 2, 5))
    nods[..., 0] = _LONG_AGO
    return nods


def plan_nod(nods: Array, start_s: float, noise: Array, manner: Manner, who: Array | bool = True) -> Array:
    """The nods with one more, of the samples that answer and have done with the one before by then.

    Args:
        nods: of `no_nods`, or of the last step.
        start_s: when it is to start, 0 or more.
        noise: float64 [M, 5], standard normal.
        manner: how.
        who: bool [M], of whom to ask.
    """
    answers, late, depth, period, dips = np.clip(noise, -_TWO, _TWO).T
    start = np.maximum(0.0, start_s + habit("nod_jitter") * late)
    more = (dips > _exceeded_by("nod_twice")) + (dips > _exceeded_by("nod_thrice")).astype(np.float64)
    new = np.stack(
        [
            -start,
            habit("nod_deg") * (1 + habit("nod_spread") * depth) * (habit("small_nod") if manner.small else 1),
            habit("nod_period") * (1 + habit("nod_period_spread") * period),
            1 + (0 if manner.small else 1) * more,
            np.full(len(start), float(CAUSES.index(manner.cause))),
        ],
        axis=-1,
    )
    last = nods[:, 1]
    least = np.maximum(last[:, 2] * last[:, 3], habit("apart") if manner.apart else 0.0)
    is_free = start + last[:, 0] >= least
    has_place = nods[:, 0, 0] >= nods[:, 0, 2] * nods[:, 0, 3]
    would = np.asarray(True if manner.share is None else answers < -_exceeded_by(manner.share))
    planned = is_free & has_place & would & who
    return np.where(planned[:, None, None], np.stack([last, new], axis=1), nods)


def without_plans(nods: Array) -> Array:
    """The nods without those that have not begun."""
    return np.where(nods[..., :1] < 0, no_nods(len(nods)), nods)


def begun_nods(nods: Array, times: Array, frame_s: float) -> Iterator[Noted]:
    """The nods that begin in one of the frames at times from now."""
    for sample, sample_nods in enumerate(nods.tolist()):
        for since, depth, period, dips, cause in sample_nods:
            row = math.floor(-since / frame_s)
            if since <= 0 and row < len(times):
                yield note(sample, row, "nod", CAUSES[int(cause)], size=depth, duration_s=period * dips)


def nod_pitch(nods: Array, times: Array) -> Array:
    """Pitch of the nods at times from now, [M, T]: dips that begin and end at rest, each less deep."""
    since, depth, period, dips = (nods[..., index, None] for index in range(4))
    phase = (since + times) / np.maximum(period, 1e-3)
    is_on = (phase >= 0) & (phase < dips)
    phase = np.where(is_on, phase, 0.0)
    dip = depth * habit("nod_fading") ** np.floor(phase) * (1 - np.cos(2 * np.pi * phase)) / 2
    return np.asarray(dip.sum(axis=1))


def later_nods(nods: Array, step_s: float) -> Array:
    """The nods, a step later."""
    return np.concatenate([later(nods[..., :1], step_s), nods[..., 1:]], axis=-1)


def later(ages: Array, step_s: float) -> Array:
    """Times since something, a step later; what is long ago stays so."""
    return np.minimum(ages + step_s, _LONG_AGO)


def no_blinks(samples: int) -> Array:
    """Float64 [M, 2]: time since the last blink began, and until the next one; below 0, that is still to be drawn."""
    return np.tile([_LONG_AGO, -1.0], (samples, 1))


def blink(blinks: Array, times: Array, step_s: float, noise: Array) -> tuple[Array, Array]:
    """Lids over one step, in which one blink may begin.

    Args:
        blinks: of `no_blinks`, or of the last step.
        times: [T] from now.
        step_s: duration of the step, no longer than the shortest gap.
        noise: [M, 2], standard normal: the gap after the blink that begins in the step, and how much of the first gap
            is over when the listener begins.

    Returns:
        How far the lids are closed, [M, T] in 0…1, and the next state.
    """
    since, until = blinks.T
    gap = np.clip(
        _median_gap() * np.exp(habit("blink_spread") * noise[:, 0]), habit("blink_least"), habit("blink_most")
    )
    until = np.where(until < 0, gap * [_NORMAL.cdf(share) for share in noise[:, 1].tolist()], until)
    closed = np.maximum(_lid(since[:, None] + times), _lid(times - until[:, None]))
    begins = until < step_s
    after = np.where(begins, step_s - until, later(since, step_s)), np.where(begins, until + gap, until) - step_s
    return closed, np.stack(after, axis=-1)


def begun_blinks(blinks: Array, after: Array, times: Array, frame_s: float) -> Iterator[Noted]:
    """The blinks that began between two states, in one of the frames at times from the first."""
    step_s = len(times) * frame_s
    begun = (after[:, 0] <= step_s) & (after[:, 0] < blinks[:, 0] + step_s - _TINY_S)
    for sample in np.flatnonzero(begun).tolist():
        row = math.floor((step_s - after[sample, 0]) / frame_s)
        yield note(sample, min(row, len(times) - 1), "blink", size=1.0, duration_s=_BLINK_S)


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


def to_rotation(angles: Array) -> Array:
    """FaceVerse's rotation in rad of angles in deg, [..., 3]."""
    return np.asarray(np.radians(angles * TO_PICTURE))


def gaze(angles: Array) -> dict[str, Array]:
    """Weights that turn the eyes back by as much as a head of such angles is turned, each [...]."""
    up, left = angles[..., 0] / habit("eye_deg"), angles[..., 1] / habit("eye_deg")
    turns = {
        ("eyeLookUpLeft", "eyeLookUpRight"): up,
        ("eyeLookDownLeft", "eyeLookDownRight"): -up,
        ("eyeLookOutLeft", "eyeLookInRight"): left,
        ("eyeLookInLeft", "eyeLookOutRight"): -left,
    }
    return {name: np.clip(turn, 0, 1) for names, turn in turns.items() for name in names}


def head_and_eyes(angles: Array, closed: Array, away: Array) -> Array:
    """Coefficients of a head and its eyes; all others are 0.

    Args:
        angles: of the head, in deg, [M, T, 3].
        closed: how far the lids are, [M, T] in 0…1.
        away: as `angles`, the turn that the eyes make up for; that of the head for who looks at the speaker.

    Returns:
        float32 [M, T, 58], mean face subtracted.
    """
    coefficients = np.zeros((*closed.shape, COEFFICIENTS), np.float32)
    for name, weight in {**dict.fromkeys(_LIDS, closed), **gaze(away)}.items():
        coefficients[..., ARKIT_NAMES.index(name)] = weight
    coefficients[..., ROTATION] = to_rotation(angles)
    return coefficients


def _exceeded_by(name: str) -> float:
    """What a normal number exceeds with the probability of that name."""
    return _NORMAL.inv_cdf(1 - habit(name))


def _median_gap() -> float:
    """Of log-normal gaps with the mean that the rate of blinks asks for."""
    return 60 / habit("blinks") * float(np.exp(-(habit("blink_spread") ** 2) / 2))


def _lid(since: Array) -> Array:
    """How far a lid is closed at times since its blink began: down quickly, shut, up quickly and then slowly."""
    closing = np.clip(since / habit("blink_closing"), 0, 1)
    shut_until = habit("blink_closing") + habit("blink_shut")
    opening = np.clip((since - shut_until) / habit("blink_opening"), 0, 1)
    return eased(closing) - eased(1 - np.square(1 - opening))


def eased(share: Array) -> Array:
    """From 0 to 1, level at both ends."""
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
