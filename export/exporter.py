"""Components → bundle: trace every graph, check it against its module, seal the folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from torch import nn

import pflx
from pflx.engines import (
    Bundle,
    GeneratorInfo,
    GraphInfo,
    Manifest,
    OrtEngine,
    PflInfo,
    RendererInfo,
    SmootherInfo,
    bundle_writer,
    require_space,
    write_manifest,
)
from pflx.engines.build import build_bundle_engines
from pflx.engines.passport import Backend
from pflx.export.components import ComponentError, Components
from pflx.export.models import PosNetSmoother, ReactFaceListener, ReactFaceSpeaker
from pflx.export.models.pirender_deploy import FrameRenderer, PortraitFeatures
from pflx.export.parity import (
    FP16_PSNR_DB,
    ChainInput,
    FrameDifference,
    ParityError,
    check_graph,
    count_flops,
    graph_errors,
    run_graphs,
    run_published,
)
from pflx.export.recipes import OPSET, Recipe, recipes
from pflx.export.trace import fp32_nodes, stored_parameters, trace

Precision = Literal["fp32", "fp16"]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""

SIZES = (224, 256)
_CHAIN_SEED = 7


def _silent(_: str, __: int, ___: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class ExportOptions:
    """What a bundle is to hold.

    Attributes:
        precision: "fp32", or "fp16" to add strongly typed FP16 graphs beside the FP32 ones and use them by default.
        size: side of the rendered frame in pixels, 256 or 224.
        pfl: how the checkpoint's training crops were cut.
        engine: the TensorRT flavour to build engines for, or None.

    Raises:
        ComponentError: no frames of that size.
    """

    precision: Precision = "fp32"
    size: int = 256
    pfl: PflInfo = PflInfo(mode="release", window=256, padding=20)  # noqa: RUF009 (frozen)
    engine: Backend | None = None

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ComponentError(f"Frames of {self.size} px cannot be rendered. Choose one of {SIZES}.")

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
        OutputError: the folder cannot be written.
        EngineError, BackendMissingError, DeviceError: an engine could not be built.
    """
    options = options or ExportOptions()
    with bundle_writer(target, overwrite=overwrite) as folder:
        require_space(folder, _expected_bytes(components, options))
        write_manifest(folder, _Export(folder, components, options, progress).run())
        if options.engine:
            build_bundle_engines(folder, options.engine, progress=progress)
    return Bundle.open(target, verify=False)


def _expected_bytes(components: Components, options: ExportOptions) -> int:
    networks = (components.generator, components.posnet, components.renderer)
    weights = sum(parameter.numel() for network in networks for parameter in network.parameters())
    bytes_per_weight = 4 + 2 * (len(options.precisions) - 1) + 4 * (options.engine is not None)
    return int(1.1 * weights * bytes_per_weight)


