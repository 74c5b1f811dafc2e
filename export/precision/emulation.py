"""What a graph computes where its values are stored in FP16, on a machine that has no FP16.

ONNX Runtime's CPU kernels compute FP16 nodes in FP32 and may never store what lies between two of them, so that
nothing overflows. Here every value that the graph stores in FP16 is rounded to FP16 and back: what is too large
becomes infinite, what is too small loses digits or becomes zero.

Each node still sums in FP32, as tensor cores do. Not modelled: kernels that sum in FP16, the order of a sum, values
inside a fused kernel that are never stored (here they are rounded, so that the emulation errs on the strict side),
and what happens inside of norms, softmax and recurrent nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pflx.engines import OrtEngine
from pflx.export.mixed import FP32_INPUTS, Typed, is_mover, round_weights


def emulate(model: onnx.ModelProto, fp32_nodes: Collection[str]) -> onnx.ModelProto:
    """An FP32 graph that computes what it would with all nodes in FP16 but these.

    An FP16 node rounds what it takes, weights included, and what it gives.

    Args:
        model: the FP32 graph; it is left as it is.
        fp32_nodes: names of the nodes that stay in FP32.
    """
    typed = Typed(model)
    half = {node.name for node in typed.convertible} - set(fp32_nodes)
    rounding = _Rounding(model)
    for node in model.graph.node:
        copy = rounding.add(node)
        if node.name in half:
            kept = FP32_INPUTS.get(node.op_type, ())
            for index, name in enumerate(node.input):
                if index not in kept and typed.is_float(name):
                    copy.input[index] = rounding.rounded(name)
            moves = is_mover(node)
            for index, name in enumerate(node.output):
                if typed.is_float(name):
                    rounding.round_output(copy, index, exact=moves)
    return rounding.finish()


def emulate_typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """An FP32 graph that computes what a strongly typed graph does, whoever made it.

    Args:
        model: a graph with FP16 inside; it is left as it is.
    """
    return emulate_stored(model)[0]


def emulate_stored(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Stored]]:
    """The same, and which of its values the strongly typed graph stores in FP16, in its order."""
    typed = Typed(model)
    rounding = _Rounding(model)
    stored = []
    for node in model.graph.node:
        copy = rounding.add(node)
        _widen_attributes(copy)
        for index, name in enumerate(node.output):
            if typed.types.get(name) == TensorProto.FLOAT16:
                exact = is_mover(node)
                rounding.round_output(copy, index, exact=exact)
                if not exact:
                    stored.append(Stored(node.name, node.op_type, copy.output[index]))
    return rounding.finish(), stored


class Stored(NamedTuple):
    """What a node stores in FP16.

    Attributes:
        node: its name.
        operator: what it is.
        value: name of the emulated value before it is rounded.
    """

    node: str
    operator: str
    value: str


@contextmanager
def opened(model: onnx.ModelProto, threads: int | None = None) -> Iterator[OrtEngine]:
    """The engine of a graph that no file holds.

    Args:
        model: the graph.
        threads: CPU threads; None takes one per physical core.
    """
    with TemporaryDirectory(prefix="pflx-") as folder:
        path = Path(folder, f"{model.graph.name}.onnx")
        onnx.save_model(model, str(path))
        engine = OrtEngine(path, threads=threads)
    try:
        yield engine
    finally:
        engine.close()


class _Rounding:
    """A copy of a graph under construction, with nodes that round."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        del self._model.graph.node[:]
        del self._model.graph.value_info[:]
        self._weights = {tensor.name: tensor for tensor in self._model.graph.initializer}
        self._names: dict[str, str] = {}
        for tensor in self._model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT16:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))

    def add(self, node: NodeProto) -> NodeProto:
        """A copy of a node at the end of the graph."""
        copy: NodeProto = self._model.graph.node.add()
        copy.CopyFrom(node)
        return copy

    def rounded(self, name: str) -> str:
        """The name of a value rounded; a node that rounds it is added where there is none."""
        if name not in self._names:
            self._names[name] = f"{name}:fp16"
            if name in self._weights:
                values = round_weights(numpy_helper.to_array(self._weights[name]))
                self._model.graph.initializer.append(numpy_helper.from_array(values, self._names[name]))
            else:
                self._round(name, self._names[name])
        return self._names[name]

    def round_output(self, node: NodeProto, index: int, *, exact: bool) -> None:
        """Let a node that was added give its output rounded, under the name that it had.

        Args:
            node: as `add` returned it.
            index: which output.
            exact: whether it is rounded already.
        """
        name = node.output[index]
        self._names[name] = name
        if not exact:
            node.output[index] = f"{name}:fp32"
            self._round(node.output[index], name)

    def finish(self) -> onnx.ModelProto:
        """The graph, without weights that nothing reads."""
        graph = self._model.graph
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        return self._model

    def _round(self, source: str, target: str) -> None:
        middle = f"{target}:half"
        self._model.graph.node.extend(
            [
                helper.make_node("Cast", [source], [middle], name=f"{target}:down", to=TensorProto.FLOAT16),
                helper.make_node("Cast", [middle], [target], name=f"{target}:up", to=TensorProto.FLOAT),
            ]
        )


def _widen_attributes(node: NodeProto) -> None:
    """Let what a node makes by itself be float32: casts to FP16, and constants."""
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
        elif attribute.t.data_type == TensorProto.FLOAT16:
            attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
