"""Every figure about latency, computed from ledgers alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from pflx.engines import PflxError
from pflx.runtime.latency import Ledger, Rung

Float64Array: TypeAlias = npt.NDArray[np.float64]
Int64Array: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

_NS_PER_MS = 1_000_000
_MS_PER_HOUR = 3_600_000
_CONFIDENCE = 0.95
_PERMILLE = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p999": 999}
_FOR_P999 = 100_000  # an interval needs 2995 values only, but then rests on the very largest
_NEVER = np.iinfo(np.int64).min
_STAMPS = (
    "generator_start",
    "generator_end",
    "posnet_end",
    "render_start",
    "render_end",
    "on_host",
    "deadline",
    "emitted",
    "newest",
)


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
    live session, and no renderings where every picture was held.

    Attributes:
        frames: frames that were due, over all samples: every frame number from the first to the last.
        segments: segments that frames were made from.
        samples: reactions.
        duration_s: of the frames on the media clock.
        fps_shown: new pictures that were shown, per second and sample.
        algorithmic_ms: what the algorithm costs on infinitely fast hardware, (hop + lookahead)·T.
        playout_ms: delay that was granted on top.
        turnaround: over segments: the first picture that depends on the segment is ready − the scheduled arrival of
            the last speaker frame that the segment needed.
        real_time_factor: over segments, unit 1: generator, PosNet and a rendering for every frame of every sample,
            divided by the hop's duration. Frames that were not rendered count as the mean of those that were.
        generator: over segments.
        posnet: over segments.
        render: over frames.
        host_copy: over frames.
        trail: over frames: emitted − the moment on the schedule that the frame reacts to.
        lateness: over frames: how long after its deadline the picture was ready, 0 if before.
        age: over frames: emitted − scheduled arrival of the newest speaker frame that the picture depends on.
        jitter_border: over neighbours of different segments: |time between their emissions − T|.
        jitter_inside: the same within a segment.
        jitter_std: standard deviation of (time between the emissions of neighbours − T).
        dmr: deadline-miss rate: missed / frames.
        missed: frames that were not shown in full at their deadline: late, on any rung but FULL, dropped, or never
            made.
        longest_miss_run: most missed frames in a row, in one sample.
        freeze_ms_per_min: time in which a picture was held or none was shown, per minute and sample.
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
    ledgers: Iterable[Ledger], *, hop: int, lookahead: int, playout_ms: float, samples: int, fps: float = 25
) -> Figures:
    """Every figure of a run, from its ledgers in any order.

    A frame without a ledger, between the first and the last frame there is, counts as missed.

    Args:
        ledgers: of all samples; of a run's warm-up leave out whole segments.
        hop: frames per segment.
        lookahead: coefficient frames waited for before a frame was rendered.
        playout_ms: delay that the deadlines had granted beyond the algorithm's.
        samples: reactions.
        fps: frames per second.

    Raises:
        FiguresError: there are no ledgers, or one is of a sample beyond `samples`.
    """
    table = _Table(list(ledgers), samples)
    step_ms = 1000 / fps
    algorithmic_ms = (hop + lookahead) * step_ms
    return Figures(
        frames=table.slots * samples,
        segments=_distinct(table.segment[table.segment >= 0]),
        samples=samples,
        duration_s=table.slots / fps,
        algorithmic_ms=algorithmic_ms,
        playout_ms=playout_ms,
        turnaround=_turnaround(table, hop * samples),
        real_time_factor=_real_time_factor(table, hop, samples, step_ms),
        **_stage_times(table),
        trail=_known((table.emitted - table.deadline) / _NS_PER_MS + algorithmic_ms + playout_ms),
        lateness=_known(np.maximum(0, table.ready - table.deadline) / _NS_PER_MS),
        age=_known((table.emitted - table.newest) / _NS_PER_MS),
        emit_delay=_known(((table.emitted - table.deadline) / _NS_PER_MS)[table.on_host <= table.deadline]),
        **_jitter(table, step_ms),
        **_misses(table, fps),
        rungs={rung.name: int((table.rung == rung)[~table.dropped].sum()) for rung in Rung},
        dropped=int(table.dropped.sum()),
        **_smallest_playout(table, playout_ms),
        **_slopes(table),
    )


class _Table:
    """Ledgers as columns, sample by sample in the order of the frames.

    Stamps are float64 ns since the first of them, exact for 100 days, NaN for none; a segment or picture that there is
    not is -1.
    """

    def __init__(self, ledgers: Sequence[Ledger], samples: int) -> None:
        if not ledgers:
            raise FiguresError("There are no ledgers to compute figures from. Let the session run for longer.")
        names = (*_STAMPS, "frame", "sample", "segment", "picture", "rung", "time_s", "av_offset_ns")
        columns = {name: list(map(attrgetter(name), ledgers)) for name in names}
        if max(columns["sample"]) >= samples:
            raise FiguresError(
                f"A ledger is of sample {max(columns['sample'])}; there are {samples}. Give all samples."
            )
        stamps = np.stack([_integers(columns[name], _NEVER) for name in _STAMPS])
        order = np.lexsort((stamps[_STAMPS.index("emitted")], columns["frame"], columns["sample"]))
        self._take_stamps(stamps[:, order])
        self.frame, self.sample, self.rung = (np.array(columns[name])[order] for name in ("frame", "sample", "rung"))
        self.segment, self.picture = (_integers(columns[name], -1)[order] for name in ("segment", "picture"))
        self.time_ms = np.array(columns["time_s"])[order] * 1000
        self.av_offset_ms = np.array(columns["av_offset_ns"])[order] / _NS_PER_MS
        self.first = int(self.frame.min())
        self.slots = int(self.frame.max()) - self.first + 1
        self.samples = samples
        self.live = not bool(np.isnan(self.deadline).all())
        self.shown = ~np.isnan(self.emitted)
        self.dropped = ~self.shown & self.live
        self.ready = np.where(np.isnan(self.on_host), self.emitted, self.on_host)

    def _take_stamps(self, stamps: Int64Array) -> None:
        known = stamps != _NEVER
        origin = stamps.min(initial=np.iinfo(np.int64).max, where=known)
        (
            self.generator_start,
            self.generator_end,
            self.posnet_end,
            self.render_start,
            self.render_end,
            self.on_host,
            self.deadline,
            self.emitted,
            self.newest,
        ) = np.where(known, np.where(known, stamps, origin) - origin, np.nan)

    def segments(self) -> Int64Array:
        """One row of each segment, for what its frames share."""
        return _firsts(self.segment, ~np.isnan(self.posnet_end) & (self.segment >= 0))

    def renderings(self) -> Int64Array:
        """One row of each rendering: on HALF_RATE two frames share one."""
        picture = np.where(self.picture < 0, self.frame, self.picture)
        return _firsts(picture * self.samples + self.sample, ~np.isnan(self.render_end))

    def cells(self, among: BoolArray) -> int:
        """How many frames, of all samples, have such a row."""
        return _distinct(self.frame[among] * self.samples + self.sample[among])


def _integers(column: Sequence[int | None], missing: int) -> Int64Array:
    return np.array([missing if value is None else value for value in column], np.int64)


def _distinct(key: Int64Array) -> int:
    return int(np.count_nonzero(np.diff(np.sort(key)))) + bool(key.size)  # np.unique is ten times slower


def _firsts(key: Int64Array, among: BoolArray) -> Int64Array:
    """The first row of each key among some rows."""
    rows = np.flatnonzero(among)
    return rows[np.unique(key[rows], return_index=True)[1]]


def _known(values: Float64Array) -> Distribution | None:
    known = values[~np.isnan(values)]
    return distribution(known) if known.size else None


def _stage_times(table: _Table) -> dict[str, Any]:
    segments, renderings = table.segments(), table.renderings()
    return {
        "generator": _known((table.generator_end - table.generator_start)[segments] / _NS_PER_MS),
        "posnet": _known((table.posnet_end - table.generator_end)[segments] / _NS_PER_MS),
        "render": _known((table.render_end - table.render_start)[renderings] / _NS_PER_MS),
        "host_copy": _known((table.on_host - table.render_end)[renderings] / _NS_PER_MS),
    }


def _turnaround(table: _Table, n_pictures: int) -> Distribution | None:
    """`n_pictures` wait for a segment; of the first one, the earliest pictures may be cut off with the warm-up."""
    ready = ~np.isnan(table.on_host)
    order = np.lexsort((table.on_host[ready], table.newest[ready]))
    newest, first, count = np.unique(table.newest[ready][order], return_index=True, return_counts=True)
    turnaround = (table.on_host[ready][order][first] - newest) / _NS_PER_MS
    return _known(turnaround[1:] if len(count) > 1 and count[0] < n_pictures else turnaround)


def _real_time_factor(table: _Table, hop: int, samples: int, step_ms: float) -> Distribution | None:
    segments, renderings = table.segments(), table.renderings()
    renderings = renderings[table.segment[renderings] >= 0]
    n_segments = int(table.segment.max()) + 1
    render = (table.render_end - table.render_start)[renderings]
    count = np.bincount(table.segment[renderings], minlength=n_segments)[table.segment[segments]]
    total = np.bincount(table.segment[renderings], render, n_segments)[table.segment[segments]]
    mean = np.divide(total, count, out=np.full(len(segments), np.nan), where=count > 0)
    work = (table.posnet_end - table.generator_start)[segments] + hop * samples * mean
    return _known(work / _NS_PER_MS / (hop * step_ms))


def _jitter(table: _Table, step_ms: float) -> dict[str, Any]:
    frame, sample, segment, emitted = (
        column[table.shown] for column in (table.frame, table.sample, table.segment, table.emitted)
    )
    neighbours = (np.diff(frame) == 1) & (np.diff(sample) == 0)
    border = (np.diff(segment) != 0)[neighbours]
    off = np.diff(emitted)[neighbours] / _NS_PER_MS - step_ms
    return {
        "jitter_border": _known(np.abs(off[border])),
        "jitter_inside": _known(np.abs(off[~border])),
        "jitter_std": float(off.std()) if off.size else None,
    }


def _misses(table: _Table, fps: float) -> dict[str, Any]:
    """Counted over all frames that were due, for a frame that was dropped on the way may have left no ledger."""
    if not table.live:
        return dict.fromkeys(("fps_shown", "dmr", "missed", "longest_miss_run", "freeze_ms_per_min"))
    in_time = (table.rung == Rung.FULL) & table.shown & (table.ready <= table.deadline)
    moving = (table.rung != Rung.HOLD) & table.shown
    due, minutes = table.slots * table.samples, table.slots / fps / 60
    missed = due - table.cells(in_time)
    pictures = _distinct(table.picture[moving] * table.samples + table.sample[moving])
    return {
        "fps_shown": pictures / (due / fps),
        "dmr": missed / due,
        "missed": missed,
        "longest_miss_run": max(_longest_run(table, in_time & (table.sample == m)) for m in range(table.samples)),
        "freeze_ms_per_min": (due - table.cells(moving)) * 1000 / fps / (minutes * table.samples),
    }


def _longest_run(table: _Table, in_time: BoolArray) -> int:
    return int(np.diff(table.frame[in_time], prepend=table.first - 1, append=table.first + table.slots).max()) - 1


def _smallest_playout(table: _Table, playout_ms: float) -> dict[str, Any]:
    spare = table.deadline - table.on_host
    as_planned = (table.rung == Rung.FULL) & table.shown & ~np.isnan(spare)
    note = ""
    if not table.live:
        note = "No frame had a deadline."
    elif not as_planned.all() or table.cells(as_planned) < table.slots * table.samples:
        note = "Not every frame was rendered in full and shown: with another delay, others would have been."
    smallest = None if note else max(0.0, playout_ms - float(spare.min()) / _NS_PER_MS)
    return {"smallest_playout_ms": smallest, "smallest_playout_note": note}


def _slopes(table: _Table) -> dict[str, Any]:
    segments = table.segments()
    offset = table.av_offset_ms[segments]
    trail_ms = table.emitted[table.shown] / _NS_PER_MS - table.time_ms[table.shown]
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