class _Export:
    """One export: the graphs are written to a folder, and their manifest is returned."""

    def __init__(self, folder: Path, components: Components, options: ExportOptions, progress: Progress) -> None:
        self._folder, self._components, self._options, self._progress = folder, components, options, progress
        self._recipes = recipes(window=components.window, slide=components.posnet.slide, size=options.size)
        self._modules: dict[str, nn.Module] = {
            "reactface_speaker": ReactFaceSpeaker(components.generator),
            "reactface_listener": ReactFaceListener(components.generator),
            "posnet": PosNetSmoother(components.posnet),
            "pirender_portrait": PortraitFeatures(components.renderer),
            "pirender_frame": FrameRenderer(components.renderer, components.mean_face),
        }
        self._done = 0
        self._report: dict[str, Any] = {"graphs": {}, "end_to_end": {}}

    def run(self) -> Manifest:
        (self._folder / "graphs").mkdir()
        graphs = {name: self._graph(recipe) for name, recipe in self._recipes.items()}
        self._check_chain()
        (self._folder / "report.json").write_text(json.dumps(self._report, indent=2) + "\n")
        self._step("sealed")
        return self._manifest(graphs)

    def _step(self, doing: str) -> None:
        n_graphs = len(self._recipes) * len(self._options.precisions)
        self._progress(doing, self._done, n_graphs + len(self._options.precisions))
        self._done += 1

    def _path(self, graph: str, precision: str) -> Path:
        return self._folder / "graphs" / f"{graph}.{precision}.onnx"

    def _graph(self, recipe: Recipe) -> GraphInfo:
        module = self._modules[recipe.graph].eval()
        paths = {precision: self._path(recipe.graph, precision) for precision in self._options.precisions}
        parameters = 0
        islands: dict[str, list[str]] = {}
        for precision, path in paths.items():
            self._step(f"{recipe.graph} {precision}")
            model = trace(module, recipe, path, precision=precision)
            self._check_graph(module, recipe, path, precision)
            if precision == "fp32":
                parameters = stored_parameters(model)
            else:
                islands[precision] = fp32_nodes(model)
        return GraphInfo(
            inputs=dict(recipe.inputs),
            outputs=dict(recipe.outputs),
            parameters=parameters,
            flops=count_flops(module, recipe),
            opset=OPSET,
            files={precision: path.relative_to(self._folder).as_posix() for precision, path in paths.items()},
            fp32_nodes=islands,
        )

    def _check_graph(self, module: nn.Module, recipe: Recipe, path: Path, precision: str) -> None:
        sizes = recipe.size_sets if precision == "fp32" else recipe.size_sets[-1:]
        with closing(OrtEngine(path)) as engine:
            errors = graph_errors(module, engine, recipe, sizes)
        if precision == "fp32":
            check_graph(recipe, errors)
        entry = self._report["graphs"].setdefault(recipe.graph, {"tolerance_fp32": dict(recipe.tolerance)})
        entry[precision] = {"max_abs_error": errors}

    def _check_chain(self) -> None:
        """Frames of the published networks, of the FP32 graphs and of the reduced ones, on the same input."""
        self._step("end to end fp32")
        given = ChainInput.seeded(_CHAIN_SEED, window=self._components.window, size=self._options.size)
        frames = self._chain(given, "fp32")
        published = run_published(self._components, given)
        difference = FrameDifference.between(published, frames)
        self._report["end_to_end"]["fp32"] = {
            "against": "PyTorch, networks as published",
            **asdict(difference),
        }
        if difference.max_levels > 1:
            raise ParityError(
                f"Frames of the FP32 graphs differ from PyTorch by {difference.max_levels} levels, allowed is 1."
            )
        for precision in self._options.precisions[1:]:
            self._step(f"end to end {precision}")
            difference = FrameDifference.between(frames, self._chain(given, precision))
            self._report["end_to_end"][precision] = {"against": "FP32 graphs", **asdict(difference)}
            if difference.psnr_db < FP16_PSNR_DB:
                raise ParityError(
                    f"{precision} frames reach {difference.psnr_db:.1f} dB against FP32, needed are {FP16_PSNR_DB} dB. "
                    "Export with --precision fp32."
                )

    def _chain(self, given: ChainInput, precision: str) -> Any:
        return run_graphs({graph: self._path(graph, precision) for graph in self._recipes}, given)

    def _manifest(self, graphs: dict[str, GraphInfo]) -> Manifest:
        components, window = self._components, self._components.window
        return Manifest(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            pflx=pflx.__version__,
            untrained=components.untrained,
            generator=GeneratorInfo(
                name="reactface",
                window=window,
                hop=window,
                needs=["video", "audio"],
                graphs={"speaker": "reactface_speaker", "listener": "reactface_listener"},
            ),
            smoother=SmootherInfo(name="posnet", slide=components.posnet.slide, graphs={"smooth": "posnet"}),
            renderer=RendererInfo(
                name="pirender",
                size=self._options.size,
                graphs={"portrait": "pirender_portrait", "frame": "pirender_frame"},
            ),
            pfl=self._options.pfl,
            mean_face=components.mean_face_info,
            graphs=graphs,
            precision=self._options.precision,
            provenance=list(components.provenance),
            versions={"python": platform.python_version()} | {p: version(p) for p in ("torch", "onnx", "onnxruntime")},
        )
