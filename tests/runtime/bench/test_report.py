"""The report of a measurement as a file and as text, and what it says of the machine."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.latency.reports import EMPTY, ENVIRONMENT, FIGURES, REPORT, REPORT_TEXT, SETUP, planted_distribution

from pflx.engines import OutputError
from pflx.runtime.bench.report.plots import stage_bar
from pflx.runtime.bench.report.report import (
    MAX_POINTS,
    Minute,
    ReportError,
    ReportMissingError,
    decode_report,
    encode_report,
    load_report,
    save_report,
)
from pflx.runtime.bench.report.stages import stage_costs
from pflx.runtime.bench.report.summary import quote, report_lines
from pflx.runtime.bench.report.verdict import verdict
from pflx.runtime.latency.percentiles import Figures
from pflx.runtime.text_table import count, number, table

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def slow_figures(factor: float = 12.9, generator: float = 98.0) -> Figures:
    render = planted_distribution(500.0)
    return replace(
        FIGURES,
        real_time_factor=planted_distribution(factor),
        generator=planted_distribution(generator),
        render=render,
    )


# The file


def test_a_report_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    save_report(tmp_path / "latency.json", REPORT)
    assert load_report(tmp_path / "latency.json") == REPORT
    assert [path.name for path in tmp_path.iterdir()] == ["latency.json"]


@given(
    value=FINITE,
    rows=st.lists(
        st.builds(Minute, minute=st.integers(0, 99), dmr=FINITE, rss_mb=FINITE, drift_ms=FINITE, frames=st.integers(0))
    ),
    text=st.text(),
)
def test_no_number_or_text_is_changed_by_writing(value: float, rows: list[Minute], text: str) -> None:
    report = replace(REPORT, minutes=rows, command=text, verdict=[text], figures=replace(FIGURES, duration_s=value))
    assert decode_report(encode_report(report), "a report") == report


def test_a_report_is_indented_json_for_people_to_read() -> None:
    lines = encode_report(REPORT).decode().splitlines()
    assert lines[:2] == ["{", '  "schema": 3,']


@pytest.mark.parametrize(
    ("schema", "says"), [(4, "a newer pflx.*reads 3. Upgrade"), (1, "an older pflx.*Measure again")]
)
def test_another_schema_is_named_before_anything_else_is_read(schema: int, says: str) -> None:
    with pytest.raises(ReportError, match=f"old.json was written by {says}"):
        decode_report(msgspec.json.encode({"schema": schema, "unheard_of": 1}), "old.json")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"schema": "1"}',
        b'{"schema": 3}',
        encode_report(REPORT).replace(b'"mode"', b'"modus"'),
        encode_report(REPORT).replace(b'"realtime"', b'"fast"'),
        encode_report(REPORT).replace(b'"load": 0.25', b'"load": null'),
        b"[" * 100_000,
    ],
)
def test_a_file_that_is_no_report_is_refused_with_its_name(data: bytes) -> None:
    with pytest.raises(ReportError, match=r"^other\.json is no report .*Measure again with --json\.$"):
        decode_report(data, "other.json")


def test_a_report_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReportMissingError, match=r"none\.json does not exist\. Make one: pflx bench-latency BUNDLE"):
        load_report(tmp_path / "none.json")


def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        save_report(tmp_path / "no_folder" / "latency.json", REPORT)


def test_planted_series_are_within_their_limit() -> None:
    assert REPORT.series
    assert len(REPORT.series.frame_s) <= MAX_POINTS


# Text


def test_the_text_of_a_report_is_as_agreed() -> None:
    assert "\n".join(report_lines(REPORT)) + "\n" == REPORT_TEXT.read_text(encoding="utf-8")


def test_algorithmic_delay_stands_apart_from_compute() -> None:
    text = "\n".join(report_lines(REPORT))
    assert "algorithmic       400 ms = (8 of a segment + 2 of look-ahead) x 40 ms, on any hardware" in text
    assert "(algorithmic 160, compute 60/n/a, playout 120)" in quote(REPORT)


def test_a_refused_percentile_is_explained_where_it_is_missing() -> None:
    assert REPORT.reaction
    assert "p99 n/a (59 impulses; p99 needs 299)" in quote(REPORT)
    enough = replace(REPORT, reaction=replace(REPORT.reaction, latency=planted_distribution(310.0, 299)))
    assert quote(enough).startswith("reaction p50/p99 = 310/620 ms (algorithmic 160, ")


def test_a_sample_of_many_shows_its_last_percentile() -> None:
    many = replace(REPORT, figures=replace(FIGURES, trail=planted_distribution(400.0, 100_000)))
    assert "(frames; p99.9 1,000)" in "\n".join(report_lines(many))


def test_service_time_is_called_so() -> None:
    names = ("trail", "lateness", "age", "jitter_border", "jitter_inside", "emit_delay", "dmr", "missed")
    closed = replace(FIGURES, **dict.fromkeys(names), turnaround=planted_distribution(60.0, 300))
    report = replace(REPORT, mode="single-stream", figures=closed, reaction=None, first_frame=None)
    assert quote(report).startswith("service time p50/p99 = 60/120 ms, real-time factor 0.2/n/a · A CPU")
    text = "\n".join(report_lines(report))
    assert "Deadlines" not in text
    assert "playout" not in text


def test_a_report_of_nothing_but_its_setup_has_text() -> None:
    assert quote(EMPTY) == ""
    assert report_lines(EMPTY)[0].startswith("bench-latency, realtime: me.pflx, untrained weights (seed 0)")


def test_stubs_and_a_virtual_clock_are_named_in_the_line_to_quote() -> None:
    pretended = replace(REPORT, setup=replace(SETUP, stub=True, clock="virtual"))
    assert quote(pretended).endswith(
        "A CPU, 4 logical cores, stub engines, virtual clock, 1,500 frames, untrained weights"
    )


def test_the_gpu_is_named_in_the_line_to_quote_if_it_was_used() -> None:
    machine = replace(ENVIRONMENT, gpu="A GPU", sm="sm_89", cuda="13.0")
    assert "A CPU" in quote(replace(REPORT, environment=machine))
    assert "A GPU, ORT" in quote(replace(REPORT, environment=machine, setup=replace(SETUP, device="cuda:0")))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (1.5, "1.50"),
        (9.999, "10.0"),
        (78.91, "78.9"),
        (99.96, "100"),
        (-12345.6, "-12,346"),
    ],
)
def test_numbers_have_about_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_counted_nouns_agree() -> None:
    assert [count(n, "sample") for n in (1, 2, 1000)] == ["1 sample", "2 samples", "1,000 samples"]


def test_columns_are_aligned_and_remarks_are_not() -> None:
    assert table([("a", "b"), ("long", "1", "(why)"), ("x", "1000")]) == [
        "  a        b",
        "  long     1  (why)",
        "  x     1000",
    ]


# The verdict


def test_a_machine_too_slow_is_told_by_how_much_why_and_what_would_fit() -> None:
    said = verdict(slow_figures(), SETUP)
    assert said[0].startswith(
        "This machine cannot keep 25 fps: a segment of 320 ms takes 4,128 ms to make, 12.9 times too long"
    )
    assert said[1] == "12 of 1,500 frames missed their deadline (0.8 %, the limit is 0.1 %)."
    assert said[2] == (
        "Where the time of a frame goes: rendering 97.6 % (500 ms), generator 2.4 % (12.2 ms), PosNet under 0.1 % "
        "(0.188 ms), copy to host under 0.1 % (0.1 ms), crop under 0.1 % (0 ms)."
    )
    assert said[3] == "It could render 1.38 pictures a second beside generator and PosNet."
    assert said[4] == (
        "Pictures of 60 px instead of 256 would fit if the cost of rendering grows with their pixels (an estimate)."
    )
    assert said[5] == (
        "Generator and PosNet alone would fit: they take 99.5 of 320 ms and leave 27.6 ms a picture to another "
        "renderer."
    )


def test_no_renderer_is_offered_where_the_generator_alone_is_too_slow() -> None:
    said = verdict(slow_figures(generator=400.0), SETUP)
    assert said[-1] == "Generator and PosNet alone take 402 of 320 ms: no renderer would fit beside them."


@pytest.mark.parametrize(("factor", "fits"), [(1.5, "2 samples would fit"), (9.0, "Not one sample would fit")])
def test_fewer_samples_are_offered_where_there_are_several(factor: float, fits: str) -> None:
    said = verdict(replace(slow_figures(factor), render=planted_distribution(1.0)), replace(SETUP, samples=4))
    assert f"{fits} if cost grows with their number (an estimate; measured with 4)." in said


def test_what_would_fit_is_never_more_than_what_was_asked() -> None:
    cheap = replace(slow_figures(1.01), render=planted_distribution(1.0))
    said = verdict(cheap, SETUP)
    assert "It could render 25 pictures a second beside generator and PosNet." in said
    assert any("256 px instead of 256" in sentence for sentence in said)


def test_a_machine_that_keeps_up_is_told_how_little_playout_it_needs() -> None:
    kept = replace(FIGURES, missed=1, dmr=1 / 1500, smallest_playout_ms=33.3)
    said = verdict(kept, SETUP)
    assert said == [
        "This machine keeps 25 fps: 1 of 1,500 frames missed their deadline (0.0667 %, the limit is 0.1 %); "
        "real-time factor p50 0.2, at most 0.6.",
        "The smallest playout delay that would have missed none is 33.3 ms (120 ms was granted).",
    ]


def test_a_machine_with_time_to_spare_is_told_how_many_samples_would_fit() -> None:
    kept = replace(FIGURES, missed=0, dmr=0.0, real_time_factor=planted_distribution(0.1))
    assert "5 samples would fit if cost grows with their number" in verdict(kept, SETUP)[-1]


def test_a_machine_with_time_that_misses_deadlines_is_told_both() -> None:
    said = verdict(FIGURES, SETUP)
    assert said[0] == (
        "This machine does not keep 25 fps here: 12 of 1,500 frames missed their deadline (0.8 %, the limit is 0.1 %)."
    )
    assert said[1] == "A typical segment of 320 ms takes 64 ms to make (real-time factor p50 0.2, at most 0.6)."
    assert said[2].startswith("Where the time of a frame goes: rendering 63.7 % (5 ms)")


def test_the_shares_of_the_verdict_are_those_of_the_bar() -> None:
    figures = replace(FIGURES, hop_work=planted_distribution(40.0))
    sentence = next(said for said in verdict(figures, SETUP) if said.startswith("Where the time"))
    told = dict(re.findall(r"([A-Za-z ]+?) ([\d.]+) % \(", sentence.partition(": ")[2].replace(", ", ",")))
    stages = stage_costs(figures, SETUP.hop)
    assert set(told) == set(stages)
    root = ElementTree.fromstring(stage_bar(stages, 40.0, 800))
    bars = {box.findtext("{*}title", ""): float(box.get("width", "")) for box in root.findall("{*}rect")}
    for name, share in told.items():
        words, width = next((words, width) for words, width in bars.items() if words.startswith(name))
        assert words.endswith(f", {share} %")
        assert width / sum(bars.values()) == pytest.approx(float(share) / 100, abs=0.02)


def test_stages_beyond_the_frames_time_are_too_slow_where_deadlines_are_missed() -> None:
    figures = replace(FIGURES, hop_work=planted_distribution(350.0), dmr=1.0, missed=1500)
    said = verdict(figures, SETUP)
    assert said[0].startswith("This machine cannot keep 25 fps: a segment of 320 ms takes 391 ms to make, 1.22 times")


def test_a_run_of_moved_pictures_only_is_not_said_to_have_the_time() -> None:
    missed = replace(FIGURES, real_time_factor=None, frames=476, missed=476, dmr=1.0)
    assert verdict(missed, SETUP) == [
        "This machine does not keep 25 fps here: 476 of 476 frames missed their deadline (100 %, the limit is 0.1 %).",
        "No picture was rendered, so nothing is known about the speed.",
    ]


def test_small_samples_are_judged_by_their_worst() -> None:
    few = planted_distribution(0.5, 3)
    said = verdict(replace(FIGURES, real_time_factor=few), SETUP)
    assert said[0].startswith("This machine cannot keep 25 fps")
    assert "(real-time factor at most 1.50)" in said[0]


def test_stubs_are_said_to_be_stubs() -> None:
    said = verdict(replace(FIGURES, dmr=0.0, real_time_factor=planted_distribution(0.001)), replace(SETUP, stub=True))
    assert said[0] == "The networks are stubs: the figures are the runtime's own."
    assert not any("would fit" in sentence for sentence in said)


def test_without_pictures_nothing_is_claimed() -> None:
    said = verdict(replace(FIGURES, real_time_factor=None, dmr=None, missed=None), SETUP)
    assert said == ["No picture was rendered, so nothing is known about the speed."]
