"""`pflx bench-latency`: what a person in front of the listener waits for, measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pflx.cli.export import Kind
from pflx.cli.support.console import command_line, print_line, print_untrained, progress_bar
from pflx.cli.support.options import (
    BUNDLE,
    MOST_PLAYOUT_MS,
    MOST_SAMPLES,
    DenoisingOptions,
    EngineOptions,
    Lookahead,
    SpeakerOptions,
    fetched,
    grouped,
)
from pflx.cli.support.paths import check_apart, check_output
from pflx.engines import Bundle, FeedError, Manifest, OutputError, PflxError

if TYPE_CHECKING:
    from pflx.runtime import Ledger
    from pflx.runtime.bench.measure.plan import Plan
    from pflx.runtime.bench.report.report import Report


class LimitError(PflxError, AssertionError):
    """A measurement is beyond the limits that were asserted, or failed its self-test."""


class Mode(StrEnum):
    """How to measure."""

    REALTIME = "realtime"
    SINGLE_STREAM = "single-stream"
    ENGINE = "engine"
    SESSIONS = "sessions"
    SOAK = "soak"


class Floor(StrEnum):
    """The rungs of the ladder."""

    FULL = "full"
    FEWER_STEPS = "fewer-steps"
    HALF_RATE = "half-rate"
    WARPED = "warped"
    HOLD = "hold"


_DURATIONS_S = {
    Mode.REALTIME: 60.0,
    Mode.SINGLE_STREAM: 30.0,
    Mode.ENGINE: 10.0,
    Mode.SESSIONS: 30.0,
    Mode.SOAK: 1800.0,
}
_TRACED = (Mode.REALTIME, Mode.SINGLE_STREAM)

# What the options mean, apart from their defaults.
_Bundle = Annotated[Path | None, typer.Argument(help=BUNDLE, callback=fetched)]
_Portrait = Annotated[Path | None, typer.Option("-p", "--portrait", help="Of the listener; by default one is drawn.")]
_Speaker = Annotated[Path | None, typer.Option(help="Clip of the speaker; by default one is made up.")]
_Mode = Annotated[Mode, typer.Option(help="How to measure: realtime is what a person waits for.")]
_Sessions = Annotated[str, typer.Option(metavar="N..M", help="Of mode sessions: how many at once to try.")]
_Duration = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        min=0.01,
        max=604_800,
        help="By default 60 s; single-stream 30, engine 10 a graph, sessions 30, soak 1800.",
    ),
]
_Samples = Annotated[int, typer.Option(min=1, max=MOST_SAMPLES, help="Reactions at once.")]
_Playout = Annotated[
    float, typer.Option(min=0, max=MOST_PLAYOUT_MS, help="Time to work in, on top of the algorithmic delay.")
]
_Floor = Annotated[Floor, typer.Option(help="Lowest rung of the ladder; with full, frames come late instead.")]
_Stale = Annotated[float, typer.Option(min=0, help="How late a frame may come at all.")]
_Stub = Annotated[bool, typer.Option("--stub", help="Networks that cost nothing, with or without a bundle.")]
_Kind = Annotated[Kind | None, typer.Option(help="Generator of --stub without a bundle; by default reactface.")]
_Seed = Annotated[int, typer.Option(min=0, help="Of the reactions, and of the speaker's events.")]
_Json = Annotated[Path | None, typer.Option(help="Also write the report, .json.")]
_Html = Annotated[Path | None, typer.Option(help="Also write the report as a page, .html.")]
_Trace = Annotated[Path | None, typer.Option(help="Also write when each stage ran, .json for Perfetto.")]
_Assert = Annotated[str | None, typer.Option("--assert", help="Fail beyond limits: dmr<=0.001,reaction_p99_ms<=900")]
_Compare = Annotated[Path | None, typer.Option(help="Print ratios to this earlier report, .json.")]
_SelfTest = Annotated[
    bool, typer.Option("--self-test", help="Show that a stall of 500 ms is not overlooked; without a bundle.")
]


@grouped
def bench_latency(
    bundle: _Bundle = None,
    portrait: _Portrait = None,
    speaker: _Speaker = None,
    mode: _Mode = Mode.REALTIME,
    sessions: _Sessions = "1..8",
    duration: _Duration = None,
    samples: _Samples = 1,
    lookahead: Lookahead = 13,
    playout_ms: _Playout = 100,
    floor: _Floor = Floor.FULL,
    stale_ms: _Stale = 5000,
    stub: _Stub = False,
    kind: _Kind = None,
    seed: _Seed = 0,
    json: _Json = None,
    html: _Html = None,
    trace: _Trace = None,
    limits: _Assert = None,
    compare: _Compare = None,
    self_test: _SelfTest = False,
    *,
    known: SpeakerOptions,
    denoising: DenoisingOptions,
    engines: EngineOptions,
) -> None:
    """Measure how long a person waits for the listener, and what of that is the algorithm, the networks and pflx."""
    from pflx.runtime import LiveSettings, Rung
    from pflx.runtime.bench.measure.plan import Plan

    outputs = _Outputs(json, html, trace)
    outputs.check(traced=mode in _TRACED and not self_test)
    check_apart(
        reads={
            "BUNDLE": bundle,
            "--portrait": portrait,
            "--speaker": speaker,
            "--compare": compare,
            **known.files(),
            **denoising.files(),
        },
        writes={"--json": json, "--html": html, "--trace": trace},
    )
    manifest = None if bundle is None or self_test else Bundle.open(bundle, verify=False).manifest
    judge = _Judge(limits, compare, [*manifest.graphs] if manifest and mode is Mode.ENGINE else [])
    at_once = _read_range(sessions)
    command = command_line()
    if self_test:
        outputs.write(_run_self_test(bundle, command), judge, [])
        return
    plan = Plan(
        bundle=bundle,
        kind=None if kind is None else kind.value,
        portrait=portrait,
        speaker=speaker,
        device=engines.device,
        engines=engines.settings(),
        samples=samples,
        lookahead=lookahead,
        live=LiveSettings(playout_ms=playout_ms, floor=Rung[floor.name], stale_ms=stale_ms),
        duration_s=_DURATIONS_S[mode] if duration is None else duration,
        seed=seed,
        extractors=known.sources(),
        options=denoising.chosen(),
        person=denoising.person,
        stub=stub,
        command=command,
    )
    _check_inputs(plan, manifest)
    ledgers: list[Ledger] = []
    report = _measure(plan, mode, at_once, ledgers.append if trace else lambda _: None)
    outputs.write(report, judge, ledgers)


def _check_inputs(plan: Plan, manifest: Manifest | None) -> None:
    """Refuse what could be refused only after the engines were opened."""
    from pflx.runtime.bench.measure.plan import read_manifest
    from pflx.runtime.bench.measure.stub import stub_engines
    from pflx.runtime.bundle_engines import precision_of
    from pflx.runtime.generators import generator_of
    from pflx.runtime.media.clip import open_speaker
    from pflx.runtime.rendering.portrait import load_portrait
    from pflx.runtime.speaker.extractors import open_extractor

    if plan.portrait is not None:
        load_portrait(plan.portrait)
    if plan.speaker is not None:
        open_speaker(plan.speaker)
    described = manifest or read_manifest(plan)
    generator_of(described, stub_engines(described), plan.options, plan.person)
    for need, given in plan.extractors.items():
        open_extractor(given, need, described.mean_face.values)
    if manifest is None or plan.bundle is None:
        return
    for graph in manifest.graphs if not plan.stub else ():
        Bundle(plan.bundle, manifest).graph_path(graph, precision_of(manifest, plan.engines))
    print_untrained(manifest)


def _measure(plan: Plan, mode: Mode, at_once: tuple[int, int], record: Callable[[Ledger], None]) -> Report:
    from pflx.runtime.bench.measure.engine import run_engines
    from pflx.runtime.bench.measure.realtime import run_realtime
    from pflx.runtime.bench.measure.sessions import run_sessions
    from pflx.runtime.bench.measure.single_stream import run_single_stream
    from pflx.runtime.bench.measure.soak import run_soak

    with progress_bar() as bar:

        def seconds(done_s: float, total_s: float) -> None:
            bar("measuring, seconds", int(done_s), round(total_s))

        match mode:
            case Mode.REALTIME:
                return run_realtime(plan, progress=seconds, record=record)
            case Mode.SINGLE_STREAM:
                return run_single_stream(plan, progress=seconds, record=record)
            case Mode.SOAK:
                return run_soak(plan, progress=seconds)
            case Mode.ENGINE:
                return run_engines(plan, progress=lambda done, total: bar("measuring graphs", done, total))
            case Mode.SESSIONS:
                return run_sessions(plan, *at_once, progress=lambda n, last: bar("trying sessions", n, last))


def _run_self_test(bundle: Path | None, command: str) -> Report:
    from pflx.runtime.bench.measure.self_test import run_self_test

    if bundle is not None:
        raise FeedError(f"--self-test measures no bundle. Leave out {bundle}, or leave out --self-test.")
    return run_self_test(command)


def _read_range(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)\.\.(\d+)", text, re.ASCII)
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= first <= last:
        raise FeedError(f"--sessions is '{text}'; write the fewest and the most, like 1..8.")
    return first, last


class _Judge:
    """What a report is held to: limits and an earlier report, both read before any work."""

    def __init__(self, limits: str | None, compare: Path | None, graphs: list[str]) -> None:
        from pflx.runtime.bench.report.assertions import parse_assertions
        from pflx.runtime.bench.report.report import load_report

        self._assertions = parse_assertions(limits, graphs) if limits is not None else []
        self._other = load_report(compare) if compare else None

    def lines(self, report: Report) -> list[str]:
        """The comparison, if there is one."""
        from pflx.runtime.bench.report.compare import compare_reports, comparison_lines

        if self._other is None:
            return []
        return ["", "Compared with the earlier report", *comparison_lines(compare_reports(report, self._other))]

    def judge(self, report: Report) -> None:
        """Raise what the report fails in."""
        from pflx.runtime.bench.report.assertions import check_assertions

        failures = check_assertions(self._assertions, report)
        if report.self_test and not report.self_test.passed:
            failures.insert(0, "The self-test failed: see above.")
        if failures:
            raise LimitError(" ".join(failures))


@dataclass(frozen=True)
class _Outputs:
    """The files to write beside what is printed."""

    json: Path | None
    html: Path | None
    trace: Path | None

    def check(self, *, traced: bool) -> None:
        """Refuse what cannot be written, before any work."""
        for path, suffix in ((self.json, ".json"), (self.html, ".html"), (self.trace, ".json")):
            check_output(path, suffix)
        if self.trace and not traced:
            raise OutputError(f"--trace {self.trace}: only the modes {' and '.join(_TRACED)} leave a trace.")

    def write(self, report: Report, judge: _Judge, ledgers: list[Ledger]) -> None:
        """Print the report, write the files, and fail last, so that the report is there to look into."""
        from pflx.runtime.bench.report.page import save_page
        from pflx.runtime.bench.report.report import save_report
        from pflx.runtime.bench.report.summary import report_lines
        from pflx.runtime.latency.trace import write_trace

        for line in [*report_lines(report), *judge.lines(report)]:
            print_line(line)
        if self.json:
            save_report(self.json, report)
        if self.html:
            save_page(self.html, report)
        if self.trace:
            write_trace(self.trace, ledgers, name=f"pflx bench-latency {report.setup.bundle}")
        for path in filter(None, (self.json, self.html, self.trace)):
            print_line(f"Wrote {path}")
        judge.judge(report)
