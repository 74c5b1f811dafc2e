"""What the page plots, from ledgers: latency over time, its histogram, and the stages of a frame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pflx.runtime.bench.report.report import MAX_POINTS, Series
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.timing import NS_PER_MS
from pflx.runtime.latency.ledger_table import LedgerTable
from pflx.runtime.latency.percentiles import Distribution, Figures, behind

_Float64Array: TypeAlias = npt.NDArray[np.float64]

_MAX_BINS = 60


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
    late = np.fmax(0, table.on_host - table.deadline) / NS_PER_MS
    points = _thinned(table.frame, np.fmax(trail, deadline_ms + late))
    edges, counts = _histogram(trail[~np.isnan(trail)])
    return Series(
        frame_s=[round(float(time), 3) for time in table.time_ms[points] / 1000],
        trail_ms=_listed(trail[points]),
        lateness_ms=_listed(np.where(np.isnan(trail), np.nan, late)[points]),
        rung=[Rung(rung) for rung in table.rung[points].tolist()],
        deadline_ms=deadline_ms,
        histogram_edges_ms=edges,
        histogram_counts=counts,
        stages=_stages(figures, hop),
    )


def _thinned(frame: npt.NDArray[np.int64], badness: _Float64Array) -> npt.NDArray[np.int64]:
    """Rows in the order of frames; of too many, the worst of each of `MAX_POINTS` equal parts."""
    order = np.argsort(frame, kind="stable")
    if len(order) <= MAX_POINTS:
        return order
    rank = np.where(np.isnan(badness), np.inf, badness)
    return np.array([part[np.argmax(rank[part])] for part in np.array_split(order, MAX_POINTS)])


def _listed(values: _Float64Array) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 3) for value in values]


def _histogram(values: _Float64Array) -> tuple[list[float], list[int]]:
    if not values.size:
        return [], []
    low, high = np.floor(values.min()), np.ceil(values.max())
    edges = np.linspace(low, max(high, low + 1), int(min(_MAX_BINS, max(high - low, 1))) + 1)
    return edges.tolist(), np.histogram(values, edges)[0].tolist()


def _stages(figures: Figures, hop: int) -> dict[str, float]:
    """Medians in ms, of the work that one frame of all samples takes."""
    generator, posnet = _median(figures.generator), _median(figures.posnet)
    stages = {
        "crop": (_median(figures.hop_work) - generator - posnet) / hop,
        "generator": generator / hop,
        "PosNet": posnet / hop,
        "rendering": _median(figures.render) * figures.samples,
        "copy to host": _median(figures.host_copy) * figures.samples,
    }
    return {name: round(max(0.0, ms), 4) for name, ms in stages.items()}


def _median(sample: Distribution | None) -> float:
    """The largest value where the sample carries no median."""
    if sample is None:
        return 0.0
    return sample.p50.value if sample.p50 else sample.max
