"""FP16 graphs with FP32 islands, made from an FP32 graph and a policy."""

from __future__ import annotations

import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from support.exported import exported_recipes
from support.sample_bundle import ORIGIN
from support.tiny_graphs import GRAPHS, NEIGHBOURS, OVERFLOWING, parsed, save, tiny_graph

from pflx.engines import BackendMissingError, Bundle, OrtEngine
from pflx.engines.building.build import build_engine, default_ranges, profile_for
from pflx.engines.bundle.policy import GraphPolicy, Policy, PolicyError, policy_sha256
from pflx.export.graphs import POLICY, GraphFolder
from pflx.export.mixed import Choices, Typed, check_policy, convert, skeleton
from pflx.export.models import PosNet, PosNetSmoother, load_model, untrained
from pflx.export.operators import check_operators
from pflx.export.recipes import posnet_recipe

HOP = 8


def types_of(model: onnx.ModelProto) -> dict[str, set[int]]:
    """Node → float types of its outputs."""
    typed = Typed(model)
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16}
    return {node.name: {typed.types[name] for name in node.output} & floats for node in model.graph.node}


def in_fp32(model: onnx.ModelProto) -> set[str]:
    return {name for name, types in types_of(model).items() if types == {TensorProto.FLOAT}}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("every", [1, 3, 1000])
def test_just_the_nodes_asked_for_stay_in_fp32(name: str, every: int, tmp_path: Path) -> None:
    original = tiny_graph(name)
    nodes = [node.name for node in Typed(original).convertible]
    kept = nodes[::every] if every < 1000 else []
    made = convert(save(original, tmp_path), kept, tmp_path / "made.onnx")
    onnx.checker.check_model(made, full_check=True)
    check_operators(made)
    assert in_fp32(made) & set(nodes) == set(kept)
    for before, after in zip(original.graph.input, made.graph.input, strict=True):
        assert before.type == after.type
    for before, after in zip(original.graph.output, made.graph.output, strict=True):
        assert before.type == after.type
    with closing(OrtEngine(tmp_path / "made.onnx", threads=1)) as engine:
        assert set(engine.outputs) == {value.name for value in original.graph.output}


def test_what_lies_between_two_kept_nodes_is_never_fp16(tmp_path: Path) -> None:
    original = parsed("neighbours", NEIGHBOURS)
    kept = ["node_large", "node_larger", "node_flat", "node_small", "node_both"]
    made = convert(save(original, tmp_path), kept, tmp_path / "made.onnx")
    nodes = {node.name: node for node in made.graph.node}
    assert nodes["node_larger"].input[0] == nodes["node_large"].output[0]
    assert nodes["node_small"].input == [nodes["node_larger"].output[0], nodes["node_flat"].output[0]]
    with closing(OrtEngine(tmp_path / "made.onnx", threads=1)) as engine:
        x = np.arange(1, 5, dtype=np.float32)[None]
        made_of = engine.run({"x": x, "y": np.zeros_like(x)})
    np.testing.assert_allclose(made_of["sum"], x / x.mean(), rtol=1e-3)
    np.testing.assert_array_equal(made_of["both"][:, 4:], 1e6 * x)


def test_weights_beyond_the_range_become_the_largest_number_and_tiny_ones_keep_their_sign(tmp_path: Path) -> None:
    text = """(float[n,5] x) => (float[n,5] y)
    <float[5] weight = {1000000, -1000000, -0.00000004, 0.00000004, -0.00000001}> { y = Mul (x, weight) }"""
    made = convert(save(parsed("heavy", text), tmp_path), [], tmp_path / "made.onnx")
    (weight,) = made.graph.initializer
    smallest = 2.0**-24
    expected = np.array([65504, -65504, -smallest, smallest, 0], np.float16)
    np.testing.assert_array_equal(numpy_helper.to_array(weight), expected)


def test_weights_that_fp32_nodes_read_as_well_stay_as_they_are_for_those(tmp_path: Path) -> None:
    text = "(float[n] x) => (float[n] y, float[n] z) <float a = {0.1}> { y = Mul (x, a) z = Add (x, a) }"
    convert(save(parsed("shared", text), tmp_path), ["node_z"], tmp_path / "made.onnx")
    with closing(OrtEngine(tmp_path / "made.onnx", threads=1)) as engine:
        made = engine.run({"x": np.zeros(1, np.float32)})
    assert made["z"] == np.float32(0.1)


def test_a_node_that_moves_values_goes_with_the_one_that_made_them() -> None:
    typed = Typed(parsed("neighbours", NEIGHBOURS))
    choices = Choices(typed)
    assert choices.names == ["node_large", "node_larger", "node_flat", "node_small", "node_product", "node_sum"]
    assert choices.with_movers(["node_larger"]) == ["node_larger", "node_both"]
    assert choices.with_movers([]) == []


def test_a_mover_of_an_input_is_chosen_by_itself() -> None:
    assert "node_face" in Choices(Typed(tiny_graph("posnet"))).names  # slices the segment
    assert "node_turned" not in Choices(Typed(tiny_graph("pirender_frame"))).names


