"""INT8 for a bundle: which layers can have it, judged on the pictures at the end."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
import onnx

import pflx
from pflx.calibration.errors import CalibrationError
from pflx.calibration.feeds.feeds import Feeds
from pflx.calibration.feeds.replay import Performance, Take, play, react, render
from pflx.calibration.judge import Bound, Judgement, judge
from pflx.calibration.precision.int8_report import Int8Report, MethodFigures, TrialFigures, UnitFigures
from pflx.calibration.precision.phases import join_phases
from pflx.calibration.precision.quantise import (
    METHODS,
    SWITCH,
    Layer,
    Method,
    Ranges,
    Scheme,
    count_operations,
    layers_of,
    measure_ranges,
    prune,
    quantised,
    switchable,
)
from pflx.calibration.progress import Progress, silent
from pflx.engines import Admission, Array, Bundle, Engine, Manifest, OpenVinoEngine, OrtEngine, TensorSpec
from pflx.engines.bundle.admission import cpu_features, library_version
from pflx.engines.graphs.openvino import Inference
from pflx.runtime.bundle_engines import CALL_SIZES

EngineName = Literal["openvino", "onnxruntime", "tensorrt"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)

LARGEST_UNITS = 48
"""Of a graph: where it has more layers, neighbours are decided on together."""

Chosen: TypeAlias = Mapping[str, frozenset[str]]
"""Graph to the nodes that are quantised."""


@dataclass(frozen=True)
class Target:
    """What the INT8 is for.

    Attributes:
        precision: name of the variant in a bundle.
        libraries: that may run it.
        scheme: how it wants its INT8.
        renderer: operators that are quantised in the graph that draws frames.
        generator: the same in the graphs that make coefficients: the matrix products of their transformers.
    """

    precision: str
    libraries: tuple[str, ...]
    scheme: Scheme
    renderer: tuple[str, ...] = ("Conv",)
    generator: tuple[str, ...] = ("MatMul", "Gemm")


TARGETS: dict[EngineName, Target] = {
    "openvino": Target("int8", ("openvino",), Scheme()),
    "onnxruntime": Target("int8", ("onnxruntime",), Scheme(outputs=True), generator=()),
    "tensorrt": Target("int8-trt", ("tensorrt", "tensorrt-rtx"), Scheme(symmetric=True)),
}
"""TensorRT's graphs are judged by ONNX Runtime, in float32 arithmetic on the values that INT8 has."""


@dataclass(frozen=True)
class Unit:
    """Layers of one graph that are decided on together.

    Attributes:
        graph: its name.
        nodes: of the layers.
        operations: multiplications of one call.
    """

    graph: str
    nodes: tuple[str, ...]
    operations: int


@dataclass(frozen=True)
class Int8Result:
    """What was found.

    Attributes:
        graphs: graph to what the variant runs in its place, where that differs from FP32.
        left_out: graph to the layers that stay as they are.
        admission: of the variant.
        report: how it was found.
    """

    graphs: Mapping[str, onnx.ModelProto]
    left_out: Mapping[str, list[str]]
    admission: Admission
    report: Int8Report


def default_engine() -> EngineName:
    """The faster one of those that are installed for the CPU."""
    return "openvino" if find_spec("openvino") else "onnxruntime"


def calibrate_int8(
    bundle: Bundle,
    feeds: Feeds,
    engine: EngineName,
    *,
    bound: Bound,
    methods: Sequence[Method] = METHODS,
    threads: int | None = None,
    progress: Progress = silent,
) -> Int8Result:
    """Find the layers that may compute in INT8 so that the pictures stay within a bound.

    All layers are quantised with the ranges of each method; the one with the best pictures is kept. If they are out of
    bound, each layer is quantised alone, to see what it does to the pictures, and layers are ordered by that error for
    each operation that INT8 saves. A bisection over this order finds how many of them can be quantised together.

    Args:
        bundle: with FP32 graphs.
        feeds: recorded from it.
        engine: that is to run the variant.
        bound: that pictures and motion of the held-out takes must keep.
        methods: to compare.
        threads: of the CPU, per graph.
        progress: told about every step.

    Raises:
        CalibrationError: feeds of another bundle, or not one layer can be quantised.
        BackendMissingError: a package is not installed.
    """
    feeds.require_match(bundle)
    target = TARGETS[engine]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        loaded = {name: _load(bundle, name, engine) for name in quantisable(bundle.manifest, target)}
        layers = {name: layers_of(model, _operators(bundle.manifest, target, name)) for name, model in loaded.items()}
        graphs = {name: model for name, model in loaded.items() if layers[name]}
        if not graphs:
            raise CalibrationError(f"{bundle.path} has no layer that {engine} computes in INT8.")
        layers = {name: layers[name] for name in graphs}
        judging = _Judging(bundle, feeds, engine, graphs, layers, folder, threads)
        stack.callback(judging.close)
        return _search(judging, bound, methods, progress)


