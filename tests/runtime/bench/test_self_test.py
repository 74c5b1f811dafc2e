"""The self-test: an open loop sees a stall that a closed loop does not."""

from __future__ import annotations

import pytest

import pflx.runtime.bench.measure.self_test as self_test_module
from pflx.runtime.bench.measure.self_test import run_self_test
from pflx.runtime.bench.report.report import Report, decode_report, encode_report
from pflx.runtime.bench.report.summary import report_lines


@pytest.fixture(scope="module")
def report() -> Report:
    return run_self_test()


def test_the_open_loop_sees_the_stall_and_the_closed_loop_does_not(report: Report) -> None:
    test = report.self_test
    assert test
    assert test.passed
    assert test.open_p99_before == 840 + 100
    assert test.open_p99_after > test.open_p99_before + 100
    assert test.closed_p99_before == test.closed_p99_after == 40 + 10 + 1 + 20


def test_the_self_test_gives_the_same_numbers_each_time(report: Report) -> None:
    assert run_self_test().self_test == report.self_test


def test_the_figures_are_those_of_the_run_with_the_stall(report: Report) -> None:
    assert report.figures
    assert report.figures.missed
    assert report.figures.longest_miss_run
    assert 10 < report.figures.longest_miss_run <= report.figures.missed < 40
    assert report.self_test
    assert report.figures.trail
    assert report.figures.trail.p99
    assert report.figures.trail.p99.value == report.self_test.open_p99_after
    assert (report.setup.stub, report.setup.clock) == (True, "virtual")


def test_the_report_of_a_self_test_is_whole(report: Report) -> None:
    assert decode_report(encode_report(report), "self-test") == report
    assert "passed" in report_lines(report)[report_lines(report).index("Self-test") + 4]
    assert report.verdict[0].endswith("as it has to be.")


def test_a_measurement_that_is_blind_to_the_stall_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test_module, "_STALL_MS", 0)
    report = run_self_test()
    assert report.self_test
    assert not report.self_test.passed
    assert "do not trust" in report.verdict[0]
