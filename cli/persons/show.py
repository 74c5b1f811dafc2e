"""`pflx person show`: what a person's file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pflx.cli.support.console import print_line


def show(person: Annotated[Path, typer.Argument(help="File of a person, NAME.person.")]) -> None:
    """Show whom a file is of, what it was made with and for which denoiser, after checking all of it."""
    from pflx.runtime import read_person

    read = read_person(person)
    weights = ", ".join(f"{name} {[*value.shape]}" for name, value in read.weights.items())
    for line in (
        f"{person}, written {read.created} by pflx {read.pflx}, {person.stat().st_size / 1e6:.1f} MB",
        f"person        {read}",
        f"seen in       {read.frames} frames of {read.source}",
        f"denoiser      SHA-256 {read.denoiser}",
        f"encoder       SHA-256 {read.encoder}",
        f"hypernetwork  SHA-256 {read.hypernetwork}, mode {read.mode}",
        f"holds         style {[*read.style.shape]}, {weights}, float32",
    ):
        print_line(line)