def test_the_skeleton_knows_a_graph_by_its_nodes_and_not_by_its_weights() -> None:
    graph = tiny_graph("pirender_frame")
    assert skeleton(tiny_graph("pirender_frame", scale=3)) == skeleton(graph)
    other = tiny_graph("pirender_frame")
    other.graph.node[0].attribute[0].i = 0
    renamed = tiny_graph("pirender_frame")
    renamed.graph.node[0].name = "node_other"
    assert len({skeleton(graph), skeleton(other), skeleton(renamed)}) == 3


def test_a_policy_of_a_changed_graph_is_refused() -> None:
    graph = tiny_graph("pirender_frame")
    policy = GraphPolicy(skeleton=skeleton(graph), fp32_nodes=OVERFLOWING)
    check_policy(tiny_graph("pirender_frame", scale=2), policy, "pirender_frame")
    graph.graph.node[-1].name = "node_last"
    with pytest.raises(PolicyError, match=r"its nodes are others\. Calibrate again: pflx calibrate fp16"):
        check_policy(graph, policy, "pirender_frame")


def test_a_policy_that_keeps_what_cannot_be_fp16_is_refused() -> None:
    graph = tiny_graph("pirender_frame")
    policy = GraphPolicy(skeleton=skeleton(graph), fp32_nodes=["node_image"])
    with pytest.raises(PolicyError, match="keeps node_image, which is no node that could become FP16"):
        check_policy(graph, policy, "pirender_frame")


# In an export


def smoother(seed: int = 0) -> PosNetSmoother:
    posnet = load_model("posnet", untrained("posnet", seed, slide=HOP))
    assert isinstance(posnet, PosNet)
    return PosNetSmoother(posnet)


def policy_of(**graphs: GraphPolicy) -> Policy:
    return Policy(created="2026-01-02T03:04:05+00:00", pflx="0.1.0", graphs=graphs, origin=ORIGIN)


def exported_posnet(folder: Path, policy: Policy | None, seed: int = 0) -> GraphFolder:
    folder.mkdir()
    graphs = GraphFolder(folder, ("fp32", "fp16"), lambda _: None, policy)
    graphs.add(posnet_recipe(HOP), smoother(seed))
    return graphs


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> GraphFolder:
    return exported_posnet(tmp_path_factory.mktemp("exported") / "plain", None)


def test_an_export_makes_fp16_graphs_as_the_policy_says(tmp_path: Path, plain: GraphFolder) -> None:
    assert plain.infos["posnet"].policies == {}
    graph = onnx.load(str(plain.path("posnet", "fp32")))
    kept = [node.name for node in graph.graph.node if node.op_type == "Gemm"]
    policy = policy_of(posnet=GraphPolicy(skeleton=skeleton(graph), fp32_nodes=kept))
    made = exported_posnet(tmp_path / "made", policy)
    info = made.infos["posnet"]
    assert info.policies == {"fp16": policy_sha256(policy)}
    assert info.fp32_nodes == {"fp16": kept}
    assert in_fp32(onnx.load(str(made.path("posnet", "fp16")))) >= set(kept)
    assert made.errors["posnet"]["fp16"]["max_abs_error"]["smoothed"] < 2e-3
    assert (tmp_path / "made" / POLICY).is_file()
    made.require_all_named()


def test_a_policy_fits_other_weights_of_the_same_network(tmp_path: Path, plain: GraphFolder) -> None:
    policy = policy_of(
        posnet=GraphPolicy(skeleton=skeleton(onnx.load(str(plain.path("posnet", "fp32")))), fp32_nodes=[])
    )
    assert exported_posnet(tmp_path / "other", policy, seed=5).infos["posnet"].policies


def test_a_policy_for_a_graph_that_is_not_there_is_refused(tmp_path: Path) -> None:
    policy = policy_of(other=GraphPolicy(skeleton="0", fp32_nodes=[]))
    graphs = GraphFolder(tmp_path, ("fp32", "fp16"), lambda _: None, policy)
    with pytest.raises(PolicyError, match="also for other, which this bundle does not have"):
        graphs.require_all_named()


def test_a_converter_that_is_not_installed_is_missed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt.onnx.autocast", None)
    with pytest.raises(BackendMissingError, match=r"pip install 'pflx\[cpu,calibrate\]'"):
        GraphFolder(tmp_path, ("fp32", "fp16"), lambda _: None, policy_of())


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_the_renderer_with_islands_builds_strongly_typed(exported: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(exported, verify=False)
    source = bundle.graph_path("pirender_frame", "fp32")
    kept = Choices(Typed(onnx.load(str(source)))).names[::5]
    made = convert(source, kept, tmp_path / "pirender_frame.onnx")
    assert in_fp32(made) >= set(kept)
    recipe = exported_recipes()["pirender_frame"]
    passport = build_engine(
        tmp_path / "pirender_frame.onnx",
        tmp_path / "pirender_frame.plan",
        backend="tensorrt-rtx",
        profile=profile_for(recipe.inputs, default_ranges(bundle.manifest)),
        precision="fp16",
        compute_capabilities=["sm_89"],
    )
    assert passport.policy_sha256 is None
    size = (tmp_path / "pirender_frame.plan").stat().st_size
    assert 0.9 * source.stat().st_size / 2 < size < 1.5 * source.stat().st_size
