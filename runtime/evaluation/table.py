"""Several runs side by side, as Markdown, CSV or LaTeX: a row for each, the best in bold."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from typing import Literal, get_args

from pflx.runtime.evaluation.comparison import Comparison
from pflx.runtime.evaluation.pictures.vbench import FLICKERING
from pflx.runtime.evaluation.results import NAMES, Border, Challenge, Evaluation, Motion
from pflx.runtime.evaluation.summary import figure

Form = Literal["md", "csv", "tex"]
Part = Literal["challenge", "pictures", "pose"]


class Better(StrEnum):
    """Which figure of a column is the best one; the value is the arrow."""

    HIGHER = "↑"
    LOWER = "↓"
    ZERO = "→0"
    NEITHER = ""


@dataclass(frozen=True)
class Column:
    """A figure of all runs.

    Attributes:
        name: of the figure, with its unit.
        better: which is best.
        tell: the figure of one evaluation, with the D of its challenge's track; None where there is none.
        group: what is missing together, and is told of together.
        part: of the table.
    """

    name: str
    better: Better
    tell: Callable[[Evaluation, int], float | None]
    group: str = ""
    part: Part = "challenge"


_FIGURES = {
    "fr_dvs": Better.HIGHER,
    "fr_var": Better.HIGHER,
    "fr_div": Better.HIGHER,
    "fr_corr": Better.HIGHER,
    "fr_syn": Better.LOWER,
    "fr_syn_all": Better.LOWER,
    "fr_dist": Better.LOWER,
}
_SEAM, _SMOOTH = "seam score", "smoothness"
_MOTIONS: tuple[tuple[str, Better, str, Callable[[Motion], float | None]], ...] = (
    ("jump, {unit}", Better.LOWER, _SEAM, lambda motion: motion.jump.at_borders if motion.jump else None),
    ("seam score", Better.ZERO, _SEAM, lambda motion: _z(motion.jump)),
    ("velocity seam score", Better.ZERO, _SEAM, lambda motion: _z(motion.velocity_jump)),
    ("jerk, {unit}/s³", Better.LOWER, _SMOOTH, lambda motion: motion.jerk),
    ("speed, {unit}/s", Better.NEITHER, _SMOOTH, lambda motion: motion.speed),
)


_FLICKER = "flicker and dynamic degree"


def columns() -> list[Column]:
    """All columns, in their order: the challenge's, VBench's and those of pictures, those of the pose."""
    return [
        *(Column(NAMES[name], better, _challenge(name), NAMES[name]) for name, better in _FIGURES.items()),
        Column("FRRea", Better.LOWER, _realism, "FRRea"),
        _of_vbench("subject_consistency"),
        _of_vbench("background_consistency"),
        Column("temporal flickering", Better.HIGHER, _flickering, _FLICKER, "pictures"),
        _of_vbench("motion_smoothness"),
        _of_vbench("imaging_quality"),
        _of_vbench("dynamic_degree", " (RAFT)", Better.NEITHER),
        Column("flow (DIS), px/frame", Better.NEITHER, _flow, _FLICKER, "pictures"),
        *(
            Column(f"{quantity} {name.format(unit=unit)}", better, _motion(quantity, tell), group, "pose")
            for quantity, unit in (("rotation", "deg"), ("translation", "unit"))
            for name, better, group, tell in _MOTIONS
        ),
    ]


@dataclass(frozen=True)
class Table:
    """Columns that have a figure, and the rows.

    Attributes:
        columns: of figures.
        rows: name of a run to its figures.
        notes: what no run has, with what it takes; and what must not be read out of the figures.
    """

    columns: Sequence[Column]
    rows: Sequence[tuple[str, Sequence[float | None]]]
    notes: Sequence[str]

    def best(self, column: int) -> set[int]:
        """Rows whose figure is the best one, as it is written; none where no direction is better, or all are alike."""
        better = self.columns[column].better
        told = {row: values[column] for row, (_, values) in enumerate(self.rows)}
        ranks = {row: _rank(value, better) for row, value in told.items() if value is not None}
        if better is Better.NEITHER or len({figure(value) for value in told.values()}) < 2:
            return set()
        top = {figure(value) for row, value in told.items() if row in ranks and ranks[row] == min(ranks.values())}
        return {row for row in ranks if figure(told[row]) in top}


def table_of(comparison: Comparison, parts: Sequence[Part] = get_args(Part)) -> Table:
    """The table of some runs: as they were shown, with the challenge's figures of `comparison.features` features.

    Args:
        comparison: the runs.
        parts: of the table that are wanted.
    """
    every = [column for column in columns() if column.part in parts]
    found = [
        (run.name, [column.tell(run.evaluation, comparison.features) for column in every]) for run in comparison.runs
    ]
    kept = [index for index in range(len(every)) if any(values[index] is not None for _, values in found)]
    lost = {column.group for index, column in enumerate(every) if index not in kept}
    return Table(
        columns=[every[index] for index in kept],
        rows=[(name, [values[index] for index in kept]) for name, values in found],
        notes=[*_missing(comparison, lost), *_warnings(comparison)],
    )


def write_table(table: Table, form: Form) -> str:
    """The table as text, with a line's end at the end.

    In CSV numbers have all their digits, nothing is bold, and names have no arrows.
    """
    return {"md": _markdown, "csv": _csv, "tex": _tex}[form](table)


def _markdown(table: Table) -> str:
    names = ["run", *(f"{column.name} {column.better}".strip() for column in table.columns)]
    lines = [names, ["---", *("---:" for _ in table.columns)]]
    for row, (name, values) in enumerate(table.rows):
        cells = [f"**{figure(v)}**" if row in table.best(at) else figure(v) for at, v in enumerate(values)]
        lines.append([name.replace("|", "\\|"), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _csv(table: Table) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *(column.name for column in table.columns)])
    for name, values in table.rows:
        writer.writerow([name, *("" if value is None else repr(float(value)) for value in values)])
    return text.getvalue()


def _tex(table: Table) -> str:
    """A tabular for the package booktabs."""
    arrows = {Better.HIGHER: r" $\uparrow$", Better.LOWER: r" $\downarrow$", Better.ZERO: r" $\to 0$"}
    names = [f"{_escaped(column.name)}{arrows.get(column.better, '')}" for column in table.columns]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(names)}}}",
        r"\toprule",
        rf"{' & '.join(['run', *names])} \\",
        r"\midrule",
    ]
    for row, (name, values) in enumerate(table.rows):
        cells = [rf"\textbf{{{figure(v)}}}" if row in table.best(at) else figure(v) for at, v in enumerate(values)]
        lines.append(rf"{' & '.join([_escaped(name), *cells])} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "³": "$^3$"}
    return "".join(special.get(letter) or (f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


def _missing(comparison: Comparison, groups: set[str]) -> list[str]:
    """One line for each reason, as the first run has it."""
    reasons: dict[str, list[str]] = {}
    told: set[str] = set()
    for run in comparison.runs:
        wanted = {track.track for track in run.evaluation.challenge if track.features == comparison.features}
        for item in run.evaluation.left_out:
            in_reach = not item.track or item.track in wanted or item.figure in (_SEAM, _SMOOTH)
            if item.figure in groups and in_reach and item.figure not in told:
                told.add(item.figure)
                reasons.setdefault(item.why, []).append(item.figure)
        for motion in run.evaluation.motion if _SEAM in groups else ():
            for border in (motion.jump, motion.velocity_jump):
                if border is not None and border.refused:
                    reasons[border.refused] = [_SEAM]
    return [f"{', '.join(figures)}: {why}." for why, figures in reasons.items()]


def _warnings(comparison: Comparison) -> list[str]:
    return [
        f"FRRea of {run.name}: {min(told.pictures, told.real):,} pictures are too few for {told.features:,} features; "
        "it is not to be compared."
        for run in comparison.runs
        if (told := run.evaluation.realism) is not None and told.too_few
    ]


def _challenge(name: str) -> Callable[[Evaluation, int], float | None]:
    def tell(evaluation: Evaluation, features: int) -> float | None:
        track = _track(evaluation, features)
        return None if track is None else getattr(track, name)

    return tell


def _track(evaluation: Evaluation, features: int) -> Challenge | None:
    return next((track for track in evaluation.challenge if track.features == features), None)


def _of_vbench(dimension: str, remark: str = "", better: Better = Better.HIGHER) -> Column:
    name = dimension.replace("_", " ") + remark
    return Column(name, better, lambda evaluation, _: evaluation.vbench.get(dimension), "VBench", "pictures")


def _realism(evaluation: Evaluation, _: int) -> float | None:
    return evaluation.realism.fr_rea if evaluation.realism else None


def _flow(evaluation: Evaluation, _: int) -> float | None:
    return evaluation.pictures.dynamic_degree if evaluation.pictures else None


def _flickering(evaluation: Evaluation, _: int) -> float | None:
    """As computed here; else as VBench has it, whose formula it is."""
    return evaluation.pictures.temporal_flickering if evaluation.pictures else evaluation.vbench.get(FLICKERING)


def _motion(quantity: str, tell: Callable[[Motion], float | None]) -> Callable[[Evaluation, int], float | None]:
    def of(evaluation: Evaluation, _: int) -> float | None:
        motion = next((motion for motion in evaluation.motion if motion.quantity == quantity), None)
        return None if motion is None else tell(motion)

    return of


def _z(border: Border | None) -> float | None:
    return None if border is None else border.z


def _rank(value: float, better: Better) -> float:
    """Less is better."""
    return {Better.HIGHER: -value, Better.ZERO: abs(value)}.get(better, value)
