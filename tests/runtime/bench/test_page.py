"""The page of a latency report: whole, self-contained, and safe whatever the names in it are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.latency.reports import EMPTY, FIGURES, REPORT, SETUP, planted_distribution

from pflx.engines.files.writer import OutputError
from pflx.runtime.bench.report.page import render_page, save_page
from pflx.runtime.bench.report.plots import Axis, axis, histogram, minute_plot, rung_name, stage_bar, trail_plot
from pflx.runtime.bench.report.report import Minute, Mode, Report, Series
from pflx.runtime.bench.report.summary import quote
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.latency.percentiles import Distribution, Quantile
from pflx.runtime.text_table import number

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert('x')</script>&\"]]> \U0001f600"
NO_SERIES = Series(
    frame_s=[],
    trail_ms=[],
    lateness_ms=[],
    rung=[],
    deadline_ms=520.0,
    histogram_edges_ms=[],
    histogram_counts=[],
    stages={},
)
MIXED = Series(
    frame_s=[0.0, 0.04, 0.08, 0.12, 0.16],
    trail_ms=[520.1, 520.2, 520.3, None, 528.0],
    lateness_ms=[0.0, 75.0, 0.0, None, 8.0],
    rung=[Rung.FULL, Rung.HOLD, Rung.HALF_RATE, Rung.HOLD, Rung.FULL],
    deadline_ms=520.0,
    histogram_edges_ms=[520.0, 521.0, 530.0],
    histogram_counts=[3, 1],
    stages={"generator": 31.0, "PosNet": 0.0, "rendering": 486.0},
    ready=planted_distribution(524.0, 58),
)


class _Tags(HTMLParser):
    """Checks that every element is closed where it should be."""

    void = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def drawings(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def marks(svg: str, kind: str) -> int:
    """How many symbols of a class a plot has, without the legend's."""
    paths = [path.get("d", "") for path in ElementTree.fromstring(svg).iter(f"{SVG}path") if path.get("class") == kind]
    return sum(d.count("M") for d in paths) - 1


def quantities(report: Report) -> Iterator[float]:
    """Every number of a report but those that are drawn, not written."""
    stack: list[object] = [msgspec.to_builtins(replace(report, series=None))]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack += [inner for name, inner in value.items() if name not in ("schema", "series")]
        elif isinstance(value, list):
            stack += value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield value


def test_every_element_is_closed_and_every_drawing_is_xml_with_a_title() -> None:
    page, tags = render_page(REPORT), _Tags()
    tags.feed(page)
    assert not tags.open
    assert len(drawings(page)) == 9
    for svg in drawings(page):
        title = svg.find(f"{SVG}title")
        assert title is not None
        assert title.text == svg.get("aria-label")
        assert svg.get("role") == "img"


def test_page_needs_nothing_from_outside() -> None:
    page = render_page(REPORT)
    assert re.findall(r"https?:[^\"']*", page) == ["http://www.w3.org/2000/svg"] * 9
    assert not re.search(r"<(script|link|img|iframe|object)|\burl\(|@import|\bsrc=|\bhref=", page)


def test_every_figure_of_the_report_is_written() -> None:
    page = render_page(REPORT)
    shares = {"dmr": REPORT.minutes[0].dmr, "peak": 0.02, "sessions": 0.25}
    for quantity in quantities(REPORT):
        forms = {number(quantity), number(quantity / 1000), number(quantity / 1e9), number(100 * quantity)}
        assert any(form in page for form in forms), quantity
    assert all(number(100 * share) in page for share in shares.values())


def test_text_of_the_report_is_written() -> None:
    page = render_page(REPORT)
    texts = (*REPORT.verdict, quote(REPORT), REPORT.command, REPORT.environment.cpu, FIGURES.smallest_playout_note)
    for text in texts:
        assert escape(text) in page


def test_refused_percentile_says_how_many_values_it_needs() -> None:
    sample = planted_distribution(60.0, 58)
    page = render_page(replace(EMPTY, figures=replace(FIGURES, turnaround=sample)))
    assert "needs 59<" in page
    assert "needs 299<" in page
    assert "99.9" not in page


def test_high_percentile_has_a_column_where_a_sample_carries_it() -> None:
    page = render_page(replace(EMPTY, figures=replace(FIGURES, trail=planted_distribution(521.0, 100_000))))
    assert ">p99.9<" in page


