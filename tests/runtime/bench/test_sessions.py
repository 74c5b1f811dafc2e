"""Closed loops and many sessions at once, on a virtual clock on which only the stubs' calls take time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pflx.engines import FeedError
from pflx.runtime import Ledger, VirtualClock
from pflx.runtime.bench.measure.plan import LATE_INSTEAD, Plan
from pflx.runtime.bench.measure.sessions import run_sessions
from pflx.runtime.bench.measure.single_stream import run_single_stream
from pflx.runtime.bench.report.report import Report, decode_report, encode_report
from pflx.runtime.latency.percentiles import Distribution

MS = 1_000_000
COSTS = {"reactface_speaker": 40 * MS, "posnet": 4 * MS, "pirender_frame": 5 * MS}
"""84 ms a segment: three sessions take 252 of 320 ms, four 336."""


def sessions(first: int, last: int, duration_s: float = 4.0) -> Report:
    return run_sessions(Plan(stub=True, duration_s=duration_s), first, last, VirtualClock(), costs=COSTS)


def medians(*found: Distribution | None) -> list[float]:
    assert all(sample and sample.p50 for sample in found)
    return [sample.p50.value for sample in found if sample and sample.p50]


def test_sessions_are_added_until_they_are_no_longer_kept() -> None:
    report = sessions(1, 8)
    assert [(row.sessions, row.kept) for row in report.sessions] == [(1, True), (2, True), (3, True), (4, False)]
    assert [row.dmr for row in report.sessions[:3]] == [0, 0, 0]
    assert report.sessions[3].dmr > 0
    assert report.verdict[0].startswith("3 sessions at once could be kept (at most 0.1 % of the frames missed")
    assert decode_report(encode_report(report), "it") == report


def test_a_search_that_ends_before_the_limit_says_so() -> None:
    report = sessions(2, 3)
    assert [row.sessions for row in report.sessions] == [2, 3]
    assert "More than 3 were not tried." in report.verdict
    assert "Not even 5 sessions at once could be kept" in sessions(5, 9).verdict[0]


def test_the_p99_is_over_the_segments_of_all_sessions() -> None:
    (row,) = sessions(3, 3, duration_s=40).sessions  # 3 x 122 segments; 122 alone carry no p99
    assert row.turnaround_p99_ms == pytest.approx(49, abs=0.01)  # evenly apart, no session waits for another
    (row,) = sessions(3, 3).sessions
    assert row.turnaround_p99_ms is None


def test_a_turnaround_beyond_a_segment_is_not_kept_even_if_no_deadline_is_missed() -> None:
    plan = Plan(stub=True, duration_s=6, live=replace(LATE_INSTEAD, playout_ms=2000))
    slow = run_sessions(plan, 1, 1, VirtualClock(), costs={"reactface_speaker": 300 * MS, "pirender_frame": MS})
    assert slow.sessions[0].dmr == 0
    assert slow.sessions[0].kept
    slower = {"reactface_speaker": 317 * MS, "pirender_frame": 4 * MS}
    (row,) = run_sessions(plan, 1, 1, VirtualClock(), costs=slower).sessions
    assert (row.dmr, row.kept) == (0, False)


def test_a_run_as_short_as_its_warm_up_is_refused() -> None:
    with pytest.raises(FeedError, match="the warm-up alone takes"):
        sessions(1, 1, duration_s=1)


def test_a_closed_loop_reports_service_times() -> None:
    told: list[tuple[float, float]] = []
    ledgers: list[Ledger] = []
    plan = Plan(stub=True, duration_s=4)
    report = run_single_stream(
        plan,
        VirtualClock(),
        costs=COSTS,
        progress=lambda done_s, total_s: told.append((done_s, total_s)),
        record=ledgers.append,
    )
    found = report.figures
    assert found is not None
    assert medians(found.turnaround, found.hop_work, found.frame_work, found.generator) == [49, 44, 5, 40]
    assert medians(found.real_time_factor) == [pytest.approx(84 / 320)]
    assert found.dmr is None
    assert told[-1] == (4, 4)
    assert told == sorted(told)
    # 4 s of 84 ms each, of media time much more than 4 s
    assert report.setup.duration_s == pytest.approx(len(ledgers) / 25) == pytest.approx(4 / 0.084 * 0.32, rel=0.05)
    assert found.frames == len(ledgers) - 24
    assert "closed loop" in report.verdict[0]
    assert decode_report(encode_report(report), "it") == report


def test_a_closed_loop_that_is_slow_serves_a_few_segments_however_long_they_take() -> None:
    slow = {"reactface_speaker": 4_000 * MS, "pirender_frame": 500 * MS}
    report = run_single_stream(Plan(stub=True, duration_s=2), VirtualClock(), costs=slow)
    assert report.figures is not None
    assert report.figures.segments >= 2
    assert any("cannot keep 25 fps" in sentence for sentence in report.verdict)


def test_a_closed_loop_of_several_samples_renders_each() -> None:
    report = run_single_stream(Plan(stub=True, duration_s=1, samples=2), VirtualClock(), costs=COSTS)
    assert report.figures is not None
    assert medians(report.figures.real_time_factor) == [pytest.approx((44 + 2 * 8 * 5) / 320)]
