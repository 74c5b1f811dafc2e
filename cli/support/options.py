"""Options that several verbs share, each written once: a verb takes a group of them as one parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from pflx.engines.graphs.threads import most_threads

if TYPE_CHECKING:
    from pflx.runtime import ChainSettings, EngineSettings, GeneratorOptions, SpeakerSettings


class Engine(StrEnum):
    """Libraries that run graphs."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


class Renderer(StrEnum):
    """Renderers that a bundle may hold."""

    PIRENDER = "pirender"
    WARP = "warp"


class Crop(StrEnum):
    """What is cropped out of a speaker's pictures; but for the first, the words of `pflx crop --pfl`."""

    PFL = "pfl"
    RELEASE = "release"
    PAPER = "paper"
    FLOATING = "floating"


class History(StrEnum):
    """What a generator sees of its own past."""

    GENERATED = "generated"
    ADJUSTED = "adjusted"


class Solver(StrEnum):
    """What takes the denoising steps."""

    DDIM = "ddim"
    DPM = "dpm++"


_SOLVERS: dict[Solver, Literal["ddim", "dpm++"]] = {Solver.DDIM: "ddim", Solver.DPM: "dpm++"}


def fetched(ctx: typer.Context, value: Any) -> Any:
    """What is given as a bundle, or several: of `hf://ORG/NAME`, where it lies on this machine once it was fetched."""
    from pflx.engines.hub.fetch import local_folder

    if value is None or ctx.resilient_parsing:  # a shell that completes asks about half a line
        return value
    return [local_folder(each) for each in value] if isinstance(value, list | tuple) else local_folder(value)


BUNDLE = "Bundle made by `pflx export`, or hf://ORG/NAME."
BundleArgument = Annotated[Path, typer.Argument(help=BUNDLE, callback=fetched)]
_OR_OWN = f"{BUNDLE} [the listener that comes with pflx]"
OwnBundle = Annotated[Path | None, typer.Option("--bundle", "-b", help=_OR_OWN, callback=fetched)]
OwnBundleArgument = Annotated[Path | None, typer.Argument(help=_OR_OWN, callback=fetched)]
Portrait = Annotated[Path, typer.Option("--portrait", "-p", help="Picture of the listener.")]
Feeds = Annotated[Path, typer.Option("--feeds", "-f", help="Folder of `pflx calibrate record`.")]
Lookahead = Annotated[int, typer.Option(min=0, max=13, help="Frames waited for before rendering.")]
Foresight = Annotated[
    Path | None, typer.Option(help="Of `pflx calibrate foresight`: foretells the frames that are not waited for.")
]
MOST_SAMPLES = 100
"""That of `pflx.runtime.frames.coefficients`, which would take its time to import."""
MOST_PLAYOUT_MS = 10_000
"""That of `LiveSettings`."""
FRAME_S = 0.04
"""Of a clip or a session, the shortest that there is."""
Seed = Annotated[int, typer.Option(min=0, help="Of the reactions.")]
AnySeed = Annotated[int | None, typer.Option(min=0, help="Of the reactions. Without: another one in each session.")]
RendererChoice = Annotated[
    Renderer | None, typer.Option(help="The one to use of the bundle's; warp is a quick preview. [its own]")
]
Size = Annotated[
    int | None,
    typer.Option(
        metavar="PX",
        min=64,
        max=1024,
        help="Side of a picture: any multiple of 4 where the portrait is warped. [the bundle's]",
    ),
]
Badge = Annotated[bool, typer.Option("--badge", help="Label the pictures: AI, in a corner.")]
Precision = Annotated[
    str | None, typer.Option(help="fp32, another of the bundle, or auto: the fastest admitted; by default its own.")
]
Threads = Annotated[int | None, typer.Option(min=1, max=most_threads(), help="CPU threads per graph.")]
Emotion = Annotated[
    str | None, typer.Option(metavar="FILE|ONNX", help="The speaker's emotion, for a generator that reads it.")
]


PersonFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Of `pflx person make`: whose weights the generator has.")
]


