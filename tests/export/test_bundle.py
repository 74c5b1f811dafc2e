"""What `pflx export` wrote: the manifest, the report and the graphs themselves."""

from __future__ import annotations

import getpass
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.exported import exported_recipes

import pflx
from pflx.engines import Array, Bundle, OrtEngine, TensorSpec
from pflx.export.recipes import OPSET

WEIGHTED = ("reactface_speaker", "reactface_listener", "posnet", "pirender_portrait", "pirender_frame")
GRAPHS = (*WEIGHTED, "warp_portrait", "warp_field", "warp_frame")
PRECISIONS = ("fp32", "fp16")
VARIANTS = [(graph, precision) for graph in GRAPHS for precision in PRECISIONS]


@dataclass(frozen=True)
class Skeleton:
    """An ONNX file without its weights, and how many bytes of each type they had."""

    model: onnx.ModelProto
    weights: dict[int, int]


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return Bundle.open(exported)


@pytest.fixture(scope="module")
def skeletons(bundle: Bundle) -> dict[tuple[str, str], Skeleton]:
    return {key: _skeleton(bundle.graph_path(*key)) for key in VARIANTS}


def _skeleton(path: Path) -> Skeleton:
    model, weights = onnx.load(str(path)), dict[int, int]()
    for tensor in model.graph.initializer:
        weights[tensor.data_type] = weights.get(tensor.data_type, 0) + len(tensor.raw_data)
        tensor.ClearField("raw_data")
    return Skeleton(model, weights)


def test_the_manifest_says_what_is_inside(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.untrained == 0
    assert manifest.precision == "fp16"
    assert (manifest.fps, manifest.sample_rate_hz) == (25, 16_000)
    assert manifest.pflx == pflx.__version__
    assert (manifest.generator.name, manifest.generator.window, manifest.generator.hop) == ("reactface", 8, 8)
    assert manifest.generator.needs == ["video", "audio"]
    assert (manifest.smoother.slide, manifest.renderer.size) == (8, 256)
    assert manifest.preview is not None
    assert (manifest.renderer.name, manifest.preview.name, manifest.preview.size) == ("pirender", "warp", 256)
    assert (manifest.pfl.mode, manifest.pfl.window, manifest.pfl.padding) == ("release", 256, 20)
    assert (manifest.mean_face.source, set(manifest.mean_face.values)) == ("zero", {0.0})
    assert tuple(manifest.graphs) == GRAPHS
    assert [(entry.slot, entry.source, entry.note) for entry in manifest.provenance] == [
        (slot, "untrained", "seed 0") for slot in ("generator", "posnet", "renderer")
    ]
    assert {"python", "torch", "onnx", "onnxruntime"} <= manifest.versions.keys()
    assert not manifest.engines


def test_the_manifest_lists_every_file(bundle: Bundle) -> None:
    graphs = {f"graphs/{graph}.{precision}.onnx" for graph, precision in VARIANTS}
    assert bundle.manifest.files.keys() == graphs | {"report.json"}


def test_the_report_holds_the_error_of_every_graph_and_of_the_chain(bundle: Bundle) -> None:
    report = json.loads((bundle.path / "report.json").read_text())
    assert tuple(report["graphs"]) == GRAPHS
    for entry in report["graphs"].values():
        errors = entry["fp32"]["max_abs_error"]
        assert errors.keys() == entry["tolerance_fp32"].keys() == entry["fp16"]["max_abs_error"].keys()
        assert all(error <= entry["tolerance_fp32"][output] for output, error in errors.items())
    assert report["end_to_end"]["fp32"]["max_levels"] <= 1
    assert report["end_to_end"]["fp32"]["coefficients_max_abs_error"] <= 2e-4
    assert report["end_to_end"]["fp32"]["equal_share"] >= 0.999
    assert report["end_to_end"]["fp16"]["psnr_db"] >= 45


def test_the_report_says_how_far_the_numbers_of_fp16_graphs_go(bundle: Bundle) -> None:
    graphs = json.loads((bundle.path / "report.json").read_text())["graphs"]
    for graph in GRAPHS:
        found = graphs[graph]["fp16"]["range"]
        assert found["calls"] > 0
        assert (found["nodes"] > 0) == (graph in WEIGHTED)
        largest = [node["largest"] for node in found["widest"]]
        assert largest == sorted(largest, reverse=True)
        assert all(0 < number < 1000 for number in largest)
        nodes = {node.name: node.op_type for node in onnx.load(bundle.graph_path(graph, "fp16")).graph.node}
        assert all(nodes[node["node"]] == node["operator"] for node in found["widest"])


@pytest.mark.parametrize(("graph", "precision"), VARIANTS)
def test_a_graph_takes_and_gives_what_the_manifest_and_the_recipe_say(
    bundle: Bundle, skeletons: dict[tuple[str, str], Skeleton], graph: str, precision: str
) -> None:
    info, recipe = bundle.manifest.graphs[graph], exported_recipes()[graph]
    proto = skeletons[graph, precision].model.graph
    for values, said, wanted in (
        (proto.input, info.inputs, recipe.inputs),
        (proto.output, info.outputs, recipe.outputs),
    ):
        assert dict(map(_spec, values)) == said == dict(wanted)


def _spec(value: onnx.ValueInfoProto) -> tuple[str, TensorSpec]:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return value.name, TensorSpec(shape, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))


