"""Numbers and tables as plain text of aligned columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def number(value: float) -> str:
    """About three digits, and commas for thousands: `0.0123`, `4.56`, `78.9`, `12,345`."""
    size = abs(value)
    if size >= 99.95 or value == int(value):
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.9995 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share of 0…1 in percent."""
    return f"{number(100 * share)} %"


def count(n: int, noun: str) -> str:
    """A number with its noun: `1 sample`, `2 samples`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of rows: the first column and one past the header's end are flush left, the others right.

    Args:
        rows: cells; the first row is the header, and a row may be longer than it by one cell, a remark.
    """
    cells = [list(row) for row in rows]
    n_columns = len(cells[0])
    widths = [max(len(row[column]) for row in cells) for column in range(n_columns)]
    return [_line(row, widths).rstrip() for row in cells]


def _line(row: list[str], widths: list[int]) -> str:
    first, *others = row[: len(widths)]
    aligned = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
    return "  ".join(["", *aligned, *row[len(widths) :]])
