"""The part of TensorRT and TensorRT for RTX that pflx builds with, and where the two differ.

Not run on a GPU: what only full TensorRT does here, timing cache included.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pflx.engines.bundle.driver import Gpu, find_gpus, use_gpu, why_no_gpu
from pflx.engines.bundle.engine_passport import Profile
from pflx.engines.bundle.tensorrt_library import Backend, import_tensorrt, library_logger, one_line
from pflx.engines.bundle.user_cache import CacheFile, timing_cache
from pflx.engines.graphs.protocol import DeviceError, EngineError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

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
    *,
    gpu: int = 0,
) -> tuple[memoryview, list[str]]:
    """Compile an ONNX graph, strongly typed: the precision is the one written in the graph.

    The library works in a thread of its own: a signal raises here, and never in the library's callbacks, which would
    swallow it. The build then ends with its next step.

    Args:
        onnx_path: the graph.
        backend: which library.
        profile: shapes of every input with a dynamic dimension.
        compute_capabilities: GPU generations like `sm_89`, for `tensorrt-rtx` only; None takes all
            that the library knows from `sm_80`. `tensorrt` builds for the GPU that is there.
        progress: told about every step, in that thread; an exception in it stops the build and is raised here.
        gpu: on which `tensorrt` builds, as the driver counts them.

    Returns:
        The serialised engine, and the generations it runs on.

    Raises:
        BackendMissingError: the library is not installed.
        DeviceError: no GPU for `tensorrt`, or an unknown generation.
        EngineBuildError: naming each node and operator that the library rejects.
    """
    gpus = find_gpus()
    if backend == "tensorrt" and not gpus:
        # Asked before TensorRT is touched: without a driver it crashes the process when it ends.
        raise DeviceError(
            f"TensorRT builds on the GPU that will run the engine, and {why_no_gpu().reason}. "
            "Run `pflx build` where it will run, or build with tensorrt-rtx."
        )
    if gpus and gpu >= len(gpus):
        raise DeviceError(f"Asked to build on cuda:{gpu}, this machine has {len(gpus)} GPU(s).")
    trt: Any = import_tensorrt(backend)
    here = gpus[gpu] if backend == "tensorrt" else None
    monitor = _monitor(trt, progress or _silent)

    def compiled() -> tuple[memoryview, list[str]]:
        if here:
            use_gpu(gpu)
        builder = trt.Builder(library_logger(trt))
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        _parse(trt, network, onnx_path, backend)
        config = builder.create_builder_config()
        config.progress_monitor = monitor
        _add_profile(builder, network, config, profile, onnx_path)
        built_for = _target(trt, config, compute_capabilities, here)
        timings = _timings(trt, config, here) if here else None
        engine = _build(trt, builder, network, config, f"{onnx_path.name} on {backend}", monitor)
        if timings:
            timings.write(memoryview(config.get_timing_cache().serialize()))
        return engine, built_for

    return _apart(compiled, monitor.stop)


def _apart(work: Callable[[], Result], stop: Callable[[BaseException], None]) -> Result:
    """Let a thread work, and wait for it; what is raised here meanwhile, by a signal, is told to it first."""
    with ThreadPoolExecutor(1, thread_name_prefix="build") as pool:
        future = pool.submit(work)
        try:
            wait([future])
        except BaseException as error:
            stop(error)
            while not future.done():
                with suppress(KeyboardInterrupt):  # the wish is known; the library ends with its next step
                    wait([future])
            raise
        return future.result()


def _silent(phase: str, done: int, total: int) -> None:
    """Nobody listens."""


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


def _target(trt: Any, config: Any, compute_capabilities: Sequence[str] | None, here: Gpu | None) -> list[str]:
    """Choose the GPU generations: that of the GPU it is built on, or, for RTX, those asked for."""
    if here:
        if compute_capabilities:
            raise DeviceError("TensorRT builds for the GPU that is there; compute capabilities are for RTX.")
        return [here.compute_capability]
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


def _timings(trt: Any, config: Any, here: Gpu) -> CacheFile:
    """Let the build use what earlier ones have measured on this GPU; on RTX it has no effect."""
    file = timing_cache(trt.__version__, here)
    stored = file.read()
    cache = config.create_timing_cache(stored)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        file.reject("TensorRT does not take it")
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return file


def _build(trt: Any, builder: Any, network: Any, config: Any, what: str, monitor: Any) -> memoryview:
    logger = library_logger(trt)
    logger.errors.clear()
    engine = builder.build_serialized_network(network, config)
    logger.raise_caught()
    if monitor.stopped_by:
        raise monitor.stopped_by
    if engine is None:
        raise EngineBuildError(f"{what} does not build: {'; '.join(logger.errors) or 'no reason given'}.")
    return memoryview(engine)


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # the base is chosen at run time
        """Passes steps on until it is stopped, as by an exception in what it tells, which the library would swallow."""

        def __init__(self) -> None:
            super().__init__()
            self.totals: dict[str, int] = {}
            self.stopped_by: BaseException | None = None

        def stop(self, error: BaseException) -> None:
            self.stopped_by = self.stopped_by or error

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
                    self.stop(error)

    return Monitor()