def quantisable(manifest: Manifest, target: Target) -> list[str]:
    """The graphs of a bundle that are quantised for a target."""
    return [name for name in manifest.graphs if _operators(manifest, target, name)]


def _operators(manifest: Manifest, target: Target, graph: str) -> tuple[str, ...]:
    if graph == manifest.renderer.graphs["frame"]:
        return target.renderer
    return target.generator if graph in manifest.generator.graphs.values() else ()


def _load(bundle: Bundle, graph: str, engine: EngineName) -> onnx.ModelProto:
    model = onnx.load(bundle.graph_path(graph, "fp32"))
    if engine == "openvino":
        join_phases(model)
    return prune(model)


class _Judging:
    """Plays the held-out takes with any choice of layers in INT8, and tells how far that is from FP32.

    Attributes:
        target: what the INT8 is for.
        graphs: that may be quantised.
        layers: of them.
        ranges: of their tensors; set before anything is quantised.
        inference: what OpenVINO computes each graph in, where that is not f32.
    """

    def __init__(
        self,
        bundle: Bundle,
        feeds: Feeds,
        engine: EngineName,
        graphs: Mapping[str, onnx.ModelProto],
        layers: Mapping[str, Sequence[Layer]],
        folder: Path,
        threads: int | None,
    ) -> None:
        self.bundle, self.feeds, self.engine = bundle, feeds, engine
        self.graphs, self.layers = graphs, layers
        self.target, self.manifest, self.threads = TARGETS[engine], bundle.manifest, threads
        self.ranges: Mapping[str, Ranges] = {}
        self.inference: dict[str, Inference] = {}
        self._folder, self._takes = folder, feeds.takes()
        self._open: dict[str, tuple[object, Engine]] = {}
        self._reference: list[Performance] = []

    def judge(self, chosen: Chosen) -> Judgement:
        """The pictures and motion of a choice, on the engine that it is for."""
        if not self._reference:
            with _fp32_engines(self.bundle, self.bundle.manifest.graphs, self.threads) as engines:
                self._reference = [play(take, self.manifest, engines) for take in self._takes]
        engines = {graph: self._engine(graph, chosen.get(graph, frozenset())) for graph in self.manifest.graphs}
        candidate = [play(take, self.manifest, engines) for take in self._takes]
        return judge(self._reference, candidate, self.manifest.generator.hop)

    def model(self, graph: str, nodes: Collection[str]) -> onnx.ModelProto:
        """A graph with some layers in INT8."""
        ranges = self.ranges.get(graph, {})
        return prune(quantised(self.graphs[graph], self.layers[graph], nodes, ranges, self.target.scheme))

    def errors(self, units: Sequence[Unit], progress: Progress) -> list[float]:
        """What each unit alone, in INT8, does to the pictures: mean squared difference in levels of 255."""
        with ExitStack() as stack:
            others = [name for name in self.manifest.graphs if name not in self.graphs]
            plain = stack.enter_context(_fp32_engines(self.bundle, others, self.threads))
            switched = {graph: stack.enter_context(closing(self._switched(graph))) for graph in self.graphs}
            scene = _Scene(self._takes[0], self.manifest, {**plain, **switched})
            found = []
            for n, unit in enumerate(units):
                progress("judging each layer alone", n, len(units))
                switched[unit.graph].chosen = frozenset(unit.nodes)
                found.append(scene.error(unit.graph))
                switched[unit.graph].chosen = frozenset()
            return found

    def close(self) -> None:
        """Close all engines."""
        for _, engine in self._open.values():
            engine.close()

    def _engine(self, graph: str, nodes: frozenset[str]) -> Engine:
        """The engine of a choice; kept open for the next choice, which may have it too."""
        key = (nodes, self.inference.get(graph), self.ranges.get(graph) if nodes else None)
        if graph in self._open and self._open[graph][0] == key:
            return self._open[graph][1]
        if graph in self._open:
            self._open.pop(graph)[1].close()
        path = self.bundle.graph_path(graph, "fp32")
        if graph in self.graphs:
            path = self._folder / f"{graph}.onnx"
            onnx.save(self.model(graph, nodes), path)
        engine = self._opened(graph, path)
        self._open[graph] = key, engine
        return engine

    def _opened(self, graph: str, path: Path) -> Engine:
        if self.engine != "openvino":
            return OrtEngine(path, threads=self.threads, sizes=CALL_SIZES)
        info, inference = self.manifest.graphs[graph], self.inference.get(graph, "f32")
        return OpenVinoEngine(
            path, info.inputs, info.outputs, threads=self.threads, sizes=CALL_SIZES, inference=inference
        )

    def _switched(self, graph: str) -> _SwitchedEngine:
        path = self._folder / f"{graph}.switched.onnx"
        onnx.save(switchable(self.graphs[graph], self.layers[graph], self.ranges[graph], self.target.scheme), path)
        return _SwitchedEngine(OrtEngine(path, threads=self.threads, sizes=CALL_SIZES))


