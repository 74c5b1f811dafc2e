"""INT8 for a bundle: which layers can have it, judged on the pictures at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import onnx

import pflx
from pflx.calibration.errors import CalibrationError
from pflx.calibration.feeds.feeds import Feeds
from pflx.calibration.judge import Bound
from pflx.calibration.precision.inference import choose_inference
from pflx.calibration.precision.int8_player import Player, Unit
from pflx.calibration.precision.int8_report import Int8Report, MethodFigures, TrialFigures, UnitFigures
from pflx.calibration.precision.int8_target import TARGETS, EngineName, operators_of, quantisable
from pflx.calibration.precision.quantise import (
    METHODS,
    Layer,
    Method,
    Ranges,
    count_operations,
    layers_of,
    measure_ranges,
    prune,
)
from pflx.calibration.progress import Progress, silent
from pflx.engines import Admission, Bundle
from pflx.engines.bundle.variant_admission import cpu_features, library_version
from pflx.engines.graphs.threads import check_threads

LARGEST_UNITS = 48
"""Of a graph: where it has more layers, neighbours are decided on together."""


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
        ThreadsError: fewer than one thread, or more than `most_threads()`.
    """
    check_threads(threads)
    feeds.require_match(bundle)
    target = TARGETS[engine]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        loaded = {name: _load(bundle, name) for name in quantisable(bundle.manifest, target)}
        layers = {name: layers_of(model, operators_of(bundle.manifest, target, name)) for name, model in loaded.items()}
        graphs = {name: model for name, model in loaded.items() if layers[name]}
        if not graphs:
            raise CalibrationError(f"{bundle.path} has no layer that {engine} computes in INT8.")
        layers = {name: layers[name] for name in graphs}
        player = Player(bundle, feeds, engine, graphs, layers, folder, threads)
        stack.callback(player.close)
        return _search(player, bound, methods, progress)


def _load(bundle: Bundle, graph: str) -> onnx.ModelProto:
    return prune(onnx.load(bundle.graph_path(graph, "fp32")))


def _search(player: Player, bound: Bound, methods: Sequence[Method], progress: Progress) -> Int8Result:
    base = choose_inference(player, player.graphs, bound, progress)[-1]
    every = {graph: frozenset(layer.node for layer in layers) for graph, layers in player.layers.items()}
    ranges: dict[Method, Mapping[str, Ranges]] = {}
    compared = []
    for n, method in enumerate(methods):
        progress(f"ranges by {method}", n, len(methods))
        ranges[method] = player.ranges = _measure(player, method)
        found = player.judge(every)
        compared.append(MethodFigures(method=method, judgement=found, faults=bound.faults(found)))
    best = max(compared, key=lambda figures: figures.judgement.lowest_psnr_db)
    player.ranges = ranges[cast(Method, best.method)]
    units = _units(player)
    errors: list[float | None] = [None] * len(units)
    trials = [TrialFigures(units=len(units), share=1.0, judgement=best.judgement, faults=best.faults)]
    order = list(range(len(units)))
    if best.faults:
        errors = [*player.errors(units, progress)]
        order.sort(key=lambda n: cast(float, errors[n]) / units[n].operations)
        trials += _bisect(player, [units[n] for n in order], base, bound, progress)
    accepted = max((trial for trial in trials if not trial.faults), key=lambda trial: trial.units, default=None)
    if accepted is None or (accepted.units == 0 and not player.inference):
        why = "; ".join(base.faults or trials[-1].faults)
        raise CalibrationError(
            f"Not one layer can be quantised: {why}. Ask for less, like --psnr {bound.psnr_db - 4:g}."
        )
    taken = {order[n] for n in range(accepted.units)}
    figures = [
        UnitFigures(graph=u.graph, nodes=list(u.nodes), operations=u.operations, error=errors[n], quantised=n in taken)
        for n, u in enumerate(units)
    ]
    return _result(player, bound, base, compared, best.method, figures, trials, accepted)


def _measure(player: Player, method: Method) -> dict[str, Ranges]:
    return {
        graph: measure_ranges(
            model,
            operators_of(player.manifest, player.target, graph),
            player.feeds.of_graph(graph),
            method,
        )
        for graph, model in player.graphs.items()
    }


def _units(player: Player) -> list[Unit]:
    return [
        unit
        for graph, layers in player.layers.items()
        for unit in _units_of(
            graph,
            layers,
            count_operations(player.graphs[graph], layers, next(player.feeds.of_graph(graph)), threads=player.threads),
        )
    ]


def _units_of(graph: str, layers: Sequence[Layer], operations: Mapping[str, int]) -> Iterator[Unit]:
    size = math.ceil(len(layers) / LARGEST_UNITS)
    for first in range(0, len(layers), size):
        nodes = tuple(layer.node for layer in layers[first : first + size])
        yield Unit(graph, nodes, sum(operations[node] for node in nodes))


def _bisect(
    player: Player, ordered: Sequence[Unit], base: TrialFigures, bound: Bound, progress: Progress
) -> list[TrialFigures]:
    """Trials of the first so many units, the last accepted of which is as large as a bisection finds."""
    total = sum(unit.operations for unit in ordered)
    trials = [base]
    low, high = 0, len(ordered)  # the first passes, or nothing does; the second does not
    while high - low > 1 and not base.faults:
        middle = (low + high) // 2
        progress("choosing layers", len(trials), math.ceil(math.log2(len(ordered))) + 1)
        found = player.judge(_chosen(ordered[:middle]))
        share = sum(unit.operations for unit in ordered[:middle]) / total
        trial = TrialFigures(units=middle, share=share, judgement=found, faults=bound.faults(found))
        trials.append(trial)
        low, high = (low, middle) if trial.faults else (middle, high)
    return trials


def _chosen(units: Sequence[Unit]) -> dict[str, frozenset[str]]:
    graphs = {unit.graph for unit in units}
    return {graph: frozenset(node for unit in units if unit.graph == graph for node in unit.nodes) for graph in graphs}


def _result(
    player: Player,
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
        for graph in player.graphs
    }
    left_out = {
        graph: [layer.node for layer in layers if layer.node not in chosen[graph]]
        for graph, layers in player.layers.items()
    }
    on_cpu = player.engine != "tensorrt"
    judged_with = library_version(player.engine if on_cpu else "onnxruntime")
    admission = Admission(
        libraries=list(player.target.libraries),
        judged_with=judged_with,
        inference=dict(player.inference),
        cpu=list(cpu_features()) if on_cpu else [],
        lowest_psnr_db=accepted.judgement.lowest_psnr_db,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    report = Int8Report(
        pflx=pflx.__version__,
        bundle=player.bundle.name,
        untrained=player.manifest.untrained,
        feeds_sha256=player.feeds.sha256(),
        engine=player.engine,
        precision=player.target.precision,
        judged_with=judged_with,
        cpu=admission.cpu,
        inference=dict(player.inference),
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
        graphs={graph: player.model(graph, nodes) for graph, nodes in changed.items()},
        left_out={graph: left_out[graph] for graph in changed},
        admission=admission,
        report=report,
    )
