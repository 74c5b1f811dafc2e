"""How the command speaks: errors, notes and progress on stderr, results on stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pflx.engines import Manifest

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Report = Callable[[str, int, int | None], None]
"""What is being done, steps done, steps in all (None if unknown)."""


def print_error(message: str) -> None:
    """One line on stderr."""
    err.print(f"[bold red]pflx:[/] {escape(' '.join(message.split()))}", soft_wrap=True)


def print_line(text: str) -> None:
    """One line on stdout, however long, with brackets as they are."""
    out.print(text, markup=False, soft_wrap=True)


def print_untrained(manifest: Manifest) -> None:
    """Say so wherever frames or figures of made-up weights come out."""
    if manifest.untrained is not None:
        err.print(
            f"[yellow]Untrained weights[/] (seed {manifest.untrained}): the pictures mean nothing.",
            soft_wrap=True,
        )


@contextmanager
def progress_bar() -> Iterator[Report]:
    """A bar on stderr with what is being done, steps, elapsed and remaining time; only on a terminal, while at work."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def report(doing: str, done: int, total: int | None) -> None:
            bar.update(task, description=escape(doing), completed=done, total=total)

        yield report