@pytest.mark.parametrize(("graph", "precision"), VARIANTS)
def test_a_graph_is_of_one_opset_and_holds_facts_about_itself(
    skeletons: dict[tuple[str, str], Skeleton], graph: str, precision: str
) -> None:
    model = skeletons[graph, precision].model
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts.keys() >= {"pflx", "graph", "precision", "source"}
    assert (facts["graph"], facts["precision"]) == (graph, precision)


@pytest.mark.parametrize(("graph", "precision"), VARIANTS)
def test_a_graph_tells_nothing_of_the_machine_it_was_made_on(
    skeletons: dict[tuple[str, str], Skeleton], graph: str, precision: str
) -> None:
    text = skeletons[graph, precision].model.SerializeToString()
    user = getpass.getuser()
    traces = [str(Path.home()), str(Path.cwd()), "/home/", "/tmp", "site-packages", ".py", f"/{user}", f"{user}@"]
    assert [trace for trace in traces if trace.encode() in text] == []


@pytest.mark.parametrize("graph", WEIGHTED)
def test_half_precision_is_in_the_graph_and_what_stays_single_is_named(
    bundle: Bundle, skeletons: dict[tuple[str, str], Skeleton], graph: str
) -> None:
    half, single = skeletons[graph, "fp16"], skeletons[graph, "fp32"]
    assert half.weights[onnx.TensorProto.FLOAT16] > 0.8 * sum(half.weights.values())
    assert onnx.TensorProto.FLOAT16 not in single.weights
    assert sum(half.weights.values()) < 0.6 * sum(single.weights.values())
    info = bundle.manifest.graphs[graph]
    nodes = {node.name for node in half.model.graph.node}
    assert info.fp32_nodes.keys() == {"fp16"}
    assert set(info.fp32_nodes["fp16"]) < nodes


def test_costs_are_counted(bundle: Bundle) -> None:
    graphs = bundle.manifest.graphs
    assert graphs["reactface_speaker"].parameters > 90e6
    assert 15e6 < graphs["pirender_frame"].parameters < 25e6
    assert all(graphs[graph].flops for graph in WEIGHTED)
    assert graphs["warp_frame"].parameters < 5000, "what it holds are tables"


@pytest.mark.parametrize(
    ("graph", "sizes"),
    [
        ("posnet", {"samples": 5}),
        ("reactface_listener", {"samples": 4}),
        ("pirender_portrait", {"portraits": 3}),
    ],
)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_batch_is_its_rows(bundle: Bundle, graph: str, sizes: dict[str, int], precision: str) -> None:
    recipe = exported_recipes()[graph]
    feeds = recipe.example(3, sizes)
    engine = OrtEngine(bundle.graph_path(graph, precision))
    together = engine.run(feeds)
    (batch, size), batched = next(iter(sizes.items())), {name for name, s in recipe.inputs.items() if s.shape[0] != 1}
    for row in range(size):
        alone = engine.run({n: v[row : row + 1] if n in batched else v for n, v in feeds.items()})
        for name, value in alone.items():
            assert recipe.outputs[name].shape[0] == batch
            np.testing.assert_allclose(together[name][row], value[0], atol=1e-4 if precision == "fp32" else 0.02)


def test_a_frame_depends_on_its_window_alone_and_the_edges_repeat(bundle: Bundle) -> None:
    """Frame 20 of 47, the middle of its own 27, and of those 27 with the edges written out."""
    recipe = exported_recipes()["pirender_frame"]
    feeds = recipe.example(3, {"portraits": 1, "frames": 1, "track": 47})
    engine = OrtEngine(bundle.graph_path("pirender_frame", "fp32"))

    def image(track: Array, *frames: int) -> Any:
        given = feeds | {"coefficients": np.ascontiguousarray(track[None]), "frames": np.array(frames)}
        return engine.run(given)["image"][0].astype(int)

    track = feeds["coefficients"][0]
    inner, edge = image(track, 20, 0)
    assert np.abs(inner - image(track[7:34], 13)[0]).max() <= 1
    rows = np.clip(np.arange(-13, 14), 0, 46)
    assert np.abs(edge - image(track[rows], 13)[0]).max() <= 1
    assert np.abs(inner - edge).max() > 1
