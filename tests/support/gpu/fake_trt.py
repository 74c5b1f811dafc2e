"""TensorRT made of Python: its modules as far as pflx calls them, whose engines run functions on a fake GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from support.gpu.fake_cuda import FakeCuda

from pflx.engines import TensorSpec
from pflx.engines.gpu.array import host_view

Shape = tuple[int, ...]
_Severity = IntEnum("_Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0)


@dataclass
class Plan:
    """What an engine file of this library holds.

    Attributes:
        function: named arrays to named arrays.
        inputs: what it takes.
        outputs: what it returns.
        on_host: inputs that are read on the host.
    """

    function: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    on_host: tuple[str, ...] = ()


@dataclass
class Faults:
    """How the library is to fail next.

    Attributes:
        validity: what TensorRT for RTX says of any engine: a name, and diagnostics.
        no_engine: reason why no engine is loaded.
        no_context: reason why no context is made.
        no_run: reason why nothing is run.
        is_capturable: what TensorRT for RTX says of any context.
        takes_caches: whether stored caches are accepted.
    """

    validity: tuple[str, int] = ("VALID", 0)
    no_engine: str = ""
    no_context: str = ""
    no_run: str = ""
    is_capturable: bool = True
    takes_caches: bool = True


@dataclass
class FakeTrt:
    """The library on one GPU.

    Attributes:
        cuda: the GPU.
        plans: engine files by their content.
        rtx: whether it is TensorRT for RTX.
        calls: every call of a context and every engine loaded, in order.
        faults: how to fail.
        kernels: what was compiled, once something ran; RTX only.
    """

    cuda: FakeCuda
    plans: dict[bytes, Plan]
    rtx: bool = False
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    kernels: bytes = b""
    alive: list[str] = field(default_factory=list)

    def module(self) -> ModuleType:
        """What `import tensorrt`, or `tensorrt_rtx`, is to give."""
        made = ModuleType("tensorrt_rtx" if self.rtx else "tensorrt")
        enums = {
            "TensorIOMode": IntEnum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"], start=0),
            "ExecutionContextAllocationStrategy": IntEnum("Allocation", ["STATIC", "USER_MANAGED"], start=0),
            "TensorLocation": IntEnum("TensorLocation", ["DEVICE", "HOST"], start=0),
        }
        names: dict[str, Any] = {
            "__version__": "10.16.1",
            "ILogger": _ILogger,
            "nptype": lambda dtype: dtype.type,
            "Runtime": lambda logger: _Runtime(self, made, logger),
            **enums,
        }
        vars(made).update(names | (_rtx_names() if self.rtx else {}))
        return made

    def count(self, name: str) -> int:
        """How often something was called."""
        return sum(call[0] == name for call in self.calls)


class _ILogger:
    Severity = _Severity

    def log(self, severity: Any, message: str) -> None:
        """Abstract, as the real one."""


def _rtx_names() -> dict[str, Any]:
    bits = {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "OLD_CUDA_DRIVER": 4, "MALFORMED_ENGINE": 32}
    return {
        "__version__": "1.7.1",
        "ComputeCapability": IntEnum("ComputeCapability", {"SM80": 80, "SM89": 89, "CURRENT": 1}),
        "EngineValidity": IntEnum("EngineValidity", ["VALID", "SUBOPTIMAL", "INVALID"], start=0),
        "EngineInvalidityDiagnostics": IntEnum("EngineInvalidityDiagnostics", bits),
        "CudaGraphStrategy": IntEnum("CudaGraphStrategy", ["DISABLED", "WHOLE_GRAPH_CAPTURE"], start=0),
        "DynamicShapesKernelSpecializationStrategy": IntEnum("Specialization", ["LAZY", "EAGER", "NONE"], start=0),
    }


class _Runtime:
    def __init__(self, library: FakeTrt, trt: Any, logger: Any) -> None:
        self._library, self._trt, self._logger = library, trt, logger
        if library.rtx:
            self.get_engine_validity = self._validity

    def _validity(self, content: bytes) -> tuple[Any, int]:
        name, diagnostics = self._library.faults.validity
        if diagnostics:
            self._logger.log(_Severity.ERROR, "The engine cannot run on this GPU.\n")
        return self._trt.EngineValidity[name], diagnostics

    def deserialize_cuda_engine(self, content: bytes) -> _Engine | None:
        self._library.calls.append(("deserialize", content))
        reason = self._library.faults.no_engine
        if reason or content not in self._library.plans:
            self._logger.log(_Severity.ERROR, reason or "IRuntime::deserializeCudaEngine: Error Code 1: Serialization")
            return None
        return _Engine(self._library, self._trt, self._logger, self._library.plans[content])


class _Engine:
    device_memory_size_v2 = 4096

    def __init__(self, library: FakeTrt, trt: Any, logger: Any, plan: Plan) -> None:
        self._library, self._trt, self._logger, self._plan = library, trt, logger, plan
        self._specs = plan.inputs | plan.outputs
        self.num_io_tensors = len(self._specs)
        self._life = f"engine {id(self)}"
        library.alive.append(self._life)
        if library.rtx:
            self.create_runtime_config = lambda: _config(library)

    def __del__(self) -> None:
        self._library.alive.remove(self._life)

    def get_tensor_name(self, index: int) -> str:
        return list(self._specs)[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._trt.TensorIOMode
        return modes.INPUT if name in self._plan.inputs else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> Shape:
        return tuple(-1 if isinstance(size, str) else size for size in self._specs[name].shape)

    def get_tensor_dtype(self, name: str) -> Any:
        return self._specs[name].dtype

    def get_tensor_location(self, name: str) -> Any:
        places = self._trt.TensorLocation
        return places.HOST if name in self._plan.on_host else places.DEVICE

    def create_execution_context(self, config: Any) -> _Context | None:
        assert getattr(config, "allocation", config).name == "USER_MANAGED"
        self._library.calls.append(("create_execution_context", config))
        if self._library.faults.no_context:
            self._logger.log(_Severity.ERROR, self._library.faults.no_context)
            return None
        return _Context(self._library, self._logger, self._plan, self)


def _config(library: FakeTrt) -> SimpleNamespace:
    config = SimpleNamespace(cuda_graph_strategy=None, dynamic_shapes_kernel_specialization_strategy=None, cache=None)

    def deserialize(stored: bytes) -> bool:
        if library.faults.takes_caches:
            library.kernels = stored
        return library.faults.takes_caches

    config.create_runtime_cache = lambda: SimpleNamespace(deserialize=deserialize, serialize=lambda: library.kernels)
    config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "allocation", strategy)
    config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
    return config


class _Context:
    def __init__(self, library: FakeTrt, logger: Any, plan: Plan, engine: _Engine) -> None:
        self._library, self._logger, self._plan, self._engine = library, logger, plan, engine
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._memory = (0, 0)
        if library.rtx:
            self.is_stream_capturable = lambda stream: library.faults.is_capturable

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        self._library.calls.append(("set_input_shape", name, shape))
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._library.calls.append(("set_tensor_address", name, address))
        self._addresses[name] = address
        if address % 256:
            self._logger.log(_Severity.ERROR, f"setTensorAddress: {name} is not aligned to 256 bytes")
        return address % 256 == 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        assert size >= self._engine.device_memory_size_v2
        self._memory = (memory, size)

    def execute_async_v3(self, stream: int) -> bool:
        self._library.calls.append(("execute_async_v3", stream))
        missing = (self._plan.inputs | self._plan.outputs).keys() - self._addresses.keys()
        reason = self._library.faults.no_run or (f"no address for {missing}" if missing else "")
        if reason:
            self._logger.log(_Severity.ERROR, reason)
            return False
        if self._library.rtx:
            self._library.kernels += b"k"
        self._put_kernel(stream)
        return True

    def _put_kernel(self, stream: int) -> None:
        feeds = {name: self._view(name, spec) for name, spec in self._plan.inputs.items()}
        results = {name: self._view(name, spec) for name, spec in self._plan.outputs.items()}

        def run() -> None:
            for name, made in self._plan.function(feeds).items():
                results[name][...] = made

        reads, writes = (
            [(int(a.__array_interface__["data"][0]), a.nbytes) for a in arrays.values()] for arrays in (feeds, results)
        )
        self._library.cuda.launch_kernel(run, reads, [*writes, self._memory], stream)

    def _view(self, name: str, spec: TensorSpec) -> np.ndarray[Any, Any]:
        sizes: dict[str, int] = {}
        for source, given in self._plan.inputs.items():
            for axis, size in zip(given.shape, self._shapes.get(source, given.shape), strict=True):
                if isinstance(axis, str):
                    sizes[axis] = int(size)
        shape = [sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape]
        return host_view(self._addresses[name], shape, spec.dtype)
