"""How smooth a motion is, and whether the borders of its segments can be seen in it.

Every figure is of the Euclidean size of a vector of three (rotation, or translation), so it does not depend on the
direction of the axes; none depends on an offset, sizes scale with the motion, and z-scores do not depend on its scale.
"""

from __future__ import annotations

import numpy as np

from pflx.engines import Array, FeedError
from pflx.runtime.evaluation.results import Border, Motion, UndefinedError

MIN_BORDERS = 4
"""Below, the standard error of a mean of z-scores is above 0.5."""
MIN_INSIDE = 8
"""Below, the standard deviation inside is itself off by more than a quarter."""

_DERIVATIVE_FRAMES = 4
_AT_ONCE = 256
"""Tracks whose derivatives are in memory together."""


def judge_motion(
    motion: Array, *, fps: float, hop: int | None = None, track: str = "", quantity: str = "rotation", unit: str = "deg"
) -> Motion:
    """Tell how smooth some tracks of one quantity are; all of them give one set of figures.

    With v_t = x_t − x_(t−1), the step into frame t, and s the first frame of a segment:

    - jump: |v_s − (v_(s−1) + v_(s+1)) / 2|: what of the step over the border the steps around it do not explain,
    - velocity jump: |v_(s+1) − v_(s−1)| · fps,
    - acceleration jump: |(v_(s+2) − v_(s+1)) − (v_(s−1) − v_(s−2))| · fps².

    The last two leave the step over the border out: a pose that is only displaced there shows in the first alone.
    Inside are all frames at which the same steps cross no border.

    Args:
        motion: `[M, T, 3]`, M tracks of T frames in `unit`.
        fps: frames per second.
        hop: frames of a segment; the first one begins at frame 0. None: not known, and nothing is told of borders.
        track: name for the result.
        quantity: name for the result.
        unit: name for the result.

    Raises:
        UndefinedError: fewer than 4 frames.
        FeedError: the hop is below 1.
    """
    if motion.shape[1] < _DERIVATIVE_FRAMES:
        raise UndefinedError(f"jerk takes {_DERIVATIVE_FRAMES} frames, there are {motion.shape[1]}")
    portions = [motion[start : start + _AT_ONCE] for start in range(0, len(motion), _AT_ONCE)]
    jump, turn, push, jerk, speed = map(np.concatenate, zip(*map(_derivatives, portions), strict=True))
    return Motion(
        track=track,
        quantity=quantity,
        unit=unit,
        jump=compare_borders(jump, hop, first=2, reach=1),
        velocity_jump=compare_borders(turn * fps, hop, first=2, reach=1),
        acceleration_jump=compare_borders(push * fps**2, hop, first=3, reach=2),
        jerk=float(jerk.mean() * fps**3),
        speed=float(speed.mean() * fps),
    )


def _derivatives(motion: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Sizes of the jump, turn, push, third derivative and step of each frame of `[M, T, 3]`, `[M, T - …]` each."""
    steps = np.diff(motion.astype(np.float64), axis=1)
    bend = np.diff(steps, n=2, axis=1)
    turn = steps[:, 2:] - steps[:, :-2]
    accelerations = np.diff(steps, axis=1)
    push = accelerations[:, 3:] - accelerations[:, :-3]  # index i is of frame i + 3, and reads i + 1 … i + 5
    bent = _sizes(bend)  # index i is of frame i + 2, and reads the steps into frames i + 1 … i + 3; turn likewise
    return bent / 2, _sizes(turn), _sizes(push), bent, _sizes(steps)


def compare_borders(values: Array, hop: int | None, *, first: int, reach: int) -> Border | None:
    """Hold values at borders against values inside of segments.

    Args:
        values: `[M, I]`, one per frame from frame `first` on; NaN where there is none.
        hop: frames of a segment; None gives None.
        first: frame of the first value.
        reach: a value reads the steps into the frames up to so many before and after its own.

    Raises:
        FeedError: the hop is below 1.
    """
    if hop is None:
        return None
    if hop < 1:
        raise FeedError(f"A segment of {hop} frames is none. Give a hop of 1 or more.")
    frames = first + np.arange(values.shape[1])
    after = frames % hop  # since the last border; frame 0 is none, but nothing reads the step into it
    crossing = (after <= reach) | (hop - after <= reach)
    at_borders, inside = _known(values[:, after == 0]), _known(values[:, ~crossing])
    mean, within = (float(part.mean()) if part.size else None for part in (at_borders, inside))
    refused = _refuse(at_borders, inside, hop, reach)
    z = None
    if not refused and mean is not None and within is not None:
        deviation = float(inside.std())
        z = (mean - within) / deviation if deviation > 0 else 0.0
    return Border(borders=at_borders.size, inside=inside.size, at_borders=mean, within=within, z=z, refused=refused)


def _refuse(at_borders: Array, inside: Array, hop: int, reach: int) -> str:
    """Why a z-score cannot be told; empty if it can."""
    if hop < 2 * reach + 2:
        return f"segments of {hop} frames have no inside; it takes {2 * reach + 2}"
    if at_borders.size < MIN_BORDERS:
        return f"{at_borders.size} borders between segments are too few; it takes {MIN_BORDERS}: give a longer motion"
    if inside.size < MIN_INSIDE:
        return f"{inside.size} frames inside of segments are too few; it takes {MIN_INSIDE}: give a longer motion"
    if inside.std() == 0 and (at_borders != inside[0]).any():
        return "inside of segments everything is equal, so there is nothing to measure the borders by"
    return ""


def _known(values: Array) -> Array:
    return values[np.isfinite(values)]


def _sizes(vectors: Array) -> Array:
    sizes: Array = np.linalg.norm(vectors, axis=-1)
    return sizes
