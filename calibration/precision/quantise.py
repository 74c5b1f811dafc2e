"""INT8 inside of a graph: pairs of QuantizeLinear and DequantizeLinear before the layers that are chosen."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pflx.engines import Array
from pflx.engines.graphs.protocol import import_backend

Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy")

PERCENTILE = 99.99
"""Of the values of a tensor, that `percentile` keeps inside of its range."""

FEWEST_WEIGHTS = 1024
"""A layer with fewer is left as it is: it would gain nothing."""

Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""Tensor to its lowest and highest value."""

_METHOD_NAMES = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}


@dataclass(frozen=True)
class Scheme:
    """How a kind of engine wants its INT8.

    Attributes:
        symmetric: activations in signed INT8 around zero, as TensorRT takes them; else unsigned with a zero point, in
            which CPUs are fastest.
        outputs: also quantise what a layer returns: ONNX Runtime's convolutions need it, and it costs precision.
    """

    symmetric: bool = False
    outputs: bool = False


@dataclass(frozen=True)
class Layer:
    """A layer that can be quantised.

    Attributes:
        node: its name.
        activation: the tensor that it reads.
        output: the tensor that it writes.
        weight: name of its weights.
        axis: of their output channels.
    """

    node: str
    activation: str
    output: str
    weight: str
    axis: int


def layers_of(model: onnx.ModelProto, operators: Collection[str]) -> list[Layer]:
    """The layers of a graph with constant float32 weights, in the order they run.

    Args:
        model: the graph.
        operators: `Conv`, `ConvTranspose`, `MatMul` or `Gemm`.
    """
    weights = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1 and np.prod(tensor.dims) >= FEWEST_WEIGHTS
    }
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        Layer(node.name, node.input[0], node.output[0], node.input[1], _channel_axis(node))
        for node in model.graph.node
        if node.op_type in operators and node.input[1] in weights and node.input[0] not in constants
    ]


def _channel_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Gemm":
        return 0 if any(attribute.name == "transB" and attribute.i for attribute in node.attribute) else 1
    return _CHANNEL_AXIS[node.op_type]


def measure_ranges(
    model: onnx.ModelProto, operators: Collection[str], feeds: Iterable[Mapping[str, Array]], method: Method
) -> Ranges:
    """The ranges of all tensors that layers read and write, by one of ONNX Runtime's calibrators.

    Args:
        model: the graph.
        operators: of its layers.
        feeds: of recorded calls.
        method: `minmax` takes the largest values seen, `percentile` leaves 0.01 % of them out at both ends, `entropy`
            takes the range in which the histogram loses the least information.

    Raises:
        BackendMissingError: onnxruntime is not installed.
    """
    calibrate = import_backend("onnxruntime.quantization.calibrate", "pip install 'pflx[cpu]'")
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # calibrators print
        path = Path(folder) / "graph.onnx"
        onnx.save(model, path)
        calibrator = calibrate.create_calibrator(
            path,
            list(operators),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=getattr(calibrate.CalibrationMethod, _METHOD_NAMES[method]),
            extra_options={"symmetric": False, "percentile": PERCENTILE},
        )
        for feed in feeds:  # one by one: a calibrator holds the tensors of all that it is given at a time
            calibrator.collect_data(_OneFeed(feed))
        found: dict[str, Any] = calibrator.compute_data().data
    return {name: _range(data) for name, data in found.items()}


class _OneFeed:
    """What a calibrator reads feeds from, with one in it."""

    def __init__(self, feed: Mapping[str, Array]) -> None:
        self._feeds = [dict(feed)]

    def get_next(self) -> dict[str, Array] | None:
        """The feed, and then none."""
        return self._feeds.pop() if self._feeds else None


def _range(data: Any) -> tuple[float, float]:
    low, high = (float(np.asarray(value).reshape(-1)[0]) for value in data.range_value)
    return min(low, 0.0), max(high, 0.0)  # padding is zero, and must stay it