@dataclass(frozen=True)
class EngineOptions:
    """Where graphs run, and how; see `EngineSettings`."""

    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu"
    engine: Annotated[Engine, typer.Option(help="What runs the graphs; TensorRT on GPUs, OpenVINO on CPUs.")] = (
        Engine.ONNXRUNTIME
    )
    precision: Precision = None
    threads: Threads = None

    def settings(self, *, fallback: bool = False) -> EngineSettings:
        """As the runtime takes them."""
        from pflx.runtime import EngineSettings

        return EngineSettings(self.engine.value, self.precision, self.threads, fallback)


@dataclass(frozen=True)
class SpeakerOptions:
    """What tells of the speaker; see `SpeakerSettings`."""

    speaker_coefficients: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|landmarks|ONNX", help="The speaker's coefficients, for a generator that reads them."
        ),
    ] = None
    speaker_emotion: Emotion = None

    def sources(self) -> dict[str, str]:
        """Need to what gives it, of those that were named."""
        given = {"coefficients": self.speaker_coefficients, "emotion": self.speaker_emotion}
        return {need: value for need, value in given.items() if value is not None}

    def files(self) -> dict[str, str | None]:
        """Option to the file that it may name."""
        return {"--speaker-coefficients": self.speaker_coefficients, "--speaker-emotion": self.speaker_emotion}

    def settings(self) -> SpeakerSettings:
        """As the runtime takes them."""
        from pflx.runtime import SpeakerSettings

        return SpeakerSettings(extractors=self.sources())


@dataclass(frozen=True)
class DenoisingOptions:
    """What is chosen of a generator, see `GeneratorOptions`; and whose weights it has."""

    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps; what fewer of them change is told.")] = None
    solver: Annotated[Solver | None, typer.Option(help="Of the denoising steps.")] = None
    history: Annotated[
        int | None, typer.Option(min=0, help="Past frames a generator with a growing history looks at; 0 for all.")
    ] = None
    person: PersonFile = None

    def files(self) -> dict[str, Path | None]:
        """Option to the file that it names."""
        return {"--person": self.person}

    def chosen(self) -> GeneratorOptions:
        """As the runtime takes them, but for the person."""
        from pflx.runtime import GeneratorOptions

        solver = None if self.solver is None else _SOLVERS[self.solver]
        return GeneratorOptions(steps=self.steps, solver=solver, history=self.history)


@dataclass(frozen=True)
class ChainOptions:
    """What is left out of the published chain, or exchanged; see `ChainSettings`."""

    without_posnet: Annotated[
        bool, typer.Option("--without-posnet", help="Join no segments: show them as they were generated.")
    ] = False
    crop: Annotated[
        Crop,
        typer.Option(help="Of the speaker: the bundle's fixed region, release or paper, or the nose in the middle."),
    ] = Crop.PFL
    generator_history: Annotated[
        History, typer.Option(help="What the generator sees of its own past: before PosNet, or after.")
    ] = History.GENERATED

    def chosen(self) -> ChainSettings:
        """As the runtime takes them."""
        from pflx.runtime import ChainSettings

        return ChainSettings(
            posnet=not self.without_posnet, crop=self.crop.value, generator_history=self.generator_history.value
        )


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb as Typer reads it: with the fields of every group among its parameters as options of their own.

    Called from Python, what is left out has its default.

    Args:
        verb: parameters whose type is a dataclass are groups.
    """
    signature = inspect.signature(verb, eval_str=True)
    types: dict[str, Any] = {name: each.annotation for name, each in signature.parameters.items()}
    groups: dict[str, Any] = {name: annotation for name, annotation in types.items() if is_dataclass(annotation)}
    flat: dict[str, inspect.Parameter] = {}
    for name, parameter in signature.parameters.items():
        options = _options(groups[name]) if name in groups else [parameter]
        flat |= {each.name: each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in options}

    of_options = signature.replace(parameters=list(flat.values()))

    @wraps(verb)
    def run(**options: Any) -> None:
        bound = of_options.bind(**options)
        bound.apply_defaults()
        given = dict(bound.arguments)
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        verb(**given)

    typed: Any = run
    typed.__signature__ = of_options
    typed.__annotations__ = {name: parameter.annotation for name, parameter in flat.items()}
    return run


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(field.name, kind, default=field.default, annotation=hints[field.name])
        for field in fields(group)
    ]
