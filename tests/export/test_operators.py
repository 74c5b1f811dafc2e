"""Which graphs are refused before a compiler sees them, and what a graph costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pflx.export.operators import OperatorError, check_operators

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
