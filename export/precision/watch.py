"""A graph that stores numbers in FP16, run as FP16 would run it, while it is watched whether they fit.

ONNX Runtime's CPU computes such a graph in FP32, where nothing overflows: what it makes says nothing of a GPU. So the
graph is emulated (see `emulation`), and reduces each value that it stores in FP16 to its largest, its smallest and its
sum, before rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pflx.engines import Array
from pflx.export.precision.emulation import Stored, emulate_stored, opened

LARGEST = 65504.0
"""The largest number of FP16."""
ALLOWED = LARGEST / 2
"""What an export allows: other clips reach further than what it was tried with."""
_MEASURED = "pflx.watched"
_SHOWN = 5


@dataclass(frozen=True)
class Reach:
    """How far the numbers go that a node stores in FP16.

    Attributes:
        node: its name.
        operator: what it is.
        largest: magnitude before rounding; infinite where it is.
        is_finite: whether all were numbers.
    """

    node: str
    operator: str
    largest: float
    is_finite: bool

    @property
    def fits(self) -> bool:
        """Whether FP16 holds them, with a factor of two to spare."""
        return self.is_finite and self.largest < ALLOWED


class Weight(NamedTuple):
    """The largest weight that a graph stores in FP16.

    Attributes:
        node: that reads it; empty where a graph stores none.
        operator: what that is.
        largest: its magnitude; infinite where it became so.
    """

    node: str
    operator: str
    largest: float


class Watch:
    """What was seen of a graph, over all engines that ran it.

    Attributes:
        calls: how often it ran.
        weights: the largest weight that is stored in FP16.
        reaches: of every node that stores something in FP16, in the order of the graph.
        broken: the outputs that held something that is no finite number.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.weights = Weight("", "", 0.0)
        self.broken: set[str] = set()
        self.reaches: list[Reach] = []

    def note(self, stored: Sequence[Stored], rows: Array, outputs: Mapping[str, Array]) -> None:
        """Add a call: float32 [3, n] of the largest, the smallest and the sum of each stored value."""
        self.calls += 1
        high, low, total = rows
        largest = np.nan_to_num(np.maximum(np.abs(high), np.abs(low)), nan=np.inf, posinf=np.inf)
        before = self.reaches or [Reach(place.node, place.operator, 0.0, True) for place in stored]
        self.reaches = [
            Reach(old.node, old.operator, max(old.largest, float(new)), old.is_finite and bool(np.isfinite(summed)))
            for old, new, summed in zip(before, largest, total, strict=True)
        ]
        floats = {name: value for name, value in outputs.items() if value.dtype.kind == "f"}
        self.broken |= {name for name, value in floats.items() if not np.isfinite(value).all()}

    @property
    def first_misfit(self) -> Reach | None:
        """The first node whose numbers FP16 does not hold with a factor of two to spare."""
        return next((reach for reach in self.reaches if not reach.fits), None)

    def report(self) -> dict[str, object]:
        """What the report says: how often it ran, and where the numbers go furthest."""
        widest = sorted(self.reaches, key=lambda reach: -reach.largest)[:_SHOWN]
        return {
            "calls": self.calls,
            "nodes": len(self.reaches),
            "largest_weight": self.weights.largest,
            "widest": [{"node": r.node, "operator": r.operator, "largest": r.largest} for r in widest],
        }


class WatchedEngine:
    """A graph in emulated FP16; see `Engine`."""

    def __init__(self, path: Path, watch: Watch, threads: int | None = None) -> None:
        """Load a strongly typed graph.

        Args:
            path: the ONNX file.
            watch: takes down what is seen.
            threads: CPU threads; None takes one per physical core.

        Raises:
            EngineError: no graph that ONNX Runtime can load.
        """
        model = onnx.load(str(path))
        watch.weights = _largest_weight(model)
        self._watch = watch
        emulated, self._stored = emulate_stored(model)
        if self._stored:
            _measure(emulated.graph, self._stored)
        self._stack = ExitStack()
        self._engine = self._stack.enter_context(opened(emulated, threads))
        self.inputs = self._engine.inputs
        self.outputs = {name: spec for name, spec in self._engine.outputs.items() if name != _MEASURED}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once; see `Engine.run`."""
        results = self._engine.run(feeds)
        rows = results.pop(_MEASURED, np.zeros((3, 0), np.float32))
        self._watch.note(self._stored, rows.reshape(3, -1), results)
        return results

    def close(self) -> None:
        """Drop the session."""
        self._stack.close()


def _largest_weight(model: onnx.ModelProto) -> Weight:
    halves = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16]
    largest = {tensor.name: float(np.abs(numpy_helper.to_array(tensor)).max(initial=0)) for tensor in halves}
    found = (
        Weight(node.name, node.op_type, largest[name])
        for node in model.graph.node
        for name in node.input
        if name in largest
    )
    return max(found, key=lambda weight: np.nan_to_num(weight.largest, nan=np.inf), default=Weight("", "", 0.0))


def _measure(graph: onnx.GraphProto, stored: Sequence[Stored]) -> None:
    """Let a graph also give, float32 [3·n], the largest, the smallest and the sum of these values."""
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), f"{_MEASURED}:flat"))
    reduced: dict[str, list[str]] = {"ReduceMax": [], "ReduceMin": [], "ReduceSum": []}
    for index, place in enumerate(stored):
        flat = f"{_MEASURED}:{index}"
        graph.node.append(helper.make_node("Reshape", [place.value, f"{_MEASURED}:flat"], [flat], name=flat))
        for operator, names in reduced.items():
            names.append(f"{flat}:{operator}")
            graph.node.append(helper.make_node(operator, [flat], [names[-1]], name=names[-1], keepdims=1))
    every = [name for names in reduced.values() for name in names]
    graph.node.append(helper.make_node("Concat", every, [_MEASURED], name=_MEASURED, axis=0))
    graph.output.append(helper.make_tensor_value_info(_MEASURED, TensorProto.FLOAT, [len(every)]))
