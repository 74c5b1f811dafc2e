"""INT8: what is written into graphs, and which layers the pictures let have it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.commands import pflx, refusal
from support.places import MEDIA
from support.tiny_graphs import tiny_bundle

from pflx.calibration.errors import CalibrationError
from pflx.calibration.feeds.feeds import Feeds
from pflx.calibration.feeds.record import RecordOptions, record
from pflx.calibration.judge import Bound
from pflx.calibration.precision import int8 as int8_module
from pflx.calibration.precision import int8_player as player_module
from pflx.calibration.precision import int8_report as report_module
from pflx.calibration.precision import variants as variants_module
from pflx.calibration.precision.int8 import Int8Result, calibrate_int8
from pflx.calibration.precision.int8_report import Int8Report, plot_report, report_lines
from pflx.calibration.precision.int8_target import TARGETS
from pflx.calibration.precision.phases import join_phases
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
from pflx.calibration.precision.variants import add_variant
from pflx.calibration.reports import save_report
from pflx.engines import Array, Bundle, BundleError, OrtEngine, OutputExistsError, PassportError, write_manifest
from pflx.engines.building.build import build_bundle_engines
from pflx.engines.bundle.manifest import MANIFEST
from pflx.runtime import EngineSettings, Listener, open_speaker
from pflx.runtime.bundle_engines import CALL_SIZES

PORTRAIT = MEDIA / "portrait_astronaut_256.png"
F32 = np.dtype(np.float32)
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")


def drawn(*shape: int, seed: int = 0) -> Array:
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


# Phases


def test_the_phases_of_the_renderer_are_joined_to_the_bit(exported: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(exported, verify=False)
    path = bundle.graph_path("pirender_frame", "fp32")
    joined = onnx.load(str(path))
    assert join_phases(joined) == 3
    onnx.save_model(prune(joined), str(tmp_path / "joined.onnx"))
    rng = np.random.default_rng(0)
    features = {
        name: rng.standard_normal([1, *spec.shape[1:]], F32)  # type: ignore[list-item]
        for name, spec in bundle.manifest.graphs["pirender_portrait"].outputs.items()
    }
    feeds = {**features, "coefficients": drawn(1, 27, 58), "frames": np.array([13])}
    images = []
    for each in (path, tmp_path / "joined.onnx"):
        with closing(OrtEngine(each, sizes=CALL_SIZES)) as engine:
            images.append(engine.run(feeds)["image"])
    np.testing.assert_array_equal(images[0], images[1])
    assert join_phases(joined) == 0


def test_phases_that_something_else_reads_are_left_alone() -> None:
    phases = [
        helper.make_node("Conv", ["x", "w"], [f"p{n}"], pads=pads, kernel_shape=[2, 2])
        for n, pads in enumerate([[1, 1, 0, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 1, 1]])
    ]
    model = graph_of(
        [*phases, helper.make_node("Concat", ["p0", "p1", "p2", "p3"], ["y"], axis=1)],
        {"x": [1, 4, 8, 8]},
        ["y"],
        w=drawn(4, 4, 2, 2),
    )
    before = model.SerializeToString(deterministic=True)
    assert join_phases(model) == 0
    assert model.SerializeToString(deterministic=True) == before


# The search

SENSITIVE, HARMLESS = "node_planted", ["node_first", "node_second", "node_picture"]
LOUD = 5000


def painting() -> onnx.ModelProto:
    """A renderer of four convolutions; what the third one reads has a channel that is far louder than the others.

    One scale for a whole tensor then leaves nothing of the others.
    """
    loud = np.ones((1, 16, 1, 1), F32)
    loud[:, 15] = LOUD
    planted = drawn(16, 16, 3, 3, seed=3) / 12
    planted[:, 15] /= LOUD
    nodes = [
        helper.make_node("Conv", ["source", "w1"], ["first"], pads=[3] * 4),
        helper.make_node("LeakyRelu", ["first"], ["a1"], alpha=0.1),
        helper.make_node("Conv", ["a1", "w2", "bias"], ["second"], pads=[1] * 4),
        helper.make_node("LeakyRelu", ["second"], ["a2"], alpha=0.1),
        helper.make_node("Mul", ["a2", "loud"], ["shouted"]),
        helper.make_node("Conv", ["shouted", "w3"], ["planted"], pads=[1] * 4),
        helper.make_node("LeakyRelu", ["planted"], ["a3"], alpha=0.1),
        helper.make_node("Conv", ["a3", "w4"], ["picture"], pads=[3] * 4),
        helper.make_node("Gather", ["coefficients", "frames"], ["track"], axis=1),
        helper.make_node("ReduceMean", ["track", "columns"], ["glow"], keepdims=1),
        helper.make_node("Unsqueeze", ["glow", "sides"], ["light"]),
        helper.make_node("Unsqueeze", ["picture", "rows"], ["frame"]),
        helper.make_node("Add", ["frame", "light"], ["lit"]),
        helper.make_node("Sigmoid", ["lit"], ["share"]),
        helper.make_node("Mul", ["share", "white"], ["levels"]),
        helper.make_node("Transpose", ["levels"], ["turned"], perm=[0, 1, 3, 4, 2]),
        helper.make_node("Cast", ["turned"], ["image"], to=TensorProto.UINT8),
    ]
    features = {name: ["portraits", size, 64, 64] for name, size in (("warp_features", 32), ("edit_features", 64))}
    model = graph_of(
        nodes,
        {"source": ["portraits", 3, 64, 64], **features, "coefficients": ["portraits", "track", 58]},
        [],
        w1=drawn(16, 3, 7, 7, seed=1) / 12,
        w2=drawn(16, 16, 3, 3, seed=2) / 12,
        bias=drawn(16, seed=5),
        w3=planted,
        w4=drawn(3, 16, 7, 7, seed=4) / 28,
        loud=loud,
        columns=np.array([2]),
        sides=np.array([3, 4]),
        rows=np.array([1]),
        white=np.array(255, F32),
    )
    model.graph.input.append(helper.make_tensor_value_info("frames", TensorProto.INT64, ["frames"]))
    shape: list[Any] = ["portraits", "frames", 64, 64, 3]
    model.graph.output.append(helper.make_tensor_value_info("image", TensorProto.UINT8, shape))
    onnx.checker.check_model(model)
    return model


def painting_bundle(folder: Path) -> Bundle:
    """The bundle of small graphs, with that renderer."""
    bundle = tiny_bundle(folder)
    info = bundle.manifest.graphs["pirender_frame"]
    onnx.save_model(painting(), str(folder / info.files["fp32"]))
    write_manifest(folder, bundle.manifest)
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return painting_bundle(tmp_path_factory.mktemp("bundle") / "me.pflx")


@pytest.fixture(scope="module")
def feeds(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Feeds:
    clips = [open_speaker(MEDIA / name).limited(2.0) for name in ("webcam_cap12_12s.mp4", "podium_speech_8s.mp4")]
    folder = tmp_path_factory.mktemp("recorded") / "feeds"
    return record(bundle, clips, PORTRAIT, folder, options=RecordOptions(limit=3, threads=1))


Calibrate = Callable[..., Int8Result]
BOUND = Bound(ssim=0.9)


@pytest.fixture(scope="module")
def calibrate(bundle: Bundle, feeds: Feeds) -> Calibrate:
    def run_(engine: Any, bound: Bound = BOUND, **options: Any) -> Int8Result:
        return calibrate_int8(bundle, feeds, engine, bound=bound, threads=1, **options)

    return run_


@pytest.fixture(scope="module")
def found(calibrate: Calibrate) -> Int8Result:
    return calibrate("tensorrt")


def test_the_planted_layer_is_found_and_left_out(found: Int8Result) -> None:
    report = found.report
    assert [method.method for method in report.methods] == list(METHODS)
    assert all(method.faults for method in report.methods)
    assert found.left_out == {"pirender_frame": [SENSITIVE]}
    assert report.accepted.faults == []
    assert report.accepted.judgement.lowest_psnr_db >= 38
    assert report.accepted.units == 3
    errors = {unit.nodes[0]: unit.error for unit in report.units}
    assert errors[SENSITIVE] == max(error for error in errors.values() if error is not None)
    assert {unit.nodes[0] for unit in report.units if unit.quantised} == set(HARMLESS)
    made = found.graphs["pirender_frame"]
    assert sum(node.op_type == "QuantizeLinear" for node in made.graph.node) == 3


def test_what_is_found_is_found_again(found: Int8Result, calibrate: Calibrate) -> None:
    again = calibrate("tensorrt")
    assert again.report == found.report
    assert {name: model.SerializeToString(deterministic=True) for name, model in again.graphs.items()} == {
        name: model.SerializeToString(deterministic=True) for name, model in found.graphs.items()
    }


def test_every_step_is_told_of(calibrate: Calibrate) -> None:
    told: list[str] = []
    calibrate("tensorrt", methods=["minmax"], progress=lambda doing, *_: told.append(doing))
    assert list(dict.fromkeys(told)) == [
        "judging without INT8",
        "ranges by minmax",
        "judging each layer alone",
        "choosing layers",
    ]


def test_where_all_layers_pass_none_is_looked_at_alone(calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player_module.Player, "errors", None)
    found = calibrate("tensorrt", Bound(psnr_db=5, ssim=-1, added_at_seams=99), methods=["percentile"])
    assert found.left_out == {"pirender_frame": []}
    assert found.report.accepted.share == 1.0
    assert all(unit.error is None for unit in found.report.units)


def test_a_bound_that_nothing_keeps_is_refused(calibrate: Calibrate) -> None:
    with pytest.raises(CalibrationError, match=r"Not one layer can be quantised: a picture has .* asked are 99"):
        calibrate("tensorrt", Bound(psnr_db=99), methods=["minmax"])


def test_neighbours_are_decided_on_together_where_there_are_many(
    calibrate: Calibrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_module, "LARGEST_UNITS", 2)
    found = calibrate("tensorrt", methods=["minmax"])
    assert [unit.nodes for unit in found.report.units] == [
        ["node_first", "node_second"],
        ["node_planted", "node_picture"],
    ]
    assert found.left_out == {"pirender_frame": ["node_planted", "node_picture"]}


@pytest.mark.parametrize("engine", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_the_variant_of_a_cpu_runs_on_the_engine_that_it_was_judged_with(
    bundle: Bundle, calibrate: Calibrate, engine: Any, tmp_path: Path
) -> None:
    found = calibrate(engine, methods=["minmax"])
    assert SENSITIVE in found.left_out["pirender_frame"]
    assert found.admission.libraries == [engine]
    target = tmp_path / "new.pflx"
    enter(bundle, target, found)
    clip = open_speaker(MEDIA / "podium_speech_8s.mp4").limited(1.0)
    images = {}
    for precision in ("fp32", "int8"):
        with Listener.open(
            target, PORTRAIT, engines=EngineSettings(library=engine, precision=precision, threads=1)
        ) as listener:
            images[precision] = np.stack([frame.image for frame in listener.react(clip, seed=0)]).astype(F32)
    error = np.square(images["fp32"] - images["int8"]).mean(axis=(1, 2, 3))
    assert 0 < error.max() < 255**2 / 10**3.6
    with pytest.raises(PassportError, match=f"was admitted for {engine}"):
        Listener.open(
            target,
            PORTRAIT,
            engines=EngineSettings(library="onnxruntime" if engine == "openvino" else "openvino", precision="int8"),
        )


def enter(bundle: Bundle, target: Path, found: Int8Result, **options: Any) -> None:
    add_variant(
        bundle,
        target,
        found.report.precision,
        {graph: model.SerializeToString() for graph, model in found.graphs.items()},
        admission=found.admission,
        fp32_nodes=found.left_out,
        report=found.report,
        **options,
    )


@needs_rtx
def test_the_variant_for_tensorrt_builds_on_tensorrt_for_rtx(bundle: Bundle, found: Int8Result, tmp_path: Path) -> None:
    target = tmp_path / "new.pflx"
    enter(bundle, target, found)
    passports = build_bundle_engines(target, "tensorrt-rtx", "int8-trt", compute_capabilities=["sm_89"])
    assert {passport.precision for passport in passports} == {"int8-trt"}
    assert Bundle.open(target).passport("pirender_frame", "tensorrt-rtx", "int8-trt") is not None
    enter(Bundle.open(target), target, found)  # the engines are of the variant that is replaced
    assert Bundle.open(target).manifest.engines == []


@needs_rtx
def test_the_renderer_in_int8_builds_on_tensorrt_for_rtx(exported: Path, tmp_path: Path) -> None:
    from pflx.engines.building.build import build_engine, default_ranges, profile_for

    bundle = Bundle.open(exported, verify=False)
    model = onnx.load(str(bundle.graph_path("pirender_frame", "fp32")))
    target = TARGETS["tensorrt"]
    layers = layers_of(model, target.renderer)
    ranges = {layer.activation: (-4.0, 4.0) for layer in layers}
    made = prune(quantised(model, layers, [layer.node for layer in layers], ranges, target.scheme))
    onnx.save_model(made, str(tmp_path / "pirender_frame.onnx"))
    passport = build_engine(
        tmp_path / "pirender_frame.onnx",
        tmp_path / "pirender_frame.plan",
        backend="tensorrt-rtx",
        profile=profile_for(bundle.manifest.graphs["pirender_frame"].inputs, default_ranges(bundle.manifest)),
        precision="int8-trt",
        compute_capabilities=["sm_89"],
    )
    assert passport.compute_capabilities == ["sm_89"]
    sizes = [
        path.stat().st_size for path in (tmp_path / "pirender_frame.plan", bundle.graph_path("pirender_frame", "fp32"))
    ]
    assert sizes[0] < 0.8 * sizes[1]


# In the bundle


@pytest.fixture
def own(tmp_path: Path) -> Bundle:
    return painting_bundle(tmp_path / "own.pflx")


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_variant_stands_beside_the_others(own: Bundle, found: Int8Result) -> None:
    before = contents(own.path)
    enter(own, own.path, found)
    opened = Bundle.open(own.path)
    assert opened.graph_path("pirender_frame", "int8-trt").name == "pirender_frame.int8-trt.onnx"
    assert opened.graph_path("posnet", "int8-trt") == opened.graph_path("posnet", "fp32")
    assert opened.manifest.admissions == {"int8-trt": found.admission}
    assert opened.manifest.graphs["pirender_frame"].fp32_nodes == {"int8-trt": [SENSITIVE]}
    report = json.loads((own.path / "report.json").read_text())
    assert msgspec.convert(report["calibrated"]["int8-trt"], Int8Report) == found.report
    after = contents(own.path)
    assert {name: after[name] for name in before if name not in (MANIFEST, "report.json")} == {
        name: content for name, content in before.items() if name not in (MANIFEST, "report.json")
    }


def test_another_bundle_gets_the_variant_and_the_first_stays_as_it_was(
    own: Bundle, found: Int8Result, tmp_path: Path
) -> None:
    before = contents(own.path)
    target = tmp_path / "new.pflx"
    enter(own, target, found)
    enter(Bundle.open(target), target, found)
    assert contents(own.path) == before
    assert "int8-trt" in Bundle.open(target).manifest.admissions
    with pytest.raises(OutputExistsError, match=r"new\.pflx exists"):
        enter(own, target, found)
    enter(own, target, found, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.pflx", "own.pflx"]


@pytest.mark.parametrize("stop", ["write_whole", "write_manifest"])
def test_stopped_at_any_point_the_bundle_is_as_it_was(
    own: Bundle, found: Int8Result, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = contents(own.path)
    monkeypatch.setattr(variants_module, stop, interrupt)
    with pytest.raises(KeyboardInterrupt):
        enter(own, own.path, found)
    assert contents(own.path) == before
    assert [path.name for path in own.path.parent.iterdir()] == ["own.pflx"]


def test_a_bundle_that_was_changed_meanwhile_is_not_overwritten(own: Bundle, found: Int8Result) -> None:
    enter(own, own.path, found)
    with pytest.raises(BundleError, match="was changed meanwhile"):
        enter(own, own.path, found)


def test_fp32_is_no_variant(own: Bundle, found: Int8Result) -> None:
    renamed = msgspec.structs.replace(found.report, precision="fp32")
    with pytest.raises(BundleError, match="'fp32' is what all others are made of"):
        add_variant(own, own.path, renamed.precision, {}, admission=found.admission, fp32_nodes={}, report=found.report)


def test_where_links_cannot_be_made_files_are_copied(
    own: Bundle, found: Int8Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    enter(own, own.path, found)
    assert "int8-trt" in Bundle.open(own.path).manifest.admissions


# The report and the command


def test_the_report_is_told_drawn_and_kept(found: Int8Result, tmp_path: Path) -> None:
    lines = list(report_lines(found.report))
    assert "3 layers in INT8" in "\n".join(lines)
    assert f"  left out of pirender_frame: {SENSITIVE}" in lines
    assert any("all, entropy" in line and "refused: a picture has" in line for line in lines)
    assert any("3 units" in line and line.endswith("within the bound") for line in lines)
    save_report(tmp_path / "int8.json", found.report)
    assert msgspec.json.decode((tmp_path / "int8.json").read_bytes(), type=Int8Report) == found.report
    plot_report(tmp_path / "int8.png", found.report)
    assert (tmp_path / "int8.png").read_bytes().startswith(b"\x89PNG")


def test_many_layers_are_counted_rather_than_named(found: Int8Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "NAMED", 0)
    assert "  left out of pirender_frame: 1 layer, named in the report" in list(report_lines(found.report))


@pytest.fixture
def commanded(own: Bundle, feeds: Feeds) -> list[Any]:
    return ["calibrate", "int8", own.path, "--feeds", feeds.folder, "--threads", 1]


@needs_openvino
def test_the_command_puts_int8_into_the_bundle_and_inspect_shows_it(
    own: Bundle, commanded: list[Any], tmp_path: Path
) -> None:
    outcome = pflx(*commanded, "--plot", tmp_path / "int8.png", "--json", tmp_path / "int8.json", "--psnr", 36)
    assert outcome.code == 0, outcome.err
    assert f"left out of pirender_frame: {SENSITIVE}" in outcome.out
    assert f"pflx run CLIP --bundle {own.path} --engine openvino --precision int8" in outcome.out
    assert (tmp_path / "int8.png").exists()
    shown = pflx("inspect", own.path).out
    assert "int8   " in shown
    assert "1 nodes kept in fp32" in shown
    assert "int8 for openvino" in shown


def test_the_command_refuses_what_it_cannot_do_before_any_work(
    own: Bundle, commanded: list[Any], tmp_path: Path
) -> None:
    taken = painting_bundle(tmp_path / "taken.pflx").path
    assert "taken.pflx exists" in refusal(*commanded, "-o", taken)
    assert "ends in .pflx" in refusal(*commanded, "-o", tmp_path / "me")
    assert "holds no recorded feeds" in refusal("calibrate", "int8", own.path, "--feeds", tmp_path)
    assert ".json" in refusal(*commanded, "--json", tmp_path / "x.txt")


def test_feeds_of_another_bundle_are_refused(tmp_path: Path, feeds: Feeds) -> None:
    other = tiny_bundle(tmp_path / "other.pflx")
    with pytest.raises(CalibrationError, match="pirender_frame differ"):
        calibrate_int8(other, feeds, "onnxruntime", bound=Bound())


def test_a_bundle_without_layers_is_refused(tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other.pflx")
    clip = open_speaker(MEDIA / "podium_speech_8s.mp4").limited(1.5)
    feeds = record(other, [clip], PORTRAIT, tmp_path / "feeds", options=RecordOptions(limit=2, threads=1))
    with pytest.raises(CalibrationError, match="has no layer that tensorrt computes in INT8"):
        calibrate_int8(other, feeds, "tensorrt", bound=Bound())
