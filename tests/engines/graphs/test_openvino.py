"""OpenVINO as an engine: what it computes in, what it is told, and where an admitted variant may run."""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.commands import pflx
from support.fakes import ONE_FACE, portrait_of, write_fake_bundle

from pflx.calibration.precision.inference import has_bf16
from pflx.engines import (
    Admission,
    BackendMissingError,
    Bundle,
    BundleCorruptError,
    EngineError,
    OpenVinoEngine,
    OrtEngine,
    PassportError,
    ShapeError,
    TensorSpec,
)
from pflx.engines.building.build import build_bundle_engines
from pflx.engines.bundle.manifest import MANIFEST, decode_manifest, encode_manifest
from pflx.engines.bundle.variant_admission import cpu_features, library_version, require_admitted
from pflx.runtime import EngineSettings, Listener, SpeakerSettings
from pflx.runtime.bundle_engines import open_engine

if find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this CPU does not compute in bf16")

F32 = np.dtype(np.float32)
INPUTS = {"features": TensorSpec(("N", 8, "H", 16), F32)}
OUTPUTS = {"filtered": TensorSpec(("N", 4, "H", 16), F32)}


def conv_graph(path: Path) -> Path:
    """A 3×3 convolution, [N, 8, H, 16] → [N, 4, H, 16]."""
    weight = np.random.default_rng(0).standard_normal((4, 8, 3, 3)).astype(F32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["features", "weight"], ["filtered"], pads=[1, 1, 1, 1])],
        "conv",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 8, "H", 16])],
        [helper.make_tensor_value_info("filtered", TensorProto.FLOAT, ["N", 4, "H", 16])],
        [numpy_helper.from_array(weight, "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def features(height: int = 5, n: int = 1) -> dict[str, Any]:
    return {"features": np.random.default_rng(1).standard_normal((n, 8, height, 16)).astype(F32)}


def off(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Largest difference, as a share of the largest value."""
    return float(np.abs(one["filtered"] - other["filtered"]).max() / np.abs(other["filtered"]).max())


def test_it_computes_in_float32_unless_asked_and_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    path = conv_graph(tmp_path / "conv.onnx")
    with closing(OpenVinoEngine(path, INPUTS, OUTPUTS, threads=1)) as engine:
        for height in (5, 9):
            expected = OrtEngine(path, threads=1).run(features(height))
            assert off(engine.run(features(height)), expected) < 1e-6


@needs_bf16
def test_bf16_is_used_where_it_is_asked_for(tmp_path: Path) -> None:
    path = conv_graph(tmp_path / "conv.onnx")
    expected = OrtEngine(path, threads=1).run(features())
    with closing(OpenVinoEngine(path, INPUTS, OUTPUTS, threads=1, inference="bf16")) as engine:
        assert 1e-4 < off(engine.run(features()), expected) < 2e-2


def test_bf16_on_a_cpu_without_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(EngineError, match="is to compute in bf16, which this CPU does not"):
        OpenVinoEngine(conv_graph(tmp_path / "conv.onnx"), INPUTS, OUTPUTS, inference="bf16")


def test_what_one_run_returned_is_not_touched_by_the_next(tmp_path: Path) -> None:
    with closing(OpenVinoEngine(conv_graph(tmp_path / "conv.onnx"), INPUTS, OUTPUTS, threads=1)) as engine:
        first = engine.run(features())["filtered"]
        kept = first.copy()
        engine.run({"features": np.zeros_like(features()["features"])})
        np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(first, kept)


def test_a_fixed_size_shows_in_the_specs_and_is_required(tmp_path: Path) -> None:
    path = conv_graph(tmp_path / "conv.onnx")
    with closing(OpenVinoEngine(path, INPUTS, OUTPUTS, threads=1, sizes={"N": 2, "other": 3})) as engine:
        assert engine.inputs["features"].shape == (2, 8, "H", 16)
        assert engine.outputs["filtered"].shape == (2, 4, "H", 16)
        assert engine.run(features(n=2))["filtered"].shape == (2, 4, 5, 16)
        with pytest.raises(ShapeError, match="axis 0 must be 2"):
            engine.run(features(n=1))


def test_a_missing_graph_a_broken_one_and_another_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"absent\.onnx: no such file"):
        OpenVinoEngine(tmp_path / "absent.onnx", INPUTS, OUTPUTS)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08garbage")
    with pytest.raises(EngineError, match=r"broken\.onnx could not be loaded") as caught:
        OpenVinoEngine(broken, INPUTS, OUTPUTS)
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match=r"takes features and gives filtered, which is not what was expected"):
        OpenVinoEngine(conv_graph(tmp_path / "conv.onnx"), INPUTS, {"other": OUTPUTS["filtered"]})
    with pytest.raises(EngineError, match="threads is 0"):
        OpenVinoEngine(conv_graph(tmp_path / "conv.onnx"), INPUTS, OUTPUTS, threads=0)


def test_an_output_of_another_size_than_was_said_is_a_failure(tmp_path: Path) -> None:
    """OpenVINO itself checks no dynamic shapes."""
    graph = helper.make_graph(
        [helper.make_node("Concat", ["track", "track"], ["twice"], axis=0)],
        "twice",
        [helper.make_tensor_value_info("track", TensorProto.FLOAT, ["T"])],
        [helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["T2"])],
    )
    path = tmp_path / "twice.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    inputs, outputs = {"track": TensorSpec(("T",), F32)}, {"twice": TensorSpec(("T",), F32)}
    with (
        closing(OpenVinoEngine(path, inputs, outputs, threads=1)) as engine,
        pytest.raises(EngineError, match=r"'twice' failed: 'twice' takes float32 \[T\], got float32 \[6\] \(T is 3"),
    ):
        engine.run({"track": np.zeros(3, F32)})


def test_a_failure_inside_the_library_names_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    def fail(*_: object) -> None:
        raise RuntimeError("no memory\nat infer_request.cpp:223")

    with closing(OpenVinoEngine(conv_graph(tmp_path / "conv.onnx"), INPUTS, OUTPUTS, threads=1)) as engine:
        monkeypatch.setattr(openvino.InferRequest, "infer", fail)
        with pytest.raises(EngineError, match=r"^Graph 'conv' failed: no memory$"):
            engine.run(features())


def test_openvino_is_imported_without_what_reports_it() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('a connection was asked for')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from pflx.engines.graphs.openvino import import_openvino\n"
        "import_openvino().Core()\n"
        "sys.exit('openvino_telemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_openvino_the_install_line_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendMissingError, match=r"pip install 'pflx\[openvino\]'"):
        OpenVinoEngine(conv_graph(tmp_path / "conv.onnx"), INPUTS, OUTPUTS)


def test_doctor_tells_what_openvino_computes_in_on_this_cpu() -> None:
    outcome = pflx("doctor")
    assert "openvino" in outcome.out
    assert "FP32" in outcome.out


# Admission

ADMITTED = Admission(
    libraries=["openvino"],
    judged_with=library_version("openvino"),
    inference={"pirender_frame": "bf16"},
    cpu=list(cpu_features()),
    lowest_psnr_db=40.0,
    created="2026-01-02T03:04:05+00:00",
)


def test_a_variant_is_admitted_where_it_was_judged() -> None:
    require_admitted(ADMITTED, "int8", "openvino")


@pytest.mark.parametrize(
    ("library", "on_gpu", "words"),
    [
        ("onnxruntime", False, "int8 was admitted for openvino on the CPU, not for onnxruntime"),
        ("openvino", True, "not for openvino on a GPU"),
        ("tensorrt", True, "not for tensorrt on a GPU"),
    ],
)
def test_a_variant_is_refused_on_another_library(library: str, on_gpu: bool, words: str) -> None:
    with pytest.raises(PassportError, match=words):
        require_admitted(ADMITTED, "int8", library, on_gpu=on_gpu)


def test_a_variant_is_refused_on_a_cpu_that_lacks_what_it_was_judged_with() -> None:
    other = msgspec.structs.replace(ADMITTED, cpu=["no_such_feature", *ADMITTED.cpu])
    with pytest.raises(PassportError, match=r"a CPU with no_such_feature, which this one lacks.*Calibrate on this"):
        require_admitted(other, "int8", "openvino")


def test_another_version_of_the_library_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    other = msgspec.structs.replace(ADMITTED, judged_with="openvino 2020.1")
    with caplog.at_level(logging.WARNING):
        require_admitted(other, "int8", "openvino")
    assert [record.getMessage() for record in caplog.records] == [
        f"int8 was judged with openvino 2020.1, here is {library_version('openvino')}."
    ]


def test_the_features_of_a_cpu_are_those_that_choose_kernels(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags\t\t: fpu sse avx2 avx512_vnni avx512f\n\nprocessor : 1\nflags : fpu avx2\n")
    assert cpu_features(info) == ("avx2", "avx512_vnni", "avx512f")
    assert cpu_features(tmp_path / "absent") == (platform.machine(),)


def admit(root: Path, precision: str = "bf16", **changes: Any) -> Path:
    """Enter a variant that computes the FP32 graphs in something else."""
    manifest = Bundle.open(root).manifest
    graphs = {
        name: msgspec.structs.replace(graph, files={**graph.files, precision: graph.files["fp32"]})
        for name, graph in manifest.graphs.items()
    }
    admitted = msgspec.structs.replace(ADMITTED, **changes)
    changed = msgspec.structs.replace(manifest, graphs=graphs, admissions={precision: admitted})
    (root / MANIFEST).write_bytes(encode_manifest(changed))
    return root


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_fake_bundle(tmp_path / "me.pflx")


def test_admissions_survive_the_manifest(bundle: Path) -> None:
    assert Bundle.open(admit(bundle)).manifest.admissions == {"bf16": ADMITTED}


def test_an_admission_of_what_is_not_there_is_refused(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    for admissions, words in (
        ({"int8": ADMITTED}, "not all graphs have the int8 variant"),
        ({"fp32": msgspec.structs.replace(ADMITTED, inference={"x": "bf16"})}, "graph 'x', which is not there"),
    ):
        changed = encode_manifest(msgspec.structs.replace(manifest, admissions=admissions))
        with pytest.raises(BundleCorruptError, match=words):
            decode_manifest(changed, "me.pflx")


def test_an_admitted_variant_opens_in_the_precision_it_was_judged_in(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: dict[str, str] = {}

    def note(path: Path, *_: object, inference: str, **__: object) -> None:
        opened[path.name] = inference

    monkeypatch.setattr("pflx.runtime.bundle_engines.OpenVinoEngine", note)
    admitted = Bundle.open(admit(bundle))
    for graph in ("pirender_frame", "posnet"):
        open_engine(admitted, graph, None, EngineSettings("openvino", "bf16"))
    assert opened == {"pirender_frame.fp32.onnx": "bf16", "posnet.fp32.onnx": "f32"}
    open_engine(admitted, "pirender_frame", None, EngineSettings("openvino"))
    assert opened["pirender_frame.fp32.onnx"] == "f32"


def test_a_listener_refuses_a_variant_on_another_engine(bundle: Path) -> None:
    with pytest.raises(PassportError, match=r"me\.pflx in bf16 was admitted for openvino on the CPU, not for onnx"):
        Listener.open(
            admit(bundle),
            portrait_of(),
            engines=EngineSettings(precision="bf16"),
            speaker=SpeakerSettings(detector=ONE_FACE),
        )
    with pytest.raises(PassportError, match="not for tensorrt-rtx"):
        build_bundle_engines(bundle, "tensorrt-rtx", "bf16")
