"""FP16 graphs are judged as FP16 computes them: what does not fit fails the export, with the node and what to do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from support.commands import pflx, refusal
from support.tiny_graphs import parsed, save
from torch import Tensor

from pflx.engines import Bundle, OrtEngine, PflxError
from pflx.export import RangeError, load_model, untrained
from pflx.export.components import default_posnet
from pflx.export.graphs import GraphFolder
from pflx.export.models import PosNet, PosNetSmoother
from pflx.export.precision.emulation import emulate_typed, opened
from pflx.export.precision.watch import ALLOWED, LARGEST, Watch, WatchedEngine
from pflx.export.recipes import posnet_recipe

CHAIN = """(float[n] x) => (float[n] y)
<float16 factor = {0}>
{
  small = Cast <to = 10> (x)
  large = Mul (small, factor)
  doubled = Add (large, large)
  y = Cast <to = 1> (doubled)
}"""


def chain(folder: Path, factor: float) -> Path:
    """A graph that doubles a multiple of what it is given, in FP16."""
    model = parsed("chain", CHAIN)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(factor, np.float16), "factor"))
    return save(model, folder)


def watched(path: Path, *feeds: Sequence[float]) -> Watch:
    watch = Watch()
    with closing(WatchedEngine(path, watch, threads=1)) as engine:
        for x in feeds:
            engine.run({"x": np.asarray(x, np.float32)})
    return watch


def test_what_it_gives_is_what_fp16_gives_and_onnx_runtime_does_not(tmp_path: Path) -> None:
    path, x = chain(tmp_path, 256), np.array([1, 3.0003, 200], np.float32)
    with closing(WatchedEngine(path, Watch(), threads=1)) as engine:
        made = engine.run({"x": x})["y"]
        assert engine.outputs.keys() == {"y"}
    half = x.astype(np.float16)
    with np.errstate(over="ignore"):
        expected = (half * np.float16(256) + half * np.float16(256)).astype(np.float32)
    np.testing.assert_array_equal(made, expected)
    assert np.isinf(made[2])
    with opened(emulate_typed(onnx.load(str(path))), 1) as engine_without:
        np.testing.assert_array_equal(engine_without.run({"x": x})["y"], expected)


def test_the_largest_number_of_every_node_is_kept_over_all_calls(tmp_path: Path) -> None:
    watch = watched(chain(tmp_path, 2), [1, -5], [3, 4], [0, 0])
    assert watch.calls == 3
    assert [(reach.node, reach.operator, reach.largest) for reach in watch.reaches] == [
        ("node_small", "Cast", 5),
        ("node_large", "Mul", 10),
        ("node_doubled", "Add", 20),
    ]
    assert watch.weights == ("node_large", "Mul", 2)
    assert watch.first_misfit is None
    assert watch.report()["widest"] == [
        {"node": "node_doubled", "operator": "Add", "largest": 20.0},
        {"node": "node_large", "operator": "Mul", "largest": 10.0},
        {"node": "node_small", "operator": "Cast", "largest": 5.0},
    ]


@pytest.mark.parametrize(
    ("x", "node"),
    [
        (ALLOWED / 2 - 16, None),
        (ALLOWED / 2 + 16, "node_doubled"),
        (-ALLOWED / 2 - 16, "node_doubled"),
        (LARGEST / 2 + 32, "node_small"),
        (1e30, "node_small"),
        (np.inf, "node_small"),
        (np.nan, "node_small"),
    ],
)
def test_the_first_node_beyond_half_of_the_range_is_found(tmp_path: Path, x: float, node: str | None) -> None:
    found = watched(chain(tmp_path, 1), [1.0, x]).first_misfit
    assert (found and found.node) == node


def test_numbers_that_are_none_are_seen_though_nothing_is_large(tmp_path: Path) -> None:
    text = """(float[n] x) => (float[n] y)
    { small = Cast <to = 10> (x) ratio = Div (small, small) y = Cast <to = 1> (ratio) }"""
    found = watched(save(parsed("ratio", text), tmp_path), [1, 0, 2]).first_misfit
    assert found is not None
    assert (found.node, found.is_finite) == ("node_ratio", False)


def test_an_output_that_is_not_finite_is_seen_though_every_stored_number_is(tmp_path: Path) -> None:
    text = """(float[n] x) => (float[n] y)
    { small = Cast <to = 10> (x) back = Cast <to = 1> (small) y = Reciprocal (back) }"""
    watch = watched(save(parsed("flushed", text), tmp_path), [1, 1e-9])
    assert watch.first_misfit is None
    assert watch.broken == {"y"}


def test_a_graph_without_fp16_runs_as_it_is(tmp_path: Path) -> None:
    watch = watched(save(parsed("plain", "(float[n] x) => (float[n] y) { y = Mul (x, x) }"), tmp_path), [1e30])
    assert (watch.calls, watch.reaches, watch.weights.largest) == (1, [], 0.0)
    assert watch.broken == {"y"}


# In an export


def scaled(weights: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The same function in FP32: what lies between two layers is larger."""
    made = dict(weights)
    for leaf in ("weight", "bias"):
        made[f"fc1.{leaf}"] = made[f"fc1.{leaf}"] * factor
    made["fc2.weight"] = made["fc2.weight"] / factor
    return made


