"""Engines of TensorRT 10 and 11 and of TensorRT for RTX, with arrays that stay on the GPU.

Where the three differ is told by what the module has, never by its version, and stands in one place, at the end.

Not run on a GPU yet but for one thing: what TensorRT for RTX answers on a GPU that it has no kernels for.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from pflx.engines.bundle.driver import why_no_gpu
from pflx.engines.bundle.engine_passport import Machine, Passport, PassportError, this_machine
from pflx.engines.bundle.tensorrt_library import import_tensorrt, library_logger
from pflx.engines.bundle.user_cache import jit_cache
from pflx.engines.gpu.array import DeviceArray
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import GROWING, Arrays
from pflx.engines.gpu.streams import Stream
from pflx.engines.graphs.protocol import DeviceError, DeviceMemoryError, EngineError, FeedError, TensorSpec

log = logging.getLogger(__name__)

_ALIGNMENT = 256
"""Bytes. Source: NvInferRuntime.h, `IExecutionContext::setTensorAddress`: "at least 256-byte alignment"."""

_AGAIN = "Build it again: pflx build BUNDLE"

_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|could not be allocated|MemoryAllocation|insufficient gpu memory", re.I)


class TrtContext:
    """An execution context (`pflx.engines.gpu.device_engine`): one engine file on one stream.

    Contexts on the same engine file and GPU share the weights; each has its own activations, but for those made by
    `for_capture`.

    The caller has compared the passport with the machine (`require_match`).

    Args:
        plan: the engine file.
        passport: of it.
        inputs: what the graph takes, from the manifest: TensorRT knows no names of dimensions.
        outputs: what it returns.
        device: the GPU.
        stream: that all work is put on.
        read: gives the content of the engine file, which is then named by its path alone; None reads it there.

    Raises:
        BackendMissingError: the library is not installed.
        DeviceError: the driver shows no such GPU.
        PassportError: the library refuses the engine on this GPU, or it is of another graph.
        EngineError: it cannot be loaded.
        DeviceMemoryError: the GPU has not enough memory left.
    """

    def __init__(
        self,
        plan: Path,
        passport: Passport,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        device: Device,
        stream: Stream,
        read: Callable[[], bytes] | None = None,
    ) -> None:
        self.inputs, self.outputs = dict(inputs), dict(outputs)
        self._passport, self._device, self._stream = passport, device, stream
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._staged: dict[str, DeviceArray] = {}
        grows = any(GROWING in spec.shape for spec in inputs.values())
        with _LOADING:
            loaded = _load(plan, passport, device, grows, read or partial(_read, plan))
            loaded.require_interface(self.inputs, self.outputs)
            self._activations: DeviceArray | None = device.empty((loaded.activation_bytes,), np.uint8, stream)
            self._context: Any = loaded.new_context(self._activations)
        self._loaded: _LoadedEngine | None = loaded

    @property
    def device_memory(self) -> int:
        """Bytes of GPU memory for activations; 0 once it is closed."""
        return self._activations.nbytes if self._activations else 0

    def for_capture(self) -> TrtContext:
        """A context for one CUDA graph alone, which has to be closed after it.

        A captured graph counts on the state of the context it came from, so that another shape in that context would
        change what it does. The new one shares weights, stream and activations with this one.

        Source: TensorRT documentation, "CUDA Graphs": one execution context per captured graph, which share memory.
        """
        loaded = self._opened()
        own = copy(self)
        own._shapes, own._addresses, own._staged = {}, {}, {}
        with _LOADING:
            own._context = loaded.new_context(self._activations)
        return own

    def enqueue(self, feeds: Arrays, results: Arrays) -> None:
        """Put one run on the stream; see `ExecutionContext.enqueue`.

        Raises:
            FeedError: a shape is outside of what the engine was built for.
            EngineError, DeviceMemoryError: TensorRT failed.
        """
        loaded = self._opened()
        loaded.reasons.clear()
        for name, feed in feeds.items():
            self._set_shape(loaded, name, feed)
            self._set_address(loaded, name, self._aligned(name, feed))
        for name, result in results.items():
            self._set_address(loaded, name, result.address)
        self._device.cuda.make_current()
        ran = self._context.execute_async_v3(self._stream.handle)
        loaded.raise_caught()
        if not ran:
            raise loaded.failure("does not run")

    def require_capturable(self) -> None:
        """Check, after a run in the same shapes, that the next one could be captured in a CUDA graph.

        Raises:
            EngineError: it could not. Where the library cannot tell, a capture itself would fail.
        """
        if not _is_capturable(self._context, self._stream.handle):
            raise EngineError(
                f"Graph '{self._passport.graph}' takes memory while it runs, which no CUDA graph can hold. {_AGAIN}."
            )

    def close(self) -> None:
        """Drop the context, and the engine with the last context on it."""
        if self._loaded is None:
            return
        with suppress(EngineError):  # a lost GPU has nothing to wait for
            self._stream.synchronize()
        self._context = self._activations = None
        self._staged = {}
        with _LOADING:
            self._loaded.save_kernels()
            self._loaded = None

    def _opened(self) -> _LoadedEngine:
        if self._loaded is None:
            raise EngineError(f"Graph '{self._passport.graph}' is closed; open a new engine.")
        return self._loaded

    def _set_shape(self, loaded: _LoadedEngine, name: str, feed: DeviceArray) -> None:
        shape = feed.shape
        if self._shapes.get(name) == shape:
            return
        self._require_in_profile(name, shape)
        is_dynamic = any(isinstance(size, str) for size in self.inputs[name].shape)
        if is_dynamic and not self._context.set_input_shape(name, shape):
            raise loaded.failure(f"does not take '{name}' in shape {list(shape)}")
        self._shapes[name] = shape

    def _set_address(self, loaded: _LoadedEngine, name: str, address: int) -> None:
        if self._addresses.get(name) == address:
            return
        if not self._context.set_tensor_address(name, address):
            raise loaded.failure(f"does not take '{name}' at address {address:#x}")
        self._addresses[name] = address

    def _aligned(self, name: str, feed: DeviceArray) -> int:
        """The address of a feed, or of a copy where TensorRT could not read it: a view can begin anywhere.

        What a captured call reads is the engine's own and aligned, so no capture comes to take memory here.
        """
        if feed.address % _ALIGNMENT == 0:
            return feed.address
        staged = self._stage(name, feed)
        self._device.overwrite(staged, feed, self._stream)
        return staged.address

    def _stage(self, name: str, feed: DeviceArray) -> DeviceArray:
        """Memory for an input in any shape; kept, because captured graphs hold its address."""
        if name not in self._staged:
            ranges = self._passport.profile.get(name)
            largest = ranges[2] if ranges else feed.shape
            self._staged[name] = self._device.empty(largest, feed.dtype, self._stream)
        return self._staged[name]

    def _require_in_profile(self, name: str, shape: tuple[int, ...]) -> None:
        ranges = self._passport.profile.get(name)
        if ranges is None:
            return
        smallest, _, largest = ranges
        for axis, size in enumerate(shape):
            if not smallest[axis] <= size <= largest[axis]:
                dimension = self.inputs[name].shape[axis]
                wider = (min(size, smallest[axis]), size, max(size, largest[axis]))
                raise FeedError(
                    f"'{name}' has shape {list(shape)}, the engine {self._passport.file} was built for "
                    f"{list(smallest)} to {list(largest)}. Take another size of '{dimension}', or build the engine "
                    f"with a wider range of it: build_bundle_engines(..., ranges={{'{dimension}': {wider}}})."
                )


class _LoadedEngine:
    """A deserialised engine: the weights on a GPU, and the library that put them there."""

    def __init__(self, passport: Passport, device: Device, grows: bool, read: Callable[[], bytes]) -> None:
        self._passport, self._device = passport, device
        self._trt = import_tensorrt(passport.backend)
        self._logger = library_logger(self._trt)
        self.reasons: list[str] = self._logger.errors
        content = read()
        machine = this_machine(passport.backend, device.cuda.ordinal)
        if machine.compute_capability is None:  # a runtime made without a GPU crashes the process when it ends
            raise DeviceError(f"{self._named('needs a GPU')}, and {why_no_gpu().reason}. See `pflx doctor`.")
        free, _ = device.cuda.memory()  # makes the GPU this thread's, which is the one that TensorRT takes
        self.reasons.clear()
        self._runtime = self._trt.Runtime(self._logger)
        _require_valid(self._trt, self._runtime, content, self._named(f"({machine.compute_capability})"), self.reasons)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        self._logger.raise_caught()
        if self._engine is None:
            raise self.failure("could not be loaded")
        self._kernels = _runtime_kernels(self._trt, self._engine, content, machine, grows)
        log.info("%s: %.0f MB", self._named("loaded"), (free - device.cuda.memory()[0]) / 1e6)

    @property
    def activation_bytes(self) -> int:
        """GPU memory that a run takes besides the weights."""
        return int(self._engine.device_memory_size_v2)

    def new_context(self, activations: DeviceArray | None) -> Any:
        """An execution context of the library.

        Args:
            activations: memory for them, which the caller keeps.

        Raises:
            EngineError, DeviceMemoryError: it could not be made.
        """
        self.reasons.clear()
        self._device.cuda.make_current()
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(self._kernels.config if self._kernels else strategy)
        self._logger.raise_caught()
        if context is None:
            raise self.failure("could not be started")
        if activations is not None:
            context.set_device_memory(activations.address, activations.nbytes)
        return context

    def raise_caught(self) -> None:
        """Raise what was raised in the library's log, where it would have been lost."""
        self._logger.raise_caught()

    def save_kernels(self) -> None:
        """Keep what was compiled while it ran for the next start."""
        if self._kernels:
            self._kernels.save()

    def require_interface(self, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
        """Check that the engine takes and returns what the manifest says.

        Raises:
            PassportError: it does not.
            EngineError: it reads an input on the host.
        """
        modes = self._trt.TensorIOMode
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        for mode, specs in ((modes.INPUT, inputs), (modes.OUTPUT, outputs)):
            found = [name for name in names if self._engine.get_tensor_mode(name) == mode]
            if sorted(found) != sorted(specs):
                raise PassportError(
                    f"{self._passport.file}: the engine has {', '.join(found)} where the graph has "
                    f"{', '.join(specs)}. {_AGAIN}."
                )
            for name, spec in specs.items():
                self._require_tensor(name, spec)

    def failure(self, what: str) -> EngineError:
        """What the library logged, as the error to raise.

        Raises:
            DeviceLostError: the GPU does not answer any more.
        """
        said = "; ".join(self.reasons) or "no reason given"
        self.reasons.clear()
        free, total = self._device.cuda.memory()
        if _OUT_OF_MEMORY.search(said):
            left = f"{free / 1e6:.0f} of {total / 1e6:.0f} MB are free"
            return DeviceMemoryError(
                f"{self._named(what)}: {said}; {left}. Close other programs, or take fewer samples."
            )
        return EngineError(f"{self._named(what)}: {said}. {_AGAIN}, or run it with ONNX Runtime.")

    def _require_tensor(self, name: str, spec: TensorSpec) -> None:
        shape = tuple(self._engine.get_tensor_shape(name))
        dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        if dtype != spec.dtype or not _fits(shape, spec.shape):
            raise PassportError(
                f"{self._passport.file}: '{name}' is {dtype} {list(shape)} in the engine, {spec} in the graph. "
                f"{_AGAIN}."
            )
        if self._engine.get_tensor_location(name) != self._trt.TensorLocation.DEVICE:
            raise EngineError(
                f"{self._passport.file}: '{name}' decides a shape, so TensorRT reads it on the host, where pflx has it "
                "on the GPU. Export the graph with that shape fixed, or run it with ONNX Runtime."
            )

    def _named(self, what: str) -> str:
        return f"{self._passport.file}: graph '{self._passport.graph}' on {self._device.name} {what}"


_LOADED: WeakValueDictionary[tuple[Path, int], _LoadedEngine] = WeakValueDictionary()
"""Engines in use, by file and GPU. Held by the contexts on them alone, so that the last one takes its engine along."""

_LOADING = threading.Lock()


def _load(plan: Path, passport: Passport, device: Device, grows: bool, read: Callable[[], bytes]) -> _LoadedEngine:
    key = (plan.resolve(), device.cuda.ordinal)
    loaded = _LOADED.get(key)
    if loaded is None:
        loaded = _LoadedEngine(passport, device, grows, read)
        _LOADED[key] = loaded
    return loaded


def _read(plan: Path) -> bytes:
    try:
        return plan.read_bytes()
    except OSError as error:
        raise EngineError(f"{plan} cannot be read: {error.strerror}. {_AGAIN}.") from error


def _fits(shape: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """Whether a shape of TensorRT, -1 for what it does not know, can be that of a graph."""
    return len(shape) == len(wanted) and all(
        isinstance(ours, str) or theirs in (-1, ours) for theirs, ours in zip(shape, wanted, strict=True)
    )


# What only TensorRT for RTX has.


class _Kernels:
    """The kernels that are compiled for the GPU while the engine runs, and the file that keeps them.

    Args:
        trt: the library.
        engine: that they belong to.
        content: of the engine file.
        machine: that they are compiled on.
        grows: the graph has a dimension that is larger in every call.

    Attributes:
        config: for contexts that share them.
    """

    def __init__(self, trt: Any, engine: Any, content: bytes, machine: Machine, grows: bool) -> None:
        self.config = engine.create_runtime_config()
        self.config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self.config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED  # pflx captures the calls itself
        # The default, LAZY, puts other kernels in the place of those that a CUDA graph has captured.
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        self.config.dynamic_shapes_kernel_specialization_strategy = strategies.NONE if grows else strategies.EAGER
        self._cache = self.config.create_runtime_cache()
        self._file = jit_cache(
            hashlib.sha256(content).hexdigest(), machine.backend_version, machine.compute_capability, machine.driver
        )
        stored = self._file.read()
        if stored and not self._cache.deserialize(stored):
            self._file.reject("TensorRT for RTX does not take it")
        self.config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write the file, if anything is new."""
        kernels = self._cache.serialize()
        if kernels is not None:
            self._file.write(memoryview(kernels))


def _runtime_kernels(trt: Any, engine: Any, content: bytes, machine: Machine, grows: bool) -> _Kernels | None:
    return _Kernels(trt, engine, content, machine, grows) if hasattr(trt, "CudaGraphStrategy") else None


def _is_capturable(context: Any, stream: int) -> bool:
    return not hasattr(context, "is_stream_capturable") or bool(context.is_stream_capturable(stream))


def _require_valid(trt: Any, runtime: Any, content: bytes, what: str, reasons: list[str]) -> None:
    """Ask whether the engine would run here, before a byte of it is loaded."""
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, diagnostics = runtime.get_engine_validity(content)
    faults = trt.EngineInvalidityDiagnostics.__members__
    words = [name.lower().replace("_", " ") for name, bit in faults.items() if int(diagnostics) & int(bit)]
    said = "; ".join([", ".join(words) or f"diagnostics {diagnostics}", *reasons])
    if validity == trt.EngineValidity.INVALID:
        other = "Run it with another engine library: ONNX Runtime, or `pflx build BUNDLE --engine tensorrt`."
        fix = other if int(diagnostics) & int(faults["UNSUPPORTED_CC"]) else f"{_AGAIN}."
        raise PassportError(f"{what} is refused by TensorRT for RTX: {said}. {fix}")
    if validity == trt.EngineValidity.SUBOPTIMAL:
        log.warning("%s runs slower than it could: %s. %s.", what, said, _AGAIN)
