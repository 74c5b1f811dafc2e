"""`pflx doctor`: what works here, what is missing, what is broken."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from commands import pflx

import pflx.cli.doctor as doctor
from pflx.cli.doctor import examine, onnxruntime_finding
from pflx.engines.driver import Gpu


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
    for module in ("torch", "tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    findings = {finding.subject: finding for finding in examine()}
    for module, extra in (("torch", "export"), ("tensorrt", "tensorrt"), ("tensorrt_rtx", "tensorrt-rtx")):
        assert findings[module].verdict == "missing"
        assert findings[module].fix.endswith(f"pip install 'pflx[{extra}]'")


def test_a_library_that_does_not_load_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: str) -> ModuleType:
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(doctor, "import_module", refuse)
    findings = {finding.subject: finding for finding in examine()}
    for subject in ("torch", "ONNX Runtime"):
        assert findings[subject].verdict == "broken"
        assert "libcudart.so.13" in findings[subject].detail


def test_each_gpu_is_shown_with_its_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_gpus", lambda: [Gpu("NVIDIA H200", "sm_90", "13.0")])
    gpus = [finding for finding in examine() if finding.subject == "GPU"]
    assert [(gpu.verdict, gpu.detail) for gpu in gpus] == [("ok", "NVIDIA H200, sm_90, driver for CUDA 13.0")]
