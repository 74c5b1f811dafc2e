"""Which GPUs the NVIDIA driver shows, and why it shows none, asked of the driver itself: no CUDA package is needed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from pflx.engines.graphs.protocol import DeviceError

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*; Source: CUDA driver API, cuda.h

_NO_GPU = 100
_FAILURES: Mapping[int, str] = {
    2: "it has no memory left: close other programs on the GPU",
    3: "it cannot be used in a process that was forked after its first use: start processes with spawn",
    34: "its library is a stub for linking: take the folder `stubs` out of LD_LIBRARY_PATH",
    46: "the GPU is busy or reserved: see `nvidia-smi`",
    _NO_GPU: "it shows no GPU: see CUDA_VISIBLE_DEVICES, and start containers with `--gpus all`",
    101: "CUDA_VISIBLE_DEVICES names a GPU that is not there",
    802: "the system is not ready: start nvidia-fabricmanager",
    803: "its library and its kernel module are of different versions, as after an update: restart the machine",
    804: "CUDA's compatibility library does not support this GPU: take the folder `compat` out of LD_LIBRARY_PATH",
    999: "its kernel module does not answer, as after sleep: `sudo modprobe nvidia-uvm`, or restart the machine",
}
"""What `cuInit` returns, and what to do. Source: CUDA driver API, CUresult."""

_DRIVERS: Mapping[int, str] = {12: ", 525 or later", 13: ", 580 or later"}
"""The first that supports a CUDA. Source: CUDA Toolkit release notes, "CUDA Driver"."""


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


class NoGpu(msgspec.Struct, frozen=True):
    """Why there is no GPU to be had.

    Attributes:
        broken: there is a driver, and it fails.
        reason: a sentence without its full stop, with what to do about it.
    """

    broken: bool
    reason: str


def find_gpus() -> list[Gpu]:
    """List the GPUs in the driver's order; empty without a driver or without a usable GPU.

    TensorRT itself must not be asked: without a driver it ends the process with a segmentation fault.
    """
    cuda = _load()
    if cuda is None or cuda.cuInit(0) != 0:
        return []
    return [_describe(cuda, ordinal) for ordinal in range(_read_int(cuda.cuDeviceGetCount))]


def why_no_gpu() -> NoGpu:
    """For when `find_gpus` is empty."""
    cuda = _load()
    if cuda is None:
        return NoGpu(False, "there is no NVIDIA driver or GPU here")
    code = cuda.cuInit(0) or _NO_GPU
    return NoGpu(code != _NO_GPU, _answer(code))


def require_driver(gpu: Gpu, library: str, cuda: str) -> None:
    """Check that a driver is new enough for a library: it runs those of its own major version of CUDA, and older ones.

    Args:
        gpu: with its driver.
        library: name and version.
        cuda: that the library was built for, like `13.0`.

    Raises:
        DeviceError: it is too old.
    """
    if _major(gpu.driver) < _major(cuda):
        raise DeviceError(
            f"{library} is of CUDA {cuda}, and the driver of {gpu.name} supports CUDA {gpu.driver} at most. "
            f"Install a newer NVIDIA driver{_DRIVERS.get(_major(cuda), '')}; see `pflx doctor`."
        )


def use_gpu(ordinal: int) -> None:
    """Let this thread use a GPU, in the context that it shares with all of CUDA's runtime.

    Raises:
        DeviceError: the driver refuses.
    """
    cuda, device, context = _load(), ctypes.c_int(), ctypes.c_void_p()
    failed = (
        cuda.cuDeviceGet(ctypes.byref(device), ordinal)
        or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
        or cuda.cuCtxSetCurrent(context)
    )
    if failed:
        raise DeviceError(f"cuda:{ordinal}: {_answer(failed)}.")


def _answer(code: int) -> str:
    return f"the NVIDIA driver answers {code}: {_FAILURES.get(code, 'see `nvidia-smi`')}"


def _major(cuda: str) -> int:
    return int(cuda.partition(".")[0])


def _load() -> Any:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None


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
