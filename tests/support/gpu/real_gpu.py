"""Whether this machine has a GPU, and what runs on it: marks that skip a test and say why."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pytest

from pflx.engines.building.compiler import unsupported_gpus
from pflx.engines.bundle.driver import find_gpus

GPUS = find_gpus()


def _is_there(module: str) -> bool:
    """Whether a module could be imported; asked of its packages first, which `find_spec` would import."""
    parts = module.split(".")
    return all(find_spec(".".join(parts[:end])) for end in range(1, len(parts) + 1))


def _without_gpu() -> str:
    if not GPUS:
        return "no NVIDIA driver, or no GPU"
    return "" if _is_there("cuda.bindings.runtime") else "cuda-bindings are not installed"


def _without_onnxruntime() -> str:
    if not _is_there("onnxruntime"):
        return "onnxruntime is not installed"
    has_cuda = "CUDAExecutionProvider" in import_module("onnxruntime").get_available_providers()
    return "" if has_cuda else "this onnxruntime has no CUDA"


def _without_tensorrt() -> str:
    return "" if _is_there("tensorrt") else "tensorrt is not installed"


def _without_tensorrt_rtx() -> str:
    if not _is_there("tensorrt_rtx"):
        return "tensorrt-rtx is not installed"
    foreign = unsupported_gpus(GPUS[:1])
    return f"tensorrt-rtx has no kernels for {foreign[0].name}" if foreign else ""


def _skip(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(bool(reason), reason=reason or "all is there")


needs_gpu = _skip(_without_gpu())
needs_onnxruntime = _skip(_without_gpu() or _without_onnxruntime())
needs_tensorrt = _skip(_without_gpu() or _without_tensorrt())
needs_tensorrt_rtx = _skip(_without_gpu() or _without_tensorrt_rtx())
