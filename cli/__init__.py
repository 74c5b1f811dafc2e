"""The `pflx` command: one file per verb. Verbs import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

import errno
import logging
import signal
import sys

import typer

from pflx import __version__
from pflx.cli import (
    batch,
    bench_latency,
    build,
    calibrate,
    collect,
    crop,
    demo,
    doctor,
    evaluate,
    export,
    inspect,
    live,
    persons,
    push,
    run,
    serve,
)
from pflx.cli.support.console import drop_output, prepare_streams, print_error, print_line
from pflx.cli.support.signals import Stop, stoppable
from pflx.cli.support.usage import App, CommandLineError, ParserError
from pflx.engines import PflxError

_UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF)
"""What writing to an output fails with that is closed or full."""

_INTERRUPTED = 130
"""What Typer returns after KeyboardInterrupt."""

app = App(pretty_exceptions_enable=False)
app.command("demo")(demo.demo)
app.command("export")(export.export)
app.command("build")(build.build)
app.command("inspect")(inspect.inspect)
app.command("push")(push.push)
app.command("run")(run.run)
app.command("batch")(batch.batch)
app.command("collect")(collect.collect)
app.command("live")(live.live)
app.command("serve")(serve.serve)
app.command("bench-latency")(bench_latency.bench_latency)
app.command("crop")(crop.crop)
app.command("evaluate")(evaluate.evaluate)
app.command("doctor")(doctor.doctor)
app.add_typer(persons.app, name="person")
app.add_typer(calibrate.app, name="calibrate")


def _tell_version(asked: bool) -> None:
    if asked:
        print_line(f"pflx {__version__}")
        raise typer.Exit


@app.callback()
def _pflx(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Show what the libraries log."),
    version: bool = typer.Option(False, "--version", is_eager=True, callback=_tell_version, help="Show the version."),
) -> None:
    """Facial-reaction models, from checkpoints to a live listener."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="pflx: %(message)s")


def main() -> None:
    """Run the command; an error of the user's making is one line on stderr and an exit code above 0.

    1: it could not be done. 2: it was not asked for as it must be. 128 and a signal's number: it was stopped by that
    signal, as shells have it; 129 is a closed terminal, 130 Ctrl-C, 143 SIGTERM, and whoever waits can tell them apart.
    """
    prepare_streams()
    with stoppable() as stop:
        try:
            code = _run(stop)
        except (KeyboardInterrupt, Exception):
            if stop.number is None:
                raise
            code = _INTERRUPTED
        if code == _INTERRUPTED or stop.number not in (None, signal.SIGINT):  # a verb may take Ctrl-C for its end
            print_error("Stopped. Nothing half-written was left.")
            code = stop.code
            exec("")  # else CPython may end by SIGINT: it remembers a KeyboardInterrupt that left an exec
    sys.exit(code)


def _run(stop: Stop) -> int:
    try:
        return app(prog_name="pflx", standalone_mode=False) or 0
    except (CommandLineError, ParserError) as error:
        print_error(getattr(error, "format_message", error.__str__)())
        return 2
    except PflxError as error:
        if stop.number is not None:  # what is stopped in the middle of an import may call the package missing
            raise
        print_error(str(error))
        return 1
    except (OSError, SystemExit) as error:
        return _unwritten(error)


def _unwritten(error: OSError | SystemExit) -> int:
    """Tell of an output that takes no more, closed or full; anything else is raised again."""
    cause = error.__context__ if isinstance(error, SystemExit) else error  # Rich and Typer end at a closed pipe so
    if not isinstance(cause, OSError) or cause.filename is not None or cause.errno not in _UNWRITABLE:
        raise error
    drop_output()
    print_error(f"The output could not be written: {cause.strerror}.")
    return 1
