"""FP16 emulated, ranges measured, and the policy that the pictures need."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper
from support.commands import pflx, refusal
from support.exported import exported_recipes
from support.gpu.fake_cuda import FakeCuda
from support.gpu.fake_ort import FakeOrt, Graph
from support.places import MEDIA
from support.tiny_graphs import GRAPHS, NEIGHBOURS, OVERFLOWING, parsed, save, tiny_bundle, tiny_graph

from pflx.calibration.errors import CalibrationError
from pflx.calibration.feeds.feeds import Feeds
from pflx.calibration.feeds.record import RecordOptions, record
from pflx.calibration.feeds.replay import play
from pflx.calibration.precision.fp16 import Fp16Options, _Remembering, calibrate_fp16, smallest
from pflx.calibration.precision.fp16_report import Fp16Report, plot_report, report_lines, require_held
from pflx.calibration.precision.ranges import by_risk, measure_ranges
from pflx.calibration.precision.timing import CALLS, WARM_UP, call_ms
from pflx.engines import Array, Bundle, Engine, FakeEngine, GraphInfo, OrtEngine, TensorSpec, check_feeds
from pflx.engines.bundle.policy import Policy, read_policy
from pflx.engines.gpu.device import Device
from pflx.export.mixed import Choices, Typed, check_policy, convert
from pflx.export.precision.emulation import emulate, emulate_typed, opened
from pflx.runtime import open_speaker

F32 = np.dtype(np.float32)
CHAIN = """(float[n] x) => (float[n] y, float[n] z)
<float thousand = {1000}, float tiny = {0.0001}, float third = {0.333333343}>
{
  large = Mul (x, thousand)
  larger = Mul (large, thousand)
  y = Mul (larger, third)
  small = Mul (x, tiny)
  z = Mul (small, tiny)
}"""
CHAIN_NODES = ["node_large", "node_larger", "node_y", "node_small", "node_z"]


def run(model: onnx.ModelProto, **feeds: Array) -> dict[str, Array]:
    with opened(model, 1) as engine:
        return engine.run(feeds)


def half(values: npt.ArrayLike) -> Array:
    return np.asarray(values, np.float32).astype(np.float16).astype(np.float32)


# Emulation


def test_emulated_fp16_overflows_flushes_and_loses_digits() -> None:
    x = np.array([1, 0.1, 1.0009765625, 1e-3], np.float32)
    made = run(emulate(parsed("chain", CHAIN), []), x=x)
    assert np.isinf(made["y"][0])  # 1000 · 1000
    np.testing.assert_array_equal(made["y"][3], half(half(half(x[3]) * 1000) * 1000 * half(1 / 3)))
    assert made["z"][3] == 0  # 1e-3 · 1e-4 · 1e-4
    np.testing.assert_array_equal(made["z"], half(half(half(x) * half(1e-4)) * half(1e-4)))


def test_nodes_kept_in_fp32_neither_round_what_they_take_nor_what_they_give() -> None:
    x = np.array([1.0001, 2], np.float32)
    exact = run(parsed("chain", CHAIN), x=x)
    made = run(emulate(parsed("chain", CHAIN), CHAIN_NODES[:3]), x=x)
    np.testing.assert_array_equal(made["y"], exact["y"])
    np.testing.assert_array_equal(made["z"], half(half(half(x) * half(1e-4)) * half(1e-4)))
    np.testing.assert_array_equal(run(emulate(parsed("chain", CHAIN), CHAIN_NODES), x=x)["z"], exact["z"])


def test_an_fp16_node_rounds_what_an_fp32_node_gives_it() -> None:
    made = run(emulate(parsed("chain", CHAIN), ["node_large", "node_larger"]), x=np.array([0.5, 0.01], np.float32))
    assert np.isinf(made["y"][0])  # 500 000, a third of which would be infinite too: it is what comes in
    np.testing.assert_array_equal(made["y"][1], half(half(np.float32(0.01) * 1000 * 1000) * half(1 / 3)))


def test_the_graph_that_is_emulated_is_left_as_it_is() -> None:
    model = parsed("chain", CHAIN)
    before = model.SerializeToString(deterministic=True)
    emulate(model, [])
    measure_ranges(model, [{"x": np.ones(2, np.float32)}], 1)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("every", [1000, 3, 1])
@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_judged_is_what_is_exported(name: str, every: int, tmp_path: Path) -> None:
    """The emulated FP32 graph gives the bits of the converted graph, emulated."""
    model = tiny_graph(name)
    choices = Choices(Typed(model))
    kept = choices.with_movers(choices.names[::every] if every < 1000 else [])
    converted = convert(save(model, tmp_path), kept, tmp_path / "made.onnx")
    feeds = tiny_feeds(model)
    expected, made = run(emulate(model, kept), **feeds), run(emulate_typed(converted), **feeds)
    for output, values in expected.items():
        np.testing.assert_array_equal(made[output], values)


def test_emulation_knows_the_graphs_of_half_precision_modules(exported: Path) -> None:
    bundle = Bundle.open(exported, verify=False)
    feeds = exported_recipes()["posnet"].example(1, {"samples": 1})
    exact = run(onnx.load(str(bundle.graph_path("posnet", "fp32"))), **feeds)["pose"]
    made = run(emulate_typed(onnx.load(str(bundle.graph_path("posnet", "fp16")))), **feeds)["pose"]
    assert made.dtype == np.float32
    assert 0 < np.abs(made - exact).max() < 2e-3


def tiny_feeds(model: onnx.ModelProto) -> dict[str, Array]:
    """Seeded inputs; every dynamic dimension is 1, but for the coefficient track."""
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        shape = [dim.dim_value or {"track": 30, "frames": 2}.get(dim.dim_param, 1) for dim in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        top = {"frames": 30}.get(value.name, 2 if tensor.elem_type == TensorProto.BOOL else 256)
        is_float = tensor.elem_type == TensorProto.FLOAT
        feeds[value.name] = (rng.standard_normal(shape) if is_float else rng.integers(0, top, shape)).astype(dtype)
    return feeds


# Ranges


def test_ranges_say_what_fp16_makes_of_every_node() -> None:
    feeds = [{"x": np.array([1, -2, 0, 1e-4], np.float32)}, {"x": np.array([0, 0, 100, 0], np.float32)}]
    found = {each.node: each for each in measure_ranges(parsed("chain", CHAIN), feeds, 1)}
    assert list(found) == CHAIN_NODES
    larger = found["node_larger"]
    assert (larger.operator, larger.values, larger.largest) == ("Mul", 4, 1e8)
    assert larger.smallest == pytest.approx(100, rel=1e-6)
    assert larger.overflow_share == (2 / 4 + 1 / 4) / 2
    assert larger.error is None
    assert larger.weight_largest == 1000
    z = found["node_z"]
    assert z.flushed_share == (3 / 4 + 0) / 2  # 1e-8, −2e-8 and 1e-12: less than half the smallest number
    assert z.subnormal_share == (3 / 4 + 1 / 4) / 2
    assert z.error is not None
    assert 0.01 < z.error < 1
    small = found["node_small"]
    assert small.error is not None
    assert small.error < 1e-3
    assert small.overflow_share == 0


def test_values_beyond_the_range_count_where_they_come_in_as_well() -> None:
    found = {each.node: each for each in measure_ranges(parsed("neighbours", NEIGHBOURS), [neighbour_feeds()], 1)}
    assert found["node_small"].overflow_share == 0
    assert found["node_small"].error is None  # a ratio of two numbers that are too large
    product = found["node_product"].error
    assert product is not None
    assert product < 1e-3
    order = [each.node for each in by_risk(found.values())]
    assert order[:3] == ["node_larger", "node_flat", "node_small"]


def neighbour_feeds() -> dict[str, Array]:
    return {"x": np.arange(1, 5, dtype=np.float32)[None], "y": np.zeros((1, 4), np.float32)}


def test_the_error_is_that_of_the_node_with_rounded_inputs() -> None:
    text = "(float[n] x, float[n] y) => (float[n] z) { z = Sub (x, y) }"
    x, y = np.array([1.0003, 3], np.float32), np.array([1, 2], np.float32)
    (found,) = measure_ranges(parsed("difference", text), [{"x": x, "y": y}], 1)
    expected = np.sqrt(np.mean(np.square(half(half(x) - half(y)) - (x - y))) / np.mean(np.square(x - y)))
    assert found.error == pytest.approx(expected, rel=1e-5)


def test_ranges_need_feeds() -> None:
    with pytest.raises(CalibrationError, match="There are no feeds of graph 'chain'"):
        measure_ranges(parsed("chain", CHAIN), [], 1)


# The search


NAMES = [f"n{index}" for index in range(40)]


class Counting:
    """Accepts what holds all that is needed."""

    def __init__(self, needed: Sequence[str]) -> None:
        self.needed, self.calls = set(needed), 0

    def __call__(self, chosen: Sequence[str]) -> bool:
        self.calls += 1
        assert list(chosen) == [name for name in NAMES if name in set(chosen)]
        return self.needed <= set(chosen)


@pytest.mark.parametrize("needed", [[], ["n0"], ["n1", "n2"], ["n7"], ["n0", "n5"], ["n39"], ["n3", "n4", "n21"]])
@pytest.mark.parametrize("begin", [0, 1, 3, 40, 100])
def test_the_search_finds_just_what_is_needed(needed: list[str], begin: int) -> None:
    accepts = Counting(needed)
    assert smallest(NAMES, accepts, begin=begin, trials=200) == needed


@pytest.mark.parametrize("trials", range(30))
def test_the_search_keeps_to_its_trials_and_what_it_returns_is_accepted(trials: int) -> None:
    accepts = Counting(["n3", "n4", "n21"])
    found = smallest(NAMES, accepts, trials=trials)
    assert accepts.calls <= trials
    assert accepts(found)


def test_the_search_of_nothing_finds_nothing() -> None:
    assert smallest([], lambda _: False) == []


def test_an_engine_that_remembers_runs_no_feeds_twice() -> None:
    ran: list[float] = []

    def double(feeds: object) -> dict[str, Array]:
        assert isinstance(feeds, dict)
        ran.append(float(feeds["x"][0]))
        return {"y": feeds["x"] * 2}

    spec = {"x": TensorSpec(("n",), F32)}, {"y": TensorSpec(("n",), F32)}
    engine = _Remembering(FakeEngine(double, *spec))
    for value in (1, 2, 1, 2, 3):
        assert engine.run({"x": np.array([value], np.float32)})["y"] == 2 * value
    assert ran == [1, 2, 3]


# A bundle whose renderer leaves the range of FP16


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("tiny") / "planted.pflx")


@pytest.fixture(scope="module")
def feeds(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Feeds:
    clips = [open_speaker(MEDIA / name).limited(2.0) for name in ("webcam_cap12_12s.mp4", "podium_speech_8s.mp4")]
    portrait = MEDIA / "portrait_astronaut_256.png"
    folder = tmp_path_factory.mktemp("recorded") / "feeds"
    return record(bundle, clips, portrait, folder, options=RecordOptions(limit=3, threads=1))


@pytest.fixture(scope="module")
def found(bundle: Bundle, feeds: Feeds) -> tuple[Policy, Fp16Report]:
    return calibrate_fp16(bundle, feeds, Fp16Options(threads=1))


def pictures(bundle: Bundle, feeds: Feeds, nodes: Sequence[str] | None) -> Array:
    """Of the first take, with the renderer in FP16 but for these nodes; None for all of it in FP32."""
    model = onnx.load(str(bundle.graph_path("pirender_frame", "fp32")))
    engines: dict[str, Engine] = {graph: OrtEngine(bundle.graph_path(graph), threads=1) for graph in GRAPHS}
    with opened(model if nodes is None else emulate(model, nodes), 1) as engine:
        return play(feeds.takes()[0], bundle.manifest, engines | {"pirender_frame": engine}).images


def test_without_a_policy_the_pictures_are_black(bundle: Bundle, feeds: Feeds) -> None:
    assert pictures(bundle, feeds, None).mean() > 50
    assert pictures(bundle, feeds, []).max() == 0


def test_with_the_policy_they_are_those_of_fp32(bundle: Bundle, feeds: Feeds, found: tuple[Policy, Fp16Report]) -> None:
    exact, made = (pictures(bundle, feeds, nodes) for nodes in (None, found[0].graphs["pirender_frame"].fp32_nodes))
    assert np.abs(exact.astype(int) - made).max() <= 1


def test_just_the_nodes_that_overflow_are_kept(found: tuple[Policy, Fp16Report]) -> None:
    policy, report = found
    kept = {graph: decided.fp32_nodes for graph, decided in policy.graphs.items()}
    assert kept == {graph: OVERFLOWING if graph == "pirender_frame" else [] for graph in GRAPHS}
    renderer = next(each for each in report.graphs if each.graph == "pirender_frame")
    assert renderer.overflowing == len(OVERFLOWING)
    assert {each.node for each in renderer.riskiest[:3]} == set(OVERFLOWING)


def test_the_report_holds_every_candidate_and_why_it_was_refused(found: tuple[Policy, Fp16Report]) -> None:
    policy, report = found
    renderer = next(each for each in report.graphs if each.graph == "pirender_frame")
    none = next(trial for trial in renderer.trials if trial.fp16_share == 1 and trial.fp32_nodes == 0)
    assert none.judgement.lowest_psnr_db < 15
    assert "dB, asked are 45" in none.faults[0]
    assert [trial for trial in renderer.trials if trial.fp32_nodes == 3 and not trial.faults]
    assert not report.together.faults
    assert report.together.judgement.lowest_psnr_db > 45
    assert report.exported is None
    assert all(trial.engine_ms is None for each in report.graphs for trial in each.trials)
    assert policy.origin.evaluations == 1 + sum(len(each.trials) for each in report.graphs)
    assert policy.origin.judged["lowest_psnr_db"] == report.together.judgement.lowest_psnr_db


def test_the_same_feeds_lead_to_the_same_policy(bundle: Bundle, feeds: Feeds, found: tuple[Policy, Fp16Report]) -> None:
    again, report = calibrate_fp16(bundle, feeds, Fp16Options(threads=1, curve=0))
    assert again.graphs == found[0].graphs
    tried = [[trial.judgement for trial in each.trials] for each in report.graphs]
    before = [[trial.judgement for trial in each.trials] for each in found[1].graphs]
    assert [one[: len(other)] for one, other in zip(before, tried, strict=True)] == tried


def test_a_policy_of_one_training_serves_the_next(found: tuple[Policy, Fp16Report]) -> None:
    check_policy(tiny_graph("pirender_frame", scale=17), found[0].graphs["pirender_frame"], "pirender_frame")


def test_feeds_of_another_bundle_are_refused(feeds: Feeds, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other.pflx", scale=1)
    with pytest.raises(CalibrationError, match="whose pirender_frame differ from those of"):
        calibrate_fp16(other, feeds)


@pytest.fixture(scope="module")
def written(bundle: Bundle, feeds: Feeds, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The files that the command writes, and what it says."""
    folder = tmp_path_factory.mktemp("written")
    outputs: list[str | Path] = [
        "-o",
        folder / "policy.json",
        "--report",
        folder / "report.json",
        "--plot",
        folder / "curve.png",
    ]
    limits: list[str | int] = ["--trials", 8, "--curve", 3, "--pictures", 2, "--threads", 1]
    outcome = pflx("calibrate", "fp16", bundle.path, "--feeds", feeds.folder, *outputs, *limits)
    assert outcome.code == 0, outcome.err
    assert "Untrained weights (seed 7)" in outcome.err
    return folder, outcome.out


