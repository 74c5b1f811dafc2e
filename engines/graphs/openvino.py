"""Graphs on OpenVINO's CPU plug-in, compiled on opening."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import numpy as np

from pflx.engines.graphs.openvino_forms import take_fast_forms
from pflx.engines.graphs.protocol import (
    Array,
    EngineError,
    TensorSpec,
    bind_dimensions,
    check_feeds,
    first_line,
    import_backend,
)
from pflx.engines.graphs.threads import calls_at_once, check_threads, library_threads

Inference = Literal["f32", "bf16"]


class OpenVinoEngine:
    """One ONNX file, compiled by OpenVINO for the CPU. Several threads may run it at once, each with its own request.

    The arrays that `run` returns are new in every call. Equal feeds give equal bytes on one engine. Unlike ONNX
    Runtime, OpenVINO reads zeros where an index is out of range.
    """

    def __init__(
        self,
        path: str | Path,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        *,
        threads: int | None = None,
        sizes: Mapping[str, int] | None = None,
        inference: Inference = "f32",
        read: Callable[[], bytes] | None = None,
        as_written: bool = False,
    ) -> None:
        """Compile a graph.

        Args:
            path: the ONNX file.
            inputs: what it takes: OpenVINO does not keep the names of dimensions.
            outputs: what it returns.
            threads: CPU threads of a run; None takes one per physical core.
            sizes: named dimensions that are the same in every call: they become fixed.
            inference: what floating-point layers compute in. Left to itself, OpenVINO would take bf16 wherever the CPU
                has it.
            read: gives the content of the file, which is then named by its path alone; None reads it there.
            as_written: without the faster forms of `openvino_forms`, to compare with.

        Raises:
            BackendMissingError: openvino is not installed.
            EngineError: the file is missing or no graph that this OpenVINO can compile, it takes or returns something
                else, or the CPU does not compute in bf16.
            ThreadsError: fewer than one thread, or more than `most_threads()`.
        """
        check_threads(threads)
        self._path = Path(path)
        self.name = self._path.stem
        self.inputs = {name: _fixed(spec, sizes or {}) for name, spec in inputs.items()}
        self.outputs = {name: _fixed(spec, sizes or {}) for name, spec in outputs.items()}
        self._compiled: Any = self._compile(threads, inference, read, as_written)
        self._requests = threading.local()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once; see `Engine.run`."""
        if self._compiled is None:
            raise EngineError(f"Graph '{self.name}' is closed; open a new engine.")
        sizes = check_feeds(self.inputs, feeds)
        try:
            results = self._request().infer({name: np.ascontiguousarray(value) for name, value in feeds.items()})
            for name, spec in self.outputs.items():
                bind_dimensions(name, spec, results[name], sizes)  # OpenVINO itself checks no dynamic shapes
        except Exception as error:  # OpenVINO raises RuntimeError, and its Python layer others
            raise EngineError(f"Graph '{self.name}' failed: {first_line(error)}") from error
        return {name: np.asarray(results[name]) for name in self.outputs}

    def close(self) -> None:
        """Drop the compiled graph; a later `run` raises EngineError."""
        self._compiled, self._requests = None, threading.local()

    def _request(self) -> Any:
        """The infer request of this thread."""
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        return self._requests.own

    def _compile(
        self, threads: int | None, inference: Inference, read: Callable[[], bytes] | None, as_written: bool
    ) -> Any:
        if read is None and not self._path.is_file():
            raise EngineError(f"{self._path}: no such file. Give the path of an ONNX graph.")
        openvino = import_openvino()
        core = openvino.Core()
        if inference == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EngineError(f"{self._path} is to compute in bf16, which this CPU does not. Take f32.")
        content = None if read is None else read()
        try:
            with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                path = self._path
                if content is not None:  # not from memory, where OpenVINO drops inputs that nothing reads
                    path = Path(folder) / path.name
                    path.write_bytes(content)
                model = core.read_model(path)
                self._require_names(model)
                model.reshape({name: _partial(openvino, spec) for name, spec in self.inputs.items()})
                if not as_written:
                    take_fast_forms(openvino, model)
                return core.compile_model(model, "CPU", _options(threads, inference))
        except EngineError:
            raise
        except Exception as error:  # as in run
            raise EngineError(f"{self._path} could not be loaded: {first_line(error)}") from error

    def _require_names(self, model: Any) -> None:
        pairs = ((self.inputs, model.inputs), (self.outputs, model.outputs))
        if any(expected.keys() != {port.any_name for port in ports} for expected, ports in pairs):
            names = [", ".join(port.any_name for port in ports) for _, ports in pairs]
            raise EngineError(f"{self._path} takes {names[0]} and gives {names[1]}, which is not what was expected.")


def import_openvino() -> Any:
    """Import OpenVINO without the package beside it that reports every import of it over the network.

    Raises:
        BackendMissingError: it is not installed.
    """
    modules = cast(dict[str, Any], sys.modules)
    hidden = "openvino" not in modules and "openvino_telemetry" not in modules
    if hidden:
        modules["openvino_telemetry"] = None  # to the import system: not installed
    try:
        return import_backend("openvino", "pip install 'pflx[openvino]'", needs=("Core",))
    finally:
        if hidden:
            del modules["openvino_telemetry"]


def _options(threads: int | None, inference: Inference) -> dict[str, Any]:
    at_once, threads = calls_at_once(threads), library_threads(threads)
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": inference,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # only what the graph quantises is quantised
    }
    if threads is None:
        return options
    return {**options, "NUM_STREAMS": at_once, "INFERENCE_NUM_THREADS": at_once * threads}


def _fixed(spec: TensorSpec, sizes: Mapping[str, int]) -> TensorSpec:
    return TensorSpec(
        tuple(sizes.get(size, size) if isinstance(size, str) else size for size in spec.shape), spec.dtype
    )


def _partial(openvino: Any, spec: TensorSpec) -> Any:
    """The shape with what is not known left open."""
    return openvino.PartialShape([size if isinstance(size, int) else -1 for size in spec.shape])
