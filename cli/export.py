"""`pflx export`: checkpoints → bundle."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pflx.cli.console import print_line, print_untrained, progress_bar
from pflx.engines import BackendMissingError, Bundle, PflInfo, PflxError
from pflx.engines.passport import Backend
from pflx.engines.writer import check_target

if TYPE_CHECKING:
    from pflx.export import Components


class Precision(StrEnum):
    """Precisions a bundle can be exported in."""

    FP32 = "fp32"
    FP16 = "fp16"


class Engine(StrEnum):
    """TensorRT flavours to build engines for."""

    NONE = "none"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


_BACKENDS: dict[Engine, Backend | None] = {
    Engine.NONE: None,
    Engine.TENSORRT: "tensorrt",
    Engine.TENSORRT_RTX: "tensorrt-rtx",
}


class PflMode(StrEnum):
    """How the crops of the training data were cut."""

    RELEASE = "release"
    PAPER = "paper"


class UsageError(PflxError, ValueError):
    """Options that do not go together."""


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle to write, NAME.pflx.")],
    generator: Annotated[Path | None, typer.Option(help="Checkpoint of ReactFace.")] = None,
    posnet: Annotated[Path | None, typer.Option(help="Checkpoint of PosNet.")] = None,
    renderer: Annotated[Path | None, typer.Option(help="Checkpoint of PIRender (58 coefficients).")] = None,
    mean_face: Annotated[
        str | None, typer.Option(help="mean_face.npy of the generator's training data, or 'zero'.")
    ] = None,
    untrained: Annotated[
        int | None,
        typer.Option(metavar="SEED", min=0, help="Made-up weights in place of checkpoints, to try things out."),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="fp16 adds FP16 graphs and uses them by default.")
    ] = Precision.FP32,
    engine: Annotated[Engine, typer.Option(help="Also build TensorRT engines, on this machine.")] = Engine.NONE,
    size: Annotated[int, typer.Option(help="Side of the rendered frame: 256 or 224.")] = 256,
    pfl: Annotated[PflMode, typer.Option(help="Arithmetic of the training crops.")] = PflMode.RELEASE,
    window: Annotated[int, typer.Option(help="Frames per step of the generator, a multiple of 8.")] = 8,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle of that name.")] = False,
) -> None:
    """Export checkpoints to a bundle, checked against PyTorch graph by graph and end to end."""
    given = {"--generator": generator, "--posnet": posnet, "--renderer": renderer}
    _check_sources(given, untrained)
    check_target(output, overwrite)
    try:
        from pflx.export import ExportOptions, export_bundle
    except ModuleNotFoundError as error:
        raise BackendMissingError(str(error.name), "pip install 'pflx[cpu,export]'") from error
    options = ExportOptions(
        precision=precision.value,
        size=size,
        pfl=PflInfo(mode=pfl.value, window=256, padding=20),
        engine=_BACKENDS[engine],
    )
    with progress_bar() as report:
        report("reading weights", 0, None)
        components = _components(given, untrained, mean_face, window)
        bundle = export_bundle(output, components, options, overwrite=overwrite, progress=report)
    _print_result(bundle)


def _check_sources(given: dict[str, Path | None], untrained: int | None) -> None:
    missing = [option for option, path in given.items() if path is None]
    if untrained is None and missing:
        raise UsageError(
            f"No checkpoint for {', '.join(missing)}. Give all three, or --untrained SEED to try things out."
        )
    if untrained is not None and len(missing) < len(given):
        raise UsageError("--untrained makes all weights up and takes no checkpoints. Leave one of the two out.")


def _components(given: dict[str, Path | None], untrained: int | None, mean_face: str | None, window: int) -> Components:
    from pflx.export import load_components, untrained_components

    if untrained is not None:
        return untrained_components(untrained, mean_face=mean_face, window=window)
    generator, posnet, renderer = (path for path in given.values() if path is not None)
    return load_components(generator=generator, posnet=posnet, renderer=renderer, mean_face=mean_face, window=window)


def _print_result(bundle: Bundle) -> None:
    import json

    print_untrained(bundle.manifest)
    size = sum(info.bytes for info in bundle.manifest.files.values())
    print_line(f"Wrote {bundle.path} ({size / 1e6:.0f} MB), graphs in {bundle.manifest.precision}.")
    report = json.loads((bundle.path / "report.json").read_text())
    for precision, result in report["end_to_end"].items():
        print_line(
            f"{precision} frames against {result['against']}: at most {result['max_levels']} levels apart, "
            f"{result['equal_share']:.4%} equal, {result['psnr_db']:.1f} dB."
        )
