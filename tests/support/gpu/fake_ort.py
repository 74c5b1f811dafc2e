"""ONNX Runtime made of Python, as far as pflx calls its CUDA provider: sessions run functions on a fake GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet, ref

import numpy as np
from support.gpu.fake_cuda import FakeCuda

from pflx.engines import TensorSpec
from pflx.engines.gpu.array import host_view

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
Level = Enum("Level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])


@dataclass
class Graph:
    """What an ONNX file holds: named arrays to named arrays, and what it takes."""

    function: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    inputs: Mapping[str, TensorSpec]


@dataclass(eq=False)
class FakeOrt:
    """The library on one GPU.

    Attributes:
        cuda: the GPU.
        graphs: by the names of their files, without the ending.
        providers: what the library was built with.
        taken: provider that a session really takes; another one than CUDA is what a library that is missing leads to.
        on_load: raised when a session is opened.
        on_run: raised when one is run.
        waits: whether a node runs on the CPU, so that a run waits for the GPU.
        opened: all sessions that were ever opened, by what they were opened with.
        sessions: those that somebody still holds.
        preloaded: how often CUDA's libraries were looked for.
    """

    cuda: FakeCuda
    graphs: Mapping[str, Graph]
    providers: tuple[str, ...] = (CUDA, CPU)
    taken: str = CUDA
    on_load: Exception | None = None
    on_run: Exception | None = None
    waits: bool = False
    opened: list[SimpleNamespace] = field(default_factory=list)
    sessions: WeakSet[_Session] = field(default_factory=WeakSet)
    preloaded: int = 0

    def module(self) -> Any:
        """What `import onnxruntime` is to give."""
        return SimpleNamespace(
            InferenceSession=partial(_Session, self),
            SessionOptions=_SessionOptions,
            GraphOptimizationLevel=Level,
            RunOptions=_RunOptions,
            get_available_providers=lambda: list(self.providers),
            preload_dlls=self._preload,
        )

    def _preload(self) -> None:
        self.preloaded += 1


class _SessionOptions:
    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}

    def add_free_dimension_override_by_name(self, name: str, size: int) -> None:
        self.sizes[name] = size

    def add_session_config_entry(self, name: str, value: str) -> None:
        pass


class _RunOptions:
    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_run_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value


@dataclass(frozen=True)
class _Place:
    """Where an array lies."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def range(self) -> tuple[int, int]:
        return self.address, int(np.prod(self.shape)) * self.dtype.itemsize


class _Binding:
    def __init__(self, ordinal: int) -> None:
        self.inputs: dict[str, _Place] = {}
        self.outputs: dict[str, _Place] = {}
        self._ordinal = ordinal

    def bind_input(self, name: str, kind: str, ordinal: int, dtype: Any, shape: Sequence[int], address: int) -> None:
        assert (kind, ordinal) == ("cuda", self._ordinal)
        self.inputs[name] = _Place(address, tuple(shape), np.dtype(dtype))

    def bind_output(self, name: str, kind: str, ordinal: int, dtype: Any, shape: Sequence[int], address: int) -> None:
        assert (kind, ordinal) == ("cuda", self._ordinal)
        self.outputs[name] = _Place(address, tuple(shape), np.dtype(dtype))


class _Session:
    def __init__(
        self,
        library: FakeOrt,
        path: Path,
        options: _SessionOptions,
        *,
        providers: Sequence[tuple[str, Mapping[str, str]]],
    ) -> None:
        if library.on_load is not None:
            raise library.on_load
        ((provider, given),) = providers
        self._library, self._sizes = library, options.sizes
        self._graph = library.graphs[Path(path).stem]
        self._stream = int(given["user_compute_stream"])
        library.opened.append(SimpleNamespace(path=path, provider=provider, given=dict(given), options=options))
        library.sessions.add(self)

    def get_providers(self) -> list[str]:
        return [self._library.taken, *([CPU] if self._library.taken == CUDA else [])]

    def io_binding(self) -> _Binding:
        return _Binding(self._library.cuda.ordinal)

    def run_with_iobinding(self, binding: _Binding, run_options: _RunOptions) -> None:
        if self._library.on_run is not None:
            raise self._library.on_run
        self._require_sizes(binding)
        session, function = ref(self), self._graph.function

        def run() -> None:
            assert session() is not None, "a session was dropped before its work was done"
            made = function({name: host_view(p.address, p.shape, p.dtype) for name, p in binding.inputs.items()})
            for name, place in binding.outputs.items():
                host_view(place.address, place.shape, place.dtype)[...] = made[name]

        reads = [place.range for place in binding.inputs.values()]
        writes = [place.range for place in binding.outputs.values()]
        self._library.cuda.launch_kernel(run, reads, writes, self._stream)
        if self._library.waits or run_options.entries.get("disable_synchronize_execution_providers") != "1":
            self._library.cuda.synchronize(self._stream)

    def _require_sizes(self, binding: _Binding) -> None:
        assert binding.inputs.keys() == self._graph.inputs.keys()
        for name, spec in self._graph.inputs.items():
            for axis, size in zip(spec.shape, binding.inputs[name].shape, strict=True):
                assert not isinstance(axis, str) or self._sizes.get(axis, size) == size, "Got invalid dimensions"
