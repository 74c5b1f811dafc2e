"""Which ONNX operators a graph may use."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import AttributeProto, TensorProto

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


class OperatorError(PflxError, ValueError):
    """A graph uses what a TensorRT engine cannot be built from."""


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
