"""INT8: which layers the pictures let have it, the variant in the bundle, and its report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from support.calibration.drawn_graphs import F32
from support.calibration.painting import HARMLESS, SENSITIVE, painting_bundle
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
from pflx.calibration.precision.quantise import METHODS, layers_of, prune, quantised
from pflx.calibration.precision.variants import add_variant
from pflx.calibration.reports import save_report
from pflx.engines import Bundle, BundleError, OutputExistsError, PassportError
from pflx.engines.building.build import build_bundle_engines
from pflx.engines.bundle.manifest import MANIFEST
from pflx.export.mixed import Typed
from pflx.runtime import EngineSettings, Listener, open_speaker

PORTRAIT = MEDIA / "portrait_astronaut_256.png"
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")


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


def test_what_tensorrt_computes_outside_of_int8_is_fp32_and_overflows_nowhere(found: Int8Result) -> None:
    for model in found.graphs.values():
        types = set(Typed(model).types.values())
        assert onnx.TensorProto.INT8 in types
        assert onnx.TensorProto.FLOAT16 not in types


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
    assert f"pflx run CLIP -b {own.path} -p PICTURE --engine openvino --precision int8" in outcome.out
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
