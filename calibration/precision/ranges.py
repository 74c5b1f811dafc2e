"""How the values of a graph lie in the range of FP16, over recorded feeds.

The graph measures itself: beside every node stands its twin in FP16, and both are reduced to a few numbers inside of
the graph, so that no value of it has to be kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pflx.calibration.errors import CalibrationError
from pflx.engines import Array
from pflx.export.mixed import FP32_INPUTS, Choices, Typed, round_weights
from pflx.export.precision.emulation import opened
from pflx.export.precision.watch import ALLOWED, LARGEST

OVERFLOW = 65520.0
"""Smallest number that FP16 rounds to infinity."""
SMALLEST_NORMAL = 2.0**-14
"""Below it FP16 loses digits."""
FLUSHED = 2.0**-25
"""Largest number that FP16 rounds to zero."""

_MEASURED = "pflx.ranges"


class Range(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one node gave, over all feeds.

    Attributes:
        node: its name.
        operator: what it is.
        values: numbers per call.
        largest: largest magnitude.
        largest_taken: largest magnitude of what it takes, weights left out.
        smallest: smallest magnitude but zero; None where all are zero.
        overflow_share: share of the values that FP16 makes infinite, those that are not finite in FP32 included.
        subnormal_share: share of the values in which FP16 loses digits, but which are not zero.
        flushed_share: share of the values that FP16 makes zero, but which are not.
        weight_largest: largest magnitude of its weights; 0 without.
        error: of the node with all that it takes and gives rounded to FP16: root mean square, as a share of that of
            the values. None where something overflows.
    """

    node: str
    operator: str
    values: int
    largest: float
    largest_taken: float
    smallest: float | None
    overflow_share: float
    subnormal_share: float
    flushed_share: float
    weight_largest: float
    error: float | None

    @property
    def needs_fp32(self) -> bool:
        """Whether an export would refuse the node in FP16, for what it takes or gives, or for a weight.

        A little sooner than an export does, since rounding moves numbers there.
        """
        fits = max(self.largest, self.largest_taken) < ALLOWED / 1.1 and self.weight_largest < LARGEST
        return not fits


def measure_ranges(
    model: onnx.ModelProto, feeds: Iterable[Mapping[str, Array]], threads: int | None = None
) -> list[Range]:
    """Measure every node among which a policy chooses.

    Args:
        model: the FP32 graph.
        feeds: recorded inputs.
        threads: CPU threads; None takes one per physical core.

    Returns:
        In the order of the graph.

    Raises:
        CalibrationError: there are no feeds.
        EngineError: the graph does not run.
    """
    typed = Typed(model)
    chosen = set(Choices(typed).names)
    nodes = [node for node in model.graph.node if node.name in chosen]
    if not nodes:
        return []
    with opened(_measuring(typed, nodes), threads) as engine:
        rows = [engine.run(feed)[_MEASURED].astype(np.float64) for feed in feeds]
    if not rows:
        raise CalibrationError(f"There are no feeds of graph '{model.graph.name}'. Record some.")
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return [_range(node, typed, weights, rows) for node, rows in zip(nodes, np.stack(rows, axis=1), strict=True)]


def by_risk(ranges: Iterable[Range]) -> list[Range]:
    """The nodes that lose most in FP16 first; among those that overflow, the largest values first."""
    return sorted(ranges, key=lambda found: (found.error is not None, -(found.error or 0), -found.largest))


_COLUMNS = ("values", "largest", "taken", "smallest", "overflow", "subnormal", "flushed", "error")


