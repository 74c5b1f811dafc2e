"""Which ONNX operators a graph may use, and how many operations it costs."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import onnx
from onnx import AttributeProto, TensorProto, shape_inference

from pflx.engines import PflxError

# Every operator here was built by TensorRT for RTX 1.7.1 from a small graph of its own.
ALLOWED_OPERATORS = frozenset(
    """
    Abs Add And ArgMax Atan AveragePool BatchNormalization Cast Ceil Celu Clip Concat Constant
    ConstantOfShape Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf
    Exp Expand Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool
    Greater GreaterOrEqual GridSample HardSigmoid HardSwish Identity If InstanceNormalization IsInf IsNaN
    LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization MatMul Max
    MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear Range Reciprocal ReduceL2
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize Round ScatterND Selu Shape
    Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
    """.split()  # noqa: SIM905 - a hundred lines of quoted words are harder to read
)
_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}
_SMALL = 4096  # elements: shapes and indices are below, weights above


class OperatorError(PflxError, ValueError):
    """A graph uses what a TensorRT engine cannot be built from."""


class FlopsError(PflxError, ValueError):
    """The shapes inside a graph do not follow from the given dimensions."""


def check_operators(model: onnx.ModelProto) -> None:
    """Check that a graph builds on every backend: standard operators, no plugins.

    Raises:
        OperatorError: naming each node, its operator and domain, and what to do.
    """
    faults = [fault for node in _nodes(model.graph) for fault in _node_faults(node)]
    faults += _byte_faults(model.graph)
    if faults:
        rest = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise OperatorError(f"Graph '{model.graph.name}': {'; '.join(faults[:5])}{rest}.")


def count_flops(model: onnx.ModelProto | str | Path, dimensions: Mapping[str, int]) -> int:
    """Floating-point operations of one run, a multiply-add as two.

    Counted are Conv, ConvTranspose, MatMul and Gemm, which are nearly all of it.

    Args:
        model: a graph or the path of one.
        dimensions: the size of each named dimension of its inputs.

    Raises:
        FlopsError: a dimension is missing, or a shape stays unknown.
    """
    if not isinstance(model, onnx.ModelProto):
        model = onnx.load(model, load_external_data=False)
    shapes = _shapes(model, dimensions)
    return sum(_node_flops(node, shapes) for node in model.graph.node)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield every node, those of the bodies of If and Loop included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _node_faults(node: onnx.NodeProto) -> Iterator[str]:
    name = f"node '{node.name or node.output[0]}'"
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.domain not in ("", "ai.onnx"):
        yield (
            f"{name} is {node.domain}.{node.op_type}, which is no standard operator: "
            "write it with standard ones, or export without optimisation for one runtime"
        )
    elif node.op_type not in ALLOWED_OPERATORS:
        yield (
            f"{name} is {node.op_type} of the standard domain, which is not known to build on TensorRT: "
            "rewrite the model without it"
        )
    if node.op_type == "Resize" and "antialias" in attributes and attributes["antialias"].i:
        yield f"{name} is a Resize with antialias, which TensorRT lacks: resize without it"
    if node.op_type == "ScatterND" and "reduction" in attributes and attributes["reduction"].s != b"none":
        yield f"{name} is a ScatterND with a reduction, which TensorRT lacks: add outside of it"


def _byte_faults(graph: onnx.GraphProto) -> list[str]:
    """Find bytes inside the graph: TensorRT casts them at its inputs and outputs, and knows no others."""
    inputs = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    outputs = {value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.UINT8}
    faults = [
        f"node '{node.name or node.output[0]}' is a {node.op_type} of uint8 input '{name}': cast it first"
        for node in graph.node
        for name in sorted(inputs & set(node.input))
        if node.op_type not in ("Cast", "Shape")
    ]
    for node in graph.node:
        to_bytes = any(a.name == "to" and a.i == TensorProto.UINT8 for a in node.attribute)
        if node.op_type == "Cast" and to_bytes and node.output[0] not in outputs:
            faults.append(f"node '{node.name or node.output[0]}' casts to uint8 inside: cast at the output")
        elif node.op_type != "Cast" and outputs & set(node.output):
            faults.append(f"node '{node.name or node.output[0]}' makes a uint8 output: cast as the last node")
    return faults


def _shapes(model: onnx.ModelProto, dimensions: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor; 0 stands for an axis that does not follow from the dimensions.

    The exporter writes shapes like `[portraits*frames, 64, 256, 256]`, which say more than inference finds.
    """
    graph = _without_weights(model.graph)
    for value in graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_value = _given(axis.dim_param, value.name, dimensions)
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)
    inferred = shape_inference.infer_shapes(light, data_prop=True).graph
    found = (*inferred.input, *inferred.value_info, *inferred.output)
    shapes = {value.name: _sizes(value, dimensions) for value in found}
    for value in (*model.graph.value_info, *model.graph.output):
        written = _sizes(value, dimensions)
        if written and all(written):
            shapes[value.name] = written
    return shapes | {weight.name: tuple(weight.dims) for weight in model.graph.initializer}


def _given(name: str, tensor: str, dimensions: Mapping[str, int]) -> int:
    if name not in dimensions:
        raise FlopsError(f"Dimension '{name}' of input '{tensor}' has no size; give it.")
    return dimensions[name]


def _sizes(value: onnx.ValueInfoProto, dimensions: Mapping[str, int]) -> tuple[int, ...]:
    axes = value.type.tensor_type.shape.dim
    return tuple(axis.dim_value or _evaluate(axis.dim_param, dimensions) for axis in axes)


def _evaluate(expression: str, dimensions: Mapping[str, int]) -> int:
    """Value of a dimension written as sums and products of named ones; 0 where it is anything else."""

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp):
            return _ARITHMETIC[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.Constant):
            return int(str(node.value))
        return dimensions[ast.unparse(node)]

    try:
        return value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, KeyError, ValueError, ArithmeticError):
        return 0


def _without_weights(graph: onnx.GraphProto) -> onnx.GraphProto:
    """Copy a graph with its weights as inputs and its inferred shapes left out, so that both are cheap."""
    light = onnx.GraphProto(name=graph.name, node=graph.node, input=graph.input)
    for weight in graph.initializer:
        if math.prod(weight.dims) <= _SMALL:
            light.initializer.append(weight)
        else:
            light.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    for value in graph.output:
        kind = value.type.tensor_type.elem_type
        light.output.append(onnx.helper.make_tensor_value_info(value.name, kind, None))
    return light


def _node_flops(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    if node.op_type in ("Conv", "ConvTranspose"):
        counted = node.output[0] if node.op_type == "Conv" else node.input[0]
        per_element = math.prod(_known(node.input[1], shapes)[1:])
    elif node.op_type in ("MatMul", "Gemm"):
        counted = node.output[0]
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        per_element = _known(node.input[0], shapes)[-2 if transposed else -1]
    else:
        return 0
    return 2 * math.prod(_known(counted, shapes)) * per_element


def _known(name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    shape = shapes.get(name, ())
    if not shape or 0 in shape:
        raise FlopsError(f"The shape of '{name}' does not follow from the inputs; export with fixed shapes.")
    return shape
