"""Graphs on ONNX Runtime's CUDA provider, with arrays that stay on the GPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import GROWING, Arrays
from pflx.engines.gpu.streams import Stream
from pflx.engines.graphs.ort import import_onnxruntime, session_options
from pflx.engines.graphs.protocol import (
    DeviceError,
    DeviceLostError,
    DeviceMemoryError,
    EngineError,
    TensorSpec,
    first_line,
)

_CUDA = "CUDAExecutionProvider"
_SESSIONS = 8

_MEMORY = ("out of memory", "failed to allocate", "cuda failure 2:", "cudaerrormemoryallocation")
_LOST = ("illegal memory access", "unspecified launch failure", "uncorrectable ecc", "device-side assert")


class OrtContext:
    """An execution context (see `device_engine`): one ONNX file, its feeds and results bound where they lie.

    A session is opened for each set of sizes, and fixed to it: what follows from the sizes is then computed on loading,
    and no shape is worked out on the CPU in a call, which a CUDA graph could not hold. The weights are on the GPU as
    often as there are sessions. FP32 graphs are computed in FP32, not in TF32. Sums may be taken in another order in
    another run: the same feeds give the same numbers up to rounding.

    Args:
        path: the ONNX file.
        inputs: what it takes.
        outputs: what it returns.
        device: the GPU.
        stream: that all work is put on.
        read: gives the content of the file, which is then named by its path alone; None reads it there.

    Raises:
        BackendMissingError: onnxruntime is not installed.
        DeviceError: this onnxruntime has no CUDA, or did not take it.
        EngineError: the file is missing, or no graph that this ONNX Runtime can load.
    """

    def __init__(
        self,
        path: str | Path,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        device: Device,
        stream: Stream,
        read: Callable[[], bytes] | None = None,
    ) -> None:
        self._path, self._read = Path(path), read
        self.inputs, self.outputs = dict(inputs), dict(outputs)
        self._device, self._stream = device, stream
        if read is None and not self._path.is_file():
            raise EngineError(f"{self._path}: no such file. Give the path of an ONNX graph.")
        require_cuda(device.name)
        ort = import_onnxruntime()
        self._run_options = ort.RunOptions()
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._sessions: OrderedDict[tuple[tuple[str, int], ...], Any] = OrderedDict()

    def enqueue(self, feeds: Arrays, results: Arrays) -> None:
        """Put one run on the stream; see `ExecutionContext.enqueue`."""
        session = self._session(feeds)
        try:
            binding = session.io_binding()
            for name, feed in feeds.items():
                binding.bind_input(name, "cuda", self._device.cuda.ordinal, feed.dtype, feed.shape, feed.address)
            for name, made in results.items():
                binding.bind_output(name, "cuda", self._device.cuda.ordinal, made.dtype, made.shape, made.address)
            session.run_with_iobinding(binding, self._run_options)
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            raise _explained(f"Graph '{self._path.stem}' failed on {self._device.name}", error) from error

    def for_capture(self) -> OrtContext:
        """A context that keeps the sessions there are now: a captured call uses the memory of its session."""
        own = copy(self)
        own._sessions = self._sessions.copy()
        return own

    def require_capturable(self) -> None:
        """Drop all sessions but the one that ran last, which is to be captured.

        Whether it can be is not known before it is tried: a capture fails where a node runs on the CPU.
        """
        while len(self._sessions) > 1:
            self._sessions.popitem(last=False)

    def close(self) -> None:
        """Drop all sessions."""
        if self._sessions:
            with suppress(EngineError):  # a lost GPU has nothing to wait for
                self._stream.synchronize()
        self._sessions.clear()

    def _session(self, feeds: Arrays) -> Any:
        sizes = {
            axis: size
            for name, spec in self.inputs.items()
            for axis, size in zip(spec.shape, feeds[name].shape, strict=True)
            if isinstance(axis, str) and axis != GROWING
        }
        key = tuple(sorted(sizes.items()))
        if key not in self._sessions:
            self._sessions[key] = self._open(sizes)
            while len(self._sessions) > _SESSIONS:
                self._stream.synchronize()  # it may still be running
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(key)
        return self._sessions[key]

    def _open(self, sizes: Mapping[str, int]) -> Any:
        options = {
            "device_id": str(self._device.cuda.ordinal),
            "user_compute_stream": str(self._stream.handle),
            # The default search times the algorithms, so that two sessions may pick different ones.
            "cudnn_conv_algo_search": "HEURISTIC",
            "use_tf32": "0",
            "arena_extend_strategy": "kSameAsRequested",
        }
        content = self._path if self._read is None else self._read()
        try:
            session = import_onnxruntime().InferenceSession(
                content, session_options(1, sizes, "all", deterministic=False), providers=[(_CUDA, options)]
            )
        except Exception as error:  # as in enqueue
            raise _explained(f"{self._path} could not be loaded on {self._device.name}", error) from error
        if session.get_providers()[0] != _CUDA:
            raise DeviceError(
                f"Asked for {self._device.name}, ONNX Runtime took {session.get_providers()[0]}: its CUDA provider did "
                "not load. See `pflx doctor`; CUDA 13 and cuDNN 9 come with pip install 'pflx[gpu]'."
            )
        return session


def require_cuda(device: str) -> None:
    """Check that the ONNX Runtime that is installed knows CUDA, and let it find CUDA's libraries.

    Raises:
        BackendMissingError: none is installed.
        DeviceError: it was built without CUDA.
    """
    ort = import_onnxruntime()
    if _CUDA not in ort.get_available_providers():
        raise DeviceError(
            f"Asked for {device}, but this onnxruntime has no CUDA. Take pip install 'pflx[gpu]' without onnxruntime "
            "beside it; see `pflx doctor`."
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA and cuDNN where pip put them


def _explained(what: str, error: Exception) -> EngineError:
    said = str(error).lower()
    if any(sign in said for sign in _MEMORY):
        return DeviceMemoryError(f"{what}: no memory left. Close other programs, or take fewer samples.")
    if any(sign in said for sign in _LOST):
        return DeviceLostError(f"{what}: the GPU is lost to this process. Resume from a snapshot in a new one.")
    return EngineError(f"{what}: {first_line(error)}")
