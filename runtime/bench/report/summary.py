"""A report as text for a terminal, and the one line to quote."""

from __future__ import annotations

from collections.abc import Iterator

from pflx.runtime.bench.report.report import EngineFigures, Reaction, Report, Setup
from pflx.runtime.bench.report.scalars import (
    COUNTED,
    NEEDED,
    memory_slope_mb_per_h,
    no_smallest_playout,
    refused_percentile,
)
from pflx.runtime.bench.report.verdict import verdict
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.latency.percentiles import Distribution, Figures, Quantile
from pflx.runtime.text_table import count, number, percent, table

__all__ = ["quote", "report_lines", "verdict"]

_HEADER = ("ms", "n", "p50 [95 % interval]", "p90", "p95", "p99 [95 % interval]", "max")
_LABELS = {
    "turnaround": "segment turnaround",
    "hop_work": "work on a segment",
    "generator": "  generator",
    "posnet": "  PosNet",
    "frame_work": "work on a frame",
    "render": "  rendering",
    "host_copy": "  copy to the host",
    "trail": "behind the speaker",
    "lateness": "late by",
    "age": "age of information",
    "jitter_border": "jitter at borders",
    "jitter_inside": "jitter inside",
    "emit_delay": "emitted after deadline",
    "real_time_factor": "real-time factor",
}
"""The distributions of `Figures` as the table has them, in its order."""


def report_lines(report: Report) -> list[str]:
    """The whole report, one string a line, at most about 120 characters wide."""
    return [
        *_head(report),
        *_section("Delay, apart from what the hardware takes", _delay(report)),
        *_section("Time", _distributions(report)),
        *_section("Deadlines", _deadlines(report.figures)),
        *_section("Clocks", _clocks(report.figures)),
        *_section("First frame", _first_frame(report)),
        *_section("Graphs", _engines(report)),
        *_section("Sessions", _sessions(report)),
        *_section("Minutes", _minutes(report)),
        *_section("Self-test", _self_test(report)),
        *_section("Verdict", (f"  {sentence}" for sentence in report.verdict)),
        *_section("To quote", [f"  {quote(report)}"] if report.figures else []),
    ]


def quote(report: Report) -> str:
    """One line that holds what a reader must know; empty for a report without figures of frames."""
    figures = report.figures
    if figures is None:
        return ""
    parts = (_quote_delay(report, figures), _quote_deadlines(figures), _quote_first(report), _quote_setup(report))
    return " · ".join(filter(None, parts))


def _quote_delay(report: Report, figures: Figures) -> str:
    apart = f"compute {_pair(figures.turnaround)}, playout {number(figures.playout_ms)}"
    if report.reaction:
        reaction = _headline("reaction", report.reaction.latency, "impulses")
        return f"{reaction} (algorithmic {number(report.reaction.algorithmic_mean_ms)}, {apart})"
    if figures.trail:
        trail = _headline("behind the speaker", figures.trail, "frames")
        return f"{trail} (algorithmic {number(figures.algorithmic_ms)}, {apart})"
    if figures.turnaround:
        service = _headline("service time", figures.turnaround, "segments")
        return f"{service}, real-time factor {_pair(figures.real_time_factor)}"
    return ""


def _headline(name: str, sample: Distribution, counted: str) -> str:
    if sample.p99:
        return f"{name} p50/p99 = {_pair(sample)} ms"
    reason = refused_percentile(sample.count, counted, "p99").reason
    return f"{name} p50 = {_plain(sample.p50)} ms, p99 n/a ({reason}), max {number(sample.max)} ms"


def _quote_deadlines(figures: Figures) -> str:
    if figures.dmr is None:
        return ""
    inside, border = (sample and _plain(sample.p99) for sample in (figures.jitter_inside, figures.jitter_border))
    return f"DMR {percent(figures.dmr)} · jitter p99 {inside or 'n/a'} ms (border {border or 'n/a'})"


