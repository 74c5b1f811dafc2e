"""The calls of the CUDA runtime: how they are made, and what their errors become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pflx.engines.bundle.driver import Gpu, find_gpus
from pflx.engines.gpu import cuda
from pflx.engines.gpu.cuda import CudaRuntime, open_cuda
from pflx.engines.graphs.protocol import DeviceError, DeviceLostError, DeviceMemoryError, EngineError

CALLS: dict[str, tuple[int, ...]] = {
    "memory": (),
    "malloc": (16,),
    "free": (0x1000,),
    "malloc_host": (16,),
    "free_host": (0x1000,),
    "create_stream": (),
    "destroy_stream": (0x77,),
    "synchronize": (0,),
    "create_event": (),
    "destroy_event": (0x55,),
    "record": (0x55, 0),
    "wait": (0, 0x55),
    "is_done": (0x55,),
    "wait_host": (0x55,),
    "copy": (0x10, 0x20, 4, 0),
    "copy_rows": (0x10, 8, 0x20, 8, 4, 2, 0),
    "begin_capture": (0,),
    "end_capture": (0,),
    "launch": (0x99, 0),
    "destroy_graph": (0x99,),
}


class Code(int):
    """An error code that knows its name, as those of cuda-bindings."""

    name = "cudaSuccess"

    @classmethod
    def of(cls, name: str) -> Code:
        code = cls(0 if name == "cudaSuccess" else 1)
        code.name = name
        return code


class Runtime(SimpleNamespace):
    """In the place of `cuda.bindings.runtime`: every call succeeds, or fails as told."""

    cudaStreamNonBlocking = 1  # noqa: N815
    cudaEventDisableTiming = 2  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyDefault=4)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeRelaxed=2)  # noqa: N815
    cudaError_t = SimpleNamespace(cudaErrorNotReady=Code.of("cudaErrorNotReady"))  # noqa: N815

    def __init__(self, **errors: str) -> None:
        super().__init__()
        self.errors = errors
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls[name] += 1
            error = Code.of(self.errors.get(name, "cudaSuccess"))
            if name == "cudaMemGetInfo":
                return error, 3_000_000, 8_000_000
            return (error, 7) if name.startswith(("cudaMalloc", "cudaGraphI")) or "Create" in name else (error,)

        return call


@pytest.mark.skipif(bool(find_gpus()), reason="there is a driver, which would be given made-up addresses")
@pytest.mark.parametrize("name", CALLS)
def test_cuda_bindings_take_every_call_and_fail_for_want_of_a_driver_alone(name: str) -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    gpu = CudaRuntime(0, runtime)
    with pytest.raises(EngineError, match=r"cuda:0: cuda\w+ failed with cudaErrorInsufficientDriver\."):
        getattr(gpu, name)(*CALLS[name])


def test_every_call_chooses_its_gpu_whatever_another_library_has_chosen() -> None:
    chosen: list[int] = []
    runtime = Runtime()

    def choose(ordinal: int) -> tuple[Code]:
        chosen.append(ordinal)
        return (Code.of("cudaSuccess"),)

    runtime.cudaSetDevice = choose
    gpu, other = CudaRuntime(1, runtime), CudaRuntime(0, runtime)
    gpu.malloc(16)
    runtime.cudaSetDevice(3)  # as another library does
    gpu.is_done(7)
    other.free(7)
    gpu.synchronize(0)
    assert chosen == [1, 3, 1, 0, 1]


def test_a_gpu_that_was_opened_before_a_fork_is_refused_in_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = CudaRuntime(1, Runtime())
    monkeypatch.setattr("os.getpid", lambda: -1)
    for name, arguments in CALLS.items():
        with pytest.raises(DeviceError, match=r"cuda:1 was opened before this process was forked.*`spawn`"):
            getattr(gpu, name)(*arguments)


def test_numbers_come_back_as_numbers() -> None:
    gpu = CudaRuntime(0, Runtime())
    assert gpu.memory() == (3_000_000, 8_000_000)
    assert (gpu.malloc(1), gpu.create_event(), gpu.create_stream()) == (7, 7, 7)
    assert gpu.is_done(7)
    assert not CudaRuntime(0, Runtime(cudaEventQuery="cudaErrorNotReady")).is_done(7)


def test_no_memory_left_tells_how_much_there_is() -> None:
    gpu = CudaRuntime(0, Runtime(cudaMalloc="cudaErrorMemoryAllocation"))
    with pytest.raises(DeviceMemoryError, match=r"cuda:0: cudaMalloc failed .*: 3 of 8 MB are free"):
        gpu.malloc(1 << 40)


@pytest.mark.parametrize("name", ["cudaErrorIllegalAddress", "cudaErrorLaunchFailure", "cudaErrorECCUncorrectable"])
def test_a_gpu_that_is_lost_says_how_to_go_on(name: str) -> None:
    gpu = CudaRuntime(2, Runtime(cudaEventSynchronize=name))
    with pytest.raises(
        DeviceLostError, match=rf"cuda:2: cudaEventSynchronize failed with {name}.*snapshot in a new one"
    ):
        gpu.wait_host(1)


def test_any_other_error_names_the_call() -> None:
    with pytest.raises(EngineError, match=r"cudaStreamEndCapture failed with cudaErrorStreamCaptureInvalidated\."):
        CudaRuntime(0, Runtime(cudaStreamEndCapture="cudaErrorStreamCaptureInvalidated")).end_capture(1)


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "find_gpus", list)
    with pytest.raises(DeviceError, match="Asked for cuda:0, and there is no NVIDIA driver or GPU here"):
        open_cuda(0)
    monkeypatch.setattr(cuda, "find_gpus", lambda: [Gpu("A", "sm_89", "13.0")])
    with pytest.raises(DeviceError, match=r"Asked for cuda:1, this machine has 1 GPU\(s\)"):
        open_cuda(1)
