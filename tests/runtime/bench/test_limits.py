"""A report held to limits, and beside another one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.latency.reports import EMPTY, ENVIRONMENT, FIGURES, REPORT, SETUP, planted_distribution

from pflx.runtime.bench.report.assertions import AssertError, Assertion, check_assertions, parse_assertions
from pflx.runtime.bench.report.compare import compare_reports, comparison_lines
from pflx.runtime.bench.report.report import Report
from pflx.runtime.bench.report.scalars import (
    COUNTED,
    NEEDED,
    Refused,
    list_names,
    memory_slope_mb_per_h,
    read_scalars,
)
from pflx.runtime.latency.percentiles import Distribution, Figures

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("dmr<=0.001", [Assertion("dmr", "<=", 0.001)]),
        (
            " dmr <= 1e-3 , reaction_p99_ms<900",
            [Assertion("dmr", "<=", 0.001), Assertion("reaction_p99_ms", "<", 900.0)],
        ),
        ("fps_shown>24.5,missed>=.0", [Assertion("fps_shown", ">", 24.5), Assertion("missed", ">=", 0.0)]),
        ("drift_ms_per_h>-5.", [Assertion("drift_ms_per_h", ">", -5.0)]),
        ("posnet_compute_p99_ms<3", [Assertion("posnet_compute_p99_ms", "<", 3.0)]),
    ],
)
def test_limits_are_read(text: str, parsed: list[Assertion]) -> None:
    assert parse_assertions(text, ["posnet"]) == parsed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is no assertion. Write NAME<=NUMBER"),
        ("dmr", "'dmr' is no assertion"),
        ("dmr=0", "'dmr=0' is no assertion"),
        ("dmr<=0.1,", "'' is no assertion"),
        ("dmr<=0.1 missed<=2", "is no assertion"),
        ("dmr<=1%", "'1%' in 'dmr<=1%' is no number"),
        ("reaction_p99_ms<=900ms", "'900ms' in .* is no number. Write one without a unit"),
        ("dmr<=nan", "'nan' in .* is no number"),
        ("dmr<=1e999", "'1e999' in .* is no number"),
        ("dmr<=٣", "is no number"),
        ("reaction_p99<=900", "There is no figure 'reaction_p99' to assert. Near it are .*reaction_p99_ms"),
        ("zzz<=1", "There is no figure 'zzz' to assert. Names are like dmr"),
        ("posnet_gflops>=1", "There is no figure 'posnet_gflops'"),
    ],
)
def test_what_is_no_limit_is_refused_with_what_would_be_one(text: str, says: str) -> None:
    with pytest.raises(AssertError, match=says):
        parse_assertions(text)


@given(
    name=st.sampled_from(list_names()),
    comparison=st.sampled_from(["<", "<=", ">", ">="]),
    limit=FINITE,
    gap=st.sampled_from(["", " "]),
)
def test_every_figure_can_be_limited_by_any_number(name: str, comparison: str, limit: float, gap: str) -> None:
    assert parse_assertions(f"{name}{gap}{comparison}{gap}{limit!r}") == [Assertion(name, comparison, limit)]


@pytest.mark.parametrize(
    ("text", "failures"),
    [
        ("dmr<=0.008,dmr>=0.008,dmr<0.0081,dmr>0.0079", []),
        ("dmr<0.008", ["dmr is 0.008, asserted was < 0.008."]),
        (
            "missed<=1,rung_hold>12",
            ["missed is 12, asserted was <= 1.", "rung_hold is 12, asserted was > 12."],
        ),
        (
            "reaction_p99_ms<=9000",
            ["reaction_p99_ms <= 9000 cannot be judged: 59 impulses; p99 needs 299."],
        ),
        (
            "smallest_playout_ms<=100",
            ["smallest_playout_ms <= 100 cannot be judged: not every frame was rendered in full and shown."],
        ),
        ("first_frame_idle_ms<1", ["first_frame_idle_ms < 1 cannot be judged: it was not measured."]),
        ("first_frame_cold_ms<=9800,sessions_kept>=1,memory_slope_mb_per_h<=61", []),
    ],
)
def test_a_report_is_held_to_its_limits(text: str, failures: list[str]) -> None:
    assert check_assertions(parse_assertions(text), REPORT) == failures


def test_a_figure_of_a_graph_that_was_not_measured_is_within_no_limit() -> None:
    (failure,) = check_assertions(parse_assertions("pirender_gflops>1", ["pirender"]), REPORT)
    assert failure == "pirender_gflops > 1 cannot be judged: the report has no such figure."


def test_every_limit_fails_on_a_report_without_figures() -> None:
    names = list_names()
    failures = check_assertions([Assertion(name, ">=", 0.0) for name in names], EMPTY)
    assert len(failures) == len(names)


# Names


def test_names_have_their_unit_and_stand_once() -> None:
    names = list_names(["posnet"])
    assert len(names) == len(set(names))
    assert {
        "dmr",
        "missed",
        "reaction_p50_ms",
        "turnaround_p99_ms",
        "trail_p99_ms",
        "jitter_border_p99_ms",
        "emit_delay_p99_ms",
        "real_time_factor_p99",
        "first_frame_cold_ms",
        "lateness_max_ms",
        "rung_hold",
        "posnet_compute_p50_ms",
    } <= set(names)


def test_every_figure_of_frames_has_a_name() -> None:
    names = list_names()
    unnamed = {"rungs", "smallest_playout_note"}
    for field in msgspec.structs.fields(Figures):
        assert field.name in unnamed or any(name.startswith(field.name) for name in names), field.name
    distributions = {field.name for field in msgspec.structs.fields(Figures) if "Distribution" in str(field.type)}
    assert set(COUNTED) == distributions


def test_needed_counts_name_every_percentile() -> None:
    fields = {field.name for field in msgspec.structs.fields(Distribution)}
    assert set(NEEDED) == fields - {"count", "max"}


def test_a_report_has_every_name_with_a_number_or_a_reason() -> None:
    scalars = read_scalars(REPORT)
    assert list(scalars) == list_names(["posnet"])
    assert all(value.reason for value in scalars.values() if isinstance(value, Refused))


def test_the_slope_of_memory_needs_two_minutes() -> None:
    assert memory_slope_mb_per_h(REPORT.minutes[:1]) is None
    assert memory_slope_mb_per_h(REPORT.minutes) == pytest.approx(60.0)


# Beside another


def test_a_report_equals_itself() -> None:
    comparison = compare_reports(REPORT, REPORT)
    assert comparison.notes == []
    assert {row.ratio for row in comparison.rows} == {1.0, None}
    assert {row.name for row in comparison.rows if row.ratio is None} >= {"dropped"}


def test_only_figures_that_both_have_are_compared() -> None:
    names = [row.name for row in compare_reports(REPORT, replace(REPORT, reaction=None, first_frame=None)).rows]
    assert "dmr" in names
    assert not any(name.startswith(("reaction", "first_frame", "smallest_playout")) for name in names)


def test_ratios_are_of_this_to_the_other() -> None:
    faster = replace(REPORT, figures=replace(FIGURES, trail=planted_distribution(260.5, 1500)))
    (row,) = (row for row in compare_reports(faster, REPORT).rows if row.name == "trail_p99_ms")
    assert (row.this, row.other, row.ratio) == (521.0, 1042.0, 0.5)
    lines = comparison_lines(compare_reports(faster, REPORT))
    assert any(line.split() == ["trail_p99_ms", "521", "1,042", "0.500"] for line in lines)


def test_differences_of_setup_and_machine_are_noted() -> None:
    other = replace(
        REPORT,
        mode="soak",
        setup=replace(SETUP, threads=None, graphs={"posnet": "ff"}),
        environment=replace(ENVIRONMENT, load=9.0, packages={"numpy": "2.4.6", "onnxruntime": "1.21.0"}),
    )
    assert compare_reports(REPORT, other).notes == [
        "The modes differ: realtime, the other soak.",
        "The setups differ: graphs posnet 0123456789ab, the other ff; threads 2, the other none.",
        "The environments differ: packages onnxruntime 1.31.1, the other 1.21.0.",
    ]


def test_where_a_floating_clock_was_is_no_difference_but_that_it_floats_is() -> None:
    def with_clock(frequency: str) -> Report:
        return replace(REPORT, environment=replace(ENVIRONMENT, frequency=frequency))

    moved = with_clock("floating, 0.8 to 3.5 GHz by schedutil, 3.1 GHz now")
    assert compare_reports(REPORT, moved).notes == []
    assert "the other locked, 2.4 GHz" in compare_reports(REPORT, with_clock("locked, 2.4 GHz")).notes[0]