def test_hostile_names_are_text() -> None:
    setup = replace(SETUP, bundle=HOSTILE, source=HOSTILE, graphs={HOSTILE: HOSTILE})
    report = replace(
        REPORT,
        setup=setup,
        command=HOSTILE,
        verdict=[HOSTILE, HOSTILE],
        created=HOSTILE,
        engines=[replace(REPORT.engines[0], graph=HOSTILE, feeds={HOSTILE: [1]}, warmup_note=HOSTILE)],
        figures=replace(FIGURES, rungs={HOSTILE: 1}, smallest_playout_note=HOSTILE),
        series=replace(MIXED, stages={HOSTILE: 1.0}),
    )
    page, tags = render_page(report), _Tags()
    tags.feed(page)
    assert "script" not in tags.seen
    assert "<script" not in page
    assert escape(HOSTILE) in page
    assert drawings(page)


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize("series", [None, NO_SERIES, MIXED])
def test_any_mode_with_little_or_nothing_to_show_makes_a_page(mode: Mode, series: Series | None) -> None:
    for report in (replace(EMPTY, series=series, self_test=None, verdict=[]), replace(REPORT, series=series)):
        page, tags = render_page(replace(report, mode=mode)), _Tags()
        tags.feed(page)
        assert not tags.open
        assert "<h1>me.pflx</h1>" in page


def test_figures_without_a_live_session_make_a_page() -> None:
    bare = {name: None for name in FIGURES.__struct_fields__ if isinstance(getattr(FIGURES, name), Distribution)}
    figures = replace(FIGURES, **bare, fps_shown=None, dmr=None, missed=None, longest_miss_run=None, rungs={})
    page = render_page(replace(EMPTY, figures=figures))
    assert "Deadlines missed" not in page
    assert "Distributions" not in page


def test_stub_virtual_and_untrained_runs_say_so() -> None:
    plain = render_page(replace(REPORT, setup=replace(SETUP, untrained=None)))
    marked = render_page(replace(REPORT, setup=replace(SETUP, stub=True, clock="virtual")))
    for words in ("untrained weights, seed 0", "stub networks: ", "virtual clock: "):
        assert words not in plain
        assert words in marked


def test_saved_page_is_the_rendered_one(tmp_path: Path) -> None:
    save_page(tmp_path / "latency.html", REPORT)
    assert (tmp_path / "latency.html").read_text(encoding="utf-8") == render_page(REPORT)
    with pytest.raises(OutputError):
        save_page(tmp_path / "missing" / "latency.html", REPORT)


@pytest.mark.parametrize("width", [340, 800])
def test_each_frame_has_one_mark_and_each_missed_one_a_line_under_the_axis(width: int) -> None:
    svg = trail_plot(MIXED, width)
    assert [marks(svg, f"rung{rung:d}") for rung in (Rung.FULL, Rung.HALF_RATE, Rung.HOLD)] == [2, 1, 1]
    assert marks(svg, "missed") == 4  # held, at half rate, never shown, and late


def test_pictures_that_were_ready_late_stand_where_they_were_ready() -> None:
    late = replace(MIXED, frame_s=[1.0], trail_ms=[520.0], lateness_ms=[300.0], rung=[Rung.HOLD])
    assert "820 to 820 ms, 1 of 1 missed" in trail_plot(late, 800)


