"""Plots of a report as SVG text.

A drawing has the width of the screen it is made for, so that a letter keeps its size; colours are the page's classes.
What a mark means is in its shape, place or label too, never in its colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from itertools import pairwise

from pflx.runtime.bench.report.report import Minute, Series
from pflx.runtime.bench.report.stages import share_of
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.text_table import number

WIDE, NARROW, SMALL = 800, 340, 300
"""Widths of a drawing in CSS pixels: for a desk, for a phone, for one of three side by side."""

_LETTER = 7.0
"""Width of a letter of a label, at most, on average."""
_SYMBOLS = {
    Rung.FULL: "h0",
    Rung.FEWER_STEPS: "m-4.5 3.5h9l-4.5 -8z",
    Rung.HALF_RATE: "m0 -5l5 5l-5 5l-5 -5z",
    Rung.WARPED: "m-5 0l5 -5l5 5m-10 4l5 -5l5 5",
    Rung.HOLD: "m-3.5 -3.5l7 7m-7 0l7 -7",
}
_SWATCH = "m-5 -5h10v10h-10z"


@dataclass(frozen=True)
class Axis:
    """A linear scale that begins and ends at a round number, and the round numbers on it."""

    low: float
    high: float
    step: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The position of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """From low to high, a step apart."""
        return [self.low + i * self.step for i in range(round((self.high - self.low) / self.step) + 1)]

    def label(self, tick: float) -> str:
        """As few decimals as the step needs."""
        return f"{tick:,.{max(0, -math.floor(math.log10(self.step) + 1e-9))}f}"


def axis(values: Iterable[float], start: float, end: float, about: int, least: float = 1.0) -> Axis:
    """An axis that holds all values.

    Args:
        values: at least one.
        start: position of the least value.
        end: position of the largest.
        about: how many steps there should be.
        least: span that it covers at least.
    """
    known = list(values)
    low, high = min(known), max(known)
    spare = max(0.0, least - (high - low))
    low, high = (low - spare / 2, high + spare / 2) if low - spare / 2 >= 0 or low < 0 else (0.0, high + spare)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step, start, end)


@dataclass
class Drawing:
    """One SVG, part by part."""

    width: float
    title: str
    parts: list[str] = field(default_factory=list)

    def path(self, kind: str, d: str) -> None:
        """Add lines or symbols of one class."""
        self.parts.append(f'<path class="{kind}" d="{d}"/>' if d else "")

    def text(self, x: float, y: float, content: str, kind: str = "tick", anchor: str = "start") -> None:
        """Add a label."""
        where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        self.parts.append(f'<text class="{kind}" {where}>{escape(content)}</text>')

    def box(self, kind: str, x: float, y: float, width: float, height: float, hint: str) -> None:
        """Add a rectangle that says what it is when pointed at."""
        where = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self.parts.append(f'<rect class="{kind}" {where}><title>{escape(hint)}</title></rect>')

    def legend(self, items: Sequence[tuple[str, str, str]]) -> float:
        """Add rows of (class, symbol, label) at the top; returns where they end."""
        x, y = 0.0, 10.0
        for kind, symbol, label in items:
            width = 30 + _LETTER * len(label)
            if x and x + width > self.width:
                x, y = 0.0, y + 22
            self.path(kind, f"M{x + 8:.1f} {y:.1f}{symbol}")
            self.text(x + 21, y + 4.5, label, "label")
            x += width + 6
        return y + 12

    def grid(self, x: Axis, y: Axis, x_unit: str, y_title: str) -> Axis:
        """Add both axes, the name of the upright one above it; returns `x` with room for the labels."""
        x = replace(x, start=self.grid_start(y))
        for tick in y.ticks:
            self.path("grid", f"M{x.start:.1f} {y(tick):.1f}H{x.end:.1f}")
            self.text(x.start - 8, y(tick) + 4, y.label(tick), anchor="end")
        self.ticks(x, y.start + 4, x_unit)
        self.text(0, y.end - 12, y_title, "label")
        return x

    def grid_start(self, y: Axis) -> float:
        """Where a plot begins, right of the numbers of its upright axis."""
        return 12 + _LETTER * max(len(y.label(tick)) for tick in y.ticks)

    def ticks(self, x: Axis, y: float, unit: str) -> None:
        """Add the numbers under a plot, the last with its unit."""
        for tick in x.ticks[:-1]:
            self.path("grid", f"M{x(tick):.1f} {y - 4:.1f}v5")
            self.text(x(tick), y + 16, x.label(tick), anchor="middle" if x(tick) > 10 else "start")
        self.text(min(self.width, x.end + 10), y + 16, f"{x.label(x.high)} {unit}", anchor="end")

    def svg(self, bottom: float, top: float = 0) -> str:
        """The whole between two heights, with a title for who does not see it."""
        title = escape(self.title)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 {top:.0f} {self.width:.0f} {bottom - top:.0f}" '
            f'role="img" aria-label="{title}"><title>{title}</title>{"".join(self.parts)}</svg>'
        )


def rung_name(name: str) -> str:
    """A rung in words."""
    return {"FULL": "in full", "HOLD": "held"}.get(name, name.replace("_", " ").lower())


@dataclass(frozen=True)
class _Point:
    time_s: float
    behind_ms: float | None
    missed: bool
    rung: Rung


def _points(series: Series) -> list[_Point]:
    """How far behind the speaker each frame was when its own picture was ready: what it is judged by.

    One that is held stands where the older picture that was shown for it belongs, if that is further behind; one that
    was never shown stands nowhere.
    """
    rows = zip(series.frame_s, series.trail_ms, series.lateness_ms, series.rung, strict=True)
    return [
        _Point(
            time_s,
            _behind(trail, None if late is None else series.deadline_ms + late, rung),
            trail is None or late is None or late > 0 or rung != Rung.FULL,
            rung,
        )
        for time_s, trail, late, rung in rows
    ]


def _behind(trail_ms: float | None, ready_ms: float | None, rung: Rung) -> float | None:
    if trail_ms is None:
        return None  # never shown: there may have been a picture in time, but nobody saw it
    known = [ms for ms in (ready_ms, trail_ms if rung == Rung.HOLD else None) if ms is not None]
    return max(known, default=None)


def trail_plot(series: Series, width: float) -> str:
    """Every frame over media time against the deadline; under the axis a line for every missed one."""
    drawing = Drawing(width, "When each frame's picture was ready, over media time, against its deadline")
    points, rungs = _points(series), sorted(set(series.rung))
    symbols = [(f"rung{rung:d}", _SYMBOLS[rung], rung_name(rung.name)) for rung in rungs]
    deadline = f"deadline, {number(series.deadline_ms)} ms"
    top = drawing.legend([*symbols, ("deadline", "m-8 0h16", deadline), ("missed", "m0 -5v10", "missed")]) + 34
    y = axis([series.deadline_ms, *(p.behind_ms for p in points if p.behind_ms is not None)], top + 200, top, 5, 20)
    x = axis([0.0, *(p.time_s for p in points)], 0, width - 10, round(width / 110))
    x = drawing.grid(x, y, "s", "ms behind the speaker")
    for rung in rungs:
        shown = [(p.time_s, p.behind_ms) for p in points if p.rung == rung and p.behind_ms is not None]
        drawing.path(f"rung{rung:d}", "".join(f"M{x(t):.1f} {y(ms):.1f}{_SYMBOLS[rung]}" for t, ms in shown))
    drawing.path("deadline", f"M{x.start:.1f} {y(series.deadline_ms):.1f}H{x.end:.1f}")
    lane = y.start + 28
    drawing.path("missed", "".join(f"M{x(p.time_s):.1f} {lane:.1f}v10" for p in points if p.missed))
    _hover(drawing, points, x, y)
    return drawing.svg(lane + 12)


def _hover(drawing: Drawing, points: Sequence[_Point], x: Axis, y: Axis) -> None:
    """Strips that say what is in them when pointed at."""
    span = (x.high - x.low) * 8 / (x.end - x.start)
    strips: dict[int, list[_Point]] = {}
    for point in points:
        strips.setdefault(int((point.time_s - x.low) / span), []).append(point)
    for index, inside in strips.items():
        known = [p.behind_ms for p in inside if p.behind_ms is not None]
        behind = f"{number(min(known))} to {number(max(known))} ms, " if known else ""
        hint = f"{number(inside[0].time_s)} s: {behind}{sum(p.missed for p in inside)} of {len(inside)} missed"
        drawing.box("hover", x.start + 8 * index, y.end, 8, y.start - y.end + 38, hint)


def histogram(series: Series, width: float) -> str:
    """How many pictures were ready when, with percentiles and the deadline."""
    drawing = Drawing(width, "How many pictures were ready when, with percentiles and the deadline")
    edges, counts = series.histogram_edges_ms, series.histogram_counts
    marks = _ready_marks(series)
    near = any(name == "deadline" for name, _ in marks)
    y = axis([0.0, *counts], 270, 96, max(1, min(4, max(counts))))
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    x = axis([*middles, *(value for _, value in marks)], 0, width - 10, round(width / 110))
    x = drawing.grid(_room_for(marks, drawing.grid_start(y), x), y, "ms", "")
    for count, (low, high) in zip(counts, pairwise(edges), strict=True):
        tall = max(y.start - y(count), 2.0) if count else 0.0
        left = max(x(low), x.start)
        bar = max(min(x(high), x.end) - left - 1, 1.5)
        drawing.box("bar", left, y.start - tall, bar, tall, f"{number(low)} to {number(high)} ms: {count} frames")
    top = _marks(drawing, marks, x, y)
    drawing.text(0, top - 12, "frames" if near else f"frames; the deadline is {number(series.deadline_ms)} ms", "label")
    return drawing.svg(y.start + 24, top - 26)


def _ready_marks(series: Series) -> list[tuple[str, float]]:
    """Percentiles within the bins, and the deadline where it is not so far off that the bins would be one bar."""
    low, high = series.histogram_edges_ms[0], series.histogram_edges_ms[-1]
    known = {name: getattr(series.ready, name) for name in ("p50", "p95", "p99")} if series.ready else {}
    marks = [(name, found.value) for name, found in known.items() if found and low <= found.value <= high]
    near = 2 * low - high <= series.deadline_ms <= 2 * high - low
    return [*([("deadline", series.deadline_ms)] if near else []), *marks]


def _room_for(marks: Sequence[tuple[str, float]], start: float, x: Axis) -> Axis:
    """The axis, as much shorter as the labels right of its marks need."""
    ends = [x.end]
    for name, value in marks:
        share = (value - x.low) / (x.high - x.low)
        ends += [start + (x.end + 10 - _label_width(name, value) - start) / share] if share else []
    return replace(x, end=min(ends))


def _label_width(name: str, value: float) -> float:
    return _LETTER * len(f"{name} {number(value)}") + 8


def _marks(drawing: Drawing, marks: Sequence[tuple[str, float]], x: Axis, y: Axis) -> float:
    """Upright lines with labels right of them, each in the lowest row where none is in its way; returns the top."""
    placed: list[tuple[float, float, int]] = []  # from where to where a label reaches, and its row
    for name, value in sorted(marks, key=lambda mark: -mark[1]):
        left, right = x(value), x(value) + _label_width(name, value)
        in_the_way = [row for begin, _, row in placed if begin < right]
        row = max(in_the_way, default=-1) + 1
        placed.append((left, right, row))
        height = y.end - 14 - 16 * row
        drawing.path("deadline" if name == "deadline" else "mark", f"M{left:.1f} {y.start:.1f}V{height:.1f}")
        drawing.text(left + 5, height + 8, f"{name} {number(value)}", "label")
    return y.end - 14 - 16 * (max((row for *_, row in placed), default=-1) + 1)


def stage_bar(stages: Mapping[str, float], budget_ms: float, width: float) -> str:
    """The stages of one frame, end to end, against the time there is for it."""
    drawing = Drawing(width, f"Time of each stage per frame, against {number(budget_ms)} ms")
    total = sum(stages.values())
    said = [f"{name} {number(ms)} ms" + (f", {share_of(ms, total)}" if total else "") for name, ms in stages.items()]
    items = [(f"stage{i}", _SWATCH, words) for i, words in enumerate(said)]
    top = drawing.legend(items) + 34
    x = axis([0.0, budget_ms, total], 0, width - 10, round(width / 90))
    for index, ms in enumerate(stages.values()):
        before = x(sum(list(stages.values())[:index]))
        drawing.box(f"stage{index}", before, top, max(x(x.low + ms) - x.start - 1, 1), 36, said[index])
    drawing.ticks(x, top + 46, "ms")
    side = "end" if x(budget_ms) > width / 2 else "start"
    drawing.path("deadline", f"M{x(budget_ms):.1f} {top - 12:.1f}v58")
    offset = -6 if side == "end" else 6
    drawing.text(x(budget_ms) + offset, top - 8, f"budget {number(budget_ms)} ms", "label", side)
    return drawing.svg(top + 70)


def minute_plot(minutes: Sequence[Minute], values: Sequence[float], title: str) -> str:
    """One figure, minute by minute."""
    drawing = Drawing(SMALL, f"{title}, minute by minute")
    y = axis([0.0, *values] if min(values) < max(values) / 2 else values, 130, 30, 3, 0.01)
    x = axis([0.0, *(m.minute for m in minutes)], 0, SMALL - 10, 4)
    x = drawing.grid(x, y, "min", title)
    points = [(x(m.minute), y(value)) for m, value in zip(minutes, values, strict=True)]
    drawing.path("curve", "M" + "L".join(f"{left:.1f} {top:.1f}" for left, top in points))
    drawing.path("rung0", "".join(f"M{left:.1f} {top:.1f}h0" for left, top in points))
    return drawing.svg(y.start + 24)
