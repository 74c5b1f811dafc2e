"""Two reports beside one another, as ratios."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from pflx.runtime.bench.report.report import Environment, Report
from pflx.runtime.bench.report.scalars import Refused, read_scalars
from pflx.runtime.text_table import number, table


@dataclass(frozen=True)
class Row:
    """One figure of both reports.

    Attributes:
        name: of the figure, with its unit.
        this: its value here.
        other: its value in the other report.
        ratio: this / other; None if other is 0.
    """

    name: str
    this: float
    other: float
    ratio: float | None


@dataclass(frozen=True)
class Comparison:
    """Two reports.

    Attributes:
        notes: in what the two differ beside their figures, in sentences; empty if in nothing.
        rows: every figure that both have.
    """

    notes: list[str]
    rows: list[Row]


def compare_reports(this: Report, other: Report) -> Comparison:
    """Put every figure that both reports have side by side."""
    known = read_scalars(other)
    pairs = ((name, here, known.get(name)) for name, here in read_scalars(this).items())
    rows = [
        Row(name, here, there, here / there if there else None)
        for name, here, there in pairs
        if not isinstance(here, Refused) and there is not None and not isinstance(there, Refused)
    ]
    return Comparison(list(_notes(this, other)), rows)


def comparison_lines(comparison: Comparison) -> list[str]:
    """The comparison as text: what differs, then a table."""
    header = ("figure", "this", "other", "ratio")
    rows = ((row.name, number(row.this), number(row.other), _ratio(row.ratio)) for row in comparison.rows)
    return [*comparison.notes, *table([header, *rows])]


def _ratio(ratio: float | None) -> str:
    return "n/a" if ratio is None else f"{ratio:.3f}"


def _notes(this: Report, other: Report) -> Iterator[str]:
    if this.mode != other.mode:
        yield f"The modes differ: {this.mode}, the other {other.mode}."
    for part, here, there in (
        ("setups", msgspec.to_builtins(this.setup), msgspec.to_builtins(other.setup)),
        ("environments", _lasting(this.environment), _lasting(other.environment)),
    ):
        changes = list(_changes(here, there))
        if changes:
            yield f"The {part} differ: {'; '.join(changes)}."


def _lasting(environment: Environment) -> dict[str, object]:
    """What does not change from minute to minute: not the load, nor where a clock is that floats."""
    fields: dict[str, object] = msgspec.to_builtins(environment)
    del fields["load"]
    if environment.frequency.startswith("floating"):
        fields["frequency"] = environment.frequency.rpartition(", ")[0]
    return fields


def _changes(here: dict[str, object], there: dict[str, object], prefix: str = "") -> Iterator[str]:
    for name in here | there:
        a, b = here.get(name), there.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _changes(a, b, f"{name} ")
        elif a != b:
            yield f"{prefix}{name} {_said(a)}, the other {_said(b)}"


def _said(value: object) -> object:
    return "none" if value is None else value
