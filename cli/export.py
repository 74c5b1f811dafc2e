"""`pflx export`: checkpoints → bundle."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pflx.cli.support.console import print_line, print_untrained, progress_bar
from pflx.cli.support.paths import check_apart
from pflx.engines import BackendMissingError, Bundle, PflInfo, PflxError
from pflx.engines.bundle.mean_face import read_mean_face
from pflx.engines.bundle.policy import read_policy
from pflx.engines.bundle.tensorrt_library import Backend
from pflx.engines.bundle.writer import check_target
from pflx.runtime.builtin import DEFAULT_POSNET, BuiltinOptions, export_builtin
from pflx.runtime.generators import joins_by_itself

if TYPE_CHECKING:
    from pflx.export import Components, ExportSettings


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


class Kind(StrEnum):
    """Generators that a bundle can hold."""

    REACTFACE = "reactface"
    PERFRDIFF = "perfrdiff"
    TRANSVAE = "transvae"
    BELFUSION = "belfusion"
    BACKCHANNEL = "backchannel"


class UsageError(PflxError, ValueError):
    """Options that do not go together."""


@dataclass(frozen=True)
class Sources:
    """Where the weights come from.

    Raises:
        UsageError: checkpoints and a seed, or a kind that does not go with them.
    """

    generator: list[Path]
    posnet: Path | None
    renderer: Path | None
    mean_face: str | None
    untrained: int | None
    kind: Kind | None
    person: Path | None = None

    def __post_init__(self) -> None:
        if self.untrained is not None:
            if self.generator or self.posnet or self.renderer or self.person:
                raise UsageError("--untrained makes all weights up and takes no checkpoints. Leave one of the two out.")
        elif self.kind not in (None, Kind.BACKCHANNEL):
            raise UsageError(f"--kind {self.kind} goes with --untrained; checkpoints are known by their keys.")
        elif self.kind and self.generator:
            raise UsageError("The backchannel generator has no weights. Leave out --generator, or --kind backchannel.")

    @property
    def are_builtin(self) -> bool:
        """Whether nothing but what comes with pflx is asked for."""
        given = self.generator or self.posnet or self.renderer or self.person
        return not given and self.untrained is None

    def read(self, settings: ExportSettings) -> Components:
        """The networks."""
        from pflx.export import load_components, untrained_components

        if self.untrained is not None:
            kind = self.kind or Kind.REACTFACE
            return untrained_components(self.untrained, kind=kind.value, mean_face=self.mean_face, settings=settings)
        return load_components(
            generator=self.generator,
            posnet=self.posnet,
            renderer=self.renderer,
            mean_face=self.mean_face,
            settings=settings,
            person=self.person,
        )


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle to write, NAME.pflx.")],
    generator: Annotated[
        list[Path] | None,
        typer.Option(
            help="Checkpoint of the generator, which is known by its keys; repeat it for one in several files. "
            "Without: the backchannel listener, which has no weights."
        ),
    ] = None,
    posnet: Annotated[Path | None, typer.Option(help="Checkpoint of PosNet. Without: a default one.")] = None,
    renderer: Annotated[
        Path | None,
        typer.Option(help="Checkpoint of PIRender (58 coefficients). Without: the portrait is warped."),
    ] = None,
    mean_face: Annotated[
        str | None, typer.Option(help="mean_face.npy of the networks' training data, 'zero' or 'upright'.")
    ] = None,
    untrained: Annotated[
        int | None,
        typer.Option(metavar="SEED", min=0, help="Made-up weights in place of checkpoints, to try things out."),
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option(help="Which generator --untrained makes up, reactface unless given; or backchannel.")
    ] = None,
    person: Annotated[
        Path | None, typer.Option(help="Of `pflx person make`: a bundle of that person alone, whose weights it holds.")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="fp16 adds FP16 graphs and uses them by default.")
    ] = Precision.FP32,
    policy: Annotated[
        Path | None, typer.Option(help="Which nodes of the FP16 graphs stay in FP32, of `pflx calibrate fp16`.")
    ] = None,
    engine: Annotated[Engine, typer.Option(help="Also build TensorRT engines, on this machine.")] = Engine.NONE,
    size: Annotated[
        int,
        typer.Option(
            min=64, max=1024, help="Side of a picture: 256 or 224; any multiple of 4 where the portrait is warped."
        ),
    ] = 256,
    pfl: Annotated[PflMode, typer.Option(help="Arithmetic of the training crops.")] = PflMode.RELEASE,
    stored_pixels: Annotated[
        bool, typer.Option("--stored-pixels", help="It was trained on clips whose pixels were not made square.")
    ] = False,
    window: Annotated[
        int | None, typer.Option(min=1, help="Frames per step: reactface a multiple of 8, transvae 8 or 16. [8]")
    ] = None,
    history: Annotated[
        int | None, typer.Option(min=0, help="Frames that transvae looks back on; 0 for all, at a growing cost.")
    ] = None,
    mfcc_range: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="MIN MAX", help="Smallest and largest MFCC of perfrdiff's training data."),
    ] = None,
    use_past_frames: Annotated[
        bool, typer.Option("--use-past-frames", help="perfrdiff reads its last reaction, as it was trained to.")
    ] = False,
    persons: Annotated[
        bool, typer.Option("--persons", help="perfrdiff can have the weights of persons: a graph more, for --person.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle of that name.")] = False,
) -> None:
    """Export checkpoints to a bundle, checked against PyTorch graph by graph and end to end.

    Without any checkpoint: the listener that comes with pflx, which nods, mirrors and blinks, and the portrait warped.
    That takes no PyTorch.
    """
    sources = Sources(generator or [], posnet, renderer, mean_face, untrained, kind, person)
    check_target(output, overwrite)
    check_apart(
        reads={
            "--generator": generator,
            "--posnet": posnet,
            "--renderer": renderer,
            "--mean-face": mean_face,
            "--person": person,
            "--policy": policy,
        },
        writes={"--output": output},
    )
    cut = PflInfo(mode=pfl.value, window=256, padding=20, square_pixels=not stored_pixels)
    chosen = (window, history, mfcc_range, policy, use_past_frames or None, persons or None)
    if sources.are_builtin and all(choice is None for choice in chosen):
        face = None if mean_face is None else read_mean_face(mean_face)
        builtin = BuiltinOptions(precision=precision.value, size=size, pfl=cut, mean_face=face)
        with progress_bar() as report:
            bundle = export_builtin(output, builtin, engine=_BACKENDS[engine], overwrite=overwrite, progress=report)
        _print_result(bundle)
        return
    try:
        from pflx.export import ExportOptions, ExportSettings, export_bundle
    except ModuleNotFoundError as error:
        raise BackendMissingError(str(error.name), "pip install 'pflx[cpu,export]'") from error
    options = ExportOptions(
        precision=precision.value,
        size=size,
        pfl=cut,
        engine=_BACKENDS[engine],
        policy=read_policy(policy) if policy else None,
    )
    settings = ExportSettings(
        window=window, history=history, mfcc_range=mfcc_range, use_past_frames=use_past_frames, persons=persons
    )
    with progress_bar() as report:
        report("reading weights", 0, None)
        components = sources.read(settings)
        bundle = export_bundle(output, components, options, overwrite=overwrite, progress=report)
    _print_result(bundle)


def _print_result(bundle: Bundle) -> None:
    from pflx.cli.inspect import largest_in_fp16
    from pflx.engines.bundle.export_report import read_export_report

    print_untrained(bundle.manifest)
    if own := [entry.slot for entry in bundle.manifest.provenance if entry.source == "pflx"]:
        print_line(f"Without weights: {' and '.join(own)}. What they do: docs/backchannel.md and docs/warp.md.")
    size = sum(info.bytes for info in bundle.manifest.files.values())
    is_joined = joins_by_itself(bundle.manifest.generator.name)
    if not is_joined and any(DEFAULT_POSNET in entry.note for entry in bundle.manifest.provenance):
        print_line(f"PosNet is {DEFAULT_POSNET}. To fit one: pflx calibrate posnet --help")
    print_line(
        f"Wrote {bundle.path} ({size / 1e6:.{0 if size > 1e7 else 1}f} MB), graphs in {bundle.manifest.precision}."
    )
    for entry in bundle.manifest.provenance:
        if entry.sha256 and entry.note and DEFAULT_POSNET not in entry.note:
            print_line(f"{entry.slot}, {entry.source}: {entry.note}")
    report = read_export_report(bundle)
    for precision, result in report.end_to_end.items():
        print_line(
            f"{precision} frames against {result.against}: at most {result.max_levels:g} levels apart, "
            f"{result.equal_share:.4%} equal, {result.psnr_db:.1f} dB; "
            f"coefficients within {result.coefficients_max_abs_error:.1e}."
        )
    if widest := largest_in_fp16(report):
        print_line(f"Largest number in FP16: {widest[0][1]} of {widest[0][0]}.")
