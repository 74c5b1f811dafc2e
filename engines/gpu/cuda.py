"""The calls of the CUDA runtime that pflx makes, behind one small protocol.

NVIDIA's own cuda-bindings make them. They come as wheels, follow every CUDA release, import without a driver, and have
graphs and stream capture; pycuda, which builds from source only, has neither. Its arrays and streams are taken
nevertheless (`pflx.engines.gpu.device`).
"""

from __future__ import annotations

import os
import re
from importlib.metadata import version
from typing import Any, Protocol

from pflx.engines.bundle.driver import find_gpus, require_driver, why_no_gpu
from pflx.engines.gpu import dlpack
from pflx.engines.graphs.protocol import DeviceError, DeviceLostError, DeviceMemoryError, EngineError, import_backend

INSTALL = "pip install 'pflx[gpu]'"

_LOST = {"cudaErrorECCUncorrectable", "cudaErrorDevicesUnavailable", "cudaErrorDeviceUninitialized"} | {
    f"cudaError{name}"
    for name in (
        "IllegalAddress",
        "IllegalInstruction",
        "MisalignedAddress",
        "LaunchFailure",
        "LaunchTimeout",
        "HardwareStackError",
        "Assert",
        "ContextIsDestroyed",
        "NvlinkUncorrectable",
        "Unknown",
    )
}
"""Errors after which nothing works in this process any more. Source: CUDA runtime API, cudaError_t."""