def _quote_first(report: Report) -> str:
    first = report.first_frame
    if first is None:
        return ""
    known = (("warm", first.warm_ms), ("cold", first.cold_ms))
    said = " / ".join(f"{name} {number(ms / 1000)} s" for name, ms in known if ms is not None)
    return said and f"first frame {said}"


def _quote_setup(report: Report) -> str:
    environment, setup, figures = report.environment, report.setup, report.figures
    on_gpu = setup.device.startswith("cuda") and environment.gpu
    machine = environment.gpu if on_gpu else f"{environment.cpu}, {environment.threads_of_machine} logical cores"
    engine = "stub engines" if setup.stub else f"{_backend(report)}, {setup.precision.upper()}"
    said = (
        machine,
        engine,
        f"clocks {environment.frequency.partition(',')[0]}" if setup.clock == "real" else "virtual clock",
        f"{figures.frames:,} frames" if figures else "",
        "untrained weights" if setup.untrained is not None else "",
    )
    return ", ".join(str(fact) for fact in said if fact)


_BACKENDS = {
    "onnxruntime": ("ORT", ("onnxruntime-gpu", "onnxruntime")),
    "openvino": ("OpenVINO", ("openvino",)),
    "tensorrt": ("TensorRT", ("tensorrt",)),
    "tensorrt-rtx": ("TensorRT for RTX", ("tensorrt-rtx-cu13",)),
}
"""Library to its name in a quote, and the packages that bring it."""


def _backend(report: Report) -> str:
    name, packages = _BACKENDS[report.setup.engine]
    return next((f"{name} {v}" for package in packages if (v := report.environment.packages.get(package))), name)


def _section(title: str, lines: list[str] | Iterator[str]) -> list[str]:
    body = list(lines)
    return ["", title, *body] if body else []


def _head(report: Report) -> Iterator[str]:
    environment, setup = report.environment, report.setup
    weights = "" if setup.untrained is None else f", untrained weights (seed {setup.untrained})"
    library = "" if setup.engine == "onnxruntime" else f" by {setup.engine}"
    networks = "stub networks" if setup.stub else f"{setup.precision} on {setup.device}{library}"
    yield f"bench-latency, {report.mode}: {setup.bundle}{weights}, {networks}, {_threads(setup)}"
    yield (
        f"{setup.generator}, PosNet, {setup.renderer} {setup.size} px: window {setup.window}, hop {setup.hop}, "
        f"{f'lead {setup.lead}, ' if setup.lead else ''}look-ahead {setup.lookahead} frames at {setup.fps} fps, "
        f"{count(setup.samples, 'sample')}"
    )
    if choices := ", ".join(_choices(setup)):
        yield choices
    yield (
        f"{number(setup.duration_s)} s of {setup.source}, sound at {setup.sample_rate_hz / 1000:g} kHz, to sink "
        f"{setup.sink}, {setup.clock} clock, floor {setup.floor}, seed {setup.seed}"
    )
    yield (
        f"{environment.cpu}, {environment.cores or 'unknown'} cores, {environment.threads_of_machine} logical, "
        f"{environment.memory_gb} GB, clock {environment.frequency}, load {environment.load} before"
    )
    if environment.gpu:
        yield f"{environment.gpu}, {environment.sm}, CUDA {environment.cuda}, driver {environment.driver or 'unknown'}"
    packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    yield f"{environment.os}, Python {environment.python}, pflx {environment.pflx}, {packages}"


def _choices(setup: Setup) -> Iterator[str]:
    if setup.steps is not None:
        yield f"{count(setup.steps, 'denoising step')} of {setup.solver}"
    if setup.history is not None:
        yield f"history of {count(setup.history, 'frame')}" if setup.history else "history without a bound"
    if setup.person is not None:
        yield f"as {setup.person}"
    yield from (f"{need} from {given}" for need, given in setup.extractors.items())


def _threads(setup: Setup) -> str:
    return "threads as the backend chooses" if setup.threads is None else count(setup.threads, "thread")


