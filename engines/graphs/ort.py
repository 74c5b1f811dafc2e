"""Graphs on ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pflx.engines.graphs.protocol import Array, EngineError, TensorSpec, check_feeds, first_line, import_backend
from pflx.engines.graphs.threads import check_threads, library_threads

GraphOptimization = Literal["none", "basic", "extended", "all"]
_LEVEL_NAMES = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(bool)": np.dtype(np.bool_),
}


class OrtEngine:
    """One ONNX file in an ONNX Runtime session on the CPU.

    The arrays that `run` returns are new in every call. Equal feeds give equal bytes on one engine.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        sizes: Mapping[str, int] | None = None,
        optimization: GraphOptimization = "all",
        read: Callable[[], bytes] | None = None,
        pooled: bool = True,
    ) -> None:
        """Load a graph.

        Args:
            path: the ONNX file.
            threads: CPU threads of one operator; None takes one per physical core, or as many as
                affinity and container allow.
            sizes: named dimensions that are the same in every call: they become fixed, and what follows from
                them is computed on loading.
            optimization: how far ONNX Runtime rewrites the graph on loading.
            read: gives the content of the file, which is then named by its path alone; None reads it there.
            pooled: keep the memory of a call for the next one. A small graph is as fast without it.

        Raises:
            BackendMissingError: onnxruntime is not installed.
            EngineError: the file is missing or no graph that this ONNX Runtime can load.
            ThreadsError: fewer than one thread, or more than `most_threads()`.
        """
        self._path = Path(path)
        self.name = self._path.stem
        self._session: Any = self._open(session_options(threads, sizes or {}, optimization, pooled=pooled), read)
        self.inputs: dict[str, TensorSpec] = dict(map(_spec, self._session.get_inputs()))
        self.outputs: dict[str, TensorSpec] = dict(map(_spec, self._session.get_outputs()))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once; see `Engine.run`."""
        if self._session is None:
            raise EngineError(f"Graph '{self.name}' is closed; open a new engine.")
        check_feeds(self.inputs, feeds)
        try:
            results = self._session.run(None, dict(feeds))
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            raise EngineError(f"Graph '{self.name}' failed: {first_line(error)}") from error
        return dict(zip(self.outputs, map(np.asarray, results), strict=True))

    def close(self) -> None:
        """Drop the session; a later `run` raises EngineError."""
        self._session = None

    def _open(self, options: Any, read: Callable[[], bytes] | None) -> Any:
        if read is None and not self._path.is_file():
            raise EngineError(f"{self._path}: no such file. Give the path of an ONNX graph.")
        content = self._path if read is None else read()
        try:
            return import_onnxruntime().InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # as in run
            raise EngineError(f"{self._path} could not be loaded: {first_line(error)}") from error


def import_onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        BackendMissingError: it is not installed.
    """
    return import_backend("onnxruntime", "pip install 'pflx[cpu]' (or 'pflx[gpu]')", needs=("InferenceSession",))


def session_options(
    threads: int | None,
    sizes: Mapping[str, int],
    optimization: GraphOptimization,
    *,
    deterministic: bool = True,
    pooled: bool = True,
) -> Any:
    """Options of a session; see `OrtEngine`."""
    check_threads(threads)
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = library_threads(threads) or 0
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVEL_NAMES[optimization])
    options.use_deterministic_compute, options.enable_cpu_mem_arena = deterministic, pooled
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    options.log_severity_level = 3  # errors: what a user must know comes as an exception
    # Several graphs live in one process, each with its own threads, which by default go on spinning
    # after a run and take the cores from the next graph. Four sessions run in turn on 2 cores: 92 to
    # 112 ms per round by default, 34.5 ms without any spinning, 33 ms with spinning that ends with the run.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _spec(node: Any) -> tuple[str, TensorSpec]:
    if node.type not in _DTYPES:
        raise EngineError(f"Tensor '{node.name}' has type {node.type}; pflx takes {', '.join(_DTYPES)}.")
    shape: tuple[int | str, ...] = tuple(
        size if isinstance(size, int) else size or f"{node.name}:{axis}" for axis, size in enumerate(node.shape)
    )
    return node.name, TensorSpec(shape, _DTYPES[node.type])
