"""How the command speaks: errors, notes and progress on stderr, results on stdout."""

from __future__ import annotations

import codecs
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from threading import Event, Thread
from time import monotonic

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

Report = Callable[[str, float, float | None], None]
"""What is being done, steps done, and a part of the next, steps in all (None if unknown)."""

_SAY_EVERY_S = 20.0
"""How often long work is told of where no bar can be drawn."""

_PLAIN = str.maketrans(
    {"→": "->", "°": " deg", "…": ".", "×": "x", "–": "-", "—": "-", "±": "+-", "µ": "u"}
    | {chr(0xDC00 + byte): f"\\x{byte:02x}" for byte in range(0x80, 0x100)}  # of file names that are not UTF-8
)


def prepare_streams() -> None:
    """Let output be written whatever the terminal's encoding, and also where stdout or stderr is closed."""
    codecs.register_error("pflx", _in_plain_letters)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell; the next file that is opened must not take its place
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for good
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="pflx")


def drop_output() -> None:
    """Write nothing more to stdout: what is still in its buffer could not be written, and would be tried again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    plain = error.object[error.start : error.end].translate(_PLAIN)
    return plain.encode("ascii", "backslashreplace").decode(), error.end


def command_line() -> str:
    """What was typed, for reports."""
    return shlex.join(["pflx", *sys.argv[1:]])


def print_error(message: str) -> None:
    """One line on stderr."""
    with suppress(OSError, SystemExit):  # where nobody listens, the exit code still tells
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
    """A bar on stderr with what is being done, steps, elapsed and remaining time, while at work.

    Where stderr is no terminal that can draw one, a line now and then.
    """
    with _bar() if err.is_interactive else _lines(_SAY_EVERY_S) as report:
        yield report


@contextmanager
def _bar() -> Iterator[Report]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=None)

        def report(doing: str, done: float, total: float | None) -> None:
            bar.update(task, description=escape(doing), completed=done, total=total)

        yield report


@contextmanager
def _lines(every_s: float) -> Iterator[Report]:
    work, over = _Work(), Event()

    def speak() -> None:
        while not over.wait(every_s):
            with suppress(OSError, SystemExit, ValueError):
                err.print(work.line(), markup=False, soft_wrap=True)

    speaker = Thread(target=speak, name="pflx-progress", daemon=True)
    speaker.start()
    try:
        yield work.report
    finally:
        over.set()
        speaker.join()


class _Work:
    """What is being done, and since when."""

    def __init__(self) -> None:
        self._began = monotonic()
        self._doing, self._done = "working", 0
        self._total: float | None = None

    def report(self, doing: str, done: float, total: float | None) -> None:
        """See `Report`."""
        self._doing, self._done, self._total = doing, int(done), total

    def line(self) -> str:
        """`rendering: 120 of 750, after 40 s`."""
        steps = f": {self._done}{'' if self._total is None else f' of {self._total}'}" if self._done else ""
        return f"{self._doing}{steps}, after {monotonic() - self._began:.0f} s"
