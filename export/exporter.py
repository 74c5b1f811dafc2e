"""Components → bundle: trace every graph, check it against its module, check the chain, seal the folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime

import pflx
from pflx.engines import (
    Array,
    Bundle,
    Manifest,
    PflInfo,
    SmootherInfo,
    bundle_writer,
    require_space,
    write_manifest,
)
from pflx.engines.building.build import build_bundle_engines
from pflx.engines.bundle.policy import Policy
from pflx.engines.bundle.tensorrt_library import Backend
from pflx.export.chain import (
    PORTRAIT_SEED,
    SPEAKER_SEED,
    ChainInput,
    FrameDifference,
    Shots,
    react_as_published,
    react_with_graphs,
    render_as_published,
    render_with_graphs,
    runtime_generator,
)
from pflx.export.components import Components
from pflx.export.errors import ComponentError
from pflx.export.generators import GeneratorParts
from pflx.export.graphs import GraphFolder, Precision
from pflx.export.models import PosNet, PosNetSmoother
from pflx.export.parity import ParityError, largest_difference
from pflx.export.persons.denoiser import write_generic
from pflx.export.recipes import posnet_recipe
from pflx.export.renderers import RendererParts, WarpParts

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""

COEFFICIENT_TOLERANCE = 2e-3
"""Largest difference of coefficients at the end of a chain in FP32; rounding feeds back where a past is read."""
FP16_PSNR_DB = 45.0
"""Lowest peak signal-to-noise ratio of reduced-precision frames against FP32 frames."""


def _silent(_: str, __: int, ___: int) -> None:
    """Report nothing."""


_SIZES = (224, 256)
"""Sides of a picture, in pixels, that the public checkpoints of PIRender make."""


@dataclass(frozen=True)
class ExportOptions:
    """What a bundle is to hold.

    Attributes:
        precision: "fp32", or "fp16" to add strongly typed FP16 graphs beside the FP32 ones and use them by default.
        size: side of the rendered frame in pixels, 256 or 224.
        pfl: how the checkpoint's training crops were cut.
        engine: the TensorRT flavour to build engines for, or None.
        policy: of `pflx calibrate fp16`: which nodes of the FP16 graphs stay in FP32; None leaves it to the networks.

    Raises:
        ComponentError: no frames of that size, or a policy without FP16.
    """

    precision: Precision = "fp32"
    size: int = 256
    pfl: PflInfo = PflInfo(mode="release", window=256, padding=20)  # noqa: RUF009 (frozen)
    engine: Backend | None = None
    policy: Policy | None = None

    def __post_init__(self) -> None:
        if self.size not in _SIZES:
            raise ComponentError(f"Frames of {self.size} px cannot be rendered. Choose one of {_SIZES}.")
        if self.policy and self.precision != "fp16":
            raise ComponentError("A policy is for FP16 graphs. Give --precision fp16 with it, or leave it out.")

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """FP32 is the truth and always there."""
        return ("fp32",) if self.precision == "fp32" else ("fp32", "fp16")


def export_bundle(
    target: Path,
    components: Components,
    options: ExportOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = _silent,
) -> Bundle:
    """Write a bundle; it is there whole, or not at all.

    Args:
        target: folder to make, its name ends in `.pflx`.
        components: the networks.
        options: what the bundle is to hold.
        overwrite: replace a bundle that is there.
        progress: told about every step.

    Raises:
        ParityError: a graph differs from its network by more than allowed.
        RangeError: numbers in an FP16 graph do not fit FP16, or only just.
        PolicyError: the policy is of other graphs.
        OutputError: the folder cannot be written.
        EngineError, BackendMissingError, DeviceError: an engine could not be built.
    """
    options = options or ExportOptions()
    with bundle_writer(target, overwrite=overwrite) as folder:
        export = _Export(folder, components, options, progress)
        require_space(folder, export.expected_bytes)
        write_manifest(folder, export.run())
        if options.engine:
            build_bundle_engines(folder, options.engine, progress=progress)
    return Bundle.open(target, verify=False)


@dataclass(frozen=True)
class Reactions:
    """What the networks and their graphs make of one seeded speaker.

    Attributes:
        published: float32 [1, T, 58], smoothed, of the networks as published, in PyTorch.
        graphs: precision → the same of the exported graphs.
    """

    published: Array
    graphs: dict[str, Array] = field(default_factory=dict)

    def error(self, precision: str) -> float:
        """Largest absolute difference of a coefficient: FP32 from PyTorch, others from FP32."""
        reference = self.published if precision == "fp32" else self.graphs["fp32"]
        return largest_difference(reference, self.graphs[precision])


def export_generator(graphs: GraphFolder, parts: GeneratorParts, posnet: PosNet) -> Reactions:
    """Write the graphs of a generator and of PosNet, and let the runtime's generator react with them.

    Args:
        graphs: where to.
        parts: the generator.
        posnet: with a slide of its hop.

    Raises:
        ParityError: a graph, or what the runtime makes of all, differs from the networks by more than allowed.
        RangeError: numbers in an FP16 graph do not fit FP16.
    """
    modules = parts.modules()
    for recipe in parts.recipes:
        graphs.add(recipe, modules[recipe.graph])
    graphs.add(posnet_recipe(posnet.slide), PosNetSmoother(posnet))
    return react(graphs, parts, posnet)


def react(graphs: GraphFolder, parts: GeneratorParts, posnet: PosNet) -> Reactions:
    """What the networks and their graphs make of one seeded speaker.

    Raises:
        ParityError: coefficients of the FP32 graphs differ from those of the networks by more than allowed.
        RangeError: numbers in an FP16 graph do not fit FP16.
    """
    with runtime_generator(parts.info, graphs.opener("fp32")) as generator:
        given = ChainInput.seeded(SPEAKER_SEED, generator, parts.sample_rate_hz)
        reactions = Reactions(react_as_published(parts, posnet, given))
        reactions.graphs["fp32"] = react_with_graphs(generator, graphs.opener("fp32"), given)
    if (error := reactions.error("fp32")) > COEFFICIENT_TOLERANCE:
        raise ParityError(
            f"Coefficients of the FP32 graphs of {parts.name} are {error:.3g} away from PyTorch, allowed is "
            f"{COEFFICIENT_TOLERANCE:g}. Check the checkpoint for NaN or huge weights."
        )
    if "fp16" in graphs.precisions:
        with runtime_generator(parts.info, graphs.opener("fp16")) as generator:
            reactions.graphs["fp16"] = react_with_graphs(generator, graphs.opener("fp16"), given)
        graphs.require_range()
    return reactions


class _Export:
    """One export: the graphs are written to a folder, and their manifest is returned."""

    def __init__(self, folder: Path, components: Components, options: ExportOptions, progress: Progress) -> None:
        self._folder, self._components, self._options, self._progress = folder, components, options, progress
        self._done = 0

    @property
    def expected_bytes(self) -> int:
        """How much the bundle will take on the disk, with a tenth to spare."""
        networks = (*self._components.generator.modules().values(), self._components.posnet)
        weights = self._components.renderer.weights
        weights += sum(parameter.numel() for network in networks for parameter in network.parameters())
        bytes_per_weight = 4 + 2 * (len(self._options.precisions) - 1) + 4 * (self._options.engine is not None)
        return int(1.1 * weights * bytes_per_weight)

    def run(self) -> Manifest:
        components, options = self._components, self._options
        graphs = GraphFolder(self._folder, options.precisions, self._step, options.policy)
        reactions = export_generator(graphs, components.generator, components.posnet)
        if components.generator.generic:
            write_generic(self._folder, components.generator.generic)
        for renderer in self._renderers:
            modules = renderer.modules(components.mean_face, options.size)
            for recipe in renderer.recipes(options.size):
                graphs.add(recipe, modules[recipe.graph])
        graphs.require_all_named()
        frames = self._check_frames(graphs, reactions)
        graphs.watch_rest()
        graphs.require_range()
        weights = [{"slot": read.slot, "source": read.source, "note": read.note} for read in components.provenance]
        report = {"graphs": graphs.errors, "end_to_end": frames, "weights": weights}
        (self._folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        self._step("sealed")
        return self._manifest(graphs)

    @property
    def _preview(self) -> RendererParts | None:
        """The quick renderer beside another one."""
        return None if self._components.renderer.name == WarpParts.name else WarpParts()

    @property
    def _renderers(self) -> Sequence[RendererParts]:
        return [self._components.renderer, *filter(None, [self._preview])]

    def _step(self, doing: str) -> None:
        n_rendering = sum(len(renderer.recipes(self._options.size)) for renderer in self._renderers)
        n_graphs = len(self._components.generator.recipes) + 1 + n_rendering
        self._progress(doing, self._done, (n_graphs + 1) * len(self._options.precisions))
        self._done += 1

    def _check_frames(self, graphs: GraphFolder, reactions: Reactions) -> dict[str, Any]:
        """Frames of the published networks, of the FP32 graphs and of the reduced ones, of the same speaker."""
        components, options = self._components, self._options
        shots = Shots.seeded(PORTRAIT_SEED, reactions.published.shape[1], options.size)
        info, found = components.renderer.info(options.size), components.renderer.found(shots.portrait)
        reference = render_as_published(components.renderer, components.mean_face, reactions.published, shots)
        against = "PyTorch, networks as published"
        results: dict[str, Any] = {}
        for precision in options.precisions:
            self._step(f"end to end {precision}")
            frames = render_with_graphs(info, found, graphs.opener(precision), reactions.graphs[precision], shots)
            graphs.require_range()
            difference, coefficients = FrameDifference.between(reference, frames), reactions.error(precision)
            _check_frames(precision, difference, coefficients)
            results[precision] = {"against": against, "coefficients_max_abs_error": coefficients, **asdict(difference)}
            if precision == "fp32":
                against, reference = "FP32 graphs", frames
        return results

    def _manifest(self, graphs: GraphFolder) -> Manifest:
        components, options = self._components, self._options
        return Manifest(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            pflx=pflx.__version__,
            sample_rate_hz=components.generator.sample_rate_hz,
            untrained=components.untrained,
            generator=components.generator.info,
            smoother=SmootherInfo(name="posnet", slide=components.posnet.slide, graphs={"smooth": "posnet"}),
            renderer=components.renderer.info(options.size),
            preview=None if self._preview is None else self._preview.info(options.size),
            pfl=options.pfl,
            mean_face=components.mean_face_info,
            graphs=graphs.infos,
            precision=options.precision,
            provenance=list(components.provenance),
            versions={
                "python": platform.python_version(),
                "torch": version("torch"),
                "onnx": version("onnx"),
                "onnxruntime": str(onnxruntime.__version__),  # of either package: onnxruntime or onnxruntime-gpu
            },
        )


def _check_frames(precision: str, difference: FrameDifference, coefficients: float) -> None:
    if precision == "fp32" and difference.max_levels > 1:
        raise ParityError(
            f"Frames of the FP32 graphs differ from PyTorch by {difference.max_levels} levels, allowed is 1; "
            f"their coefficients differ by {coefficients:.3g}."
        )
    if precision != "fp32" and difference.psnr_db < FP16_PSNR_DB:
        raise ParityError(
            f"{precision} frames reach {difference.psnr_db:.1f} dB against FP32, needed are {FP16_PSNR_DB} dB; "
            f"their coefficients differ by {coefficients:.3g}. Export with --precision fp32, or find the nodes that "
            "must stay in FP32: pflx calibrate fp16 --help."
        )
