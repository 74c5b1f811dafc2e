"""`pflx doctor`: what this machine has, what works on it, and what to install."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Literal

import typer
from rich.markup import escape
from rich.table import Column, Table

from pflx.cli.support.console import out
from pflx.engines.building.compiler import unsupported_gpus
from pflx.engines.bundle.driver import Gpu, find_gpus, require_driver, why_no_gpu
from pflx.engines.bundle.variant_admission import cpu_features
from pflx.engines.graphs.openvino import import_openvino
from pflx.engines.graphs.ort import import_onnxruntime
from pflx.engines.graphs.protocol import (
    BackendBrokenError,
    BackendMissingError,
    DeviceError,
    first_line,
    import_backend,
)
from pflx.engines.graphs.threads import usable_cores

Verdict = Literal["ok", "missing", "broken"]
_NOT_TO_RUN = ("dev", "docs")
"""Extras of those who work on pflx."""
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
    cores = f"{usable_cores()} of {os.cpu_count()} CPUs"
    yield Finding("machine", "ok", f"{platform.platform()}, Python {platform.python_version()}, {cores} to use")
    gpus = find_gpus()
    yield from map(_gpu, gpus)
    if not gpus:
        yield _no_gpu()
    yield onnxruntime_finding(_version("onnxruntime"), _version("onnxruntime-gpu"))
    yield _openvino()
    yield _importable("cuda.bindings.runtime", "gpu", "--device cuda:N")
    yield _importable("tensorrt", "tensorrt", "pflx build --engine tensorrt")
    yield _tensorrt_rtx(gpus)
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    for name, package, needed_for in (
        ("pygame", "window", "pflx live"),
        ("aiortc", "serve", "pflx serve"),
        ("pillow_heif", "heic", "portraits in HEIC"),
        ("ray", "ray", "pflx batch --ray"),
        ("huggingface_hub", "hub", "hf://ORG/NAME, pflx push"),
        ("torch", "export", "pflx export of checkpoints"),
        ("onnxscript", "export", "pflx export of checkpoints"),
    ):
        yield _importable(name, package, needed_for)
    yield _encoder()
    yield from outdated(requires("pflx") or (), _version)


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
        providers = import_onnxruntime().get_available_providers()
    except BackendMissingError as error:
        fix = f"pip install --force-reinstall onnxruntime{'-gpu' if gpu else ''}"
        return Finding("ONNX Runtime", "broken", f"installed, but does not work: {_reason(error)}", fix)
    names = ", ".join(provider.removesuffix("ExecutionProvider") for provider in providers)
    return Finding("ONNX Runtime", "ok", f"{gpu or cpu}, compiled for {names}")


def outdated(requirements: Iterable[str], installed: Callable[[str], str | None]) -> Iterator[Finding]:
    """Each installed package that is older than pflx needs to run.

    Args:
        requirements: as package metadata has them.
        installed: version of a package, or None.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:  # it comes with ONNX Runtime
        return
    told: set[str] = set()
    for requirement in map(Requirement, requirements):
        marker = requirement.marker
        if marker is not None and any(marker.evaluate({"extra": extra}) for extra in _NOT_TO_RUN):
            continue
        version_here = installed(requirement.name)
        allowed = version_here is None or requirement.specifier.contains(version_here, prereleases=True)
        if not allowed and requirement.name not in told:
            told.add(requirement.name)
            wanted = f"{requirement.name}{requirement.specifier}"
            detail = f"{version_here} is installed, pflx needs {requirement.specifier}"
            yield Finding(requirement.name, "broken", detail, f"pip install --upgrade '{wanted}'")


def _gpu(gpu: Gpu) -> Finding:
    """Judge a GPU by its driver, which has to be as new as the CUDA of what is installed."""
    detail = f"{gpu.name}, {gpu.compute_capability}, driver for CUDA {gpu.driver}"
    bindings = _version("cuda-bindings")
    try:
        if bindings:
            require_driver(gpu, f"cuda-bindings {bindings}", bindings)
    except DeviceError as error:
        said, _, fix = str(error).removesuffix("; see `pflx doctor`.").partition(". ")
        return Finding("GPU", "broken", f"{detail}; {said}", fix)
    return Finding("GPU", "ok", detail)


def _no_gpu() -> Finding:
    found = why_no_gpu()
    if not found.broken:
        return Finding("GPU", "missing", found.reason, "none needed: the CPU runs everything, slower")
    said, _, fix = found.reason.partition(": ")
    return Finding("GPU", "broken", said, fix)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _importable(module: str, extra: str, needed_for: str) -> Finding:
    subject = module.removesuffix(".runtime")
    try:
        found = import_backend(module, f"pip install 'pflx[{extra}]'")
    except BackendBrokenError as error:
        return Finding(subject, "broken", f"does not work: {error.reason}", f"for `{needed_for}`: {error.fix}")
    except BackendMissingError:
        return Finding(subject, "missing", "not installed", f"for `{needed_for}`: pip install 'pflx[{extra}]'")
    return Finding(subject, "ok", str(getattr(found, "__version__", "") or _version(subject.replace(".", "-")) or ""))


def _openvino() -> Finding:
    """Judge OpenVINO by what this CPU computes in, too."""
    needed_for = "for `pflx run --engine openvino`: pip install 'pflx[openvino]'"
    try:
        core = import_openvino().Core()
        capabilities = set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")) & {"FP32", "BF16", "INT8", "FP16"}
    except BackendBrokenError as error:
        return Finding("openvino", "broken", f"does not work: {error.reason}", error.fix)
    except BackendMissingError:
        return Finding("openvino", "missing", "not installed", needed_for)
    except Exception as error:  # whatever the library raises: doctor goes on with the next
        return Finding("openvino", "broken", f"does not work: {first_line(error)}", needed_for)
    detail = f"{_version('openvino')}, on this CPU in {', '.join(sorted(capabilities))}"
    return Finding("openvino", "ok", f"{detail} ({' '.join(cpu_features())})")


def _reason(error: BackendMissingError) -> str:
    return error.reason if isinstance(error, BackendBrokenError) else str(error)


def _tensorrt_rtx(gpus: Sequence[Gpu]) -> Finding:
    """Judge TensorRT for RTX by the GPUs, too: it builds anywhere, and runs on few."""
    finding = _importable("tensorrt_rtx", "tensorrt-rtx", "pflx build --engine tensorrt-rtx")
    try:
        left_out = unsupported_gpus(gpus) if finding.verdict == "ok" else []
    except Exception as error:  # whatever the library raises: doctor goes on with the next
        return replace(finding, verdict="broken", detail=f"{finding.detail} does not work: {first_line(error)}")
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