def test_the_command_writes_policy_report_and_picture(
    written: tuple[Path, str], found: tuple[Policy, Fp16Report]
) -> None:
    folder, _ = written
    assert {path.name for path in folder.iterdir()} == {"policy.json", "report.json", "curve.png"}
    assert read_policy(folder / "policy.json").graphs == found[0].graphs
    report = msgspec.json.decode((folder / "report.json").read_bytes(), type=Fp16Report)
    assert (report.bundle, report.untrained, report.pictures) == ("planted.pflx", 7, 2)
    assert report.versions["nvidia-modelopt"]
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "/" not in json.dumps([report.bundle, report.versions])


def test_the_command_shows_the_curve(written: tuple[Path, str]) -> None:
    lines = written[1].splitlines()
    header = "graph nodes in FP32 of numbers in FP16 worst PSNR dB SSIM head ° engine ms"
    assert " ".join(lines[0].split()) == header
    frames = [line.split() for line in lines if line.lstrip().startswith("pirender_frame")]
    counts = [int(words[1]) for words in frames]
    assert counts == sorted(counts)
    assert frames[0][:3] == ["pirender_frame", "0", "15"]
    assert "asked are 45" in lines[lines.index(next(x for x in lines if "pirender_frame" in x))]
    assert sum(line.endswith("chosen") for line in lines) == len(GRAPHS)
    assert next(line for line in lines if line.endswith("the policy")).split()[:4] == ["all", "graphs", "3", "53"]
    assert all("not run" in line for line in lines[1:] if "pirender" in line and "Wrote" not in line)


