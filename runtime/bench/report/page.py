"""The report as one HTML page that needs nothing else: no script, no font, no file, no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from pflx.engines.files.writer import write_whole
from pflx.runtime.bench.report.plots import NARROW, WIDE, histogram, minute_plot, rung_name, stage_bar, trail_plot
from pflx.runtime.bench.report.report import MAX_POINTS, EngineFigures, Report, Series
from pflx.runtime.bench.report.scalars import NEEDED, memory_slope_mb_per_h
from pflx.runtime.bench.report.summary import quote
from pflx.runtime.latency.percentiles import Distribution, Quantile
from pflx.runtime.text_table import number

_NONE = "–"
_MODES = {
    "realtime": "Real time, open loop",
    "single-stream": "One segment after another, closed loop: service time",
    "engine": "Graph by graph",
    "sessions": "Sessions at once, open loop",
    "soak": "Long run, open loop",
    "self-test": "Self-test of the measurement",
}
_LABELS = {
    "reaction": "reaction to an event",
    "reaction_coefficients": "reaction of own coefficients",
    "generator": "generation, per segment",
    "turnaround": "segment turnaround",
    "real_time_factor": "real-time factor, no unit",
    "posnet": "PosNet, per segment",
    "render": "rendering, per frame",
    "host_copy": "copy to host, per frame",
    "hop_work": "crop to PosNet, per segment",
    "frame_work": "rendering and copy, per frame",
    "trail": "trail behind the speaker",
    "lateness": "lateness past the deadline",
    "age": "age of information",
    "jitter_border": "jitter at segment borders",
    "jitter_inside": "jitter inside segments",
    "emit_delay": "emission after the deadline",
}
_NAMES = {
    "jitter_std": "jitter, standard deviation in ms",
    "dmr": "deadline-miss rate, a share of 1",
    "freeze_ms_per_min": "frozen, ms per minute",
    "fps_shown": "new pictures a second",
    "av_offset_ms": "largest sound offset, ms",
    "av_slope_ms_per_h": "slope of sound offset, ms per hour",
    "drift_ms_per_h": "drift, ms per hour",
    "pflx": "pflx",
    "os": "OS",
    "cpu": "CPU",
    "gpu": "GPU",
    "cuda": "CUDA",
    "sm": "SM",
    "threads_of_machine": "logical cores",
    "load": "load in the minute before",
    "untrained": "seed of untrained weights",
    "stub": "stub networks",
    "window": "window, frames",
    "hop": "hop, frames",
    "lead": "ahead of the speaker, frames",
    "lookahead": "look-ahead, frames",
    "steps": "denoising steps",
    "history": "history, frames",
    "sample_rate_hz": "sample rate, Hz",
    "extractors": "from where",
    "fps": "frames a second",
    "size": "side of a picture, px",
    "floor": "lowest rung",
}
_UNITS = {"ms": "ms", "s": "s", "gb": "GB", "gflops": "GFLOP/s"}
_TRAIL_NOTE = (
    "Each mark is a frame, at the time when its picture was ready: below the line, it was in time. A held frame stands "
    "where the older picture that was shown for it belongs, a dropped one nowhere. A short line under the axis is a "
    "frame that was not shown in full at its deadline."
)
_READY_NOTE = (
    "How far behind the speaker each frame was when its own picture was ready; right of the deadline, it was late. "
    "Frames that were held or moved only are not in it. The outermost bars hold what lies beyond them, too."
)
_INTERVAL_NOTE = (
    "Small: the 95 % confidence interval, from order statistics alone. "
    "A percentile that the sample cannot bound is refused, with the number of values that it needs."
)
_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--card:#f5f7f9;--ink:#16202a;--soft:#566370;--rule:#d9dfe5;
--blue:#0072b2;--green:#009e73;--orange:#d98e00;--pink:#b8578d;--sky:#56b4e9;--red:#c44e00}
@media(prefers-color-scheme:dark){:root{--paper:#11161b;--card:#1a2128;--ink:#e9eef2;--soft:#a0acb8;--rule:#323c46;
--blue:#56b4e9;--green:#1fbf92;--orange:#e69f00;--pink:#dd94bd;--sky:#0072b2;--red:#ff8242}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:960px;margin:auto;padding:28px 16px 56px}
h1{font-size:1.75rem;line-height:1.2;margin:0;overflow-wrap:anywhere;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:44px 0 12px;letter-spacing:-.005em}
p{margin:8px 0;overflow-wrap:anywhere}
.soft,.note{color:var(--soft)}.note{font-size:.875rem;max-width:70ch}
.badges{margin:12px 0 0;display:flex;flex-wrap:wrap;gap:8px}
.badges span{padding:1px 10px;border:1px solid var(--red);border-radius:12px;color:var(--red);font-size:.875rem}
.lead{font-size:1.15rem;font-weight:600;line-height:1.4;margin:20px 0 0}
.quote{margin:20px 0 0;padding:12px 14px;border-left:4px solid var(--blue);background:var(--card);
font:.8rem/1.55 ui-monospace,SFMono-Regular,Consolas,monospace;user-select:all}
.verdict{margin:20px 0 0;padding-left:20px}.verdict li{margin:4px 0}
.tiles{display:grid;grid-template-columns:1fr;gap:12px;margin:20px 0 0}
.tiles div{background:var(--card);border-radius:10px;padding:12px 14px}
.tiles dt{color:var(--soft);font-size:.875rem}
.tiles dd{margin:0;font-size:.8125rem;color:var(--soft);line-height:1.4;overflow-wrap:anywhere}
.tiles dd.value{font-size:1.45rem;font-weight:650;color:var(--ink);line-height:1.4}
.value small{font-size:.95rem;font-weight:400;color:var(--soft)}
@media(min-width:480px){.tiles{grid-template-columns:1fr 1fr}}
@media(min-width:900px){.tiles{grid-template-columns:repeat(4,1fr)}}
@media(max-width:479px){.tiles div{display:grid;grid-template-columns:1fr auto;align-items:baseline;gap:0 12px}
.tiles dd:last-child{grid-column:1/-1}.tiles dt{font-size:.8125rem}.tiles dd.value{font-size:1.25rem}}
.scroll{overflow-x:auto;border:1px solid var(--rule);border-radius:10px}
.scroll+.scroll{margin-top:16px}.long{max-height:420px;overflow-y:auto}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{padding:7px 12px;text-align:right;vertical-align:top;white-space:nowrap;border-top:1px solid var(--rule)}
thead th{border-top:0;color:var(--soft);font-weight:500;position:sticky;top:0;background:var(--paper)}
th:first-child{text-align:left;position:sticky;left:0;background:var(--paper);font-weight:500;white-space:normal;
min-width:118px}
td small,th small{display:block;color:var(--soft);font-size:.75rem}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,290px),1fr));gap:0 32px;margin:0;
grid-auto-flow:dense;font-size:.875rem}
.facts div{display:flex;justify-content:space-between;gap:16px;padding:6px 0;border-bottom:1px solid var(--rule)}
.facts .row{grid-column:1/-1}.facts dt{flex:none;color:var(--soft)}.facts dd{margin:0;text-align:right;
overflow-wrap:anywhere;min-width:0}
.trio{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,270px),1fr));gap:20px 16px;margin-bottom:16px}
.trio svg{max-width:400px}
svg{display:block;width:100%;height:auto;overflow:visible}
.wide text{font-size:13px}.narrow text,.trio text{font-size:12px}
.wide{display:none}.narrow{max-width:480px}
@media(min-width:760px){.wide{display:block}.narrow{display:none}main{padding:48px 32px 80px}h1{font-size:2.1rem}}
text{fill:var(--soft);font-variant-numeric:tabular-nums}text.label{fill:var(--ink)}
path{fill:none;stroke-width:1.6;stroke-linecap:round;stroke-linejoin:round}
.grid{stroke:var(--rule);stroke-width:1;stroke-linecap:butt}
.deadline{stroke:var(--ink);stroke-dasharray:6 4;stroke-linecap:butt}.mark{stroke:var(--red)}
.missed{stroke:var(--red);stroke-linecap:butt}.curve{stroke:var(--blue)}
.rung0{stroke:var(--blue);stroke-width:4.5}.rung1{fill:var(--green)}.rung2{fill:var(--orange)}
.rung3{stroke:var(--pink);stroke-width:2}.rung4{stroke:var(--red);stroke-width:2}
.bar,.stage0{fill:var(--blue)}.stage1{fill:var(--orange)}.stage2{fill:var(--green)}.stage3{fill:var(--pink)}
.stage4{fill:var(--sky)}.stage5{fill:var(--soft)}.hover{fill:transparent}.hover:hover{fill:var(--soft);opacity:.18}
@media print{:root{--paper:#fff;--card:#f5f7f9;--ink:#000;--soft:#444;--rule:#ccc;--blue:#0072b2;--green:#009e73;
--orange:#d98e00;--pink:#b8578d;--sky:#56b4e9;--red:#c44e00}body{font-size:10.5pt}main{max-width:none;padding:0}
.tiles{grid-template-columns:1fr 1fr}
.wide{display:block}.narrow{display:none}section,tr,.tiles div{break-inside:avoid}
.scroll{overflow:visible;max-height:none}
thead th,th:first-child{position:static}*{print-color-adjust:exact}@page{margin:14mm}}
"""


