"""`pflx doctor`: what this machine has, what works on it, and what to install."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import typer
from rich.markup import escape
from rich.table import Column, Table

from pflx.cli.console import out
from pflx.engines.building.compiler import unsupported_gpus
from pflx.engines.bundle.driver import Gpu, find_gpus
from pflx.engines.bundle.variant_admission import cpu_features
from pflx.engines.graphs.openvino import import_openvino
from pflx.engines.graphs.protocol import BackendMissingError

Verdict = Literal["ok", "missing", "broken"]
_COLOURS = {"ok": "green", "missing": "yellow", "broken": "red"}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked at.
        verdict: `broken` makes the command fail; `missing` is a choice.
        detail: what was found.
        fix: what to do, empty if nothing.
    """

    subject: str
    verdict: Verdict
    detail: str
    fix: str = ""


def doctor() -> None:
    """Show what this machine can run and what is missing. Exit code 1 if something installed is broken."""
    findings = list(examine())
    found, fix = (Column(name, overflow="fold") for name in ("found", "what to do"))
    table = Table("", "", found, fix, box=None)
    for finding in findings:
        colour = _COLOURS[finding.verdict]
        table.add_row(
            finding.subject,
            f"[{colour}]{finding.verdict}[/]",
            escape(finding.detail),
            escape(finding.fix),
        )
    out.print(table)
    if any(finding.verdict == "broken" for finding in findings):
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """Look at everything, cheap things first."""
    yield Finding("machine", "ok", f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs")
    gpus = find_gpus()
    for gpu in gpus:
        yield Finding("GPU", "ok", f"{gpu.name}, {gpu.compute_capability}, driver for CUDA {gpu.driver}")
    if not gpus:
        yield Finding("GPU", "missing", "no NVIDIA driver, or no GPU", "none needed: the CPU runs everything, slower")
    yield onnxruntime_finding(_version("onnxruntime"), _version("onnxruntime-gpu"))
    yield _openvino()
    yield _importable("cuda.bindings", "gpu", "--device cuda:N")
    yield _importable("tensorrt", "tensorrt", "pflx build --engine tensorrt")
    yield _tensorrt_rtx(gpus)
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    for name, package, needed_for in (
        ("pygame", "window", "pflx live"),
        ("aiortc", "serve", "pflx serve"),
        ("pillow_heif", "heic", "portraits in HEIC"),
        ("torch", "export", "pflx export of checkpoints"),
        ("onnxscript", "export", "pflx export of checkpoints"),
    ):
        yield _importable(name, package, needed_for)
    yield _encoder()


def onnxruntime_finding(cpu: str | None, gpu: str | None) -> Finding:
    """Judge the pair of ONNX Runtime packages, which overwrite one another's files.

    Args:
        cpu: installed version of `onnxruntime`, or None.
        gpu: installed version of `onnxruntime-gpu`, or None.
    """
    if cpu and gpu:
        return Finding(
            "ONNX Runtime",
            "broken",
            f"onnxruntime {cpu} and onnxruntime-gpu {gpu} overwrite one another",
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'pflx[cpu]' or 'pflx[gpu]'",
        )
    if not cpu and not gpu:
        return Finding("ONNX Runtime", "missing", "nothing runs graphs", "pip install 'pflx[cpu]' or 'pflx[gpu]'")
    try:
        providers = import_module("onnxruntime").get_available_providers()
    except (ImportError, AttributeError, OSError) as error:
        fix = f"pip install --force-reinstall onnxruntime{'-gpu' if gpu else ''}"
        return Finding("ONNX Runtime", "broken", f"installed, but does not load: {error}", fix)
    names = ", ".join(provider.removesuffix("ExecutionProvider") for provider in providers)
    return Finding("ONNX Runtime", "ok", f"{gpu or cpu}, compiled for {names}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _importable(module: str, extra: str, needed_for: str) -> Finding:
    install = f"for `{needed_for}`: pip install 'pflx[{extra}]'"
    try:
        found = import_module(module)
    except ModuleNotFoundError:
        return Finding(module, "missing", "not installed", install)
    except (ImportError, OSError) as error:
        return Finding(module, "broken", f"does not load: {error}", install)
    return Finding(module, "ok", str(getattr(found, "__version__", "")))


def _openvino() -> Finding:
    """Judge OpenVINO by what this CPU computes in, too."""
    needed_for = "for `pflx run --engine openvino`: pip install 'pflx[openvino]'"
    try:
        core = import_openvino().Core()
        capabilities = set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")) & {"FP32", "BF16", "INT8", "FP16"}
    except BackendMissingError:
        return Finding("openvino", "missing", "not installed", needed_for)
    except (RuntimeError, OSError) as error:
        return Finding("openvino", "broken", f"does not load: {error}", needed_for)
    detail = f"{_version('openvino')}, on this CPU in {', '.join(sorted(capabilities))}"
    return Finding("openvino", "ok", f"{detail} ({' '.join(cpu_features())})")


def _tensorrt_rtx(gpus: Sequence[Gpu]) -> Finding:
    """Judge TensorRT for RTX by the GPUs, too: it builds anywhere, and runs on few."""
    finding = _importable("tensorrt_rtx", "tensorrt-rtx", "pflx build --engine tensorrt-rtx")
    left_out = unsupported_gpus(gpus) if finding.verdict == "ok" else []
    if not left_out:
        return finding
    names = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in left_out)
    return replace(
        finding,
        verdict="ok" if len(left_out) < len(gpus) else "missing",
        detail=f"{finding.detail}, has no kernels for {names}: its engines will not run there",
        fix="there, use ONNX Runtime's CUDA provider, pip install 'pflx[gpu]', or full TensorRT, "
        "pip install 'pflx[tensorrt]'",
    )


def _encoder() -> Finding:
    import av

    if "libx264" in av.codecs_available or "libopenh264" in av.codecs_available:
        return Finding("H.264 encoder", "ok", f"PyAV {av.__version__}")
    return Finding("H.264 encoder", "missing", f"PyAV {av.__version__} has none", "pip install --force-reinstall av")
