"""An FP32 graph and a policy → a strongly typed graph in FP16 with FP32 islands.

The casts are placed by AutoCast of NVIDIA's ModelOpt. Here is which nodes it may touch, and the check that it touched
these and no others.
"""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, numpy_helper

from pflx.engines.bundle.policy import GraphPolicy, PolicyError
from pflx.engines.graphs.protocol import Array, import_backend
from pflx.export.operators import check_operators

INSTALL = "pip install 'pflx[cpu,calibrate]'"

FP32_INPUTS = {"Resize": {2}}
"""Operator → inputs that are float32 by its definition whatever the rest is."""

_MOVERS = frozenset(
    """
    Concat DepthToSpace Expand Flatten Gather GatherElements GatherND Identity MaxPool Relu Reshape Slice SpaceToDepth
    Split Squeeze Tile Transpose Unsqueeze
    """.split()  # noqa: SIM905 - one word after the other is easier to read
)
"""Operators whose results are values that they were given, so that they round nothing themselves."""

_NEVER = frozenset(["Cast", "Constant", "ConstantOfShape", "Range"])
"""Operators that are not moved to FP16: what they make is cast where an FP16 node takes it."""


class Typed:
    """A graph with the element type of every value.

    Attributes:
        model: the graph.
        types: value → ONNX element type.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        graph = onnx.shape_inference.infer_shapes(model).graph
        values = (*graph.input, *graph.value_info, *graph.output)
        self.types: dict[str, int] = {value.name: value.type.tensor_type.elem_type for value in values}
        self.types |= {tensor.name: tensor.data_type for tensor in graph.initializer}

    def is_float(self, value: str) -> bool:
        """Whether a value is float32."""
        return self.types.get(value) == TensorProto.FLOAT

    def inputs(self, node: NodeProto) -> list[str]:
        """The float32 inputs of a node that become FP16 with it."""
        kept = FP32_INPUTS.get(node.op_type, set())
        return [name for index, name in enumerate(node.input) if index not in kept and self.is_float(name)]

    def outputs(self, node: NodeProto) -> list[str]:
        """The float32 outputs of a node."""
        return [name for name in node.output if self.is_float(name)]

    @property
    def convertible(self) -> list[NodeProto]:
        """The nodes that may become FP16, in the order of the graph."""
        return [node for node in self.model.graph.node if self._is_convertible(node)]

    def _is_convertible(self, node: NodeProto) -> bool:
        return node.op_type not in _NEVER and bool(self.outputs(node)) and _takes_half(node, self.model)


class Choices:
    """The nodes among which a policy chooses, and those that go along with them.

    A node that only moves values takes the precision of the one that made them.

    Attributes:
        names: the nodes to choose among, in the order of the graph.
    """

    def __init__(self, typed: Typed) -> None:
        self._nodes = typed.convertible
        made_by = {value: node.name for node in self._nodes for value in node.output}
        self._sources = {
            node.name: [made_by[name] for name in typed.inputs(node)]
            for node in self._nodes
            if node.op_type in _MOVERS and all(name in made_by for name in typed.inputs(node))
        }
        self.names = [node.name for node in self._nodes if node.name not in self._sources]

    def with_movers(self, chosen: Collection[str]) -> list[str]:
        """All nodes that stay in FP32 when `chosen` do, in the order of the graph."""
        kept: set[str] = set(chosen)
        for node in self._nodes:
            if any(source in kept for source in self._sources.get(node.name, ())):
                kept.add(node.name)
        return [node.name for node in self._nodes if node.name in kept]


def is_mover(node: NodeProto) -> bool:
    """Whether all that a node gives are values that it was given."""
    return node.op_type in _MOVERS


def skeleton(model: onnx.ModelProto) -> str:
    """Sha256 of a graph without its weights: nodes, attributes and how they are joined, types and shapes."""
    graph = onnx.GraphProto()
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    opsets = sorted((entry.domain, entry.version) for entry in model.opset_import)
    return hashlib.sha256(repr(opsets).encode() + graph.SerializeToString(deterministic=True)).hexdigest()


def check_policy(model: onnx.ModelProto, policy: GraphPolicy, graph: str) -> None:
    """Check that a policy was made for this very graph, whatever its weights are.

    Raises:
        PolicyError: it was not.
    """
    found = skeleton(model)
    if policy.skeleton != found:
        raise PolicyError(
            f"The policy of {graph} was made for a graph with skeleton {policy.skeleton[:12]}, this one has "
            f"{found[:12]}: its nodes are others. Calibrate again: pflx calibrate fp16 BUNDLE --feeds FEEDS "
            "-o POLICY.json"
        )
    unknown = sorted(set(policy.fp32_nodes) - {node.name for node in Typed(model).convertible})
    if unknown:
        raise PolicyError(f"The policy of {graph} keeps {unknown[0]}, which is no node that could become FP16.")


def require_converter() -> None:
    """Look for what `convert` needs before a long piece of work starts.

    Raises:
        BackendMissingError: ModelOpt is not installed.
    """
    _autocast()


def convert(source: Path, fp32_nodes: Sequence[str], target: Path) -> onnx.ModelProto:
    """Write an FP32 graph in FP16, except for some of its nodes; inputs and outputs stay as they are.

    Args:
        source: the FP32 graph.
        fp32_nodes: names of the nodes that stay in FP32.
        target: the file to write.

    Returns:
        The graph as written.

    Raises:
        BackendMissingError: ModelOpt is not installed.
        PolicyError: what was converted is not what was asked for.
    """
    original = Typed(onnx.load(str(source)))
    half = {node.name for node in original.convertible} - set(fp32_nodes)
    with TemporaryDirectory(prefix="pflx-") as folder:
        rounded = Path(folder, source.name)
        onnx.save_model(_with_rounded_weights(original, half), str(rounded))
        model = _cast(rounded, [node.name for node in original.model.graph.node if node.name not in half])
    for fault in _faults(original.model, model, half):
        raise PolicyError(f"{source.name} was not converted as asked: {fault}.")
    check_operators(model)
    facts = {entry.key: entry.value for entry in original.model.metadata_props}
    onnx.helper.set_model_props(model, facts | {"precision": "fp16"})
    onnx.save_model(model, str(target))
    return model


def round_weights(values: Array) -> Array:
    """float32 weights as FP16 stores them; those beyond the largest number become the largest."""
    largest = np.finfo(np.float16).max
    return np.clip(values, -largest, largest).astype(np.float16).astype(np.float32)


def _with_rounded_weights(typed: Typed, half: set[str]) -> onnx.ModelProto:
    """The graph with the weights rounded that FP16 nodes alone read: AutoCast would make all tiny ones positive."""
    model = onnx.ModelProto()
    model.CopyFrom(typed.model)
    read_by_half, read_by_others = set[str](), set[str]()
    for node in model.graph.node:
        taken = set(typed.inputs(node)) if node.name in half else set()
        read_by_half |= taken
        read_by_others |= set(node.input) - taken
    for tensor in model.graph.initializer:
        if tensor.name in read_by_half - read_by_others:
            tensor.CopyFrom(numpy_helper.from_array(round_weights(numpy_helper.to_array(tensor)), tensor.name))
    return model


def _cast(source: Path, kept: Sequence[str]) -> onnx.ModelProto:
    autocast = _autocast()
    with _quiet():
        model: onnx.ModelProto = autocast.convert_to_mixed_precision(
            str(source),
            low_precision_type="fp16",
            nodes_to_exclude=[f"(?:{'|'.join(map(re.escape, kept))})$"] if kept else [],
            data_max=float("inf"),  # which nodes stay is decided here, by nothing else
            init_max=float("inf"),
            keep_io_types=True,
            providers=["cpu"],
        )
    return model


def _autocast() -> Any:
    with _quiet():
        return import_backend("modelopt.onnx.autocast", INSTALL)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without AutoCast's account of every node, and its remarks on packages that it does not need."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _takes_half(node: NodeProto, model: onnx.ModelProto) -> bool:
    """Whether the operator is defined for float16, and has no body of its own."""
    if any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute):
        return False
    version = next(entry.version for entry in model.opset_import if entry.domain == "")
    schema = onnx.defs.get_schema(node.op_type, version)
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    return "tensor(float16)" in allowed.get(schema.outputs[0].type_str, ())


def _faults(original: onnx.ModelProto, converted: onnx.ModelProto, half: set[str]) -> Iterator[str]:
    typed = Typed(converted)
    nodes = {node.name: node for node in converted.graph.node}
    for node in original.graph.node:
        made = nodes.get(node.name)
        if made is None or made.op_type != node.op_type:
            if node.op_type != "Cast":
                yield f"node {node.name} is gone"
            continue
        precisions = {typed.types.get(name) for name in made.output} & {TensorProto.FLOAT, TensorProto.FLOAT16}
        wanted = TensorProto.FLOAT16 if node.name in half else TensorProto.FLOAT
        if precisions - {wanted}:
            yield f"node {node.name} is in {'FP32' if wanted == TensorProto.FLOAT16 else 'FP16'}"
    for before, after in zip(_ends(original), _ends(converted), strict=True):
        if before.type != after.type:
            yield f"{before.name} has another type"


def _ends(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*model.graph.input, *model.graph.output]
