"""`pflx demo`: a portrait that comes with pflx listens to a clip that comes with pflx."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pflx.cli.run import run
from pflx.cli.support.console import print_line


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Video to write, .mp4.")] = Path("pflx-demo.mp4"),
    show: Annotated[bool, typer.Option("--show/--no-show", help="Open it, where there is a screen.")] = True,
) -> None:
    """See a listener, without anything of your own: eight seconds of a speaker, and a portrait that listens."""
    from pflx.runtime.builtin import DEMO

    run(speaker=DEMO / "speaker.mp4", portrait=DEMO / "portrait.png", output=output, side_by_side=True)
    print_line("Your own: pflx run CLIP -p PICTURE. In the browser, with your camera: pflx serve -p PICTURE.")
    if show and sys.stdout.isatty():
        typer.launch(str(output))