def exported(folder: Path, weights: dict[str, Tensor]) -> GraphFolder:
    folder.mkdir()
    posnet = load_model("posnet", weights)
    assert isinstance(posnet, PosNet)
    graphs = GraphFolder(folder, ("fp32", "fp16"), lambda _: None)
    graphs.add(posnet_recipe(posnet.slide), PosNetSmoother(posnet))
    graphs.watch_rest()
    return graphs


def test_a_smoother_that_overflows_in_fp16_fails_where_onnx_runtime_sees_nothing(tmp_path: Path) -> None:
    weights = untrained("posnet", 0, slide=8)
    exported(tmp_path / "plain", weights).require_range()
    graphs = exported(tmp_path / "scaled", scaled(weights, 2e5))
    feeds = posnet_recipe(8).example(1, {"samples": 1})
    with closing(OrtEngine(graphs.path("posnet", "fp16"), threads=1)) as engine:
        assert np.isfinite(engine.run(feeds)["pose"]).all()
    with closing(WatchedEngine(graphs.path("posnet", "fp16"), Watch(), threads=1)) as emulated:
        assert not np.isfinite(emulated.run(feeds)["pose"]).any()
    with pytest.raises(RangeError) as caught:
        graphs.require_range()
    text = str(caught.value)
    assert isinstance(caught.value, PflxError)
    assert "\n" not in text
    assert text.startswith("posnet: node 'node_")
    assert "(Gemm) makes numbers up to " in text
    assert "FP16 ends at 65504" in text
    assert "pflx calibrate fp16 BUNDLE --feeds FEEDS -o POLICY.json" in text


def test_a_weight_that_fp16_cannot_hold_fails(tmp_path: Path) -> None:
    weights = untrained("posnet", 0, slide=8)
    weights["fc1.weight"][0, 0] = 7e4
    weights["fc1.bias"][0] = -1e9  # so that it is never seen
    with pytest.raises(RangeError, match=r"posnet: node 'node_linear\w*' \(Gemm\) has a weight that FP16, which ends"):
        exported(tmp_path / "heavy", weights).require_range()


def test_numbers_within_a_factor_of_two_of_the_end_fail(tmp_path: Path) -> None:
    weights = untrained("posnet", 0, slide=8)
    found = exported(tmp_path / "plain", weights)
    found.require_range()
    widest = {node["node"]: node["largest"] for node in found.errors["posnet"]["fp16"]["range"]["widest"]}
    factor = 41_000 / widest["node_linear"]
    with pytest.raises(RangeError, match=r"makes numbers up to 4\d{4}, too near to FP16's end at 65504\. Export with"):
        exported(tmp_path / "near", scaled(weights, factor)).require_range()
    exported(tmp_path / "below", scaled(weights, factor / 2)).require_range()


@pytest.mark.slow
def test_the_command_refuses_it_and_writes_nothing(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path, target = tmp_path / "posnet.pth", tmp_path / "me.pflx"
    torch.save({"model": scaled(load_file(default_posnet(8)), 2e5)}, path)
    options: list[str | Path | int] = ["--posnet", path, "--size", 224, "-o", target]
    line = refusal("export", *options, "--precision", "fp16")
    assert "posnet: node 'node_" in line
    assert "pflx calibrate fp16" in line
    assert [entry.name for entry in tmp_path.iterdir()] == ["posnet.pth"]
    outcome = pflx("export", *options)
    assert outcome.code == 0, outcome.err
    assert "posnet, posnet.pth: model" in outcome.out
    bundle = Bundle.open(target)
    report = json.loads((bundle.path / "report.json").read_text())
    assert {"slot": "posnet", "source": "posnet.pth", "note": "model"} in report["weights"]
    assert report["end_to_end"].keys() == {"fp32"}