def _range(node: NodeProto, typed: Typed, weights: Mapping[str, TensorProto], rows: Array) -> Range:
    """Sum up one row per feed, float64 [feeds, columns]."""
    columns = dict(zip(_COLUMNS, rows.T, strict=True))
    read = [np.abs(numpy_helper.to_array(weights[name])) for name in typed.inputs(node) if name in weights]
    error = float(np.sqrt(np.mean(np.square(columns["error"]))))
    overflow = float(columns["overflow"].mean())
    return Range(
        node=node.name,
        operator=node.op_type,
        values=int(columns["values"].max()),
        largest=float(columns["largest"].max()),
        largest_taken=float(columns["taken"].max()),
        smallest=_finite(columns["smallest"].min()),
        overflow_share=overflow,
        subnormal_share=float(columns["subnormal"].mean()),
        flushed_share=float(columns["flushed"].mean()),
        weight_largest=max((float(values.max(initial=0)) for values in read), default=0.0),
        error=None if overflow else _finite(error),
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _measuring(typed: Typed, nodes: Iterable[NodeProto]) -> onnx.ModelProto:
    """The graph with one output, float32 [nodes, columns]."""
    model = onnx.ModelProto()
    model.CopyFrom(typed.model)
    del model.graph.value_info[:]
    del model.graph.output[:]
    ruler = _Ruler(model.graph, typed)
    rows = [ruler.measure(node) for node in nodes]
    ruler.add("Concat", *rows, name=_MEASURED, axis=0)
    shape = (len(rows), len(_COLUMNS))
    model.graph.output.append(helper.make_tensor_value_info(_MEASURED, TensorProto.FLOAT, shape))
    return model


class _Ruler:
    """Adds nodes that measure to a graph."""

    def __init__(self, graph: onnx.GraphProto, typed: Typed) -> None:
        self._graph, self._typed = graph, typed
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._rounded: dict[str, str] = {}
        self._count = 0
        named = {"zero": 0.0, "infinity": np.inf, "overflow": OVERFLOW, "normal": SMALLEST_NORMAL, "flushed": FLUSHED}
        for name, value in named.items():
            self._constant(name, np.float32(value))
        self._constant("flat", np.array([-1], np.int64))
        self._constant("row", np.array([1, -1], np.int64))

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        self._count += 1
        made = name or f"{_MEASURED}:{self._count}"
        self._graph.node.append(helper.make_node(operator, inputs, [made], name=f"{made}:node", **attributes))
        return made

    def measure(self, node: NodeProto) -> str:
        """The name of a row of numbers."""
        exact = self._joined(self._typed.outputs(node))
        half = self._joined(self._twin(node))
        size = self._to_float(self.add("Size", exact))
        magnitude = self.add("Abs", exact)
        largest = self.add("ReduceMax", magnitude, keepdims=0)
        is_zero = self.add("Equal", magnitude, self._name("zero"))
        positive = self.add("Where", is_zero, self._name("infinity"), magnitude)
        finite = self.add("Less", magnitude, self._name("overflow"))  # false of what is no number
        columns = (
            size,
            largest,
            self._largest_taken(node),
            self.add("ReduceMin", positive, keepdims=0),
            self._share(self.add("Not", finite)),
            self._share(self.add("Less", positive, self._name("normal"))),
            self._share(self.add("LessOrEqual", positive, self._name("flushed"))),
            self._error(exact, half, largest),
        )
        scalars = [self.add("Reshape", column, self._name("flat")) for column in columns]
        return self.add("Reshape", self.add("Concat", *scalars, axis=0), self._name("row"))

    def _largest_taken(self, node: NodeProto) -> str:
        taken = [name for name in self._typed.inputs(node) if name not in self._weights]
        largest = [self.add("ReduceMax", self.add("Abs", name), keepdims=0) for name in taken]
        return self.add("Max", *largest) if largest else self._name("zero")

    def _twin(self, node: NodeProto) -> list[str]:
        """The outputs of a copy of a node in FP16."""
        kept = FP32_INPUTS.get(node.op_type, ())
        copy = self._graph.node.add()
        copy.CopyFrom(node)
        copy.name = f"{_MEASURED}:twin:{node.name}"
        for index, name in enumerate(node.input):
            if index not in kept and self._typed.is_float(name):
                copy.input[index] = self._round(name)
        for index, name in enumerate(node.output):
            copy.output[index] = f"{_MEASURED}:twin:{name}" if name else ""
        return [self._cast_twice(f"{_MEASURED}:twin:{name}") for name in self._typed.outputs(node)]

    def _error(self, exact: str, half: str, largest: str) -> str:
        """Root mean square of the difference over that of the values, both over the largest value: no overflow."""
        at_least = self.add("Max", largest, self._name("flushed"))
        difference = self.add("Div", self.add("Sub", half, exact), at_least)
        values = self.add("Div", exact, at_least)
        squares = [self.add("ReduceMean", self.add("Mul", x, x), keepdims=0) for x in (difference, values)]
        return self.add("Sqrt", self.add("Div", squares[0], self.add("Max", squares[1], self._name("flushed"))))

    def _round(self, name: str) -> str:
        if name not in self._rounded:
            if name in self._weights:
                self._rounded[name] = f"{_MEASURED}:rounded:{name}"
                values = round_weights(numpy_helper.to_array(self._weights[name]))
                self._graph.initializer.append(numpy_helper.from_array(values, self._rounded[name]))
            else:
                self._rounded[name] = self._cast_twice(name)
        return self._rounded[name]

    def _cast_twice(self, name: str) -> str:
        return self._to_float(self.add("Cast", name, to=TensorProto.FLOAT16))

    def _to_float(self, name: str) -> str:
        return self.add("Cast", name, to=TensorProto.FLOAT)

    def _share(self, which: str) -> str:
        return self.add("ReduceMean", self._to_float(which), keepdims=0)

    def _joined(self, names: list[str]) -> str:
        if len(names) == 1:
            return names[0]
        return self.add("Concat", *(self.add("Reshape", name, self._name("flat")) for name in names), axis=0)

    def _constant(self, name: str, value: Array | np.float32) -> None:
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), self._name(name)))

    def _name(self, name: str) -> str:
        return f"{_MEASURED}:constant:{name}"