def test_an_output_that_cannot_be_written_is_refused_before_any_work(bundle: Bundle, tmp_path: Path) -> None:
    arguments: list[str | Path] = ["calibrate", "fp16", bundle.path, "--feeds", tmp_path / "none"]
    assert "does not end in .json" in refusal(*arguments, "-o", tmp_path / "policy.txt")
    assert "none does not exist. Record some" in refusal(*arguments, "-o", tmp_path / "policy.json")


def test_fp16_graphs_that_a_bundle_has_are_judged_beside_the_policy(feeds: Feeds, tmp_path: Path) -> None:
    for name, kept, is_good in (("good", OVERFLOWING, True), ("bad", OVERFLOWING[:2], False)):
        bundle = tiny_bundle(tmp_path / f"{name}.pflx", islands={"pirender_frame": kept})
        _, report = calibrate_fp16(bundle, feeds, Fp16Options(threads=1, trials=2, curve=0, pictures=2))
        assert report.exported is not None
        assert report.exported.fp32_nodes == len(kept)
        assert (not report.exported.faults) == is_good
        assert report_lines(report)[-1].endswith("the FP16 graphs of the bundle")


def test_a_policy_that_does_not_hold_in_all_graphs_together_is_refused(found: tuple[Policy, Fp16Report]) -> None:
    report = found[1]
    require_held(report)
    missed = msgspec.structs.replace(report.together, faults=["the head is 0.58° off, allowed are 0.5"])
    with pytest.raises(CalibrationError, match=r"does not hold in all graphs together: the head is 0\.58° off"):
        require_held(msgspec.structs.replace(report, together=missed))