def _delay(report: Report) -> Iterator[str]:
    figures, setup = report.figures, report.setup
    if figures is None:
        return
    yield f"  algorithmic       {number(figures.algorithmic_ms)} ms = {_frames_waited(setup)}, on any hardware"
    if report.reaction:
        mean, worst = report.reaction.algorithmic_mean_ms, report.reaction.algorithmic_worst_ms
        yield f"                    of a reaction {number(mean)} ms on average, {number(worst)} ms at worst"
        yield f"                    {_checked(report.reaction)}"
    if figures.dmr is None:
        return
    yield f"  playout           {number(figures.playout_ms)} ms, granted on top"
    if figures.smallest_playout_ms is None:
        yield f"  smallest playout  n/a ({no_smallest_playout(figures)})"
    else:
        yield f"  smallest playout  {number(figures.smallest_playout_ms)} ms, with no missed deadline"


def _frames_waited(setup: Setup) -> str:
    """What the algorithmic delay is made of."""
    if setup.hop - setup.lead + setup.lookahead < 1:
        return "one frame, the speaker's own: segments lie wholly ahead, and nothing is looked ahead"
    ahead = f" - {setup.lead} that it lies ahead" if setup.lead else ""
    return f"({setup.hop} of a segment{ahead} + {setup.lookahead} of look-ahead) x {number(setup.frame_ms)} ms"


def _checked(reaction: Reaction) -> str:
    if not reaction.checked:
        return f"not checked against a run without the event: {reaction.note}"
    return f"{count(reaction.checked, 'impulse')} checked against a run without the event"


def _distributions(report: Report) -> list[str]:
    rows = []
    if report.reaction:
        rows.append(_row("reaction, by impulses", report.reaction.latency, "impulses"))
        if report.reaction.coefficients_latency:
            rows.append(_row("  of own coefficients", report.reaction.coefficients_latency, "impulses"))
    for field, label in _LABELS.items():
        sample = getattr(report.figures, field, None)
        if sample is not None:
            rows.append(_row(f"{label} (1)" if field == "real_time_factor" else label, sample, COUNTED[field]))
    return table([_HEADER, *rows]) if rows else []


def _row(label: str, sample: Distribution, counted: str) -> tuple[str, ...]:
    given = (_interval(sample.p50), _plain(sample.p90), _plain(sample.p95), _interval(sample.p99))
    return (label, f"{sample.count:,}", *given, number(sample.max), _remark(sample, counted))


def _interval(quantile: Quantile | None) -> str:
    if quantile is None:
        return "n/a"
    return f"{number(quantile.value)} [{number(quantile.low)}, {number(quantile.high)}]"


def _plain(quantile: Quantile | None) -> str:
    return "n/a" if quantile is None else number(quantile.value)


def _remark(sample: Distribution, counted: str) -> str:
    """What is counted, and which percentiles the sample is too small for."""
    refused = [f"{name} needs {n:,}" for name, n in NEEDED.items() if name != "p999" and not getattr(sample, name)]
    if refused:
        return f"({sample.count:,} {counted}; {', '.join(refused)})"
    high = f"; p99.9 {number(sample.p999.value)}" if sample.p999 else ""
    return f"({counted}{high})"


def _pair(sample: Distribution | None) -> str:
    return f"{_plain(sample.p50)}/{_plain(sample.p99)}" if sample else "n/a"


def _deadlines(figures: Figures | None) -> Iterator[str]:
    if figures is None or figures.dmr is None:
        return
    yield (
        f"  missed  {figures.missed or 0:,} of {figures.frames:,} frames ({percent(figures.dmr)}), at most "
        f"{figures.longest_miss_run or 0:,} in a row; {number(figures.freeze_ms_per_min or 0)} ms a minute frozen"
    )
    rungs = ", ".join(f"{rung.name} {figures.rungs.get(rung.name, 0):,}" for rung in Rung)
    yield f"  rungs   {rungs}; dropped {figures.dropped:,}"
    if figures.fps_shown is not None:
        yield f"  shown   {number(figures.fps_shown)} new pictures a second and sample"


