"""The part of TensorRT and TensorRT for RTX that pflx builds with, and where the two differ.

Not run on a GPU: what only full TensorRT does here, timing cache included.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pflx.engines.bundle.driver import Gpu, find_gpus
from pflx.engines.bundle.engine_passport import Profile
from pflx.engines.bundle.tensorrt_library import Backend, import_tensorrt, library_logger, one_line
from pflx.engines.bundle.user_cache import CacheFile, timing_cache
from pflx.engines.graphs.protocol import DeviceError, EngineError

log = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[str, int, int], object]
"""Called with a phase, the steps of it that are done, and how many there are. Phases nest."""


class EngineBuildError(EngineError):
    """A graph does not build on a backend."""


def compile_graph(
    onnx_path: Path,
    backend: Backend,
    profile: Profile,
    compute_capabilities: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> tuple[memoryview, list[str]]:
    """Compile an ONNX graph, strongly typed: the precision is the one written in the graph.

    Args:
        onnx_path: the graph.
        backend: which library.
        profile: shapes of every input with a dynamic dimension.
        compute_capabilities: GPU generations like `sm_89`, for `tensorrt-rtx` only; None takes all
            that the library knows from `sm_80`. `tensorrt` builds for the GPU that is there.
        progress: told about every step; an exception in it stops the build and is raised here.

    Returns:
        The serialised engine, and the generations it runs on.

    Raises:
        BackendMissingError: the library is not installed.
        DeviceError: no GPU for `tensorrt`, or an unknown generation.
        EngineBuildError: naming each node and operator that the library rejects.
    """
    if backend == "tensorrt" and not find_gpus():
        # Asked before TensorRT is touched: without a driver it crashes the process when it ends.
        raise DeviceError(
            "TensorRT builds on the GPU that will run the engine, and there is none here. "
            "Run `pflx build` there, or build with tensorrt-rtx."
        )
    trt: Any = import_tensorrt(backend)
    builder = trt.Builder(library_logger(trt))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, onnx_path, backend)
    config = builder.create_builder_config()
    _add_profile(builder, network, config, profile, onnx_path)
    built_for = _target(trt, config, compute_capabilities)
    timings = _timings(trt, config)
    engine = _build(trt, builder, network, config, progress, f"{onnx_path.name} on {backend}")
    if timings:
        timings.write(memoryview(config.get_timing_cache().serialize()))
    return engine, built_for


def unsupported_gpus(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Those GPUs that TensorRT for RTX has no kernels for.

    An H200 (sm_90) is one: tensorrt-rtx 1.7.1 refuses there whatever engine it is given, built for whatever generation.

    Raises:
        BackendMissingError: the library is not installed.
    """
    known = _generations(import_tensorrt("tensorrt-rtx"))
    return [gpu for gpu in gpus if gpu.compute_capability not in known]


def _parse(trt: Any, network: Any, onnx_path: Path, backend: Backend) -> None:
    parser = trt.OnnxParser(network, library_logger(trt))
    if parser.parse_from_file(str(onnx_path)):
        return
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    faults = [f"{e.node_operator()} node '{e.node_name()}': {one_line(e.desc())}" for e in errors]
    raise EngineBuildError(
        f"{onnx_path.name} does not parse on {backend}: {'; '.join(faults) or 'no reason given'}. "
        "Export it with operators that this library has."
    )


def _add_profile(builder: Any, network: Any, config: Any, profile: Profile, onnx_path: Path) -> None:
    """Give every dynamic input its range of shapes."""
    chosen = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 not in shape:
            continue
        shapes = profile.get(tensor.name)
        if shapes is None or not all(_fits(given, shape) for given in shapes):
            raise EngineBuildError(
                f"{onnx_path.name}: input '{tensor.name}' has shape {list(shape)}, its profile is "
                f"{shapes}. Give a smallest, usual and largest shape that fit."
            )
        chosen.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(chosen)


def _fits(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(given) == len(shape) and all(
        size >= 1 and wanted in (-1, size) for size, wanted in zip(given, shape, strict=True)
    )


def _target(trt: Any, config: Any, compute_capabilities: Sequence[str] | None) -> list[str]:
    """Choose the GPU generations; what the two libraries do not share is told by the enum, not a version."""
    if not hasattr(trt, "ComputeCapability"):
        if compute_capabilities:
            raise DeviceError("TensorRT builds for the GPU that is there; compute capabilities are for RTX.")
        return [find_gpus()[0].compute_capability]
    known = _generations(trt)
    # Turing (sm_75) is left to those who name it, as the library itself leaves it.
    chosen = list(compute_capabilities or (name for name, value in known.items() if int(value) >= 80))
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise DeviceError(f"tensorrt-rtx does not build for {', '.join(unknown)}; it has {', '.join(known)}.")
    config.num_compute_capabilities = len(chosen)
    for index, name in enumerate(chosen):
        config.set_compute_capability(known[name], index)
    # Memory that the library takes while it runs could not be captured in a CUDA graph.
    config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    return chosen


def _generations(trt: Any) -> dict[str, Any]:
    """The GPU generations that TensorRT for RTX builds for, like `sm_89`."""
    return {
        f"sm_{name.removeprefix('SM')}": value
        for name, value in trt.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }


def _timings(trt: Any, config: Any) -> CacheFile | None:
    """Let the build use what earlier ones have measured; None on RTX, where it has no effect and asks for a GPU."""
    if hasattr(trt, "ComputeCapability"):
        return None
    file = timing_cache(trt.__version__, find_gpus()[0])
    stored = file.read()
    cache = config.create_timing_cache(stored)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        file.reject("TensorRT does not take it")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return file


def _build(trt: Any, builder: Any, network: Any, config: Any, progress: Progress | None, what: str) -> memoryview:
    monitor = _monitor(trt, progress) if progress else None
    if monitor:
        config.progress_monitor = monitor
    reasons = library_logger(trt).errors
    reasons.clear()
    engine = builder.build_serialized_network(network, config)
    if monitor and monitor.stopped_by:
        raise monitor.stopped_by
    if engine is None:
        raise EngineBuildError(f"{what} does not build: {'; '.join(reasons) or 'no reason given'}.")
    return memoryview(engine)


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # the base is chosen at run time
        """Passes steps on; keeps an exception, Ctrl-C included, that the library would swallow."""

        def __init__(self) -> None:
            super().__init__()
            self.totals: dict[str, int] = {}
            self.stopped_by: BaseException | None = None

        def phase_start(self, phase: str, parent: str | None, n_steps: int) -> None:
            self.totals[phase] = n_steps
            self._tell(phase, 0)

        def phase_finish(self, phase: str) -> None:
            self._tell(phase, self.totals[phase])

        def step_complete(self, phase: str, step: int) -> bool:
            self._tell(phase, step + 1)
            return self.stopped_by is None

        def _tell(self, phase: str, done: int) -> None:
            if self.stopped_by is None:
                try:
                    progress(phase, done, self.totals[phase])
                except BaseException as error:
                    self.stopped_by = error

    return Monitor()
