"""Planted reports: made of chosen numbers, not measured.

`PYTHONPATH=tests python -m support.latency.reports` writes the text of one to tests/golden.
"""

from __future__ import annotations

from msgspec.structs import replace
from support.places import GOLDEN

from pflx.runtime.bench.report.report import (
    EngineFigures,
    Environment,
    FirstFrame,
    Minute,
    Reaction,
    Report,
    SelfTest,
    Series,
    SessionsRow,
    Setup,
)
from pflx.runtime.bench.report.summary import report_lines
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.latency.percentiles import Distribution, Figures, Quantile

REPORT_TEXT = GOLDEN / "bench_report.txt"


def planted_distribution(median: float, count: int = 1000) -> Distribution:
    """Percentiles around `median`, as many as a sample of `count` carries."""
    needed = {"p50": (6, 1.0), "p90": (29, 1.5), "p95": (59, 1.6), "p99": (299, 2.0), "p999": (100_000, 2.5)}
    quantiles = {
        name: Quantile(median * factor, median * factor * 0.9, median * factor * 1.1) if count >= least else None
        for name, (least, factor) in needed.items()
    }
    return Distribution(count=count, max=median * 3, **quantiles)


ENVIRONMENT = Environment(
    pflx="0.1.0",
    python="3.11.7",
    os="Linux",
    cpu="A CPU",
    cores=2,
    threads_of_machine=4,
    memory_gb=8.0,
    frequency="floating, 0.8 to 3.5 GHz by schedutil, 2.4 GHz now",
    packages={"numpy": "2.4.6", "onnxruntime": "1.31.1"},
    load=0.25,
)

SETUP = Setup(
    bundle="me.pflx",
    untrained=0,
    generator="reactface",
    renderer="pirender",
    precision="fp16",
    graphs={"posnet": "0123456789ab"},
    device="cpu",
    threads=2,
    stub=False,
    window=8,
    hop=8,
    lead=0,
    lookahead=2,
    sample_rate_hz=16_000,
    fps=25,
    samples=1,
    size=256,
    source="a planted speaker",
    sink="null",
    floor="HOLD",
    playout_ms=120,
    duration_s=60,
    seed=0,
    clock="real",
)

FIGURES = Figures(
    frames=1500,
    segments=188,
    samples=1,
    duration_s=60.0,
    fps_shown=24.8,
    algorithmic_ms=400.0,
    playout_ms=120.0,
    turnaround=planted_distribution(60.0, 188),
    real_time_factor=planted_distribution(0.2, 188),
    generator=planted_distribution(20.0, 188),
    posnet=planted_distribution(1.5, 188),
    render=planted_distribution(5.0, 1488),
    host_copy=planted_distribution(0.1, 1488),
    hop_work=planted_distribution(22.0, 188),
    frame_work=planted_distribution(5.1, 1488),
    trail=planted_distribution(521.0, 1500),
    lateness=planted_distribution(0.0, 1500),
    age=planted_distribution(300.0, 1500),
    jitter_border=planted_distribution(2.0, 187),
    jitter_inside=planted_distribution(0.5, 1312),
    jitter_std=0.75,
    dmr=0.008,
    missed=12,
    longest_miss_run=4,
    freeze_ms_per_min=480.0,
    rungs={"FULL": 1488, "HOLD": 12},
    dropped=0,
    emit_delay=planted_distribution(0.2, 1488),
    smallest_playout_ms=None,
    smallest_playout_note="Not every frame was rendered in full and shown.",
    av_offset_ms=1.2,
    av_slope_ms_per_h=0.0,
    drift_ms_per_h=0.03,
)

REPORT = Report(
    created="2026-01-02T03:04:05+00:00",
    mode="realtime",
    command="pflx bench-latency me.pflx",
    environment=ENVIRONMENT,
    setup=SETUP,
    figures=FIGURES,
    reaction=Reaction(
        latency=planted_distribution(310.0, 59),
        coefficients_latency=planted_distribution(390.0, 59),
        impulses=59,
        checked=20,
        algorithmic_mean_ms=160.0,
        algorithmic_worst_ms=320.0,
    ),
    first_frame=FirstFrame(cold_ms=9800.0, opening_ms=7500.0, warm_ms=710.0, idle_ms=None),
    engines=[
        EngineFigures(
            graph="posnet",
            per_segment=1,
            calls=400,
            warmup_calls=50,
            warmup_ms=240.0,
            feeds={"segment": [1, 8, 58], "last_pose": [1, 6]},
            compute=planted_distribution(1.5, 400),
            flops=3_000_000,
            gflops=2.0,
            share_of_peak=0.02,
        )
    ],
    peak_gflops=100.0,
    sessions=[
        SessionsRow(sessions=1, dmr=0.0, turnaround_p99_ms=120.0, kept=True),
        SessionsRow(sessions=2, dmr=0.25, turnaround_p99_ms=None, kept=False),
    ],
    minutes=[
        Minute(minute=0, dmr=0.0, rss_mb=900.0, drift_ms=0.0, frames=1500),
        Minute(minute=1, dmr=0.0, rss_mb=901.0, drift_ms=0.01, frames=1500),
    ],
    series=Series(
        frame_s=[0.0, 0.04],
        trail_ms=[520.0, None],
        lateness_ms=[0.0, None],
        rung=[Rung.FULL, Rung.HOLD],
        deadline_ms=520.0,
        histogram_edges_ms=[500.0, 510.0, 520.0],
        histogram_counts=[1, 2],
        stages={"generator": 2.5, "rendering": 5.0},
    ),
    verdict=["This machine keeps 25 fps."],
    self_test=SelfTest(
        stall_ms=500.0,
        open_p99_before=60.0,
        open_p99_after=420.0,
        closed_p99_before=60.0,
        closed_p99_after=61.0,
        passed=True,
    ),
)

EMPTY = replace(
    REPORT, figures=None, reaction=None, first_frame=None, engines=[], sessions=[], minutes=[], peak_gflops=None
)
"""What figures could be read from is not there."""

if __name__ == "__main__":
    REPORT_TEXT.write_text("\n".join(report_lines(REPORT)) + "\n", encoding="utf-8")