def quantised(
    model: onnx.ModelProto, layers: Sequence[Layer], chosen: Collection[str], ranges: Ranges, scheme: Scheme
) -> onnx.ModelProto:
    """A copy of a graph in which some layers compute in INT8.

    Weights are symmetric, with a scale for each output channel. Biases stay float32. Each layer has a pair of its own
    before it, so that what else reads the same tensor reads it unquantised.

    Args:
        model: the graph.
        layers: of it.
        chosen: names of the nodes to quantise.
        ranges: of the tensors that they read, and write.
        scheme: how.
    """
    result = _copy(model)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    by_node = {layer.node: layer for layer in layers if layer.node in chosen}
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        layer = by_node.get(node.name)
        if layer is None:
            nodes.append(node)
            continue
        activation = _Pair(f"{layer.node}.in", ranges[layer.activation], scheme)
        weight = _Weight(f"{layer.node}.weight", numpy_helper.to_array(weights[layer.weight]), layer.axis)
        result.graph.initializer.extend([*activation.constants(), *weight.constants()])
        nodes += [*activation.nodes(layer.activation), *weight.nodes()]
        node.input[0], node.input[1] = activation.name, weight.name
        nodes.append(node)
        if scheme.outputs:
            output = _Pair(f"{layer.node}.out", ranges[layer.output], scheme)
            result.graph.initializer.extend(output.constants())
            node.output[0] = f"{layer.node}.float"
            nodes += output.nodes(node.output[0], result=layer.output)
    _set_nodes(result.graph, nodes)
    return result


SWITCH = "int8:"
"""What the names of switches begin with."""


def switchable(model: onnx.ModelProto, layers: Sequence[Layer], ranges: Ranges, scheme: Scheme) -> onnx.ModelProto:
    """A copy of a graph with an input per layer, bool [], that tells whether it computes what it would in INT8.

    The arithmetic is float32 on the values that INT8 has, so that hundreds of choices are tried on one engine. Each
    layer stands in the two branches of an If: a run costs what a run of the graph does.
    """
    result = _copy(model)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    by_node = {layer.node: layer for layer in layers}
    nodes: list[onnx.NodeProto] = []
    for node in result.graph.node:
        layer = by_node.get(node.name)
        if layer is None:
            nodes.append(node)
            continue
        switch = SWITCH + layer.node
        result.graph.input.append(helper.make_tensor_value_info(switch, TensorProto.BOOL, []))
        activation = _Pair(f"{layer.node}.in", ranges[layer.activation], scheme)
        output = _Pair(f"{layer.node}.out", ranges[layer.output], scheme) if scheme.outputs else None
        weight = _Weight(f"{layer.node}.weight", numpy_helper.to_array(weights[layer.weight]), layer.axis)
        result.graph.initializer.append(numpy_helper.from_array(weight.rounded(), weight.name))
        for pair in filter(None, (activation, output)):
            result.graph.initializer.extend(pair.constants())
        rounded = _renamed(node, f"{layer.node}.float", {0: activation.name, 1: weight.name})
        branch = [*activation.nodes(layer.activation), rounded, *(output.nodes(rounded.output[0]) if output else ())]
        choice = helper.make_node("If", [switch], [layer.output], name=f"{layer.node}.if")
        exact = _renamed(node, f"{layer.node}.exact", {})
        for name, content in (("then_branch", branch), ("else_branch", [exact])):
            choice.attribute.append(helper.make_attribute(name, _branch(content)))
        nodes.append(choice)
    _set_nodes(result.graph, nodes)
    return result


