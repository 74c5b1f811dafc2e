"""Graphs made of a few nodes, with seeded weights, for calibration to work on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pflx.engines import Array

F32 = np.dtype(np.float32)


def drawn(*shape: int, seed: int = 0) -> Array:
    """float32, normally distributed, the same every time."""
    return np.random.default_rng(seed).standard_normal(shape).astype(F32)


def graph_of(
    nodes: list[onnx.NodeProto], inputs: Mapping[str, list[Any]], outputs: list[str], **weights: Array
) -> onnx.ModelProto:
    """A graph of float32 tensors; outputs have any shape."""
    for node in nodes:
        node.name = f"node_{node.output[0]}"
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, check_type=True)
