"""The `pflx` command: one file per verb. Verbs import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import Any, cast

import typer

from pflx.cli import bench_latency, build, calibrate, demo, doctor, evaluate, export, inspect, live, run, serve
from pflx.cli.console import print_error
from pflx.engines import PflxError

_UsageError = cast(type[Exception], typer.BadParameter.__mro__[2])
"""Any mistake on the command line: `ClickException`, of Click itself or of the copy that later Typers carry."""

_INTERRUPTED = 130
"""What Typer returns after Ctrl-C: 128 + SIGINT, as shells have it."""

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
app.command("demo")(demo.demo)
app.command("export")(export.export)
app.command("build")(build.build)
app.command("inspect")(inspect.inspect)
app.command("run")(run.run)
app.command("live")(live.live)
app.command("serve")(serve.serve)
app.command("bench-latency")(bench_latency.bench_latency)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(calibrate.app, name="calibrate")
app.command("doctor")(doctor.doctor)


@app.callback()
def _pflx(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Show what the libraries log."),
) -> None:
    """Facial-reaction models, from checkpoints to a live listener."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="pflx: %(message)s")


def main() -> None:
    """Run the command; an error of the user's making is one line on stderr and an exit code above 0."""
    signal.signal(signal.SIGTERM, _stop)
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    try:
        code = app(prog_name="pflx", standalone_mode=False)
    except PflxError as error:
        print_error(str(error))
        sys.exit(1)
    except _UsageError as error:
        print_error(_usage(error))
        sys.exit(2)
    if code == _INTERRUPTED:
        print_error("Stopped. Nothing half-written was left.")
    sys.exit(code)


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "pflx"
    return f"{error.format_message().rstrip('.')}. See `{command} --help`."


def _stop(_: int, __: FrameType | None) -> None:
    """End as after Ctrl-C, so that nothing half-written stays."""
    raise KeyboardInterrupt
