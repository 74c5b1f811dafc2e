"""How calibration tells what it does."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, steps done, and steps in all if that is known."""


def silent(_: str, __: int, ___: int | None) -> None:
    """Report nothing."""
