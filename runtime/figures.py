"""Every figure about latency, computed from ledgers alone."""

from __future__ import annotations

import msgspec

from pflx.engines import PflxError


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