@pytest.mark.parametrize("rung", Rung)
def test_every_rung_has_a_style_a_symbol_and_a_name_in_the_legend(rung: Rung) -> None:
    svg, page = trail_plot(replace(MIXED, rung=[rung] * 5), 800), render_page(REPORT)
    style = re.search(rf"\.rung{rung:d}\{{([^}}]*)\}}", page)
    assert style
    assert re.search(r"(stroke|fill):var\(--\w+\)", style[1])
    assert marks(svg, f"rung{rung:d}") == 4
    assert rung_name(rung.name) in [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def heights(svg: str, kind: str) -> list[float]:
    """How far down each symbol of a class is, without the legend's."""
    paths = [path.get("d", "") for path in ElementTree.fromstring(svg).iter(f"{SVG}path") if path.get("class") == kind]
    return [float(y) for y in re.findall(r"M[\d.-]+ ([\d.-]+)", " ".join(paths))][1:]


def test_marks_are_below_the_deadline_in_time_and_above_it_late() -> None:
    rungs = [Rung.FULL, Rung.FULL, Rung.FULL, Rung.WARPED, Rung.HOLD]
    times = {"frame_s": [0.0, 1.0, 2.0, 3.0, 4.0], "trail_ms": [520.4, 520.4, 535.0, 520.4, 560.2]}
    svg = trail_plot(replace(MIXED, rung=rungs, lateness_ms=[-80.0, -0.5, 15.0, -3.0, None], **times), 800)
    (line,) = heights(svg, "deadline")
    early, just, late = heights(svg, "rung0")
    assert early > just > line > late  # down is sooner
    assert heights(svg, "rung3") > [line]
    assert heights(svg, "rung4") < [line]
    assert marks(svg, "missed") == 3


@pytest.mark.parametrize("width", [340, 800])
@pytest.mark.parametrize(
    ("p50", "p95", "p99"), [(940.3, 940.5, 940.9), (930, 945, 946), (945, 945, 945), (949, 950, 951)]
)
def test_labels_of_the_histogram_are_crossed_by_no_line_and_no_label(
    width: int, p50: float, p95: float, p99: float
) -> None:
    found = {name: Quantile(value, value, value) for name, value in (("p50", p50), ("p95", p95), ("p99", p99))}
    sample = replace(planted_distribution(940.0), **found)
    edges = [930.0 + step for step in range(23)]
    series = replace(MIXED, deadline_ms=940.0, ready=sample, histogram_edges_ms=edges, histogram_counts=[*range(22)])
    root = ElementTree.fromstring(histogram(series, width))
    lines = [
        tuple(map(float, re.findall(r"[\d.-]+", path.get("d", ""))))
        for path in root.iter(f"{SVG}path")
        if path.get("class") in ("deadline", "mark")
    ]
    labels = [
        (float(text.get("x", "")), float(text.get("y", "")), len(text.text or ""))
        for text in root.iter(f"{SVG}text")
        if re.match(r"(deadline|p\d\d) \d", text.text or "")
    ]
    assert len(lines) == len(labels) == 4
    for x, y, letters in labels:
        assert x + 7 * letters <= width + 1
        assert not [at for at, _, top in lines if x <= at < x + 7 * letters and top < y - 2]
        assert not [1 for other, row, _ in labels if row == y and x < other < x + 7 * letters]


def test_a_picture_that_was_ready_and_never_shown_is_missed_and_has_no_mark() -> None:
    dropped = replace(MIXED, frame_s=[1.0], trail_ms=[None], lateness_ms=[-90.0], rung=[Rung.FULL])
    assert (marks(trail_plot(dropped, 800), "rung0"), marks(trail_plot(dropped, 800), "missed")) == (0, 1)


def test_a_histogram_of_one_bar_is_left_out() -> None:
    one = replace(MIXED, histogram_edges_ms=[500.0, 550.0], histogram_counts=[4])
    assert "When pictures were ready" in render_page(replace(REPORT, series=MIXED))
    assert "When pictures were ready" not in render_page(replace(REPORT, series=one))


@pytest.mark.parametrize("width", [340, 800])
def test_nothing_is_drawn_outside_of_a_plot(width: int) -> None:
    for svg in (
        trail_plot(MIXED, width),
        histogram(MIXED, width),
        stage_bar(MIXED.stages, 40.0, width),
        stage_bar({"generator": 0.0}, 40.0, width),
        minute_plot([Minute(minute=0, dmr=0, rss_mb=1, drift_ms=0, frames=1)], [0.0], "drift, ms"),
    ):
        root = ElementTree.fromstring(svg)
        left, top, wide, high = map(float, root.get("viewBox", "").split())
        for box in root.iter(f"{SVG}rect"):
            assert float(box.get("x", "")) >= left - 0.1
            assert float(box.get("x", "")) + float(box.get("width", "")) <= left + wide + 8
        for text in root.iter(f"{SVG}text"):
            assert left <= float(text.get("x", "")) <= left + wide
            assert top + 8 <= float(text.get("y", "")) <= top + high


@given(
    values=st.lists(st.floats(-1e7, 1e7), min_size=1),
    about=st.integers(2, 9),
    least=st.floats(1e-2, 100),
)
def test_axis_holds_every_value_between_round_numbers(values: list[float], about: int, least: float) -> None:
    scale = axis(values, 0, 100, about, least)
    slack = 1e-6 * scale.step
    assert scale.low <= min(values) + slack
    assert max(values) <= scale.high + slack
    assert 2 <= len(scale.ticks) <= 2 * about + 3
    mantissa = f"{scale.step:e}"[0]
    assert mantissa in "125"


def test_axis_labels_have_the_decimals_of_the_step() -> None:
    labels = {step: Axis(0, 10 * step, step, 0, 1).label(3 * step) for step in (0.002, 0.5, 1, 2_000)}
    assert labels == {0.002: "0.006", 0.5: "1.5", 1: "3", 2_000: "6,000"}
