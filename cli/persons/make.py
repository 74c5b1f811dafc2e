"""`pflx person make`: a clip of a listener → the file of a person."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pflx.cli.support.console import print_line, print_untrained, progress_bar
from pflx.cli.support.options import BundleArgument
from pflx.cli.support.paths import check_apart, check_output
from pflx.engines import BackendMissingError, Bundle, PflxError


class Mode(StrEnum):
    """How a hypernetwork's output becomes weights."""

    SHIFT = "shift"
    OFFSET = "offset"
    WEIGHT = "weight"


class UsageError(PflxError, ValueError):
    """Options that do not go together."""


def make(
    bundle: BundleArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, NAME.person.")],
    person_encoder: Annotated[Path, typer.Option(help="Checkpoint of PerFRDiff's person encoder.")],
    modifier: Annotated[
        Path, typer.Option(help="Checkpoint of PerFRDiffRender's hypernetwork, trained with the bundle's denoiser.")
    ],
    clip: Annotated[Path | None, typer.Option(help="Clip of the person listening, 30 s.")] = None,
    coefficients: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|landmarks|ONNX",
            help="The person's coefficients, 750 frames; or, with --clip, what finds them. [landmarks]",
        ),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="How the hypernetwork was trained to edit weights, which its file does not tell.")
    ] = Mode.SHIFT,
    name: Annotated[str | None, typer.Option(help="Of the person. [the file's]")] = None,
) -> None:
    """Make a person: the weights that PerFRDiffRender's denoiser has for one listener, computed once.

    The file holds how somebody listens: personal data. See docs/persons.md.
    """
    if clip is None and coefficients is None:
        raise UsageError("There is nobody to make a person of. Give --clip LISTENER.mp4, or --coefficients FILE.")
    check_output(output, ".person")
    check_apart(
        reads={
            "BUNDLE": bundle,
            "--person-encoder": person_encoder,
            "--modifier": modifier,
            "--clip": clip,
            "--coefficients": coefficients,
        },
        writes={"--output": output},
    )
    try:
        from pflx.export.persons import PersonNetworks, make_person, read_listening, watch_listening
    except ModuleNotFoundError as error:
        raise BackendMissingError(str(error.name), "pip install 'pflx[cpu,export]'") from error
    from pflx.runtime.persons import write_person

    opened = Bundle.open(bundle)
    with progress_bar() as report:
        report("looking at the listener", 0, None)
        if clip is not None:
            listening = watch_listening(clip, coefficients or "landmarks", opened.manifest, report)
        else:
            listening = read_listening(Path(coefficients or ""), opened.manifest)
        made = make_person(
            opened,
            listening,
            PersonNetworks(person_encoder, modifier, mode.value),
            name=name or output.stem,
            tell=report,
        )
        write_person(made, output)
    print_untrained(opened.manifest)
    megabytes = output.stat().st_size / 1e6
    print_line(f"Wrote {output} ({megabytes:.1f} MB): {made.name}, of {made.frames} frames of {made.source}.")
    print_line("It tells how somebody listens, which is personal data.")
