"""Limits that a measurement is held to: `dmr<=0.001,reaction_p99_ms<=900`."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pflx.engines import PflxError
from pflx.runtime.bench.report.report import Report
from pflx.runtime.bench.report.scalars import Refused, Scalar, list_names, read_scalars

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_FORM = re.compile(r"\s*([\w.-]+?)\s*(<=|>=|<|>)\s*(\S+)\s*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


class AssertError(PflxError, ValueError):
    """An assertion cannot be read."""


@dataclass(frozen=True)
class Assertion:
    """One limit.

    Attributes:
        name: of a figure, as `list_names` has it.
        comparison: `<`, `<=`, `>` or `>=`.
        limit: in the unit that the name states.
    """

    name: str
    comparison: str
    limit: float

    def __str__(self) -> str:
        return f"{self.name} {self.comparison} {self.limit:g}"


def parse_assertions(text: str, graphs: Iterable[str] = ()) -> list[Assertion]:
    """Read limits, and check that there are such figures.

    Args:
        text: limits with commas between them, like `dmr<=0.001,reaction_p99_ms<=900`.
        graphs: whose own figures may be named too.

    Raises:
        AssertError: a limit is malformed, or there is no figure of that name.
    """
    names = list_names(graphs)
    return [_parse(part, names) for part in text.split(",")]


def check_assertions(assertions: Iterable[Assertion], report: Report) -> list[str]:
    """Hold a report to limits.

    Returns:
        A sentence for each limit that it is not within; a figure without a number is within none.
    """
    scalars = read_scalars(report)
    failures = (_failure(assertion, scalars.get(assertion.name)) for assertion in assertions)
    return [failure for failure in failures if failure]


def _parse(part: str, names: list[str]) -> Assertion:
    form = _FORM.fullmatch(part)
    if not form:
        raise AssertError(f"'{part}' is no assertion. Write NAME<=NUMBER (or <, >, >=), like dmr<=0.001.")
    name, comparison, limit = form.groups()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"Near it are {', '.join(near)}" if near else "Names are like dmr and reaction_p99_ms"
        raise AssertError(f"There is no figure '{name}' to assert. {hint}.")
    if not _NUMBER.fullmatch(limit) or not math.isfinite(float(limit)):
        raise AssertError(f"'{limit}' in '{part.strip()}' is no number. Write one without a unit: the name has it.")
    return Assertion(name, comparison, float(limit))


def _failure(assertion: Assertion, scalar: Scalar | None) -> str:
    if scalar is None or isinstance(scalar, Refused):
        reason = scalar.reason if scalar else "the report has no such figure"
        return f"{assertion} cannot be judged: {reason}."
    if _COMPARISONS[assertion.comparison](scalar, assertion.limit):
        return ""
    return f"{assertion.name} is {scalar:.6g}, asserted was {assertion.comparison} {assertion.limit:g}."
