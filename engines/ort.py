"""Graphs on ONNX Runtime: the CPU everywhere, CUDA with the GPU package."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pflx.engines.protocol import (
    Array,
    DeviceError,
    EngineError,
    TensorSpec,
    check_feeds,
    import_backend,
)

log = logging.getLogger(__name__)

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
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class OrtEngine:
    """One ONNX file in an ONNX Runtime session.

    The arrays that `run` returns are new in every call. Equal feeds give equal bytes on one engine.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "cpu",
        *,
        threads: int | None = None,
        sizes: Mapping[str, int] | None = None,
        optimization: GraphOptimization = "all",
        fallback: bool = False,
    ) -> None:
        """Load a graph.

        Args:
            path: the ONNX file.
            device: `cpu`, `cuda` or `cuda:N`.
            threads: CPU threads of one operator; None takes one per physical core.
            sizes: named dimensions that are the same in every call: they become fixed, and what follows from
                them is computed on loading.
            optimization: how far ONNX Runtime rewrites the graph on loading.
            fallback: accept the CPU, with a logged warning, where `device` cannot be had.

        Raises:
            BackendMissingError: onnxruntime is not installed.
            DeviceError: the device is malformed or missing, or ONNX Runtime chose another one.
            EngineError: the file is missing or no graph that this ONNX Runtime can load.
        """
        self._path = Path(path)
        self.name = self._path.stem
        self._session: Any = self._open(device, _session_options(threads, sizes or {}, optimization), fallback)
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
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
            raise EngineError(f"Graph '{self.name}' failed: {_first_line(error)}") from error
        return dict(zip(self.outputs, map(np.asarray, results), strict=True))

    def close(self) -> None:
        """Drop the session; a later `run` raises EngineError."""
        self._session = None

    def _open(self, device: str, options: Any, fallback: bool) -> Any:
        if not self._path.is_file():
            raise EngineError(f"{self._path}: no such file. Give the path of an ONNX graph.")
        providers = _providers(device, fallback)
        try:
            session = _onnxruntime().InferenceSession(self._path, options, providers=providers)
        except Exception as error:  # as in run
            raise EngineError(f"{self._path} could not be loaded: {_first_line(error)}") from error
        wanted = _CUDA if device != "cpu" else _CPU
        if session.get_providers()[0] != wanted:
            _refuse_or_warn(f"Asked for {device}, ONNX Runtime took {session.get_providers()[0]}", fallback)
        return session


def _onnxruntime() -> Any:
    return import_backend("onnxruntime", "pip install 'pflx[cpu]' (or 'pflx[gpu]')")


def _session_options(threads: int | None, sizes: Mapping[str, int], optimization: GraphOptimization) -> Any:
    if threads is not None and threads < 1:
        raise EngineError(f"threads is {threads}; give 1 or more, or None for one per physical core.")
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVEL_NAMES[optimization])
    options.use_deterministic_compute = True
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    options.log_severity_level = 3  # errors: what a user must know comes as an exception
    # Several graphs live in one process, each with its own threads, which by default go on spinning
    # after a run and take the cores from the next graph. Four sessions run in turn on 2 cores: 92 to
    # 112 ms per round by default, 34.5 ms without any spinning, 33 ms with spinning that ends with the run.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _providers(device: str, fallback: bool) -> list[Any]:
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise DeviceError(f"Unknown device '{device}'; give cpu, cuda or cuda:N.")
    if device == "cpu":
        return [_CPU]
    ort = _onnxruntime()
    if _CUDA not in ort.get_available_providers():
        _refuse_or_warn(f"Asked for {device}, but this onnxruntime has no CUDA", fallback)
        return [_CPU]
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA and cuDNN where pip put them
    # The default search times the algorithms, so that two sessions may pick different ones.
    options = {"device_id": match[1] or "0", "cudnn_conv_algo_search": "HEURISTIC"}
    return [(_CUDA, options), _CPU]


def _refuse_or_warn(what: str, fallback: bool) -> None:
    if not fallback:
        raise DeviceError(
            f"{what}. See `pflx doctor`; device='cpu' or fallback=True runs on the CPU; "
            "CUDA needs pip install 'pflx[gpu]' without onnxruntime beside it."
        )
    log.warning("%s; running on the CPU", what)


def _spec(node: Any) -> tuple[str, TensorSpec]:
    if node.type not in _DTYPES:
        raise EngineError(f"Tensor '{node.name}' has type {node.type}; pflx takes {', '.join(_DTYPES)}.")
    shape: tuple[int | str, ...] = tuple(
        size if isinstance(size, int) else size or f"{node.name}:{axis}" for axis, size in enumerate(node.shape)
    )
    return node.name, TensorSpec(shape, _DTYPES[node.type])


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
