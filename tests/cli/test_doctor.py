"""`pflx doctor`: what works here, what is missing, what is broken."""

from __future__ import annotations

import sys
from enum import IntEnum
from types import ModuleType

import pytest
from support.commands import pflx

import pflx.cli.doctor as doctor
from pflx.cli.doctor import examine, onnxruntime_finding, outdated
from pflx.engines.bundle.driver import Gpu, NoGpu


def test_a_machine_where_nothing_is_broken_is_fine() -> None:
    outcome = pflx("doctor")
    assert (outcome.code, outcome.err) == (0, "")
    for subject in ("machine", "GPU", "ONNX Runtime", "tensorrt_rtx", "torch", "H.264 encoder"):
        assert subject in outcome.out
    assert "broken" not in outcome.out


def test_both_onnx_runtimes_at_once_are_broken_and_the_fix_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.1"}.get)
    monkeypatch.setenv("COLUMNS", "300")
    outcome = pflx("doctor")
    assert outcome.code == 1
    assert "onnxruntime 1.30.0 and onnxruntime-gpu 1.31.1 overwrite one another" in outcome.out
    assert "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'pflx[cpu]' or 'pflx[gpu]'" in outcome.out


def test_no_onnx_runtime_is_missing_with_both_ways_to_get_one() -> None:
    finding = onnxruntime_finding(None, None)
    assert finding.verdict == "missing"
    assert finding.fix == "pip install 'pflx[cpu]' or 'pflx[gpu]'"


def test_an_onnx_runtime_whose_files_were_overwritten_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    for cpu, gpu, fix in (("1.31.1", None, "onnxruntime"), (None, "1.31.1", "onnxruntime-gpu")):
        finding = onnxruntime_finding(cpu, gpu)
        assert finding.verdict == "broken"
        assert finding.fix == f"pip install --force-reinstall {fix}"


def test_what_is_not_installed_comes_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    extras = {
        "torch": "export",
        "tensorrt": "tensorrt",
        "tensorrt_rtx": "tensorrt-rtx",
        "cuda.bindings": "gpu",
        "pillow_heif": "heic",
        "huggingface_hub": "hub",
        "ray": "ray",
    }
    for module in (*extras, "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, module, None)
    findings = {finding.subject: finding for finding in examine()}
    for module, extra in extras.items():
        assert findings[module].verdict == "missing"
        assert findings[module].fix.endswith(f"pip install 'pflx[{extra}]'")


@pytest.mark.parametrize("error", [OSError, ImportError, RuntimeError, AttributeError])
def test_a_library_that_does_not_load_is_broken_and_the_others_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(module: str) -> ModuleType:
        raise error("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr("pflx.engines.graphs.protocol.import_module", refuse)
    findings = {finding.subject: finding for finding in examine()}
    for subject in ("torch", "ONNX Runtime", "openvino", "tensorrt", "tensorrt_rtx", "cuda.bindings", "pygame"):
        assert findings[subject].verdict == "broken"
        assert "libcudart.so.13: cannot open shared object file" in findings[subject].detail
        assert "pip install --force-reinstall" in findings[subject].fix
    assert "H.264 encoder" in findings


def test_a_package_that_is_older_than_pflx_needs_is_broken() -> None:
    needed = [
        "setuptools>=77; extra == 'dev'",
        "mkdocs>=9; extra == 'docs'",
        "numpy>=2.0",
        'onnxruntime>=1.21; extra == "cpu"',
        'torch>=2.13; extra == "export"',
        "av>=17.1",
    ]
    here = {"setuptools": "65.5", "mkdocs": "1.0", "numpy": "1.26.4", "onnxruntime": "1.22.0rc1", "av": "17.1"}
    (finding,) = outdated(needed, here.get)
    assert (finding.subject, finding.verdict) == ("numpy", "broken")
    assert finding.detail == "1.26.4 is installed, pflx needs >=2.0"
    assert finding.fix == "pip install --upgrade 'numpy>=2.0'"


@pytest.mark.parametrize(("broken", "verdict"), [(True, "broken"), (False, "missing")])
def test_why_there_is_no_gpu_is_told(monkeypatch: pytest.MonkeyPatch, broken: bool, verdict: str) -> None:
    monkeypatch.setattr(doctor, "find_gpus", list)
    monkeypatch.setattr(doctor, "why_no_gpu", lambda: NoGpu(broken, "the NVIDIA driver answers 803: restart"))
    (gpu,) = (finding for finding in examine() if finding.subject == "GPU")
    assert gpu.verdict == verdict
    assert "the NVIDIA driver answers 803" in gpu.detail
    assert ("restart" in gpu.fix) == broken


def test_a_driver_that_is_too_old_for_what_is_installed_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_gpus", lambda: [Gpu("NVIDIA T4", "sm_75", "12.4")])
    monkeypatch.setattr(doctor, "_version", {"cuda-bindings": "13.3.1"}.get)
    (gpu,) = (finding for finding in examine() if finding.subject == "GPU")
    assert gpu.verdict == "broken"
    assert (
        "cuda-bindings 13.3.1 is of CUDA 13.3.1, and the driver of NVIDIA T4 supports CUDA 12.4 at most" in gpu.detail
    )
    assert gpu.fix == "Install a newer NVIDIA driver, 580 or later"


def test_each_gpu_is_shown_with_its_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_gpus", lambda: [Gpu("NVIDIA H200", "sm_90", "13.0")])
    gpus = [finding for finding in examine() if finding.subject == "GPU"]
    assert [(gpu.verdict, gpu.detail) for gpu in gpus] == [("ok", "NVIDIA H200, sm_90, driver for CUDA 13.0")]


@pytest.mark.parametrize(
    ("gpus", "verdict", "left_out"),
    [
        (["sm_89"], "ok", ""),
        (["sm_90"], "missing", "NVIDIA sm_90 (sm_90)"),
        (["sm_89", "sm_90", "sm_100"], "ok", "NVIDIA sm_90 (sm_90), NVIDIA sm_100 (sm_100)"),
    ],
)
def test_tensorrt_for_rtx_is_judged_by_the_gpus_too(
    monkeypatch: pytest.MonkeyPatch, gpus: list[str], verdict: str, left_out: str
) -> None:
    library = ModuleType("tensorrt_rtx")
    vars(library).update(
        __version__="1.7.1", ILogger=object, ComputeCapability=IntEnum("ComputeCapability", {"SM80": 80, "SM89": 89})
    )
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", library)
    monkeypatch.setattr(doctor, "find_gpus", lambda: [Gpu(f"NVIDIA {name}", name, "13.0") for name in gpus])
    (finding,) = (finding for finding in examine() if finding.subject == "tensorrt_rtx")
    suffix = f", has no kernels for {left_out}: its engines will not run there" if left_out else ""
    assert (finding.verdict, finding.detail) == (verdict, f"1.7.1{suffix}")
    assert ("ONNX Runtime's CUDA provider" in finding.fix) == bool(left_out)
