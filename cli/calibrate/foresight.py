"""`pflx calibrate foresight`: what stands for frames that were not waited for, fitted to a generator's motion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import structs

from pflx.cli.support.console import command_line, print_line
from pflx.cli.support.paths import check_apart, check_output


def foresight(
    motion: Annotated[list[Path], typer.Argument(help="Of `pflx run --coefficients` or `pflx batch`, .npz.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="For --foresight, .npz.")],
    json: Annotated[Path | None, typer.Option(help="Also write the figures, .json.")] = None,
) -> None:
    """Fit how a generator's motion goes on behind its segments. See docs/latency.md."""
    from pflx.calibration.foresight import fit_foresight, foresight_lines
    from pflx.calibration.reports import save_report

    check_output(output, ".npz")
    check_output(json, ".json")
    check_apart(reads={"MOTION": motion}, writes={"--output": output, "--json": json})
    fitted, report = fit_foresight(motion)
    fitted.save(output)
    print_line(
        f"Error on {report.held_out} ends of segments held out, in standard deviations; fitted to {report.fitted}"
    )
    for line in foresight_lines(report):
        print_line(line)
    if json:
        save_report(json, structs.replace(report, command=command_line()))
    for path in filter(None, (output, json)):
        print_line(f"Wrote {path}")
