"""Which GPUs the NVIDIA driver shows, asked of the driver itself: no CUDA package is needed."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import msgspec

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*; Source: CUDA driver API, cuda.h


class Gpu(msgspec.Struct, frozen=True):
    """One GPU.

    Attributes:
        name: as the driver calls it.
        compute_capability: its generation, like `sm_89`.
        driver: CUDA version that the driver supports, like `13.0`.
    """

    name: str
    compute_capability: str
    driver: str


def find_gpus() -> list[Gpu]:
    """List the GPUs in the driver's order; empty without a driver or without a usable GPU.

    TensorRT itself must not be asked: without a driver it ends the process with a segmentation fault.
    """
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return []
    if cuda.cuInit(0) != 0:
        return []
    return [_describe(cuda, ordinal) for ordinal in range(_read_int(cuda.cuDeviceGetCount))]


def _describe(cuda: Any, ordinal: int) -> Gpu:
    device = _read_int(cuda.cuDeviceGet, ordinal)
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGetName(name, len(name), device)
    major, minor = (_read_int(cuda.cuDeviceGetAttribute, field, device) for field in (_MAJOR, _MINOR))
    version = _read_int(cuda.cuDriverGetVersion)
    return Gpu(name.value.decode(), f"sm_{major}{minor}", f"{version // 1000}.{version % 1000 // 10}")


def _read_int(function: Any, *arguments: int) -> int:
    """Call a driver function that writes one int to its first argument; a failure counts as 0."""
    value = ctypes.c_int(0)
    return value.value if function(ctypes.byref(value), *arguments) == 0 else 0