class Cuda(Protocol):
    """One GPU. Addresses and handles are plain integers; sizes are bytes.

    Whatever fails raises DeviceMemoryError, DeviceLostError or EngineError.
    """

    @property
    def ordinal(self) -> int:
        """Which GPU, as the driver counts them."""
        ...

    @property
    def kind(self) -> int:
        """What DLPack calls its memory."""
        ...

    def make_current(self) -> None:
        """Let this thread use this GPU, whatever it or another library has chosen before; all methods here do so.

        Raises:
            DeviceError: in a process that was forked after the GPU was opened.
        """
        ...

    def memory(self) -> tuple[int, int]:
        """Free bytes, and all."""
        ...

    def malloc(self, size: int) -> int:
        """Memory on the GPU."""
        ...

    def free(self, address: int) -> None:
        """Give it back; waits for the GPU."""
        ...

    def malloc_host(self, size: int) -> int:
        """Page-locked memory of the host, which the GPU can reach."""
        ...

    def free_host(self, address: int) -> None:
        """Give it back; waits for the GPU."""
        ...

    def create_stream(self) -> int:
        """A queue of work that does not wait for the default stream."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Let the work end, then drop it."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait, on the host, until all work on a stream is done."""
        ...

    def create_event(self) -> int:
        """A mark that can be put into streams."""
        ...

    def destroy_event(self, event: int) -> None:
        """Drop a mark."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Put the mark behind all work on a stream so far."""
        ...

    def wait(self, stream: int, event: int) -> None:
        """Let a stream go on only behind the mark; the host does not wait."""
        ...

    def is_done(self, event: int) -> bool:
        """Whether the work before the mark is done."""
        ...

    def wait_host(self, event: int) -> None:
        """Wait, on the host, until it is."""
        ...

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """Copy between any two places, the GPU or page-locked memory, in the order of the stream."""
        ...

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int, stream: int
    ) -> None:
        """Copy rows of `width` bytes that lie so many bytes apart."""
        ...

    def begin_capture(self, stream: int) -> None:
        """Record the work on a stream from now on, instead of doing it."""
        ...

    def end_capture(self, stream: int) -> int:
        """The work since `begin_capture`, as a graph to launch."""
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Do the recorded work."""
        ...

    def destroy_graph(self, graph: int) -> None:
        """Drop a graph."""
        ...


def parse_device(device: str) -> int | None:
    """Which GPU a device string names; None for `cpu`.

    Raises:
        DeviceError: it is none of cpu, cuda and cuda:N.
    """
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise DeviceError(f"Unknown device '{device}'; give cpu, cuda or cuda:N.")
    return None if device == "cpu" else int(match[1] or 0)


def open_cuda(ordinal: int) -> Cuda:
    """A GPU of this machine.

    Raises:
        BackendMissingError: cuda-bindings are not installed, or broken.
        DeviceError: there is no such GPU, or its driver is too old.
    """
    gpus = find_gpus()
    if not gpus:
        raise DeviceError(f"Asked for cuda:{ordinal}, and {why_no_gpu().reason}. See `pflx doctor`.")
    if ordinal >= len(gpus):
        raise DeviceError(f"Asked for cuda:{ordinal}, this machine has {len(gpus)} GPU(s).")
    runtime = import_backend("cuda.bindings.runtime", INSTALL)
    bindings = version("cuda-bindings")
    require_driver(gpus[ordinal], f"cuda-bindings {bindings}", bindings)
    return CudaRuntime(ordinal, runtime)


class CudaRuntime:
    """`Cuda` by cuda-bindings, in the GPU's primary context, which PyTorch and ONNX Runtime use too.

    Args:
        ordinal: which GPU.
        runtime: the module `cuda.bindings.runtime`.
    """

    kind = dlpack.CUDA

    def __init__(self, ordinal: int, runtime: Any) -> None:
        self.ordinal = ordinal
        self._runtime = runtime
        self._process = os.getpid()

    def make_current(self) -> None:
        """See `Cuda.make_current`."""
        if self._process != os.getpid():
            raise DeviceError(
                f"cuda:{self.ordinal} was opened before this process was forked, and CUDA does not work in both. Start "
                "processes with multiprocessing's `spawn`, and open the listener in each."
            )
        (error,) = self._runtime.cudaSetDevice(self.ordinal)
        self._require("cudaSetDevice", error)

    def memory(self) -> tuple[int, int]:
        """See `Cuda.memory`."""
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def malloc(self, size: int) -> int:
        """See `Cuda.malloc`."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        """See `Cuda.free`."""
        self._call("cudaFree", address)

    def malloc_host(self, size: int) -> int:
        """See `Cuda.malloc_host`."""
        return int(self._call("cudaMallocHost", size))

    def free_host(self, address: int) -> None:
        """See `Cuda.free_host`."""
        self._call("cudaFreeHost", address)

    def create_stream(self) -> int:
        """See `Cuda.create_stream`."""
        return int(self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        """See `Cuda.destroy_stream`."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """See `Cuda.synchronize`."""
        self._call("cudaStreamSynchronize", stream)

    def create_event(self) -> int:
        """See `Cuda.create_event`."""
        return int(self._call("cudaEventCreateWithFlags", self._runtime.cudaEventDisableTiming))

    def destroy_event(self, event: int) -> None:
        """See `Cuda.destroy_event`."""
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """See `Cuda.record`."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """See `Cuda.wait`."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def is_done(self, event: int) -> bool:
        """See `Cuda.is_done`."""
        self.make_current()
        (error,) = self._runtime.cudaEventQuery(event)
        if error == self._runtime.cudaError_t.cudaErrorNotReady:
            return False
        self._require("cudaEventQuery", error)
        return True

    def wait_host(self, event: int) -> None:
        """See `Cuda.wait_host`."""
        self._call("cudaEventSynchronize", event)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        """See `Cuda.copy`."""
        self._call("cudaMemcpyAsync", target, source, size, self._runtime.cudaMemcpyKind.cudaMemcpyDefault, stream)

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int, stream: int
    ) -> None:
        """See `Cuda.copy_rows`."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDefault
        self._call("cudaMemcpy2DAsync", target, target_pitch, source, source_pitch, width, rows, kind, stream)

    def begin_capture(self, stream: int) -> None:
        """See `Cuda.begin_capture`."""
        # Relaxed: other threads and libraries may allocate meanwhile; what is captured here does not.
        self._call("cudaStreamBeginCapture", stream, self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed)

    def end_capture(self, stream: int) -> int:
        """See `Cuda.end_capture`."""
        recorded = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiate", recorded, 0))
        finally:
            self._call("cudaGraphDestroy", recorded)

    def launch(self, graph: int, stream: int) -> None:
        """See `Cuda.launch`."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """See `Cuda.destroy_graph`."""
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        self.make_current()
        error, *results = getattr(self._runtime, name)(*arguments)
        self._require(name, error)
        return results[0] if len(results) == 1 else results

    def _require(self, call: str, error: Any) -> None:
        if int(error) == 0:
            return
        where = f"cuda:{self.ordinal}: {call} failed with {error.name}"
        if error.name == "cudaErrorMemoryAllocation":
            free, total = (size / 1e6 for size in self._runtime.cudaMemGetInfo()[1:])
            raise DeviceMemoryError(
                f"{where}: {free:.0f} of {total:.0f} MB are free. Close other programs, or take fewer samples."
            )
        if error.name in _LOST:
            raise DeviceLostError(f"{where}: the GPU is lost to this process. Resume from a snapshot in a new one.")
        raise EngineError(f"{where}.")
