"""Runs the `pflx` command in this process and looks at what it says."""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from pflx.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left on the terminal, and its exit code."""

    code: int
    out: str
    err: str


def pflx(*arguments: str | Path | int) -> Outcome:
    """Run the command as `python -m pflx` would, up to the exit code."""
    out, err = StringIO(), StringIO()
    argv = sys.argv
    sys.argv = ["pflx", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
        code: int | str | None = 0
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = argv
    assert isinstance(code, int) or code is None
    return Outcome(code or 0, out.getvalue(), err.getvalue())


def refusal(*arguments: str | Path | int, code: int = 1) -> str:
    """The one line on stderr of a command that must fail."""
    outcome = pflx(*arguments)
    assert (outcome.code, outcome.out) == (code, ""), outcome
    assert outcome.err.startswith("pflx: "), outcome.err
    assert outcome.err.endswith("\n"), outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    return outcome.err.strip()
