"""Which graphs are refused before a compiler sees them, and what a graph costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pflx.export.operators import FlopsError, OperatorError, check_operators, count_flops

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, int],
    weights: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tested",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def one_node(op: str, *, domain: str = "", **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(op, ["x"], ["y"], name="odd", domain=domain, **attributes)
    return model([node], {"x": (FLOAT, ["n"])}, {"y": FLOAT})


def test_standard_operators_pass() -> None:
    check_operators(one_node("Relu"))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            one_node("BiasGelu", domain="com.microsoft"),
            r"'odd' is com\.microsoft\.BiasGelu.*no standard operator",
        ),
        (one_node("NonZero"), "'odd' is NonZero of the standard domain.*rewrite the model"),
        (one_node("Resize", antialias=1), "'odd' is a Resize with antialias"),
        (one_node("ScatterND", reduction="add"), "'odd' is a ScatterND with a reduction"),
    ],
)
def test_an_operator_that_does_not_build_is_named_with_its_node_and_the_fix(
    graph: onnx.ModelProto, message: str
) -> None:
    with pytest.raises(OperatorError, match=message) as caught:
        check_operators(graph)
    assert "\n" not in str(caught.value)


def test_the_body_of_a_condition_is_looked_into() -> None:
    bodies = [
        helper.make_graph([node], "body", [], [helper.make_tensor_value_info("z", FLOAT, None)])
        for node in (
            helper.make_node("Relu", ["x"], ["z"]),
            helper.make_node("NonZero", ["x"], ["z"], name="hidden"),
        )
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    graph = model([node], {"x": (FLOAT, ["n"]), "c": (TensorProto.BOOL, [])}, {"y": FLOAT})
    with pytest.raises(OperatorError, match="'hidden' is NonZero"):
        check_operators(graph)


def test_many_faults_are_counted_not_all_told() -> None:
    nodes = [helper.make_node("NonZero", ["x"], [f"y{n}"], name=f"odd{n}") for n in range(8)]
    graph = model(nodes, {"x": (FLOAT, ["n"])}, {f"y{n}": FLOAT for n in range(8)})
    with pytest.raises(OperatorError, match=r"odd4.*and 3 more\.$"):
        check_operators(graph)


def bytes_through(*ops: tuple[str, dict[str, Any]]) -> onnx.ModelProto:
    nodes = [
        helper.make_node(op, [f"t{n}"], [f"t{n + 1}"], name=f"n{n}", **attributes)
        for n, (op, attributes) in enumerate(ops)
    ]
    return model(nodes, {"t0": (UINT8, ["n", 4])}, {f"t{len(ops)}": UINT8})


def test_bytes_are_cast_at_the_border_of_a_graph() -> None:
    turn = ("Transpose", {"perm": [1, 0]})
    up, down = ("Cast", {"to": FLOAT}), ("Cast", {"to": UINT8})
    check_operators(bytes_through(up, turn, down))
    with pytest.raises(OperatorError, match="'n0' is a Transpose of uint8 input 't0': cast it first"):
        check_operators(bytes_through(turn, up, down))
    with pytest.raises(OperatorError, match=r"'n1' casts to uint8 inside.*'n2' makes a uint8 output"):
        check_operators(bytes_through(up, down, turn))


@given(
    samples=st.integers(1, 3),
    groups=st.sampled_from([1, 2]),
    kernel=st.integers(1, 3),
    size=st.integers(3, 6),
)
def test_convolutions_are_counted_by_the_formula(samples: int, groups: int, kernel: int, size: int) -> None:
    weights = {
        "w": np.zeros((6, 4 // groups, kernel, kernel), np.float32),
        "t": np.zeros((6, 8 // groups, 2, 2), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], group=groups),
        helper.make_node("ConvTranspose", ["a", "t"], ["y"], strides=[2, 2], group=groups),
    ]
    graph = model(nodes, {"x": (FLOAT, ["samples", 4, size, size])}, {"y": FLOAT}, weights)
    out = size - kernel + 1
    convolution = 2 * samples * 6 * out * out * (4 // groups) * kernel * kernel
    transposed = 2 * samples * 6 * out * out * (8 // groups) * 2 * 2
    assert count_flops(graph, {"samples": samples}) == convolution + transposed


def test_matrix_products_are_counted_by_the_formula(tmp_path: Path) -> None:
    weights = {"w": np.zeros((5, 70_000), np.float32), "g": np.zeros((5, 3), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Gemm", ["v", "g"], ["z"], transA=1),
    ]
    graph = model(nodes, {"x": (FLOAT, ["n", 2, 5]), "v": (FLOAT, [5, 4])}, {"y": FLOAT, "z": FLOAT}, weights)
    path = tmp_path / "products.onnx"
    onnx.save(graph, path)
    expected = 2 * (3 * 2 * 70_000 * 5 + 4 * 3 * 5)
    assert count_flops(graph, {"n": 3}) == count_flops(path, {"n": 3}) == expected


def test_shapes_that_the_exporter_wrote_down_are_used() -> None:
    """Inference alone does not see that a reshape to a computed shape merges two dimensions."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["merged"]),
        helper.make_node("MatMul", ["merged", "w"], ["y"]),
    ]
    graph = model(
        nodes,
        {"x": (FLOAT, ["portraits", "frames", 4]), "shape": (TensorProto.INT64, [2])},
        {"y": FLOAT},
        {"w": np.zeros((4, 6), np.float32)},
    )
    with pytest.raises(FlopsError, match="shape of 'merged'"):
        count_flops(graph, {"portraits": 2, "frames": 3})
    for name, width in (("merged", 4), ("y", 6)):
        graph.graph.value_info.append(
            helper.make_tensor_value_info(name, FLOAT, ["2*portraits*(frames + 1) - 4", width])
        )
    assert count_flops(graph, {"portraits": 2, "frames": 3}) == 2 * 12 * 6 * 4


@pytest.mark.parametrize("expression", ["n**2", "floor(n)", "n/2", "__import__('os')", "n n", "1.5*n", "n//0"])
def test_a_dimension_that_is_no_plain_arithmetic_counts_as_unknown(expression: str) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["y"]),
    ]
    graph = model(
        nodes,
        {"x": (FLOAT, ["n", 4]), "shape": (TensorProto.INT64, [2])},
        {"y": FLOAT},
        {"w": np.zeros((4, 6), np.float32)},
    )
    graph.graph.value_info.append(helper.make_tensor_value_info("y", FLOAT, [expression, 6]))
    with pytest.raises(FlopsError):
        count_flops(graph, {"n": 2})


def test_a_dimension_without_a_size_is_named() -> None:
    with pytest.raises(FlopsError, match="Dimension 'n' of input 'x' has no size"):
        count_flops(one_node("Relu"), {})
