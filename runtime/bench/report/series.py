"""What the page plots, from ledgers: latency over time, its histogram, and the stages of a frame."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from pflx.runtime.bench.report.report import MAX_POINTS, Series
from pflx.runtime.bench.report.stages import stage_costs
from pflx.runtime.frames.arrays import BoolArray, Float64Array, Int64Array
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.timing import NS_PER_MS
from pflx.runtime.latency.ledger_table import LedgerTable
from pflx.runtime.latency.percentiles import Figures, behind, distribution

_BINS = 40
"""About so many bins; their width is a round number."""
_TAIL = 0.005
"""Share of the values at each end that the bins need not reach, so that one stall does not make one bar of the rest."""


def make_series(ledgers: Iterable[Ledger], figures: Figures, *, hop: int, fps: int = 25) -> Series:
    """The series of a live run.

    Args:
        ledgers: that the figures are of.
        figures: of them.
        hop: frames per segment.
        fps: frames per second.
    """
    table = LedgerTable(list(ledgers), figures.samples)
    deadline_ms = figures.algorithmic_ms + figures.playout_ms
    trail = behind(table, 1000 / fps) + deadline_ms
    late = (table.ready - table.deadline) / NS_PER_MS
    full = (table.rung == Rung.FULL) & table.shown
    points = _thinned(table.frame, np.fmax(trail - deadline_ms, late), ~full | ~(late <= 0))
    ready = late[~np.isnan(late) & (table.rung != Rung.WARPED)] + deadline_ms
    edges, counts = _histogram(ready, deadline_ms)
    return Series(
        frame_s=[round(float(time), 3) for time in table.time_ms[points] / 1000],
        trail_ms=_listed(trail[points]),
        lateness_ms=_listed(np.ceil(late[points] * 1000) / 1000),  # what is late by next to nothing is late
        rung=[Rung(rung) for rung in table.rung[points].tolist()],
        deadline_ms=deadline_ms,
        histogram_edges_ms=edges,
        histogram_counts=counts,
        stages=stage_costs(figures, hop),
        ready=distribution(ready) if ready.size else None,
    )


def _thinned(frame: Int64Array, badness: Float64Array, missed: BoolArray) -> Int64Array:
    """Rows in the order of frames; of too many, the worst of each of `MAX_POINTS` equal parts, a missed one first."""
    order = np.argsort(frame, kind="stable")
    if len(order) <= MAX_POINTS:
        return order
    rank = np.where(np.isnan(badness), np.inf, badness)
    worst = np.argsort(np.lexsort((rank, missed)))
    return np.array([part[np.argmax(worst[part])] for part in np.array_split(order, MAX_POINTS)])


def _listed(values: Float64Array) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 3) for value in values]


def _histogram(values: Float64Array, deadline: float) -> tuple[list[float], list[int]]:
    """Bins of a round width, each with its upper edge; none lies on both sides of the deadline."""
    if not values.size:
        return [], []
    least, low, high, most = np.quantile(values, [0, _TAIL, 1 - _TAIL, 1]).tolist()
    spare = (high - low) / 10
    low, high = max(least, low - spare), min(most, high + spare)
    if most > deadline:
        high = max(high, deadline)
    if least <= deadline:
        low = min(low, deadline)
    width = _round_up(max((high - low) / _BINS, 1e-3))
    first = math.floor((low - deadline) / width - 1e-9)
    last = max(first + 1, math.ceil((high - deadline) / width + 1e-9))
    edges = deadline + width * np.arange(first, last + 1)
    bins = np.clip(np.searchsorted(edges, values) - 1, 0, len(edges) - 2)
    return edges.tolist(), np.bincount(bins, minlength=len(edges) - 1).tolist()


def _round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * 0.999)
