"""What a calibration of FP16 tried and found, as data, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from pflx.calibration.curves import Line, Panel, save_curves
from pflx.calibration.errors import CalibrationError
from pflx.calibration.judge import Bound, Judgement
from pflx.calibration.precision.ranges import Range
from pflx.runtime.bench.report.report import Environment
from pflx.runtime.text_table import number, percent, table

SCHEMA = 1
TOGETHER = "all graphs"
_DRAWN = 4
"""Graphs in the picture, those that cost most."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the report."""


class Trial(_Record, frozen=True, kw_only=True):
    """One candidate and how it was judged.

    Attributes:
        graph: the graph whose nodes were tried, or `all graphs`.
        fp32_nodes: how many of its nodes stayed in FP32.
        fp16_share: share of the numbers its nodes make that were stored in FP16; None of all graphs.
        judgement: against all graphs in FP32.
        faults: why it was refused; empty if it was accepted.
        engine_ms: of one call on the GPU; None where that was not run.
    """

    graph: str
    fp32_nodes: int
    fp16_share: float | None
    judgement: Judgement
    faults: list[str]
    engine_ms: float | None = None


class GraphResult(_Record, frozen=True, kw_only=True):
    """What was found for one graph.

    Attributes:
        graph: its name.
        convertible: nodes that could become FP16.
        overflowing: of those among which is chosen, how many overflow by themselves.
        fp32_nodes: those that stay in FP32.
        trials: in the order in which they were made.
        riskiest: the nodes that lose most, worst first.
    """

    graph: str
    convertible: int
    overflowing: int
    fp32_nodes: list[str]
    trials: list[Trial]
    riskiest: list[Range]


class Fp16Report(_Record, frozen=True, kw_only=True):
    """All that a calibration tried and found.

    Attributes:
        schema: version of this description.
        pflx: version that made it.
        command: that made it, as typed; empty where none was.
        bundle: its name.
        untrained: seed of made-up weights; None for trained ones.
        created: time, ISO 8601.
        seconds: how long it took.
        feeds_sha256: of the recorded feeds.
        takes: how many were judged by.
        pictures: how many were rendered of each.
        bound: what was asked.
        graphs: in the order in which they were searched: the one that costs most first.
        together: all graphs with the policy, converted as `pflx export` converts them.
        exported: the FP16 graphs that the bundle has, if it has any.
        versions: packages that figures depend on.
        environment: where it ran.
    """

    schema: int = SCHEMA
    pflx: str
    command: str = ""
    bundle: str
    untrained: int | None
    created: str
    seconds: float
    feeds_sha256: str
    takes: int
    pictures: int
    bound: Bound
    graphs: list[GraphResult]
    together: Trial
    exported: Trial | None
    versions: dict[str, str]
    environment: Environment


def report_lines(report: Fp16Report) -> list[str]:
    """Every candidate as a row of a table, graph by graph, those with more nodes in FP32 further down."""
    rows: list[list[str]] = [
        ["graph", "nodes in FP32", "of", "numbers in FP16", "worst PSNR dB", "SSIM", "head °", "engine ms"]
    ]
    for found in report.graphs:
        kept = len(found.fp32_nodes)
        chosen = next((t for t in reversed(found.trials) if t.fp32_nodes == kept and not t.faults), None)
        for trial in sorted(found.trials, key=lambda trial: trial.fp32_nodes):
            remark = "chosen" if trial is chosen else "; ".join(trial.faults)
            rows.append([*_row(trial, found.convertible), remark])
    total = sum(found.convertible for found in report.graphs)
    rows.append([*_row(report.together, total), "the policy"])
    if report.exported:
        rows.append([*_row(report.exported, None), "the FP16 graphs of the bundle"])
    return table(rows)


def require_held(report: Fp16Report) -> None:
    """Refuse a policy that all graphs together do not bear, though each alone did.

    Raises:
        CalibrationError: naming what was missed.
    """
    if faults := report.together.faults:
        raise CalibrationError(
            f"The policy does not hold in all graphs together: {'; '.join(faults)}. Ask for a little more, so that "
            "each graph keeps a margin."
        )


def plot_report(path: Path, report: Fp16Report) -> None:
    """Draw pictures, head and time of engines against the nodes that stay in FP32, .png.

    Raises:
        BackendMissingError: matplotlib is not installed.
        OutputError: it cannot be written.
    """
    shown = report.graphs[:_DRAWN]
    panels = [
        Panel(
            "PSNR of the worst picture, dB", _lines(shown, lambda t: t.judgement.lowest_psnr_db), report.bound.psnr_db
        ),
        Panel("head, largest difference, °", _lines(shown, lambda t: t.judgement.head_deg), report.bound.head_deg),
    ]
    if any(trial.engine_ms is not None for found in shown for trial in found.trials):
        panels.append(Panel("engine, ms a call", _lines(shown, lambda t: t.engine_ms)))
    title = f"What nodes in FP32 buy, {report.bundle}; one graph at a time, in the order in which they were decided"
    save_curves(
        path, panels, title=title, x="nodes that stay in FP32, % of those of the graph", untrained=report.untrained
    )


def _lines(graphs: Sequence[GraphResult], value: Callable[[Trial], float | None]) -> list[Line]:
    lines = []
    for found in graphs:
        trials = sorted(found.trials, key=lambda trial: trial.fp32_nodes)
        shares = [100 * trial.fp32_nodes / max(1, found.convertible) for trial in trials]
        lines.append(Line(found.graph, shares, [value(trial) for trial in trials]))
    return lines


def _row(trial: Trial, convertible: int | None) -> list[str]:
    judged = trial.judgement
    return [
        trial.graph,
        str(trial.fp32_nodes),
        "" if convertible is None else str(convertible),
        "" if trial.fp16_share is None else percent(trial.fp16_share),
        number(judged.lowest_psnr_db),
        f"{judged.ssim:.4f}",
        "not finite" if judged.head_deg is None else number(judged.head_deg),
        "not run" if trial.engine_ms is None else number(trial.engine_ms),
    ]
