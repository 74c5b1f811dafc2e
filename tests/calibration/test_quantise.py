"""What is written into graphs for INT8: scales beside layers."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.calibration.drawn_graphs import F32, drawn, graph_of

from pflx.calibration.precision.quantise import (
    METHODS,
    SWITCH,
    Layer,
    Scheme,
    count_operations,
    layers_of,
    measure_ranges,
    prune,
    quantised,
    switchable,
)
from pflx.engines import Array, OrtEngine


def run(model: onnx.ModelProto, folder: Path, **feeds: Array) -> dict[str, Array]:
    onnx.checker.check_model(model)
    onnx.save_model(model, str(folder / "run.onnx"))
    with closing(OrtEngine(folder / "run.onnx", threads=1)) as engine:
        return engine.run(feeds)


def products() -> onnx.ModelProto:
    """A matrix product and two Gemms on its result, one of which has its weights the other way round."""
    return graph_of(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"]),
            helper.make_node("Gemm", ["h", "b", "shift"], ["y"], transB=1),
            helper.make_node("Gemm", ["h", "c"], ["z"]),
            helper.make_node("Add", ["h", "h"], ["twice"]),
        ],
        {"x": ["N", 40]},
        ["y", "z", "twice"],
        a=drawn(40, 48),
        b=drawn(36, 48, seed=1),
        c=drawn(48, 36, seed=2),
        shift=drawn(36, seed=3),
    )


PRODUCTS = ("MatMul", "Gemm")
UNSIGNED, SIGNED = Scheme(), Scheme(symmetric=True)


def rounded_weight(weight: Array, axis: int) -> Array:
    scale = np.abs(weight).max(axis=1 - axis, keepdims=True) / 127
    values: Array = (np.rint(weight / scale) * scale).astype(F32)
    return values


def rounded(values: Array, low: float, high: float, scheme: Scheme) -> Array:
    if scheme.symmetric:
        scale = max(-low, high) / 127
        steps = np.clip(np.rint(values / scale), -128, 127)
    else:
        scale = (high - low) / 255
        zero = round(-low / scale)
        steps = np.clip(np.rint(values / scale) + zero, 0, 255) - zero
    result: Array = (steps * scale).astype(F32)
    return result


# Quantised graphs


def test_layers_are_those_whose_weights_are_constant_and_worth_it() -> None:
    model = graph_of(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"]),
            helper.make_node("MatMul", ["h", "few"], ["y"]),
            helper.make_node("MatMul", ["x", "x"], ["square"]),
            helper.make_node("MatMul", ["a", "a"], ["constant"]),
        ],
        {"x": [40, 40]},
        ["y", "square", "constant"],
        a=drawn(40, 40),
        few=drawn(40, 2),
    )
    assert layers_of(model, PRODUCTS) == [Layer("node_h", "x", "h", "a", 1)]
    assert layers_of(model, ("Conv",)) == []
    assert [(layer.node, layer.axis) for layer in layers_of(products(), PRODUCTS)] == [
        ("node_h", 1),
        ("node_y", 0),
        ("node_z", 1),
    ]


@pytest.mark.parametrize("scheme", [UNSIGNED, SIGNED])
def test_a_quantised_product_is_that_of_the_rounded_factors(tmp_path: Path, scheme: Scheme) -> None:
    model, x = products(), drawn(7, 40, seed=9)
    layers = layers_of(model, PRODUCTS)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    exact = run(model, tmp_path, x=x)
    h = x @ weights["a"]
    ranges = {"x": (-1.5, 2.0), "h": (float(h.min()), float(h.max()))}  # of x, some are out of range
    made = run(quantised(model, layers, ["node_h", "node_y"], ranges, scheme), tmp_path, x=x)
    h = rounded(x, *ranges["x"], scheme) @ rounded_weight(weights["a"], 1)
    np.testing.assert_allclose(made["twice"], 2 * h, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(made["z"], h @ weights["c"], rtol=1e-5, atol=1e-3)  # reads what is not rounded
    y = rounded(h, *ranges["h"], scheme) @ rounded_weight(weights["b"], 0).T + weights["shift"]
    np.testing.assert_allclose(made["y"], y, rtol=1e-5, atol=ranges["h"][1] / 100)  # one of 48 may round otherwise
    assert np.abs(made["y"] - exact["y"]).max() > 1e-3


def test_biases_stay_float32_and_unread_weights_go(tmp_path: Path) -> None:
    model = products()
    layers = layers_of(model, PRODUCTS)
    ranges = {"x": (-3.0, 3.0), "h": (-30.0, 30.0)}
    made = prune(quantised(model, layers, [layer.node for layer in layers], ranges, SIGNED))
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert kinds["shift"] == TensorProto.FLOAT
    assert not {"a", "b", "c"} & kinds.keys()
    assert TensorProto.INT32 not in kinds.values()
    assert made.ByteSize() < 0.5 * model.ByteSize()
    assert [n.op_type for n in model.graph.node] == ["MatMul", "Gemm", "Gemm", "Add"]  # is left as it was


@pytest.mark.parametrize("scheme", [UNSIGNED, SIGNED, Scheme(outputs=True)])
def test_switches_give_what_the_quantised_graph_gives(tmp_path: Path, scheme: Scheme) -> None:
    model, x = products(), drawn(7, 40, seed=9)
    layers = layers_of(model, PRODUCTS)
    ranges = {"x": (-2.0, 2.0), "h": (-20.0, 25.0), "y": (-90.0, 90.0), "z": (-90.0, 90.0)}
    switched = switchable(model, layers, ranges, scheme)
    for chosen in ([], ["node_h"], ["node_y", "node_z"], ["node_h", "node_y", "node_z"]):
        switches = {f"{SWITCH}{layer.node}": np.array(layer.node in chosen) for layer in layers}
        expected = run(quantised(model, layers, chosen, ranges, scheme), tmp_path, x=x)
        made = run(switched, tmp_path, x=x, **switches)
        for name, values in expected.items():
            np.testing.assert_allclose(made[name], values, rtol=1e-4, atol=0.75)  # one may round to its neighbour
            assert np.abs(made[name] - values).mean() < 1e-2


def test_quantised_outputs_lie_on_their_grid(tmp_path: Path) -> None:
    model = products()
    ranges = {"x": (-3.0, 3.0), "h": (-25.5, 25.5)}
    made = run(
        quantised(model, layers_of(model, PRODUCTS), ["node_h"], ranges, Scheme(outputs=True)), tmp_path, x=drawn(3, 40)
    )
    steps = made["twice"] / 2 / np.float32(51 / 255)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_methods_differ_in_what_they_do_with_outliers() -> None:
    model = products()
    x = drawn(2000, 40)
    x[0, 0], x[1, 1] = 50, -40
    ranges = {method: measure_ranges(model, PRODUCTS, [{"x": x}, {"x": x[:1000] / 2}], method) for method in METHODS}
    assert ranges["minmax"]["x"] == (-40.0, 50.0)
    assert -5 < ranges["percentile"]["x"][0] < -3
    assert 3 < ranges["percentile"]["x"][1] < 5
    low, high = ranges["entropy"]["h"]
    assert ranges["minmax"]["h"][0] <= low < -10
    assert 10 < high <= ranges["minmax"]["h"][1]


def test_a_range_always_holds_zero() -> None:
    found = measure_ranges(products(), PRODUCTS, [{"x": np.full((2, 40), 3, F32)}], "minmax")
    assert found["x"] == (0.0, 3.0)


def test_operations_are_counted_as_they_are_run() -> None:
    model = graph_of(
        [helper.make_node("Conv", ["x", "w"], ["f"], strides=[2, 2], pads=[1, 1, 1, 1])],
        {"x": ["N", 8, "H", 16]},
        ["f"],
        w=drawn(16, 8, 3, 3),
    )
    layers = layers_of(model, ("Conv",))
    assert count_operations(model, layers, {"x": drawn(2, 8, 10, 16)}, 1) == {"node_f": 2 * 5 * 8 * 16 * 8 * 9}