def _clocks(figures: Figures | None) -> Iterator[str]:
    if figures is None:
        return
    for label, value, unit in (
        ("sound from picture, at most", figures.av_offset_ms, "ms"),
        ("slope of that", figures.av_slope_ms_per_h, "ms/h"),
        ("drift of emission from media time", figures.drift_ms_per_h, "ms/h"),
        ("standard deviation of the beat", figures.jitter_std, "ms"),
    ):
        if value is not None:
            yield f"  {label:33}  {number(value)} {unit}"


def _first_frame(report: Report) -> Iterator[str]:
    first = report.first_frame
    if first is None:
        return
    for label, value, meaning in (
        ("cold  ", first.cold_ms, "from the start of the process"),
        ("opening", first.opening_ms, "of which opening the bundle"),
        ("warm  ", first.warm_ms, "from the session's first speaker sample, algorithmic delay and playout included"),
        ("idle  ", first.idle_ms, "turnaround of the first segment after 10 s of idling"),
    ):
        said = "n/a" if value is None else f"{number(value)} ms"
        yield f"  {label:7}  {said:>10}  {meaning}"


def _engines(report: Report) -> list[str]:
    if not report.engines:
        return []
    lines = table([_HEADER, *(row for engine in report.engines for row in _engine_rows(engine))])
    for engine in report.engines:
        use = f"{count(engine.per_segment, 'call')} a segment" if engine.per_segment else "once a session"
        warm_up = f"{engine.warmup_calls} calls in {number(engine.warmup_ms)} ms to warm up"
        lines.append(f"  {engine.graph}: {', '.join(filter(None, (use, warm_up, engine.warmup_note, _speed(engine))))}")
        feeds = ", ".join(f"{name} {shape}" for name, shape in engine.feeds.items())
        lines.append(f"    fed {feeds}")
    if report.peak_gflops is not None:
        lines.append(f"  measured peak of the machine {number(report.peak_gflops)} GFLOP/s")
    return lines


def _engine_rows(engine: EngineFigures) -> Iterator[tuple[str, ...]]:
    spans = (("h2d", engine.h2d), ("compute", engine.compute), ("d2h", engine.d2h), ("enqueue", engine.enqueue))
    for name, sample in spans:
        if sample:
            yield _row(f"{engine.graph} {name}", sample, "calls")


def _speed(engine: EngineFigures) -> str:
    if engine.gflops is None:
        return "" if engine.flops is None else f"{number(engine.flops / 1e9)} GFLOP a call"
    share = "" if engine.share_of_peak is None else f", {percent(engine.share_of_peak)} of the peak"
    return f"{number(engine.gflops)} GFLOP/s{share}"


def _sessions(report: Report) -> list[str]:
    if not report.sessions:
        return []
    rows = [
        (
            str(row.sessions),
            percent(row.dmr),
            "n/a" if row.turnaround_p99_ms is None else number(row.turnaround_p99_ms),
            "yes" if row.kept else "no",
        )
        for row in report.sessions
    ]
    most = max((row.sessions for row in report.sessions if row.kept), default=0)
    return [*table([("sessions", "DMR", "turnaround p99, ms", "kept"), *rows]), f"  kept: {most} at once"]


def _minutes(report: Report) -> list[str]:
    if not report.minutes:
        return []
    rows = [
        (str(row.minute), f"{row.frames:,}", percent(row.dmr), number(row.rss_mb), number(row.drift_ms))
        for row in report.minutes
    ]
    slope = memory_slope_mb_per_h(report.minutes)
    growth = [] if slope is None else [f"  memory grows by {number(slope)} MB an hour"]
    return [*table([("minute", "frames", "DMR", "memory, MB", "drift, ms"), *rows]), *growth]


def _self_test(report: Report) -> Iterator[str]:
    test = report.self_test
    if test is None:
        return
    yield f"  a stall of {number(test.stall_ms)} ms moved the p99"
    yield f"    of the open loop from {number(test.open_p99_before)} to {number(test.open_p99_after)} ms"
    yield f"    of the closed loop from {number(test.closed_p99_before)} to {number(test.closed_p99_after)} ms"
    yield f"  {'passed' if test.passed else 'FAILED'}: the open loop is to see it, the closed one is not"