class _SwitchedEngine:
    """An engine whose layers compute in INT8 or not, as it is told before a call.

    Attributes:
        chosen: nodes of the layers that do.
    """

    def __init__(self, engine: OrtEngine) -> None:
        self._engine = engine
        self._switches = [name for name in engine.inputs if name.startswith(SWITCH)]
        self.inputs: dict[str, TensorSpec] = {
            name: spec for name, spec in engine.inputs.items() if name not in self._switches
        }
        self.outputs = engine.outputs
        self.chosen: frozenset[str] = frozenset()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once; see `Engine.run`."""
        switches = {name: np.array(name.removeprefix(SWITCH) in self.chosen) for name in self._switches}
        return self._engine.run({**feeds, **switches})

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


class _Scene:
    """Two segments and the pictures around the seam between them, cheap enough to be played for every layer."""

    def __init__(self, take: Take, manifest: Manifest, engines: Mapping[str, Engine]) -> None:
        self._take, self._manifest, self._engines = replace(take, steps=take.steps[:2]), manifest, engines
        hop = manifest.generator.hop
        self._shots = np.array([hop - 1, hop]) if len(self._take.steps) > 1 else np.array([0])
        self._track = react(self._take, manifest, engines)[1]
        self._images = self._rendered(self._track, self._shots)

    def error(self, graph: str) -> float:
        """Mean squared difference, in levels, of the pictures now that a graph computes something else.

        Of the graph that draws pictures, two of them; of another, the last one, whose window holds all of the motion.
        """
        if graph == self._manifest.renderer.graphs["frame"]:
            error = self._rendered(self._track, self._shots) - self._images
            return float(np.square(error).mean())
        track = react(self._take, self._manifest, self._engines)[1]
        error = self._rendered(track, self._shots[-1:]) - self._images[-1:]
        return float(np.square(error).mean()) if np.isfinite(track).all() else math.inf

    def _rendered(self, track: Array, shots: Array) -> Array:
        images = render(self._take.portrait, track, shots, self._manifest, self._engines)
        return images.astype(np.float32)


@contextmanager
def _fp32_engines(bundle: Bundle, graphs: Collection[str], threads: int | None) -> Iterator[dict[str, Engine]]:
    """The FP32 engines of some graphs, on ONNX Runtime."""
    with ExitStack() as stack:
        yield {
            graph: stack.enter_context(
                closing(OrtEngine(bundle.graph_path(graph, "fp32"), threads=threads, sizes=CALL_SIZES))
            )
            for graph in graphs
        }


def _search(judging: _Judging, bound: Bound, methods: Sequence[Method], progress: Progress) -> Int8Result:
    base = _choose_inference(judging, bound, progress)
    every = {graph: frozenset(layer.node for layer in layers) for graph, layers in judging.layers.items()}
    ranges: dict[Method, Mapping[str, Ranges]] = {}
    compared = []
    for n, method in enumerate(methods):
        progress(f"ranges by {method}", n, len(methods))
        ranges[method] = judging.ranges = _measure(judging, method)
        found = judging.judge(every)
        compared.append(MethodFigures(method=method, judgement=found, faults=bound.faults(found)))
    best = max(compared, key=lambda figures: figures.judgement.lowest_psnr_db)
    judging.ranges = ranges[cast(Method, best.method)]
    units = _units(judging)
    errors: list[float | None] = [None] * len(units)
    trials = [TrialFigures(units=len(units), share=1.0, judgement=best.judgement, faults=best.faults)]
    order = list(range(len(units)))
    if best.faults:
        errors = [*judging.errors(units, progress)]
        order.sort(key=lambda n: cast(float, errors[n]) / units[n].operations)
        trials += _bisect(judging, [units[n] for n in order], base, bound, progress)
    accepted = max((trial for trial in trials if not trial.faults), key=lambda trial: trial.units, default=None)
    if accepted is None or (accepted.units == 0 and not judging.inference):
        why = "; ".join(base.faults or trials[-1].faults)
        raise CalibrationError(
            f"Not one layer can be quantised: {why}. Ask for less, like --psnr {bound.psnr_db - 4:g}."
        )
    taken = {order[n] for n in range(accepted.units)}
    figures = [
        UnitFigures(graph=u.graph, nodes=list(u.nodes), operations=u.operations, error=errors[n], quantised=n in taken)
        for n, u in enumerate(units)
    ]
    return _result(judging, bound, base, compared, best.method, figures, trials, accepted)


def _choose_inference(judging: _Judging, bound: Bound, progress: Progress) -> TrialFigures:
    """Let OpenVINO compute in bf16 what it can: everything, or what draws pictures, or nothing; how good that is."""
    can = judging.engine == "openvino" and {"avx512_bf16", "amx_bf16"} & set(cpu_features())
    frame = judging.manifest.renderer.graphs["frame"]
    choices: list[list[str]] = [list(judging.graphs), [frame], []] if can else [[]]
    trials = []
    for n, graphs in enumerate(choices):
        progress("judging without INT8", n, len(choices))
        judging.inference = dict.fromkeys(graphs, "bf16")
        found = judging.judge({})
        trials.append(TrialFigures(units=0, share=0.0, judgement=found, faults=bound.faults(found)))
        if not trials[-1].faults:
            break
    return trials[-1]


def _measure(judging: _Judging, method: Method) -> dict[str, Ranges]:
    return {
        graph: measure_ranges(
            model,
            _operators(judging.manifest, judging.target, graph),
            judging.feeds.of_graph(graph),
            method,
        )
        for graph, model in judging.graphs.items()
    }


def _units(judging: _Judging) -> list[Unit]:
    return [
        unit
        for graph, layers in judging.layers.items()
        for unit in _units_of(
            graph,
            layers,
            count_operations(
                judging.graphs[graph], layers, next(judging.feeds.of_graph(graph)), threads=judging.threads
            ),
        )
    ]


def _units_of(graph: str, layers: Sequence[Layer], operations: Mapping[str, int]) -> Iterator[Unit]:
    size = math.ceil(len(layers) / LARGEST_UNITS)
    for first in range(0, len(layers), size):
        nodes = tuple(layer.node for layer in layers[first : first + size])
        yield Unit(graph, nodes, sum(operations[node] for node in nodes))


def _bisect(
    judging: _Judging, ordered: Sequence[Unit], base: TrialFigures, bound: Bound, progress: Progress
) -> list[TrialFigures]:
    """Trials of the first so many units, the last accepted of which is as large as a bisection finds."""
    total = sum(unit.operations for unit in ordered)
    trials = [base]
    low, high = 0, len(ordered)  # the first passes, or nothing does; the second does not
    while high - low > 1 and not base.faults:
        middle = (low + high) // 2
        progress("choosing layers", len(trials), math.ceil(math.log2(len(ordered))) + 1)
        found = judging.judge(_chosen(ordered[:middle]))
        share = sum(unit.operations for unit in ordered[:middle]) / total
        trial = TrialFigures(units=middle, share=share, judgement=found, faults=bound.faults(found))
        trials.append(trial)
        low, high = (low, middle) if trial.faults else (middle, high)
    return trials


def _chosen(units: Sequence[Unit]) -> dict[str, frozenset[str]]:
    graphs = {unit.graph for unit in units}
    return {graph: frozenset(node for unit in units if unit.graph == graph for node in unit.nodes) for graph in graphs}


def _result(
    judging: _Judging,
    bound: Bound,
    base: TrialFigures,
    methods: list[MethodFigures],
    method: str,
    units: list[UnitFigures],
    trials: list[TrialFigures],
    accepted: TrialFigures,
) -> Int8Result:
    chosen = {
        graph: frozenset(node for unit in units if unit.quantised and unit.graph == graph for node in unit.nodes)
        for graph in judging.graphs
    }
    left_out = {
        graph: [layer.node for layer in layers if layer.node not in chosen[graph]]
        for graph, layers in judging.layers.items()
    }
    on_cpu = judging.engine != "tensorrt"
    judged_with = library_version(judging.engine if on_cpu else "onnxruntime")
    admission = Admission(
        libraries=list(judging.target.libraries),
        judged_with=judged_with,
        inference=dict(judging.inference),
        cpu=list(cpu_features()) if on_cpu else [],
        lowest_psnr_db=accepted.judgement.lowest_psnr_db,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    report = Int8Report(
        pflx=pflx.__version__,
        bundle=judging.bundle.path.name,
        untrained=judging.manifest.untrained,
        feeds_sha256=judging.feeds.sha256(),
        engine=judging.engine,
        precision=judging.target.precision,
        judged_with=judged_with,
        cpu=admission.cpu,
        inference=dict(judging.inference),
        bound=bound,
        base=base,
        methods=methods,
        method=method,
        units=units,
        trials=trials,
        accepted=accepted,
    )
    changed = {graph: nodes for graph, nodes in chosen.items() if nodes}
    return Int8Result(
        graphs={graph: judging.model(graph, nodes) for graph, nodes in changed.items()},
        left_out={graph: left_out[graph] for graph in changed},
        admission=admission,
        report=report,
    )
