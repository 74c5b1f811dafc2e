"""Every figure about latency, computed from ledgers alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pflx.engines import PflxError
from pflx.runtime.frames.arrays import BoolArray, Float64Array
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.timing import NS_PER_MS
from pflx.runtime.latency.ledger_table import LedgerTable, distinct

_MS_PER_HOUR = 3_600_000
_CONFIDENCE = 0.95
_PERMILLE = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p999": 999}
_FOR_P999 = 100_000  # an interval needs 2995 values only, but then rests on the very largest


class FiguresError(PflxError, ValueError):
    """There is nothing to compute a figure from."""


class Quantile(msgspec.Struct, frozen=True):
    """A percentile of a sample.

    Attributes:
        value: the nearest-rank order statistic.
        low: lower end of its 95 % confidence interval, an order statistic.
        high: upper end, likewise.
    """

    value: float
    low: float
    high: float


class Distribution(msgspec.Struct, frozen=True):
    """Percentiles of a sample; None where it is too small to bound the percentile from both sides.

    They are given from 6 values on for p50, 29 for p90, 59 for p95, 299 for p99 and 100 000 for p99.9.

    Attributes:
        count: number of values.
        p50: half of the values are at most this.
        p90: 90 % are.
        p95: 95 % are.
        p99: 99 % are.
        p999: 99.9 % are.
        max: the largest value.
    """

    count: int
    p50: Quantile | None
    p90: Quantile | None
    p95: Quantile | None
    p99: Quantile | None
    p999: Quantile | None
    max: float


class Figures(msgspec.Struct, frozen=True):
    """What a run was like; times in ms unless the name says otherwise.

    A distribution is None where no ledger holds the stamps for it: there are no deadlines and no emissions without a
    live session, and no renderings where every picture was held or moved.

    Attributes:
        frames: frames that were due, over all samples: every frame number from the first to the last.
        segments: segments that frames were made from.
        samples: reactions.
        duration_s: of the frames on the media clock.
        fps_shown: new pictures that were shown, per second and sample.
        algorithmic_ms: what the algorithm costs on infinitely fast hardware, at worst.
        playout_ms: delay that was granted on top.
        turnaround: over segments: the first picture that depends on the segment is ready − the scheduled arrival of
            the last speaker frame that the segment needed. Of segments that lie wholly ahead of the speaker, without a
            look-ahead, that picture waits for one more speaker frame.
        real_time_factor: over segments, unit 1: generator, PosNet and a rendering for every frame of every sample,
            divided by the hop's duration. Frames that were not rendered, but held or moved (WARPED), count as the mean
            of those that were.
        generator: over segments.
        posnet: over segments.
        render: over frames, without those that were moved.
        host_copy: likewise.
        hop_work: over segments: from its complete input to joined coefficients: crop, generator and PosNet.
        frame_work: likewise: from the call of the renderer to the picture in host memory.
        trail: over frames: emitted − the moment on the schedule that the shown picture reacts to.
        lateness: over frames: how long after its deadline the picture was ready, 0 if before. Where it was not shown
            for its frame: how long until it, or a newer one, was, or the run ended.
        age: over frames: emitted − scheduled arrival of the newest speaker frame that the picture depends on.
        jitter_border: over neighbours of which the second is the first of a new segment: |time between their
            emissions − T|.
        jitter_inside: over all other neighbours.
        jitter_std: standard deviation of (time between the emissions of neighbours − T).
        dmr: deadline-miss rate: missed / frames.
        missed: frames that were not shown in full at their deadline: late, on any rung but FULL, dropped, or never
            made.
        longest_miss_run: most missed frames in a row, in one sample.
        freeze_ms_per_min: time in which an earlier picture was repeated or none was shown, per minute and sample; the
            second frame of a pair at half rate is no repetition.
        rungs: frames by the name of their rung, those not counted that were dropped.
        dropped: frames that have a ledger and were never emitted.
        emit_delay: over frames that were ready at their deadline: emitted − deadline.
        smallest_playout_ms: smallest playout delay at which no deadline would have been missed.
        smallest_playout_note: why there is no such figure; empty if there is.
        av_offset_ms: largest distance of the speaker's sound from the picture.
        av_slope_ms_per_h: slope of that distance (sound ahead: positive) over media time.
        drift_ms_per_h: slope of (emitted − media time) over media time.
    """

    frames: int
    segments: int
    samples: int
    duration_s: float
    fps_shown: float | None
    algorithmic_ms: float
    playout_ms: float
    turnaround: Distribution | None
    real_time_factor: Distribution | None
    generator: Distribution | None
    posnet: Distribution | None
    render: Distribution | None
    host_copy: Distribution | None
    hop_work: Distribution | None
    frame_work: Distribution | None
    trail: Distribution | None
    lateness: Distribution | None
    age: Distribution | None
    jitter_border: Distribution | None
    jitter_inside: Distribution | None
    jitter_std: float | None
    dmr: float | None
    missed: int | None
    longest_miss_run: int | None
    freeze_ms_per_min: float | None
    rungs: dict[str, int]
    dropped: int
    emit_delay: Distribution | None
    smallest_playout_ms: float | None
    smallest_playout_note: str
    av_offset_ms: float | None
    av_slope_ms_per_h: float | None
    drift_ms_per_h: float | None


def distribution(values_ms: npt.ArrayLike) -> Distribution:
    """Percentiles of a sample with exact confidence intervals, whatever it is distributed like.

    Args:
        values_ms: the sample in any order, finite.

    Raises:
        FiguresError: it is empty, or a value is not finite.

    Source: nearest rank ⌈n·p⌉; the number of values below the p-quantile is binomial (n, p), so ranks l to u enclose
    it with the probability of l ≤ B < u (David & Nagaraja, Order Statistics, 7.1).
    """
    ordered = np.sort(np.asarray(values_ms, np.float64), axis=None)
    if not ordered.size:
        raise FiguresError("There are no values to take percentiles of. Measure for longer.")
    if not np.isfinite(ordered).all():
        raise FiguresError("A value to take percentiles of is not finite. Leave it out.")
    quantiles = {name: _quantile(ordered, permille) for name, permille in _PERMILLE.items()}
    return Distribution(count=ordered.size, max=float(ordered[-1]), **quantiles)


def _quantile(ordered: Float64Array, permille: int) -> Quantile | None:
    n = len(ordered)
    ranks = _interval(n, permille)
    if ranks is None or (permille == _PERMILLE["p999"] and n < _FOR_P999):
        return None
    value, low, high = (float(ordered[rank - 1]) for rank in (-(-n * permille // 1000), *ranks))
    return Quantile(value=value, low=low, high=high)


@lru_cache(maxsize=1024)
def _interval(n: int, permille: int) -> tuple[int, int] | None:
    """Ranks (from 1) that enclose the quantile with 95 %: the most probable ones. None if all n do not."""
    p = permille / 1000
    reach = int(12 * math.sqrt(n * p * (1 - p))) + 40  # beyond it, probabilities are below 1e-20
    below = np.arange(max(1, int(n * p) - reach), min(n - 1, int(n * p) + reach) + 1)  # values below the quantile
    if not below.size:
        return None
    first = int(below[0])
    log_first = math.lgamma(n + 1) - math.lgamma(first + 1) - math.lgamma(n - first + 1)
    log_first += first * math.log(p) + (n - first) * math.log1p(-p)
    ratios = np.log((n - below[:-1]) / (below[:-1] + 1)) + math.log(p / (1 - p))
    chance = np.exp(log_first + np.concatenate([[0.0], np.cumsum(ratios)]))
    likely = np.argsort(-chance, kind="stable")
    enclosed = np.cumsum(chance[likely])
    if enclosed[-1] < _CONFIDENCE:
        return None
    chosen = below[likely[: int(np.searchsorted(enclosed, _CONFIDENCE)) + 1]]
    return int(chosen.min()), int(chosen.max()) + 1


def figures(
    ledgers: Iterable[Ledger], *, hop: int, algorithmic_ms: float, playout_ms: float, samples: int, fps: float = 25
) -> Figures:
    """Every figure of a run, from its ledgers in any order.

    A frame without a ledger, between the first and the last frame there is, counts as missed.

    Args:
        ledgers: of all samples; of a run's warm-up leave out whole segments.
        hop: frames per segment.
        algorithmic_ms: `Listener.algorithmic_delay_ms`.
        playout_ms: delay that the deadlines had granted beyond the algorithm's.
        samples: reactions.
        fps: frames per second.

    Raises:
        FiguresError: there are no ledgers, or one is of a sample beyond `samples`.
    """
    rows = list(ledgers)
    if not rows:
        raise FiguresError("There are no ledgers to compute figures from. Let the session run for longer.")
    table = LedgerTable(rows, samples)
    if table.sample.max() >= samples:
        raise FiguresError(f"A ledger is of sample {table.sample.max()}; there are {samples}. Give all samples.")
    step_ms = 1000 / fps
    return Figures(
        frames=table.slots * samples,
        segments=distinct(table.segment[table.segment >= 0]),
        samples=samples,
        duration_s=table.slots / fps,
        algorithmic_ms=algorithmic_ms,
        playout_ms=playout_ms,
        turnaround=_turnaround(table, hop * samples),
        real_time_factor=_real_time_factor(table, hop, samples, step_ms),
        **_stage_times(table),
        trail=_known(behind(table, step_ms) + algorithmic_ms + playout_ms),
        lateness=_known(np.concatenate([_lateness(table, sample) for sample in range(samples)])),
        age=_known((table.emitted - table.newest) / NS_PER_MS),
        emit_delay=_known(((table.emitted - table.deadline) / NS_PER_MS)[table.on_host <= table.deadline]),
        **_jitter(table, step_ms),
        **_misses(table, fps),
        rungs={rung.name: int((table.rung == rung)[~table.dropped].sum()) for rung in Rung},
        dropped=int(table.dropped.sum()),
        **_smallest_playout(table, playout_ms),
        **_slopes(table),
    )


def _known(values: Float64Array) -> Distribution | None:
    known = values[~np.isnan(values)]
    return distribution(known) if known.size else None


def _stage_times(table: LedgerTable) -> dict[str, Any]:
    segments, renderings = table.segments(), table.renderings()
    return {
        "generator": _known((table.generator_end - table.generator_start)[segments] / NS_PER_MS),
        "posnet": _known((table.posnet_end - table.generator_end)[segments] / NS_PER_MS),
        "render": _known((table.render_end - table.render_start)[renderings] / NS_PER_MS),
        "host_copy": _known((table.on_host - table.render_end)[renderings] / NS_PER_MS),
        "hop_work": _known((table.posnet_end - table.closed)[segments] / NS_PER_MS),
        "frame_work": _known((table.on_host - table.render_start)[renderings] / NS_PER_MS),
    }


def _turnaround(table: LedgerTable, n_pictures: int) -> Distribution | None:
    """`n_pictures` wait for a segment; of the first one, the earliest pictures may be cut off with the warm-up."""
    ready = ~np.isnan(table.on_host)
    order = np.lexsort((table.on_host[ready], table.newest[ready]))
    newest, first, count = np.unique(table.newest[ready][order], return_index=True, return_counts=True)
    turnaround = (table.on_host[ready][order][first] - newest) / NS_PER_MS
    return _known(turnaround[1:] if len(count) > 1 and count[0] < n_pictures else turnaround)


def _real_time_factor(table: LedgerTable, hop: int, samples: int, step_ms: float) -> Distribution | None:
    segments, renderings = table.segments(), table.renderings()
    renderings = renderings[table.segment[renderings] >= 0]
    n_segments = int(table.segment.max()) + 1
    render = (table.render_end - table.render_start)[renderings]
    count = np.bincount(table.segment[renderings], minlength=n_segments)[table.segment[segments]]
    total = np.bincount(table.segment[renderings], render, n_segments)[table.segment[segments]]
    mean = np.divide(total, count, out=np.full(len(segments), np.nan), where=count > 0)
    work = (table.posnet_end - table.generator_start)[segments] + hop * samples * mean
    return _known(work / NS_PER_MS / (hop * step_ms))


def behind(table: LedgerTable, step_ms: float) -> Float64Array:
    """Emission after the deadline of the picture that was shown, in ms: one that is held is older than its slot."""
    held = (table.rung == Rung.HOLD) & (table.picture >= 0)
    behind: Float64Array = (table.emitted - table.deadline) / NS_PER_MS + held * (table.frame - table.picture) * step_ms
    return behind


def _lateness(table: LedgerTable, sample: int) -> Float64Array:
    """Of each frame of a sample, in ms: waiting for it ends with any picture as new."""
    held = table.rung == Rung.HOLD
    mine = table.sample == sample
    fresh = mine & table.fresh
    serves = np.where(held, table.picture, table.frame)[fresh]
    order = np.argsort(serves)
    soonest = np.minimum.accumulate(np.append(table.emitted[fresh][order], table.end)[::-1])[::-1]
    frame, rows, place = np.unique(table.frame[mine], return_index=True, return_inverse=True)
    until: Float64Array = soonest[np.searchsorted(serves[order], frame)]
    np.fmin.at(until, place, np.where(table.fresh & ~held, table.ready, np.nan)[mine])
    late: Float64Array = np.maximum(0, until - table.deadline[mine][rows]) / NS_PER_MS
    return late


def _jitter(table: LedgerTable, step_ms: float) -> dict[str, Any]:
    frame, sample, segment, emitted = (
        column[table.shown] for column in (table.frame, table.sample, table.segment, table.emitted)
    )
    neighbours = (np.diff(frame) == 1) & (np.diff(sample) == 0)
    newest = np.maximum.accumulate(
        segment + sample * (segment.max(initial=0) + 2)
    )  # a held frame has none or an old one
    border = (np.diff(newest) > 0)[neighbours]
    off = np.diff(emitted)[neighbours] / NS_PER_MS - step_ms
    return {
        "jitter_border": _known(np.abs(off[border])),
        "jitter_inside": _known(np.abs(off[~border])),
        "jitter_std": float(off.std()) if off.size else None,
    }


def _misses(table: LedgerTable, fps: float) -> dict[str, Any]:
    """Counted over all frames that were due, for a frame that was dropped on the way may have left no ledger."""
    if not table.live:
        return dict.fromkeys(("fps_shown", "dmr", "missed", "longest_miss_run", "freeze_ms_per_min"))
    in_time = (table.rung == Rung.FULL) & table.shown & (table.ready <= table.deadline)
    due, minutes = table.slots * table.samples, table.slots / fps / 60
    missed = due - table.cells(in_time)
    pictures = distinct(table.picture[table.fresh] * table.samples + table.sample[table.fresh])
    return {
        "fps_shown": pictures / (due / fps),
        "dmr": missed / due,
        "missed": missed,
        "longest_miss_run": max(_longest_run(table, in_time & (table.sample == m)) for m in range(table.samples)),
        "freeze_ms_per_min": (due - table.cells(table.fresh)) * 1000 / fps / (minutes * table.samples),
    }


def _longest_run(table: LedgerTable, in_time: BoolArray) -> int:
    return int(np.diff(table.frame[in_time], prepend=table.first - 1, append=table.first + table.slots).max()) - 1


def _smallest_playout(table: LedgerTable, playout_ms: float) -> dict[str, Any]:
    spare = table.deadline - table.on_host
    as_planned = (table.rung == Rung.FULL) & table.shown & ~np.isnan(spare)
    note = ""
    if not table.live:
        note = "No frame had a deadline."
    elif not as_planned.all() or table.cells(as_planned) < table.slots * table.samples:
        note = "Not every frame was rendered in full and shown: with another delay, others would have been."
    smallest = None if note else max(0.0, playout_ms - float(spare.min()) / NS_PER_MS)
    return {"smallest_playout_ms": smallest, "smallest_playout_note": note}


def _slopes(table: LedgerTable) -> dict[str, Any]:
    segments = table.segments()
    offset = table.av_offset_ms[segments]
    trail_ms = table.emitted[table.shown] / NS_PER_MS - table.time_ms[table.shown]
    return {
        "av_offset_ms": float(np.abs(offset).max()) if offset.size else None,
        "av_slope_ms_per_h": _slope_per_hour(table.time_ms[segments], offset),
        "drift_ms_per_h": _slope_per_hour(table.time_ms[table.shown], trail_ms),
    }


def _slope_per_hour(time_ms: Float64Array, values_ms: Float64Array) -> float | None:
    """Slope of the least-squares line, in ms per hour; None without two moments."""
    if not time_ms.size or np.ptp(time_ms) == 0:
        return None
    centred = time_ms - time_ms.mean()
    return float(centred @ (values_ms - values_ms.mean()) / (centred @ centred)) * _MS_PER_HOUR
