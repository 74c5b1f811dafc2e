"""A module and its recipe → one ONNX file in the standard domain, with its own facts inside."""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

import pflx
from pflx.engines import EngineError
from pflx.export.operators import check_operators
from pflx.export.recipes import OPSET, Recipe

_SLACK_BYTES = 256 * 1024
"""Room for what is no weight: shapes, index tables, masks."""


def trace(module: nn.Module, recipe: Recipe, path: Path, *, precision: str) -> onnx.ModelProto:
    """Export `module` as the recipe says.

    Args:
        module: takes the recipe's inputs in order, returns its outputs in order; eval mode, float32.
        recipe: names, shapes, dtypes and dynamic axes.
        path: the file to write.
        precision: "fp32", or "fp16": parameters in float16, what the module casts to float32 stays there. Inputs
            and outputs have the recipe's dtypes either way.

    Returns:
        The graph as written.

    Raises:
        EngineError: the result is not what the recipe promises (a dynamic axis became fixed, another opset, a
            constant larger than the weights need).
        OperatorError: a node that some backend has no kernel for.
    """
    if precision == "fp16":
        module = _half(module)
    sizes, _ = recipe.size_sets
    example = {name: torch.from_numpy(value) for name, value in recipe.example(0, sizes).items()}
    dims = {name: torch.export.Dim(name) for name in _dynamic_names(recipe)}
    shapes = [
        {axis: dims[name] for axis, name in enumerate(spec.shape) if isinstance(name, str)}
        for spec in recipe.inputs.values()
    ]
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            module,
            tuple(example.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(recipe.inputs),
            output_names=list(recipe.outputs),
            dynamic_shapes=tuple(shapes),
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _forget_traces(model)
    _describe(model, recipe, precision)
    _check(model, module, recipe)
    onnx.save_model(model, str(path))
    return model


def write_as(model: onnx.ModelProto, recipe: Recipe, path: Path, precision: str) -> None:
    """Write a graph that was traced for one precision as that of another; for modules without parameters."""
    _describe(model, recipe, precision)
    onnx.save_model(model, str(path))


def _half(module: nn.Module) -> nn.Module:
    """A copy with float16 parameters; buffers (tables, masks, the mean face) stay float32."""
    module = copy.deepcopy(module)
    for parameter in module.parameters():
        parameter.data = parameter.data.half()
    return module


def _dynamic_names(recipe: Recipe) -> set[str]:
    return {axis for spec in recipe.inputs.values() for axis in spec.shape if isinstance(axis, str)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that pflx does not use and on its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _forget_traces(model: onnx.ModelProto) -> None:
    """Drop the stack traces that the exporter leaves on every node: they name files of the exporting machine."""
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
        item.doc_string = ""
    del model.graph.metadata_props[:]


def _describe(model: onnx.ModelProto, recipe: Recipe, precision: str) -> None:
    facts = {"pflx": pflx.__version__, "graph": recipe.graph, "precision": precision, "source": recipe.source}
    onnx.helper.set_model_props(model, facts)
    model.graph.name = recipe.graph


def _check(model: onnx.ModelProto, module: nn.Module, recipe: Recipe) -> None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets.get("") != OPSET:
        raise EngineError(f"{recipe.graph} was exported with opset {opsets.get('')}, not {OPSET}.")
    for value in (*model.graph.input, *model.graph.output):
        expected = {**recipe.inputs, **recipe.outputs}[value.name].shape
        shape = tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
        if shape != expected:
            raise EngineError(f"{recipe.graph}: {value.name} was exported as {list(shape)}, not {list(expected)}.")
    _check_constants(model, module, recipe.graph)
    check_operators(model)


def _check_constants(model: onnx.ModelProto, module: nn.Module, graph: str) -> None:
    stored = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    needed = sum(_bytes(module.state_dict(keep_vars=True)).values())
    if stored > needed + _SLACK_BYTES:
        raise EngineError(f"{graph} holds {stored} bytes of constants where its weights need {needed}.")


def _bytes(tensors: Mapping[str, Any]) -> dict[int, int]:
    """Bytes per tensor, each counted once however many names it has."""
    return {id(tensor): tensor.numel() * tensor.element_size() for tensor in tensors.values()}


def stored_parameters(model: onnx.ModelProto) -> int:
    """Numbers that a graph stores: its weights, without what its module holds but never computes with."""
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer)


def fp32_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that compute in float32: those with a float32 output that are not casts."""
    model = onnx.shape_inference.infer_shapes(model)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    return [
        node.name
        for node in model.graph.node
        if node.op_type != "Cast" and types.get(node.output[0]) == onnx.TensorProto.FLOAT
    ]
