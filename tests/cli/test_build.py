"""`pflx build` and `pflx inspect`: engines for a bundle, and what a bundle shows of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.commands import pflx, refusal
from support.exported import linked_copy
from support.fakes import FUNCTIONS, write_fake_bundle

from pflx.engines import BackendMissingError, Bundle
from pflx.engines.building.build import default_ranges, profile_for
from pflx.engines.bundle.driver import Gpu, find_gpus
from pflx.engines.bundle.engine_passport import compare, operating_system, this_machine
from pflx.engines.bundle.manifest import decode_manifest

GRAPHS = [*FUNCTIONS, "warp_portrait", "warp_frame"]
GENERATIONS = ["sm_80", "sm_86", "sm_89", "sm_120"]
"""Those that every version of the library builds for."""
needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")


@pytest.fixture(autouse=True, scope="module")
def no_gpu_is_told_of() -> Iterator[None]:
    """What `build` says of a GPU has its own tests; the others are the same on any machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pflx.cli.build.find_gpus", list)
        yield


@pytest.fixture(scope="module")
def built(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the exported bundle with all FP16 engines, as `pflx build` leaves it."""
    bundle = linked_copy(exported, tmp_path_factory.mktemp("built") / "me.pflx")
    outcome = pflx("build", bundle)
    assert outcome.code == 0, outcome.err
    assert "Untrained weights (seed 0)" in outcome.err
    lines = outcome.out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == GRAPHS
    assert lines[-1].startswith("Built 7 engines with tensorrt-rtx ")
    return bundle


@needs_rtx
def test_every_graph_gets_an_fp16_engine_with_a_passport(built: Path) -> None:
    bundle = Bundle.open(built, verify=True)
    manifest = bundle.manifest
    machine = this_machine("tensorrt-rtx")
    assert [passport.graph for passport in manifest.engines] == GRAPHS
    for passport in manifest.engines:
        graph = manifest.graphs[passport.graph]
        assert (passport.backend, passport.precision) == ("tensorrt-rtx", "fp16")
        assert passport.backend_version == machine.backend_version
        assert passport.onnx_sha256 == manifest.files[graph.files["fp16"]].sha256
        assert set(GENERATIONS) <= set(passport.compute_capabilities)
        assert (passport.os, passport.driver) == (operating_system(), machine.driver)
        assert passport.profile == profile_for(graph.inputs, default_ranges(manifest))
        assert manifest.files[passport.file].bytes > (100_000 if graph.parameters > 100_000 else 1000)
        assert bundle.passport(passport.graph, "tensorrt-rtx") == passport
        differing = {mismatch.field for mismatch in compare(passport, machine, bundle.source(passport.graph))}
        assert differing <= {"compute_capability"}


@needs_rtx
def test_the_exported_bundle_was_not_touched(built: Path, exported: Path) -> None:
    assert built != exported
    assert not Bundle.open(exported, verify=True).manifest.engines


@needs_rtx
def test_inspect_shows_the_engines(built: Path) -> None:
    outcome = pflx("inspect", built)
    engines = outcome.out.partition("\nEngines\n")[2].splitlines()
    assert len(engines) == len(GRAPHS)
    for line, graph in zip(engines, GRAPHS, strict=True):
        assert line.startswith(f"  {graph} fp16  tensorrt-rtx ")
        assert f", for {' '.join(GENERATIONS)}" in line
        assert ", driver " in line


@needs_rtx
def test_an_unknown_gpu_generation_is_named_and_changes_nothing(built: Path) -> None:
    before = Bundle.open(built).manifest
    line = refusal("build", built, "--capability", "sm_99")
    assert "tensorrt-rtx does not build for sm_99; it has " in line
    assert "sm_120" in line
    assert Bundle.open(built).manifest == before


def test_inspect_shows_what_the_exported_bundle_holds(exported: Path) -> None:
    outcome = pflx("inspect", exported)
    assert outcome.code == 0
    assert outcome.err == "Untrained weights (seed 0): the pictures mean nothing.\n"
    for said in (
        "generator  reactface: window 8, hop 8 frames at 25 fps; needs video, audio; sound at 16000 Hz",
        "timing     lead 0 frames: trails the speaker by 840 ms at most, or 320 ms without look-ahead",
        "smoother   posnet: slide 8 frames",
        "renderer   pirender: 256x256 px",
        "crop       release: window 256 px, padding 20 px",
        "mean face  zero",
        "precision  fp16 unless asked otherwise",
        "takes  video uint8 [speakers, 8, 224, 224, 3], audio float32 [speakers, 5120]",
        "gives  image uint8 [portraits, frames, 256, 256, 3]",
        "nodes kept in fp32",
        "GFLOP at the smallest sizes, opset 20",
        "  generator  untrained, 413 tensors, seed 0",
        "  fp16 against FP32 graphs: at most ",
        "\nLargest numbers in FP16\n",
        "  pirender_frame  up to ",
        "none; build them where they will run: pflx build BUNDLE",
    ):
        assert said in outcome.out, said


def test_inspect_gives_the_manifest_as_json(exported: Path) -> None:
    outcome = pflx("inspect", "--json", exported)
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out)["untrained"] == 0
    assert decode_manifest(outcome.out.encode(), "printed") == Bundle.open(exported).manifest


def test_inspect_needs_no_report(tmp_path: Path) -> None:
    bundle = write_fake_bundle(tmp_path / "me.pflx")
    assert "Frames end to end" not in pflx("inspect", bundle).out


def test_inspect_finds_a_flipped_byte(tmp_path: Path) -> None:
    bundle = write_fake_bundle(tmp_path / "me.pflx")
    file = bundle / "graphs" / "pirender_frame.fp32.onnx"
    file.write_bytes(b"h" + file.read_bytes()[1:])
    assert "'graphs/pirender_frame.fp32.onnx' has changed. Copy the bundle again, or export it again." in refusal(
        "inspect", bundle
    )
    file.unlink()
    assert "'graphs/pirender_frame.fp32.onnx' is missing. Copy the bundle again, or export it again." in refusal(
        "inspect", "--json", bundle
    )


@pytest.mark.parametrize("verb", ["inspect", "build"])
def test_what_is_no_bundle_is_named(tmp_path: Path, verb: str) -> None:
    for path, why in (
        (tmp_path, "is no bundle: it has no manifest.json."),
        (tmp_path / "none.pflx", "does not exist."),
        (Path(__file__), "is a file; a bundle is a folder."),
    ):
        assert f"{path} {why}" in refusal(verb, path)
    (tmp_path / "manifest.json").write_text("{}")
    assert "manifest.json is malformed" in refusal(verb, tmp_path)


@needs_rtx
def test_a_variant_that_is_not_there_and_a_graph_that_is_none_are_named(tmp_path: Path) -> None:
    bundle = write_fake_bundle(tmp_path / "me.pflx")
    assert "has no fp16 variant; it has fp32" in refusal("build", bundle, "--precision", "fp16")
    assert "reactface_speaker.fp32.onnx does not parse on tensorrt-rtx" in refusal("build", bundle)
    assert "--engine is 'openvino'; give tensorrt or tensorrt-rtx." in refusal(
        "build", bundle, "--engine", "openvino", code=2
    )


@needs_rtx
@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize(("name", "capability"), [("NVIDIA H200", "sm_90"), ("NVIDIA L4", "sm_89")])
def test_the_memory_of_a_gpu_is_told_and_whether_the_engines_will_run_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, name: str, capability: str
) -> None:
    monkeypatch.setattr("pflx.cli.build.find_gpus", lambda: [Gpu(name, capability, "13.0")])
    monkeypatch.setattr(
        "pflx.cli.build.open_cuda", lambda _: SimpleNamespace(memory=lambda: (120 * 10**9, 150 * 10**9))
    )
    outcome = pflx("build", tmp_path / "none.pflx", "--engine", engine)
    memory, *warnings, refused = outcome.err.splitlines()
    assert memory == f"{name}, {capability}: 120.0 of 150.0 GB free"
    assert refused.endswith("Make one: pflx export -o " + str(tmp_path / "none.pflx"))
    expected = (
        "The engines will not run on this GPU: TensorRT for RTX has no kernels for NVIDIA H200 (sm_90). "
        "ONNX Runtime's CUDA provider and full TensorRT run there."
    )
    assert warnings == ([expected] if (engine, capability) == ("tensorrt-rtx", "sm_90") else [])


def test_a_gpu_whose_memory_nobody_knows_does_not_stop_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(ordinal: int) -> None:
        raise BackendMissingError("cuda.bindings.runtime", "pip install 'pflx[gpu]'")

    monkeypatch.setattr("pflx.cli.build.find_gpus", lambda: [Gpu("NVIDIA L4", "sm_89", "13.0")])
    monkeypatch.setattr("pflx.cli.build.open_cuda", refuse)
    assert "does not exist" in refusal("build", tmp_path / "none.pflx")


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_full_tensorrt_is_refused_where_there_is_no_gpu(tmp_path: Path) -> None:
    bundle = write_fake_bundle(tmp_path / "me.pflx")
    assert "TensorRT builds on the GPU that will run the engine" in refusal("build", bundle, "--engine", "tensorrt")
