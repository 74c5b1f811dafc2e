"""How the INT8 of a bundle was found: as data, a table and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pflx.calibration.curves import Line, Panel, save_curves
from pflx.calibration.judge import Bound, Judgement
from pflx.runtime.text_table import count, number, percent, table

SCHEMA = 1
NAMED = 12
"""Layers of a graph that are named one by one in the table, at most."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the report."""


class MethodFigures(_Record, frozen=True, kw_only=True):
    """One way to choose ranges, with all layers quantised.

    Attributes:
        method: its name.
        judgement: of the held-out takes.
        faults: what is out of bound.
    """

    method: str
    judgement: Judgement
    faults: list[str]


class UnitFigures(_Record, frozen=True, kw_only=True):
    """Layers that were decided on together.

    Attributes:
        graph: they are of.
        nodes: their names.
        operations: multiplications of one call.
        error: mean squared difference of the pictures, levels of 255, with these alone in INT8; None where all layers
            could be quantised, so that none was looked at alone.
        quantised: whether they are in INT8 now.
    """

    graph: str
    nodes: list[str]
    operations: int
    error: float | None
    quantised: bool


class TrialFigures(_Record, frozen=True, kw_only=True):
    """The first so many units in the order of their error, quantised together.

    Attributes:
        units: how many.
        share: of the multiplications of all that could be quantised.
        judgement: of the held-out takes.
        faults: what is out of bound.
    """

    units: int
    share: float
    judgement: Judgement
    faults: list[str]


class Int8Report(_Record, frozen=True, kw_only=True):
    """How a variant was found.

    Attributes:
        schema: version of this description.
        pflx: version that made it.
        bundle: its name.
        untrained: seed of made-up weights; None for trained ones.
        feeds_sha256: of what it was calibrated with.
        engine: that the variant is for.
        precision: its name in the bundle.
        judged_with: library and version that made the pictures.
        cpu: instruction sets that they depend on.
        inference: graph to what its other layers compute in, where that is not float32.
        bound: that was asked for.
        base: without any INT8.
        methods: that were compared.
        method: that was taken.
        units: all that could be quantised, in the order they run.
        trials: of the search, in the order they were made.
        accepted: the trial that was taken.
    """

    schema: int = SCHEMA
    pflx: str
    bundle: str
    untrained: int | None
    feeds_sha256: str
    engine: str
    precision: str
    judged_with: str
    cpu: list[str]
    inference: dict[str, str]
    bound: Bound
    base: TrialFigures
    methods: list[MethodFigures]
    method: str
    units: list[UnitFigures]
    trials: list[TrialFigures]
    accepted: TrialFigures


def report_lines(report: Int8Report) -> Iterator[str]:
    """The report in words and tables."""
    inference = ", ".join(f"{graph} in {name}" for graph, name in report.inference.items())
    yield f"Judged with {report.judged_with}{f', {inference}' if inference else ''}"
    yield from table([_HEAD, *_rows(report)])
    done = [unit for unit in report.units if unit.quantised]
    n_layers = sum(len(unit.nodes) for unit in done)
    yield (
        f"{count(n_layers, 'layer')} in INT8, {percent(report.accepted.share)} of what could be; ranges by "
        f"{report.method}; {number(report.accepted.judgement.lowest_psnr_db)} dB in the worst picture"
    )
    for graph in dict.fromkeys(unit.graph for unit in report.units):
        left = [node for unit in report.units if unit.graph == graph and not unit.quantised for node in unit.nodes]
        if left:
            told = ", ".join(left) if len(left) <= NAMED else f"{count(len(left), 'layer')}, named in the report"
            yield f"  left out of {graph}: {told}"


_HEAD = ["", "in INT8", "PSNR dB", "worst", "SSIM", "head °", "seam z", "of FP32", "flicker", "of FP32"]


def _rows(report: Int8Report) -> Iterator[list[str]]:
    yield _row("no INT8", report.base.share, report.base.judgement, report.base.faults)
    for method in report.methods:
        yield _row(f"all, {method.method}", 1.0, method.judgement, method.faults)
    for trial in sorted(report.trials, key=lambda trial: trial.units):
        if 0 < trial.share < 1:
            yield _row(f"{trial.units} units", trial.share, trial.judgement, trial.faults)


def _row(name: str, share: float, found: Judgement, faults: Sequence[str]) -> list[str]:
    return [
        name,
        f"{share:.0%}",
        number(found.psnr_db),
        number(found.lowest_psnr_db),
        f"{found.ssim:.3f}",
        _told(found.head_deg),
        _told(found.seam_z),
        _told(found.reference_seam_z),
        number(found.flicker),
        number(found.reference_flicker),
        f"refused: {faults[0]}" if faults else "within the bound",
    ]


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def plot_report(path: Path, report: Int8Report) -> None:
    """Draw picture quality against the share of INT8, .png.

    Raises:
        BackendMissingError: matplotlib is not installed.
        OutputError: it cannot be written.
    """
    trials = sorted({trial.units: trial for trial in [report.base, *report.trials]}.values(), key=lambda t: t.share)
    shares = [100 * trial.share for trial in trials]
    pictures = Panel(
        "PSNR against FP32, dB",
        [
            Line("all pictures", shares, [trial.judgement.psnr_db for trial in trials]),
            Line("worst picture", shares, [trial.judgement.lowest_psnr_db for trial in trials]),
        ],
        report.bound.psnr_db,
    )
    added = Panel(
        "added flicker, levels of 255",
        [
            Line("all steps", shares, [trial.judgement.added_flicker for trial in trials]),
            Line("steps over seams", shares, [trial.judgement.added_at_seams for trial in trials]),
        ],
    )
    save_curves(
        path,
        [pictures, added],
        title=f"INT8 of {report.bundle} on {report.judged_with}, ranges by {report.method}",
        x="share of the multiplications in INT8, %",
        untrained=report.untrained,
    )
