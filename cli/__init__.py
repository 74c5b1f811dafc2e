"""The `pflx` command: one file per verb. Verbs import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType

import typer

from pflx.cli import build, doctor, export, inspect, run
from pflx.cli.console import print_error
from pflx.engines import PflxError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.command("export")(export.export)
app.command("build")(build.build)
app.command("inspect")(inspect.inspect)
app.command("run")(run.run)
app.command("doctor")(doctor.doctor)


@app.callback()
def _pflx(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Show what the libraries log."),
) -> None:
    """Facial-reaction models, from checkpoints to a live listener."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="pflx: %(message)s")


def main() -> None:
    """Run the command; an error of the user's making is one line on stderr and exit code 1."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except PflxError as error:
        print_error(str(error))
        sys.exit(1)


def _stop(_: int, __: FrameType | None) -> None:
    """End as after Ctrl-C, so that nothing half-written stays."""
    raise KeyboardInterrupt