def _renamed(node: onnx.NodeProto, output: str, inputs: Mapping[int, str]) -> onnx.NodeProto:
    """A copy of a node that writes another tensor, and reads others in some places."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.output[0] = output
    for slot, name in inputs.items():
        copy.input[slot] = name
    return copy


def _branch(nodes: Sequence[onnx.NodeProto]) -> onnx.GraphProto:
    """A branch of an If, whose result is that of its last node."""
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    return helper.make_graph(nodes, nodes[-1].name, [], [output])


class _Pair:
    """A QuantizeLinear and a DequantizeLinear on an activation.

    Attributes:
        name: of the tensor behind them.
    """

    def __init__(self, name: str, bounds: tuple[float, float], scheme: Scheme) -> None:
        self.name = name
        low, high = bounds
        span = 2 * max(-low, high) / 254 if scheme.symmetric else (high - low) / 255
        self._scale = np.array(span if span > 0 else 1.0, np.float32)
        zero = 0 if scheme.symmetric else round(-low / float(self._scale))
        self._zero = np.array(zero, np.int8 if scheme.symmetric else np.uint8)

    def constants(self) -> Iterator[onnx.TensorProto]:
        """Scale and zero point."""
        yield numpy_helper.from_array(self._scale, f"{self.name}.scale")
        yield numpy_helper.from_array(self._zero, f"{self.name}.zero")

    def nodes(self, tensor: str, result: str = "") -> list[onnx.NodeProto]:
        """The two nodes, reading `tensor`."""
        terms, integers = [f"{self.name}.scale", f"{self.name}.zero"], f"{self.name}.int8"
        return [
            helper.make_node("QuantizeLinear", [tensor, *terms], [integers], name=f"{self.name}.quantize"),
            helper.make_node(
                "DequantizeLinear", [integers, *terms], [result or self.name], name=f"{self.name}.dequant"
            ),
        ]


class _Weight:
    """Weights in INT8 with a scale per output channel, and the DequantizeLinear behind them.

    Attributes:
        name: of the tensor behind it.
    """

    def __init__(self, name: str, weight: Array, axis: int) -> None:
        self.name, self._axis = name, axis
        others = tuple(n for n in range(weight.ndim) if n != axis)
        largest = np.abs(weight).max(axis=others)
        self._scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        self._integers = np.clip(np.rint(weight / self._broadcast(weight.ndim)), -127, 127).astype(np.int8)

    def _broadcast(self, n_axes: int) -> Array:
        return self._scale.reshape([-1 if n == self._axis else 1 for n in range(n_axes)])

    def rounded(self) -> Array:
        """The float32 values that the integers stand for."""
        values: Array = self._integers * self._broadcast(self._integers.ndim)
        return values.astype(np.float32)

    def constants(self) -> Iterator[onnx.TensorProto]:
        """Integers, scales and zero points."""
        yield numpy_helper.from_array(self._integers, f"{self.name}.int8")
        yield numpy_helper.from_array(self._scale, f"{self.name}.scale")
        yield numpy_helper.from_array(np.zeros(self._scale.shape, np.int8), f"{self.name}.zero")

    def nodes(self) -> list[onnx.NodeProto]:
        """The node that makes floats of them."""
        terms = [f"{self.name}.{part}" for part in ("int8", "scale", "zero")]
        return [helper.make_node("DequantizeLinear", terms, [self.name], name=f"{self.name}.dequant", axis=self._axis)]


def count_operations(
    model: onnx.ModelProto, layers: Sequence[Layer], feed: Mapping[str, Array], threads: int | None = None
) -> dict[str, int]:
    """Multiplications of each layer in one call, by node."""
    from pflx.engines import OrtEngine

    watched = _copy(model)
    known = {output.name for output in model.graph.output}
    added = sorted({layer.output for layer in layers} - known)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in added)
    inferred = onnx.shape_inference.infer_shapes(watched)
    types = {info.name: info for info in [*inferred.graph.value_info, *inferred.graph.output]}
    del watched.graph.output[len(known) :]
    watched.graph.output.extend(types[name] for name in added)
    sizes = {tensor.name: (tuple(tensor.dims), int(np.prod(tensor.dims))) for tensor in model.graph.initializer}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        onnx.save(watched, path)
        with contextlib.closing(OrtEngine(path, threads=threads)) as engine:
            made = engine.run(feed)
    return {
        layer.node: sizes[layer.weight][1] * made[layer.output].size // sizes[layer.weight][0][layer.axis]
        for layer in layers
    }


def prune(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop, in place, the constants that nothing reads any more; the same graph."""
    read = {name for node in model.graph.node for name in node.input} | {output.name for output in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _set_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Put other nodes into a graph, some of which are its own."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