# On a GPU made of Python


def test_candidates_are_timed_on_a_gpu_where_one_is_named(
    bundle: Bundle,
    feeds: Feeds,
    found: tuple[Policy, Fp16Report],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed: list[tuple[str, int]] = []

    def count_casts(path: Path, info: GraphInfo, given: Mapping[str, Array], gpu: Device) -> float:
        check_feeds(info.inputs, given)
        graph = onnx.load(str(path)).graph
        timed.append((graph.name, sum(node.op_type == "Cast" for node in graph.node)))
        return 2.5

    monkeypatch.setattr("pflx.calibration.precision.fp16.Device.open", lambda device: Device(FakeCuda()))
    monkeypatch.setattr("pflx.calibration.precision.fp16.call_ms", count_casts)
    options = Fp16Options(threads=1, trials=2, curve=0, pictures=2, device="cuda:0")
    _, report = calibrate_fp16(bundle, feeds, options)
    trials = [trial for each in report.graphs for trial in each.trials]
    assert [trial.engine_ms for trial in trials] == [2.5] * len(trials)
    assert [name for name, _ in timed] == [trial.graph for trial in trials]
    none, islands = (casts for name, casts in timed if name == "pirender_frame")
    assert islands > none > 0
    assert "2.50" in report_lines(report)[1]
    heights = []
    for name, shown in (("timed", report), ("not_timed", found[1])):
        plot_report(tmp_path / f"{name}.png", shown)
        heights.append(int.from_bytes((tmp_path / f"{name}.png").read_bytes()[20:24], "big"))
    assert heights[0] > 1.3 * heights[1]  # a third panel


def test_calls_are_timed_one_by_one_after_a_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    calls: list[float] = []

    def double(feeds: object) -> dict[str, Array]:
        assert isinstance(feeds, dict)
        calls.append(float(feeds["x"][0]))
        return {"y": feeds["x"] * 2}

    inputs, outputs = {"x": TensorSpec(("n",), F32)}, {"y": TensorSpec(("n",), F32)}
    ort = FakeOrt(cuda, {"double": Graph(double, inputs)})
    monkeypatch.setattr("pflx.engines.graphs.ort.import_backend", lambda *_, **__: ort.module())
    path = tmp_path / "double.onnx"
    path.write_bytes(b"graph")
    info = GraphInfo(inputs=inputs, outputs=outputs, parameters=0, opset=20, files={})
    with closing(Device(cuda)) as gpu:
        took = call_ms(path, info, {"x": np.array([3], np.float32)}, gpu)
    assert took > 0
    assert set(calls) == {3.0}
    assert 2 <= len(calls) <= WARM_UP + CALLS + 1  # once more to capture it
