"""Held-out takes played with any choice of layers in INT8, and how far that is from FP32."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx

from pflx.calibration.feeds.feeds import Feeds
from pflx.calibration.feeds.replay import Performance, Take, play, react, render
from pflx.calibration.judge import Judgement, judge
from pflx.calibration.precision.int8_target import TARGETS, EngineName
from pflx.calibration.precision.quantise import (
    SWITCH,
    Layer,
    Ranges,
    prune,
    quantised,
    switchable,
)
from pflx.calibration.progress import Progress
from pflx.engines import Array, Bundle, Engine, Manifest, OpenVinoEngine, OrtEngine, TensorSpec
from pflx.engines.graphs.openvino import Inference
from pflx.runtime.bundle_engines import CALL_SIZES

Chosen: TypeAlias = Mapping[str, frozenset[str]]
"""Graph to the nodes that are quantised."""


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


class Player:
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
