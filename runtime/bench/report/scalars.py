"""Every figure of a report as one number under one name, which has the unit in it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pflx.runtime.bench.report.report import EngineFigures, FirstFrame, Minute, Reaction, Report
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.latency.percentiles import Distribution, Figures

COUNTED = {
    "turnaround": "segments",
    "real_time_factor": "segments",
    "generator": "segments",
    "posnet": "segments",
    "render": "frames",
    "host_copy": "frames",
    "hop_work": "segments",
    "frame_work": "frames",
    "trail": "frames",
    "lateness": "frames",
    "age": "frames",
    "jitter_border": "segment borders",
    "jitter_inside": "neighbours",
    "emit_delay": "frames",
}
"""The distributions of `Figures`, and what they are over."""

NEEDED = {"p50": 6, "p90": 29, "p95": 59, "p99": 299, "p999": 100_000}
"""Values that a sample must have for a percentile to be given; see `pflx.runtime.latency.percentiles.Distribution`."""

_SCALARS = (
    "frames",
    "segments",
    "samples",
    "duration_s",
    "fps_shown",
    "algorithmic_ms",
    "playout_ms",
    "jitter_std",
    "dmr",
    "missed",
    "longest_miss_run",
    "freeze_ms_per_min",
    "dropped",
    "smallest_playout_ms",
    "av_offset_ms",
    "av_slope_ms_per_h",
    "drift_ms_per_h",
)
_UNITS = {"real_time_factor": ""}
_SPANS = ("h2d", "compute", "d2h", "enqueue")


@dataclass(frozen=True)
class Refused:
    """A figure that there is no number for.

    Attributes:
        reason: why.
    """

    reason: str


Scalar = float | Refused
_NOT_MEASURED = Refused("it was not measured")


def list_names(graphs: Iterable[str] = ()) -> list[str]:
    """Names of all figures: of a distribution `x`, `x_p50_ms` to `x_p999_ms` and `x_max_ms`.

    Args:
        graphs: whose own figures are named too, like `posnet_compute_p99_ms`.
    """
    engines = ((graph, None) for graph in graphs)
    return [name for name, _ in _scalars(None, None, None, None, None, None, engines)]


def read_scalars(report: Report) -> dict[str, Scalar]:
    """Every figure of a report by its name, with the reason where there is no number."""
    kept = [row.sessions for row in report.sessions if row.kept]
    return dict(
        _scalars(
            report.figures,
            report.reaction,
            report.first_frame,
            report.peak_gflops,
            max(kept, default=0) if report.sessions else None,
            memory_slope_mb_per_h(report.minutes),
            ((engine.graph, engine) for engine in report.engines),
        )
    )


def memory_slope_mb_per_h(minutes: list[Minute]) -> float | None:
    """By how much memory grows, by least squares over the minutes of a run; None for fewer than two.

    Of four and more, the first two are left out, in which buffers and caches fill.
    """
    if len(minutes) < 2:
        return None
    settled = minutes[2:] if len(minutes) > 3 else minutes
    hours = [row.minute / 60 for row in settled]
    return statistics.linear_regression(hours, [row.rss_mb for row in settled]).slope


def refused_percentile(count: int, counted: str, percentile: str) -> Refused:
    """Why a sample of `count` carries no such percentile: `59 segments; p99 needs 299`."""
    return Refused(f"{count:,} {counted}; {percentile} needs {NEEDED[percentile]:,}")


def no_smallest_playout(figures: Figures) -> str:
    """Why there is no smallest playout delay, as a part of a sentence; empty if there is one."""
    note = figures.smallest_playout_note
    return note[:1].lower() + note[1:].removesuffix(".")


def _scalars(
    figures: Figures | None,
    reaction: Reaction | None,
    first_frame: FirstFrame | None,
    peak_gflops: float | None,
    sessions_kept: int | None,
    memory_slope: float | None,
    engines: Iterable[tuple[str, EngineFigures | None]],
) -> Iterator[tuple[str, Scalar]]:
    """All names, whether there are numbers for them or not."""
    yield from _of_frames(figures)
    yield from _of_distribution("reaction", reaction.latency if reaction else None, "impulses")
    own = reaction.coefficients_latency if reaction else None
    yield from _of_distribution("reaction_coefficients", own, "impulses")
    for field in FirstFrame.__struct_fields__:
        yield f"first_frame_{field}", _or_refused(getattr(first_frame, field, None))
    yield "peak_gflops", _or_refused(peak_gflops)
    yield "sessions_kept", _or_refused(sessions_kept)
    yield "memory_slope_mb_per_h", _or_refused(memory_slope)
    for graph, engine in engines:
        yield from _of_engine(graph, engine)


def _of_frames(figures: Figures | None) -> Iterator[tuple[str, Scalar]]:
    for field in _SCALARS:
        note = no_smallest_playout(figures) if figures and field == "smallest_playout_ms" else ""
        yield field, _or_refused(getattr(figures, field, None), note)
    for rung in Rung:
        count = figures.rungs.get(rung.name, 0) if figures else None
        yield f"rung_{rung.name.lower()}", _or_refused(count)
    for field, counted in COUNTED.items():
        yield from _of_distribution(field, getattr(figures, field, None), counted)


def _of_engine(graph: str, engine: EngineFigures | None) -> Iterator[tuple[str, Scalar]]:
    for span in _SPANS:
        yield from _of_distribution(f"{graph}_{span}", getattr(engine, span, None), "calls")
    for field in ("gflops", "share_of_peak"):
        yield f"{graph}_{field}", _or_refused(getattr(engine, field, None))


def _of_distribution(name: str, sample: Distribution | None, counted: str) -> Iterator[tuple[str, Scalar]]:
    unit = _UNITS.get(name, "_ms")
    for percentile in NEEDED:
        yield f"{name}_{percentile}{unit}", _percentile(sample, percentile, counted)
    yield f"{name}_max{unit}", _or_refused(sample.max if sample else None)


def _percentile(sample: Distribution | None, percentile: str, counted: str) -> Scalar:
    if sample is None:
        return _NOT_MEASURED
    quantile = getattr(sample, percentile)
    return quantile.value if quantile else refused_percentile(sample.count, counted, percentile)


def _or_refused(value: float | None, reason: str = "") -> Scalar:
    if value is None:
        return Refused(reason) if reason else _NOT_MEASURED
    return float(value)
