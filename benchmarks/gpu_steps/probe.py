"""Steps of `gpu.py`: what there is, and the bundles that are measured."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

import msgspec
from gpu_steps.record import Record, Setting, unmeasured

from pflx.engines.building.compiler import compile_graph
from pflx.engines.bundle.driver import find_gpus
from pflx.engines.bundle.tensorrt_library import Backend, library_logger
from pflx.engines.gpu.cuda import open_cuda, parse_device
from pflx.engines.gpu.ort_cuda import require_cuda
from pflx.engines.graphs.ort import import_onnxruntime

_LIBRARY_S = 60


def probe(setting: Setting, record: Record) -> None:
    """What exists, and what it reaches."""
    gpu = setting.gpu
    assert gpu is not None
    record.put("gpus", [msgspec.to_builtins(found) for found in find_gpus()])
    record.attempt("memory_mb", partial(_memory, setting.device))
    for backend in get_args(Backend):
        record.put(backend, library_facts(backend, gpu.compute_capability))
        record.say(f"{backend}: {_in_short(record.found[backend])}")
    record.attempt("onnxruntime", partial(_onnxruntime, setting.device))
    record.attempt("torch", partial(_torch, setting.device))
    record.say(f"onnxruntime: {record.found['onnxruntime']}; torch: {record.found['torch']}")
    peaks = record.attempt("peaks", partial(_peaks, setting))
    if peaks:
        record.say(", ".join(f"{name} {value}" for name, value in peaks.items()))


def export(setting: Setting, record: Record) -> None:
    """The bundle of ReactFace, PosNet and PIRender, from seeded weights."""
    _export(setting.bundle, [], record)


def export_perfrdiff(setting: Setting, record: Record) -> None:
    """The bundle of PerFRDiff."""
    _export(setting.perfrdiff_bundle, ["--kind", "perfrdiff"], record)


def library_facts(backend: Backend, capability: str) -> dict[str, Any]:
    """What TensorRT, or TensorRT for RTX, says on this GPU; in a process of its own, for it may end it.

    Args:
        backend: which of the two.
        capability: of the GPU, like `sm_90`.
    """
    code = f"from {__name__} import tell_library; tell_library({backend!r}, {capability!r})"
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=_LIBRARY_S, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done in {_LIBRARY_S} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    facts: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing said"]
        facts["failed"] = f"the process ended with code {done.returncode}: {said[0]}"
    return facts


def tell_library(backend: Backend, capability: str) -> None:
    """Print what `library_facts` returns, as far as it is known: one line of JSON after each thing that may crash."""
    facts: dict[str, Any] = {}

    def tell(**found: Any) -> None:
        facts.update(found)
        print(json.dumps(facts, default=str), flush=True)

    try:
        _tell_library(backend, capability, tell)
    except Exception as error:
        tell(**unmeasured(error))


def _tell_library(backend: Backend, capability: str, tell: Callable[..., None]) -> None:
    trt: Any = import_module({"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}[backend])
    tell(version=str(trt.__version__))
    if hasattr(trt, "ComputeCapability"):
        known = sorted(name for name in trt.ComputeCapability.__members__ if name.startswith("SM"))
        tell(generations=known, knows_this_gpu=capability.replace("sm_", "SM") in known)
    with tempfile.TemporaryDirectory() as folder:
        engine, built_for = compile_graph(tiny_graph(Path(folder)), backend, {})
    content = bytes(engine)
    tell(tiny_engine_bytes=len(content), built_for=built_for)
    logger = library_logger(trt)
    logger.errors.clear()
    runtime = trt.Runtime(logger)
    if hasattr(runtime, "get_engine_validity"):
        validity, diagnostics = runtime.get_engine_validity(content)
        tell(validity=str(validity), diagnostics=str(diagnostics))
    loaded = runtime.deserialize_cuda_engine(content)
    tell(deserialised=loaded is not None, errors=list(logger.errors))


def tiny_graph(folder: Path) -> Path:
    """An ONNX file with one addition in it."""
    from onnx import TensorProto, helper, save

    tensor = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT, shape=[1, 8])
    node = helper.make_node("Add", ["a", "b"], ["c"])
    graph = helper.make_graph([node], "tiny", [tensor("a"), tensor("b")], [tensor("c")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    save(model, folder / "tiny.onnx")
    return folder / "tiny.onnx"


def _memory(device: str) -> dict[str, int]:
    free, total = open_cuda(parse_device(device) or 0).memory()
    return {"free": round(free / 1e6), "total": round(total / 1e6)}


def _onnxruntime(device: str) -> dict[str, Any]:
    ort = import_onnxruntime()
    facts = {"version": ort.__version__, "providers": list(ort.get_available_providers())}
    require_cuda(device)
    with tempfile.TemporaryDirectory() as folder:
        session = ort.InferenceSession(tiny_graph(Path(folder)), providers=["CUDAExecutionProvider"])
    return {**facts, "took": session.get_providers()[0]}


def _torch(device: str) -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {"version": torch.__version__, "cuda": torch.version.cuda}
    if not torch.cuda.is_available():
        return {**facts, "failed": "it sees no GPU"}
    seen = torch.cuda.get_device_properties(device)
    return {
        **facts,
        "cudnn": import_module("torch.backends.cudnn").version(),
        "gpu": seen.name,
        "sm": f"sm_{seen.major}{seen.minor}",
        "multiprocessors": seen.multi_processor_count,
        "memory_mb": round(seen.total_memory / 1e6),
        "triton": _version("triton"),
    }


def _peaks(setting: Setting) -> dict[str, float]:
    from gpu_steps.pytorch import peaks

    return asdict(peaks(setting.device, setting.seconds / 3))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _in_short(facts: dict[str, Any]) -> str:
    return str({name: fact for name, fact in facts.items() if name not in ("generations", "built_for")})


def _export(target: Path, options: list[str], record: Record) -> None:
    # -P: a folder of the working directory that is named like the package must not hide it.
    command = [sys.executable, "-P", "-m", "pflx", "export", "--untrained", "0", "--precision", "fp16"]
    begun = time.time()
    done = subprocess.run(
        [*command, *options, "--overwrite", "-o", str(target)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"code {done.returncode}"]
        raise RuntimeError(f"pflx export: {said[-1]}")
    found = json.loads((target / "report.json").read_text())
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    record.put("seconds", round(time.time() - begun, 1))
    record.put("megabytes", round(size / 1e6))
    record.put("parity_on_cpu", found["end_to_end"])
    record.say(f"{target.name}, {record.found['megabytes']} MB in {record.found['seconds']} s")
