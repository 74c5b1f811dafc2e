"""`pflx calibrate posnet`: a PosNet for segments of any length, fitted to motion."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pflx.cli.support.console import print_line, progress_bar
from pflx.cli.support.paths import check_apart, check_output
from pflx.engines import BackendMissingError


class Terms(StrEnum):
    """What is fitted for, besides the reconstruction."""

    PAPER = "paper"
    RELEASED = "released"


class Start(StrEnum):
    """Where a fit begins."""

    SOLVED = "solved"
    RANDOM = "random"


class Optimizer(StrEnum):
    """What takes the steps."""

    ADAM = "adam"
    SGD = "sgd"


_STARTS: dict[Start, Literal["solved", "random"]] = {Start.SOLVED: "solved", Start.RANDOM: "random"}
_OPTIMIZERS: dict[Optimizer, Literal["adam", "sgd"]] = {Optimizer.ADAM: "adam", Optimizer.SGD: "sgd"}
_LR = {Optimizer.ADAM: 3e-4, Optimizer.SGD: 1e-3}
_RECONSTRUCTION = {Optimizer.ADAM: 1e5, Optimizer.SGD: 1.0}


def posnet(
    motion: Annotated[
        list[Path],
        typer.Argument(
            help="Of `pflx run --coefficients`, .npz; a folder of `pflx calibrate record`; or tracked head poses at "
            "25 fps, [T, 6] or [T, 58], .npy or .npz."
        ),
    ],
    slide: Annotated[int, typer.Option(min=4, help="Frames of a segment: the generator's hop.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Weights for `pflx export --posnet`, .safetensors.")],
    objective: Annotated[Terms, typer.Option(help="Terms of the paper, or of its released code.")] = Terms.PAPER,
    reconstruction: Annotated[
        float | None, typer.Option(min=0, help="Weight of the reconstruction; by default 1e5 with adam, 1 with sgd.")
    ] = None,
    start: Annotated[
        Start, typer.Option(help="The best linear answer, or random weights as published.")
    ] = Start.SOLVED,
    optimizer: Annotated[Optimizer, typer.Option(help="sgd as published.")] = Optimizer.ADAM,
    lr: Annotated[
        float | None, typer.Option(min=1e-9, max=1, help="Learning rate; by default 3e-4 of adam, 1e-3 of sgd.")
    ] = None,
    momentum: Annotated[float, typer.Option(min=0, max=0.999, help="Of sgd; 0.9 in the released code.")] = 0.0,
    weight_decay: Annotated[float, typer.Option(min=0, max=0.999, help="1e-4 in the released code.")] = 0.0,
    steps: Annotated[int, typer.Option(min=0, help="At most.")] = 2000,
    patience: Annotated[int, typer.Option(min=1, help="Looks at what is held out, one each 100 steps.")] = 20,
    hidden: Annotated[
        int, typer.Option(min=1, max=8192, help="Width of the layers; 512 in the published network.")
    ] = 256,
    jump: Annotated[
        float,
        typer.Option(min=0, max=100, help="Of tracks: size of the jumps put in, in standard deviations of the pose."),
    ] = 0.5,
    pull: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How far a segment goes back to where the generator was; 0.25 for a second."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, draws and jumps.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Also write all figures, .json.")] = None,
) -> None:
    """Fit PosNet to a generator's segments, or to tracked heads with jumps put in. See docs/posnet.md.

    Stopped and run again, it goes on where it was.
    """
    check_output(output, ".safetensors")
    check_output(json, ".json")
    check_apart(reads={"MOTION": motion}, writes={"--output": output, "--json": json})
    try:
        from pflx.calibration.posnet.fit import FitOptions
        from pflx.calibration.posnet.loss import Objective
        from pflx.calibration.posnet.report import fit_and_judge
    except ModuleNotFoundError as error:
        raise BackendMissingError(str(error.name), "pip install 'pflx[cpu,calibrate]'") from error
    terms: Any = Objective.released if objective is Terms.RELEASED else Objective
    options = FitOptions(
        slide=slide,
        hidden=hidden,
        objective=terms(reconstruction=_RECONSTRUCTION[optimizer] if reconstruction is None else reconstruction),
        start=_STARTS[start],
        optimizer=_OPTIMIZERS[optimizer],
        lr=_LR[optimizer] if lr is None else lr,
        momentum=momentum,
        weight_decay=weight_decay,
        steps=steps,
        patience=patience,
        seed=seed,
        pull=pull,
    )
    with progress_bar() as report:
        lines = fit_and_judge(motion, options, output, jump=jump, figures=json, progress=report)
    for line in lines:
        print_line(line)
    for path in filter(None, (output, json)):
        print_line(f"Wrote {path}")
