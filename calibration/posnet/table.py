"""How far PosNet takes the jumps between segments away, and what it does to the motion inside, beside plain filters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import msgspec
import numpy as np

from pflx.calibration.posnet.motion import FPS, previous_pose
from pflx.engines import Array
from pflx.runtime.evaluation.smoothness import judge_motion

Join = Callable[[Array, Array], Array]
"""The last pose [6] and the next segment [slide, 6] → the segment as it is shown."""

_MIN_CUTOFF_HZ, _BETA, _SPEED_CUTOFF_HZ = 1.0, 0.007, 1.0
_QUANTITIES = {"rotation": (slice(0, 3), 180 / math.pi), "translation": (slice(3, 6), 1.0)}


class Quantity(msgspec.Struct, frozen=True):
    """Of the rotation (degrees), or of the translation (units).

    Attributes:
        jump: at the borders, as `judge_motion` has it.
        smaller: by what share it is smaller than untouched.
        z: how far jumps at borders stand out of the motion inside, in standard deviations; None where that is refused.
        energy: mean squared step inside of segments.
        energy_change: share by which it differs from untouched.
    """

    jump: float
    smaller: float
    z: float | None
    energy: float
    energy_change: float


class Row(msgspec.Struct, frozen=True):
    """One way to join segments."""

    method: str
    rotation: Quantity
    translation: Quantity


def compare(segments: Sequence[Array], methods: Mapping[str, Callable[[Array], Array]]) -> list[Row]:
    """Judge ways to join.

    Args:
        segments: tracks, each float [n, slide, 6], jumps included.
        methods: name → what makes joined segments of one track.

    Returns:
        The untouched segments first, then one row for each method.
    """
    untouched = {name: _measured(segments, name) for name in _QUANTITIES}
    rows = [_row("untouched", segments, untouched)]
    return rows + [_row(name, [join(track) for track in segments], untouched) for name, join in methods.items()]


def table_lines(rows: Sequence[Row]) -> list[str]:
    """A table for people."""
    head = f"{'':22}{'rotation':36}translation"
    names = f"{'':22}" + 2 * f"{'jump':>9}{'smaller':>9}{'z':>7}{'energy':>9}  "
    lines = (f"{row.method:22}{_cells(row.rotation)}{_cells(row.translation)}" for row in rows)
    return [line.rstrip() for line in (head, names, *lines)]


def _cells(quantity: Quantity) -> str:
    z = "-" if quantity.z is None else f"{quantity.z:.1f}"
    return f"{quantity.jump:9.3g}{quantity.smaller:9.1%}{z:>7}{quantity.energy_change:+9.1%}  "


def baselines(pull: float) -> dict[str, Callable[[Array], Array]]:
    """Ways to join without a network, and what PosNet is taught."""
    return {
        "One-Euro filter": one_euro,
        "linear cross-fade": lambda segments: online(segments, cross_fade),
        "moved by rule": lambda segments: online(segments, lambda last, fresh: moved(last, fresh, pull)),
    }


def online(segments: Array, join: Join) -> Array:
    """Segment by segment, as the runtime does it: the first one unchanged."""
    shown = [segments[0]]
    for fresh in segments[1:]:
        shown.append(join(shown[-1][-1], fresh))
    return np.stack(shown)


def cross_fade(last_pose: Array, fresh: Array) -> Array:
    """From the last pose, held, linearly over to the segment, within its length."""
    share = np.arange(1, len(fresh) + 1)[:, None] / (len(fresh) + 1)
    faded: Array = (1 - share) * last_pose + share * fresh
    return faded


def moved(last_pose: Array, fresh: Array, pull: float) -> Array:
    """The segment moved so that it goes on from the last pose: the target of the fit, where no truer one is known."""
    back = last_pose - previous_pose(fresh[None])[0]
    shown: Array = fresh + back * (1 - pull * np.arange(1, len(fresh) + 1)[:, None] / len(fresh))
    return shown


def one_euro(segments: Array) -> Array:
    """A low-pass filter whose cut-off rises with speed, on every number; rotation in degrees.

    Source: Casiez, Roussel, Vogel, "1 € Filter", CHI 2012; with its first choices, 1 Hz and a slope of 0.007.
    """
    track = segments.reshape(-1, segments.shape[-1]) * _units()
    shown, value, speed = [track[0]], track[0], np.zeros(track.shape[1])
    for before, now in pairwise(track):
        speed = speed + _share(_SPEED_CUTOFF_HZ) * ((now - before) * FPS - speed)
        value = value + _share(_MIN_CUTOFF_HZ + _BETA * np.abs(speed)) * (now - value)
        shown.append(value)
    return np.reshape(np.stack(shown) / _units(), segments.shape)


def _share(cutoff_hz: Array | float) -> Array:
    """Of the new value, in exponential smoothing with a cut-off frequency."""
    return np.asarray(1 / (1 + FPS / (2 * np.pi * cutoff_hz)))


def _units() -> Array:
    return np.array([180 / math.pi] * 3 + [1.0] * 3)


def _row(method: str, tracks: Sequence[Array], untouched: Mapping[str, tuple[float, float | None, float]]) -> Row:
    def quantity(name: str) -> Quantity:
        jump, z, energy = _measured(tracks, name)
        first_jump, _, first_energy = untouched[name]
        return Quantity(jump, 1 - jump / first_jump, z, energy, energy / first_energy - 1)

    return Row(method, *map(quantity, _QUANTITIES))


def _measured(tracks: Sequence[Array], quantity: str) -> tuple[float, float | None, float]:
    """Mean jump at the borders, its z, and the mean squared step inside, of tracks with their own weights."""
    part, unit = _QUANTITIES[quantity]
    borders = [_judged(track[..., part] * unit) for track in tracks]
    known = [(z, len(track)) for (_, z), track in zip(borders, tracks, strict=True) if z is not None]
    jump = _mean([(jump, len(track)) for (jump, _), track in zip(borders, tracks, strict=True)])
    z = _mean(known) if known else None
    steps = [np.diff(track[..., part] * unit, axis=1).reshape(-1) for track in tracks]
    return jump, z, float(np.mean(np.concatenate(steps) ** 2))


def _mean(weighted: Sequence[tuple[float, int]]) -> float:
    return sum(value * weight for value, weight in weighted) / sum(weight for _, weight in weighted)


def _judged(segments: Array) -> tuple[float, float | None]:
    n, slide, size = segments.shape
    border = judge_motion(segments.reshape(1, n * slide, size), fps=FPS, hop=slide).jump
    assert border is not None
    assert border.at_borders is not None
    return border.at_borders, border.z
