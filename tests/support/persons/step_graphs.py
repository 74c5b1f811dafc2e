"""Graphs of a denoising step with the shapes of PerFRDiff's, small enough to be made by hand: its edited layers alone.

A step is the product of `x` with the head, with both feed-forward matrices, and with the head again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from support.tiny_graphs import parsed

from pflx.engines import Array, GraphInfo, TensorSpec
from pflx.export.generators.perfrdiff import personal_recipe

HEADS = ("to_3dmm_expr.weight", "to_3dmm_pos.weight")
FEED_FORWARD = ("decoder.layers.6.linear1.weight", "decoder.layers.6.linear2.weight")
_STEP = """
  inner = MatMul (x, head)
  wide = MatMul (inner, first)
  narrow = MatMul (wide, second)
  outer = MatMul (narrow, back)
  clean = Tanh (outer)
  next = Identity (clean)
}"""
_OWN = """{
  head = Concat <axis = 0> (w0, w1)
  back = Transpose <perm = [1, 0]> (head)
  first = Transpose <perm = [1, 0]> (w2)
  second = Transpose <perm = [1, 0]> (w3)"""


def step_graphs(folder: Path, generic: Mapping[str, Array]) -> dict[str, GraphInfo]:
    """Write `perfrdiff_denoise`, with the weights in it, and `perfrdiff_personal`, which is given them."""
    own = personal_recipe().inputs
    shared = {name: spec for name, spec in own.items() if name not in generic}
    head = np.concatenate([generic[key] for key in HEADS])
    first, second = (generic[key] for key in FEED_FORWARD)
    # As an exporter may leave them: one lies, another stands.
    inside = {"head": head, "back": head.T, "first": first.T, "second": second.T}
    denoise = parsed("perfrdiff_denoise", f"{_signature(shared, inside)} {{{_STEP}")
    del denoise.graph.input[len(shared) :]
    denoise.graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in inside.items())
    called = {f"w{place}": key for place, key in enumerate(generic)}
    given = _signature(shared, {name: generic[key] for name, key in called.items()})
    personal = parsed("perfrdiff_personal", f"{given} {_OWN}{_STEP}")
    for value in personal.graph.input:
        value.name = called.get(value.name, value.name)
    for node in personal.graph.node:
        node.input[:] = [called.get(name, name) for name in node.input]
    return {
        "perfrdiff_denoise": _written(folder, denoise, shared),
        "perfrdiff_personal": _written(folder, personal, own),
    }


def _signature(shared: Mapping[str, TensorSpec], weights: Mapping[str, Array]) -> str:
    kinds = {np.dtype(np.float32): "float", np.dtype(np.int64): "int64"}
    inputs = [f"{kinds[spec.dtype]}[{','.join(map(str, spec.shape))}] {name}" for name, spec in shared.items()]
    inputs += [f"float[{','.join(map(str, value.shape))}] {name}" for name, value in weights.items()]
    window = "float[samples,50,58]"
    return f"({', '.join(inputs)}) => ({window} next, {window} clean)"


def _written(folder: Path, model: onnx.ModelProto, inputs: Mapping[str, TensorSpec]) -> GraphInfo:
    file = f"graphs/{model.graph.name}.fp32.onnx"
    onnx.save_model(model, str(folder / file))
    outputs = dict(personal_recipe().outputs)
    return GraphInfo(inputs=dict(inputs), outputs=outputs, parameters=0, opset=20, files={"fp32": file})