def save_page(path: Path, report: Report) -> None:
    """Write the page of a report, complete or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_whole(path, render_page(report).encode())


def render_page(report: Report) -> str:
    """A report as one HTML page: what it says first, then plots, then every figure, then what was measured where."""
    parts = (_head, _tiles, _plots, _figures, _minutes, _sessions, _engines, _self_test, _about)
    body = "\n".join(filter(None, (part(report) for part in parts)))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(report.setup.bundle)}: latency</title><style>{_STYLE}</style></head>"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _head(report: Report) -> str:
    setup, day = report.setup, report.created[:16].replace("T", " ")
    badges = (
        (setup.untrained is not None, f"untrained weights, seed {setup.untrained}: the pictures mean nothing"),
        (setup.stub, "stub networks: the runtime's own cost alone"),
        (setup.clock == "virtual", "virtual clock: time was simulated"),
    )
    return (
        f"<header><h1>{escape(setup.bundle)}</h1>"
        f'<p class="soft">{_MODES[report.mode]}, on {escape(setup.device)}, {escape(day)}</p>'
        + _list("p", "badges", (f"<span>{escape(text)}</span>" for shown, text in badges if shown))
        + _list("p", "lead", map(escape, report.verdict[:1]))
        + _list("p", "quote", [escape(quote(report))])
        + "</header>"
    )


def _tiles(report: Report) -> str:
    found = filter(None, (_reaction_tile(report), _miss_tile(report), _playout_tile(report), _first_tile(report)))
    tile = '<div><dt>{}</dt><dd class="value">{} <small>{}</small></dd><dd>{}</dd></div>'
    tiles = _list("dl", "tiles", (tile.format(*map(escape, texts)) for texts in found))
    return tiles + _list("ul", "verdict", (f"<li>{escape(sentence)}</li>" for sentence in report.verdict[1:]))


def _reaction_tile(report: Report) -> tuple[str, str, str, str] | None:
    reaction, turnaround = report.reaction, report.figures and report.figures.turnaround
    if reaction:
        note = (
            f"algorithm {number(reaction.algorithmic_mean_ms)} on average, {number(reaction.algorithmic_worst_ms)} "
            f"at worst, playout {number(report.setup.playout_ms)}; {number(reaction.impulses)} impulses"
        )
        return "Reaction, p50 / p99", _pair(reaction.latency), "ms", note
    if turnaround:
        note = f"a segment has {number(report.setup.segment_ms)} ms; {number(turnaround.count)} segments"
        return "Segment turnaround, p50 / p99", _pair(turnaround), "ms", note
    return None


def _miss_tile(report: Report) -> tuple[str, str, str, str] | None:
    figures = report.figures
    if not figures or figures.dmr is None:
        return None
    run = f"at most {_text(figures.longest_miss_run)} in a row"
    note = f"{_text(figures.missed)} of {number(figures.frames)} frames, {run}"
    return "Deadlines missed", number(100 * figures.dmr), "%", note


def _playout_tile(report: Report) -> tuple[str, str, str, str] | None:
    figures = report.figures
    if not figures or figures.dmr is None:
        return None
    if figures.smallest_playout_ms is None:
        return "Smallest playout delay", "none", "", figures.smallest_playout_note
    note = f"with no missed deadline; this run had {number(figures.playout_ms)} ms"
    return "Smallest playout delay", number(figures.smallest_playout_ms), "ms", note


def _first_tile(report: Report) -> tuple[str, str, str, str] | None:
    first = report.first_frame
    if not first:
        return None
    value = " / ".join(_NONE if ms is None else number(ms / 1000) for ms in (first.warm_ms, first.cold_ms))
    idle = "" if first.idle_ms is None else f"; a segment after 10 s idle {number(first.idle_ms)} ms"
    return "First frame, warm / cold", value, "s", f"opening {number(first.opening_ms / 1000)} s{idle}"


def _plots(report: Report) -> str:
    series, setup = report.series, report.setup
    if not series:
        return ""
    note = (
        f"Medians per frame. A frame has {number(setup.frame_ms)} ms, a hop of {setup.hop} frames "
        f"{number(setup.segment_ms)} ms: a bar beyond the line cannot keep up, whatever the playout delay."
    )
    found = {
        "Latency over time": (series.frame_s, lambda width: trail_plot(series, width), _thinned_note(series, report)),
        "When pictures were ready": (
            sum(map(bool, series.histogram_counts)) > 1,  # one bar shows nothing
            lambda width: histogram(series, width),
            _READY_NOTE,
        ),
        "Where the time goes": (series.stages, lambda width: stage_bar(series.stages, setup.frame_ms, width), note),
    }
    return "\n".join(_section(title, _both(draw), note) for title, (data, draw, note) in found.items() if data)


def _thinned_note(series: Series, report: Report) -> str:
    """What the marks are, and of how many frames."""
    frames, drawn = report.figures.frames if report.figures else 0, len(series.frame_s)
    if drawn < MAX_POINTS:
        return _TRAIL_NOTE
    return f"{_TRAIL_NOTE} Of {number(frames)} frames {number(drawn)} are drawn, the worst of each few."


def _figures(report: Report) -> str:
    figures = report.figures
    rows = {"reaction": report.reaction.latency} if report.reaction else {}
    if report.reaction and report.reaction.coefficients_latency:
        rows["reaction_coefficients"] = report.reaction.coefficients_latency
    facts: dict[str, object] = {}
    for name in figures.__struct_fields__ if figures else ():
        value = getattr(figures, name)
        if isinstance(value, Distribution):
            rows[name] = value
        elif name not in ("rungs", "dropped", "smallest_playout_note"):
            facts[name] = value
    parts = [_section("Distributions", _distributions(rows), _INTERVAL_NOTE)] if rows else []
    if figures:
        rungs = {rung_name(name): f"{number(count)} frames" for name, count in figures.rungs.items()}
        parts.append(
            _section("How frames were made", _facts({**rungs, "dropped": f"{number(figures.dropped)} frames"}))
        )
        parts.append(_section("Single figures", _facts(facts)))
    return "\n".join(parts)


def _distributions(rows: Mapping[str, Distribution]) -> str:
    shown = [name for name in NEEDED if name != "p999" or any(row.p999 for row in rows.values())]
    cells = (
        [
            escape(_LABELS.get(name, name)),
            *(_quantile(getattr(row, percentile), NEEDED[percentile]) for percentile in shown),
            number(row.max),
            number(row.count),
        ]
        for name, row in rows.items()
    )
    return _table(["ms", *(name.replace("999", "99.9") for name in shown), "max", "values"], cells)


def _quantile(found: Quantile | None, needed: int) -> str:
    if found is None:
        return f"{_NONE}<small>needs {number(needed)}</small>"
    return f"{number(found.value)}<small>{number(found.low)} … {number(found.high)}</small>"


def _minutes(report: Report) -> str:
    minutes = report.minutes
    if not minutes:
        return ""
    curves = {
        "deadlines missed, %": [100 * minute.dmr for minute in minutes],
        "resident memory, MB": [minute.rss_mb for minute in minutes],
        "drift, ms": [minute.drift_ms for minute in minutes],
    }
    plots = _list(
        "div", "trio", (f"<div>{minute_plot(minutes, values, title)}</div>" for title, values in curves.items())
    )
    columns = zip(*curves.values(), strict=True)
    rows = (map(number, (m.minute, m.frames, *values)) for m, values in zip(minutes, columns, strict=True))
    slope = memory_slope_mb_per_h(minutes)
    note = "" if slope is None else f"Memory grows by {number(slope)} MB an hour."
    return _section("Minute by minute", plots + _table(["minute", "frames", *curves], rows, "scroll long"), note)


def _sessions(report: Report) -> str:
    head = ["sessions", "deadlines missed, %", "turnaround p99, ms", "within limits"]
    rows = (
        [_text(r.sessions), number(100 * r.dmr), _text(r.turnaround_p99_ms), _text(r.kept)] for r in report.sessions
    )
    return _section("Sessions at once", _table(head, rows)) if report.sessions else ""


def _engines(report: Report) -> str:
    if not report.engines:
        return ""
    peak = f"Peak of the machine, measured: {number(report.peak_gflops)} GFLOP/s. " if report.peak_gflops else ""
    notes = (f"{engine.graph}: {engine.warmup_note}." for engine in report.engines if engine.warmup_note)
    head = ["graph", "calls a segment", "calls", "warm-up calls", "warm-up ms", "GFLOP", "GFLOP/s", "share of peak"]
    times = {
        f"{engine.graph}, {stage}": found
        for engine in report.engines
        for stage in ("h2d", "compute", "d2h", "enqueue")
        if (found := getattr(engine, stage))
    }
    tables = _table(head, map(_engine_row, report.engines)) + _distributions(times)
    return _section("Graphs", tables, peak + " ".join(notes))


def _engine_row(engine: EngineFigures) -> list[str]:
    feeds = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in engine.feeds.items())
    return [
        f"{escape(engine.graph)}<small>{escape(feeds)}</small>",
        number(engine.per_segment),
        number(engine.calls),
        number(engine.warmup_calls),
        number(engine.warmup_ms),
        _text(engine.flops and engine.flops / 1e9),
        _text(engine.gflops),
        _NONE if engine.share_of_peak is None else f"{number(100 * engine.share_of_peak)} %",
    ]


def _self_test(report: Report) -> str:
    test = report.self_test
    if not test:
        return ""
    rows = [
        ["open loop", number(test.open_p99_before), number(test.open_p99_after)],
        ["closed loop", number(test.closed_p99_before), number(test.closed_p99_after)],
    ]
    outcome = "Passed" if test.passed else "Failed"
    note = (
        f"{outcome}: one stall of {number(test.stall_ms)} ms has to move the open loop's p99 and not the closed one's."
    )
    return _section("Self-test", _table(["p99, ms", "without stall", "with stall"], rows), note)


def _about(report: Report) -> str:
    parts = {"Setup": report.setup, "Machine": report.environment}
    facts = {title: {name: getattr(part, name) for name in part.__struct_fields__} for title, part in parts.items()}
    facts["Setup"] |= {"command": report.command, "created": report.created}
    return "\n".join(_section(title, _facts(named)) for title, named in facts.items())


def _section(title: str, content: str, note: str = "") -> str:
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{content}{below}</section>"


def _both(draw: Callable[[float], str]) -> str:
    return f'<div class="wide">{draw(WIDE)}</div><div class="narrow">{draw(NARROW)}</div>'


def _list(tag: str, kind: str, items: Iterable[str]) -> str:
    inside = "".join(items)
    return f'<{tag} class="{kind}">{inside}</{tag}>' if inside else ""


def _table(head: Sequence[str], rows: Iterable[Iterable[str]], kind: str = "scroll") -> str:
    """A table in a box of its own that scrolls; cells are HTML."""
    lines = (
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(head[0])}">{table}</div>'


def _facts(facts: Mapping[str, object]) -> str:
    pairs = (_fact(name, value) for name, value in facts.items())
    row = '<div class="{}"><dt>{}</dt><dd>{}</dd></div>'
    return _list("dl", "facts", (row.format("row" * (len(v) > 40), escape(k), escape(v)) for k, v in pairs))


def _fact(name: str, value: object) -> tuple[str, str]:
    """A field's name and value in words, with the unit that the name ends with."""
    words, _, last = name.rpartition("_")
    unit = "" if name in _NAMES else _UNITS.get(last, "")
    label = _NAMES.get(name, (words if unit else name).replace("_", " "))
    return label, _text(value) if value is None else f"{_text(value)} {unit}".rstrip()


def _text(value: object) -> str:
    if value is None or value == {}:
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return number(value) if isinstance(value, int | float) else str(value)


def _pair(found: Distribution) -> str:
    return " / ".join(_NONE if quantile is None else number(quantile.value) for quantile in (found.p50, found.p99))
