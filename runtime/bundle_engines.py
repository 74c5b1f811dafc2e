"""From a bundle on the disk to engines: which library runs its graphs, on what, and on which streams."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from pflx.engines import (
    Bundle,
    BundleCorruptError,
    BundleError,
    BundleMissingError,
    Engine,
    FeedError,
    Manifest,
    OrtEngine,
    PflxError,
)
from pflx.engines.building.compiler import unsupported_gpus
from pflx.engines.bundle.driver import find_gpus
from pflx.engines.bundle.engine_passport import require_match, this_machine
from pflx.engines.bundle.manifest import on_gpu, without_pictures
from pflx.engines.bundle.variant_admission import is_admitted, require_admitted
from pflx.engines.gpu.cuda import parse_device
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import DeviceEngine, ExecutionContext
from pflx.engines.gpu.ort_cuda import OrtContext
from pflx.engines.gpu.streams import Stream
from pflx.engines.gpu.trt import TrtContext
from pflx.engines.graphs.openvino import Inference, OpenVinoEngine
from pflx.engines.graphs.protocol import DeviceError
from pflx.engines.graphs.threads import calls_at_once, check_threads
from pflx.runtime.builtin import builtin_bundle
from pflx.runtime.frames.coefficients import WINDOW_RADIUS
from pflx.runtime.rendering.renderers import chosen_rendering, graphs_on_cpu

log = logging.getLogger(__name__)

Library: TypeAlias = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
LIBRARIES: tuple[Library, ...] = get_args(Library)


@dataclass(frozen=True)
class EngineSettings:
    """How the graphs of a bundle are run.

    Attributes:
        library: what runs them: "onnxruntime", on the CPU also "openvino", on a GPU also "tensorrt" or "tensorrt-rtx",
            with engines in the bundle that `pflx build` has made.
        precision: a variant the bundle holds; None takes the bundle's own, and `auto` the fastest of those that were
            admitted for this library and this machine's CPU, if there is one.
        threads: of the CPU, per call, at most four for each core; None gives one to a graph without a network, where
            more take CPU and save no time, and leaves others to the library. Live sessions of a listener use as many
            places of so many threads at once as there are cores for.
        fallback: take the CPU, with a logged warning, where what was asked for cannot be had.

    Raises:
        FeedError: there is no such library.
        ThreadsError: fewer than one thread, or more than `most_threads()`: four for each core.
    """

    library: Library = "onnxruntime"
    precision: str | None = None
    threads: int | None = None
    fallback: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.library not in LIBRARIES:
            raise FeedError(f"library is '{self.library}'; give {', '.join(LIBRARIES)}.")
        check_threads(self.threads)


AS_IT_IS = EngineSettings()
"""ONNX Runtime, in the bundle's own precision."""

AUTO = "auto"
"""In place of a variant's name: the fastest that was admitted."""

_FASTEST = ("int8", "bf16")
"""Variants of the CPU, the faster one first."""

_LIGHT_BYTES, _LIGHT_SIDE = 1 << 20, 512
"""Of graphs that one thread runs: the file of one without a network is smaller, and larger pictures take too long."""

CALL_SIZES = {"speakers": 1, "portraits": 1, "frames": 1, "track": 2 * WINDOW_RADIUS + 1, "side": 256, "half": 128}
"""Named dimensions of a bundle's graphs that have the same size in every call of a stream on the CPU.

`side` and `half` are others where the bundle's pictures are of another size: see `call_sizes`.
"""


def open_bundle(
    place: str | Path | Bundle | None,
    renderer: str | None,
    size: int | None,
    device: str,
    settings: EngineSettings,
    *,
    render: bool = True,
) -> tuple[Bundle, dict[str, Engine], Device | None]:
    """Open a bundle with all its graphs. If it is replaced meanwhile, the new one is opened, once.

    Args:
        place: its path or address, or one that was opened already; None is the listener that comes with pflx.
        renderer: the one to use of those in the bundle, without the other's graphs; None leaves it as it is.
        size: side of a picture in pixels; None leaves that, too.
        device: see `open_engines`.
        settings: see `open_engines`.
        render: False leaves out the graphs that draw pictures.

    Returns:
        The bundle, and what `open_engines` returns.

    Raises:
        BundleError, HubError: there is no bundle, or no such renderer or size in it.
        DeviceError, BackendMissingError, PassportError, EngineError: see `open_engines`.
    """
    try:
        return _open_bundle(place, renderer, size, device, settings, render)
    except (BundleCorruptError, BundleMissingError):
        if place is None or isinstance(place, Bundle):
            raise
        Bundle.open(place)  # says what is wrong with it, if it was not that
    return _open_bundle(place, renderer, size, device, settings, render)


def open_engines(
    bundle: Bundle, device: str = "cpu", settings: EngineSettings = AS_IT_IS
) -> tuple[dict[str, Engine], Device | None]:
    """Open the graphs of a bundle, of those that stand in for one another the ones that are run on such a device.

    Args:
        bundle: holds them.
        device: `cpu`, `cuda` or `cuda:N`.
        settings: how they are run.

    Returns:
        The engines by graph, and the GPU, which outlives them; None for the CPU.

    Raises:
        DeviceError, BackendMissingError, PassportError, EngineError: what was asked for cannot be had.
        BundleError: the bundle has no such variant, or no engines of that library.
    """
    on_cpu = _checked(device, settings.library) is None
    try:
        return _open_all(bundle, open_device(device, settings.library), settings)
    except PflxError as error:
        if not settings.fallback or on_cpu:
            raise
        log.warning("%s Running on the CPU.", error)
        return _open_all(bundle, None, replace(settings, library="onnxruntime"))


def open_device(device: str, library: Library) -> Device | None:
    """The GPU that engines of a library are to run on; None for the CPU.

    Raises:
        DeviceError, BackendMissingError: it cannot be had.
    """
    ordinal = _checked(device, library)
    if ordinal is None:
        return None
    if library == "tensorrt-rtx":
        _require_supported(ordinal)
    return Device.open(device)


def open_engine(
    bundle: Bundle,
    graph: str,
    gpu: Device | None,
    settings: EngineSettings = AS_IT_IS,
    *,
    content: bytes | None = None,
) -> Engine:
    """Open one graph; see `open_engines`.

    Args:
        bundle: holds it.
        graph: its name.
        gpu: of `open_device`.
        settings: how it is run.
        content: what `Bundle.read_graph` gives, where it was read ahead; None reads it. On a GPU it is read there.
    """
    library, threads = settings.library, threads_of(bundle, graph, settings)
    precision = precision_of(bundle.manifest, settings)
    inference = _admitted_inference(bundle, graph, library, precision, on_gpu=gpu is not None)
    if gpu is None:
        path, info = bundle.graph_path(graph, precision), bundle.manifest.graphs[graph]
        sizes = call_sizes(bundle.manifest)
        read = partial(bundle.read_graph, graph, precision) if content is None else partial(bytes, content)
        if library != "openvino":
            return OrtEngine(
                path, threads=threads, sizes=sizes, read=read, pooled=not _is_light(bundle, graph, settings)
            )
        return OpenVinoEngine(
            path, info.inputs, info.outputs, threads=threads, sizes=sizes, inference=inference, read=read
        )
    stream = gpu.streams.named(stream_of(bundle.manifest, graph))
    return DeviceEngine(graph, _context(bundle, graph, library, precision, gpu, stream), gpu, stream)


def call_sizes(manifest: Manifest) -> dict[str, int]:
    """`CALL_SIZES` of a bundle whose pictures may be of another size."""
    side = manifest.renderer.size
    return {**CALL_SIZES, "side": side, "half": side // 2}


def precision_of(manifest: Manifest, settings: EngineSettings) -> str:
    """The variant of a bundle that settings ask for."""
    if settings.precision != AUTO:
        return settings.precision or manifest.precision
    admitted = (name for name in _FASTEST if name in manifest.admissions)
    fitting = (name for name in admitted if is_admitted(manifest.admissions[name], settings.library))
    return next(fitting, manifest.precision)


def threads_of(bundle: Bundle, graph: str, settings: EngineSettings) -> int | None:
    """CPU threads of a call of a graph; see `EngineSettings`."""
    return 1 if settings.threads is None and _is_light(bundle, graph, settings) else settings.threads


def _is_light(bundle: Bundle, graph: str, settings: EngineSettings) -> bool:
    manifest = bundle.manifest
    file = manifest.graphs[graph].files.get(precision_of(manifest, settings))
    return file is not None and manifest.files[file].bytes <= _LIGHT_BYTES and manifest.renderer.size <= _LIGHT_SIDE


def sessions_at_once(bundle: Bundle, gpu: Device | None, settings: EngineSettings) -> int:
    """How many live sessions may have the engines of a bundle at work at the same time."""
    if gpu is not None:
        return 1
    threads = [threads_of(bundle, graph, settings) for graph in bundle.manifest.graphs]
    return min(map(calls_at_once, threads), default=1)


def stream_of(manifest: Manifest, graph: str) -> str:
    """The stream that a graph's work is put on: pictures are rendered while the next segment is generated."""
    return "render" if any(graph in info.graphs.values() for info in manifest.renderers) else "generate"


def close_engines(engines: Mapping[str, Engine], gpu: Device | None) -> None:
    """Close all engines, and then the GPU that they run on."""
    for engine in engines.values():
        engine.close()
    if gpu is not None:
        gpu.close()


def _open_bundle(
    place: str | Path | Bundle | None,
    renderer: str | None,
    size: int | None,
    device: str,
    settings: EngineSettings,
    render: bool,
) -> tuple[Bundle, dict[str, Engine], Device | None]:
    if place is None:
        bundle = builtin_bundle()
    else:  # what is run is hashed when it is read, and all else is of no use here
        bundle = place if isinstance(place, Bundle) else Bundle.open(place, verify=False)
    bundle = chosen_rendering(bundle, renderer, size)
    if not render:
        bundle = replace(bundle, manifest=without_pictures(bundle.manifest))
    return bundle, *open_engines(bundle, device, settings)


def _checked(device: str, library: Library) -> int | None:
    """Which GPU was asked for; None for the CPU.

    Raises:
        DeviceError: it could not be had on any machine.
    """
    ordinal = parse_device(device)
    if ordinal is not None and library == "openvino":
        raise DeviceError("openvino runs on the CPU only; give device='cpu', or another engine.")
    if ordinal is None and library not in ("onnxruntime", "openvino"):
        raise DeviceError(f"{library} runs on a GPU only; give device='cuda', or leave the engine to onnxruntime.")
    return ordinal


def _admitted_inference(bundle: Bundle, graph: str, library: Library, precision: str, *, on_gpu: bool) -> Inference:
    """What OpenVINO is to compute a graph in; refused if the variant was not admitted for this library and machine."""
    admission = bundle.manifest.admissions.get(precision)
    if admission is None:
        return "f32"
    require_admitted(admission, f"Graph '{graph}' of {bundle.path} in {precision}", library, on_gpu=on_gpu)
    return cast(Inference, admission.inference.get(graph, "f32"))


def _require_supported(ordinal: int) -> None:
    for gpu in unsupported_gpus(find_gpus()[ordinal : ordinal + 1]):
        raise DeviceError(
            f"tensorrt-rtx has no kernels for cuda:{ordinal}, {gpu.name} ({gpu.compute_capability}), however its "
            "engines are built. Take onnxruntime, or tensorrt."
        )


def _open_all(bundle: Bundle, gpu: Device | None, settings: EngineSettings) -> tuple[dict[str, Engine], Device | None]:
    engines: dict[str, Engine] = {}
    try:
        if gpu is None:
            _open_on_cpu(bundle, settings, engines)
        else:
            for graph in on_gpu(bundle.manifest):
                engines[graph] = open_engine(bundle, graph, gpu, settings)
    except BaseException:
        close_engines(engines, gpu)
        raise
    return engines, gpu


def _open_on_cpu(bundle: Bundle, settings: EngineSettings, engines: dict[str, Engine]) -> None:
    """Open graphs, the largest last: while one is opened, the next is read and hashed, and never two large ones."""
    precision = precision_of(bundle.manifest, settings)
    graphs = sorted(graphs_on_cpu(bundle.manifest), key=lambda graph: _bytes(bundle.manifest, graph, precision))
    with ThreadPoolExecutor(1, "pflx-read") as reader:
        following = iter(graphs)
        ahead = [reader.submit(bundle.read_graph, graph, precision) for graph in islice(following, 1)]
        for graph in graphs:
            content = ahead.pop().result()
            ahead += [reader.submit(bundle.read_graph, each, precision) for each in islice(following, 1)]
            engines[graph] = open_engine(bundle, graph, None, settings, content=content)


def _bytes(manifest: Manifest, graph: str, precision: str) -> int:
    """Size of a graph's file; 0 where it has no such variant, which is told when it is opened."""
    file = manifest.graphs[graph].files.get(precision)
    return 0 if file is None else manifest.files[file].bytes


def _context(
    bundle: Bundle, graph: str, library: Library, precision: str, gpu: Device, stream: Stream
) -> ExecutionContext:
    path, info = bundle.graph_path(graph, precision), bundle.manifest.graphs[graph]
    if library == "onnxruntime":
        read = partial(bundle.read_graph, graph, precision)
        read()  # a session is opened with the first call; what is wrong with the file is told now
        return OrtContext(path, info.inputs, info.outputs, gpu, stream, read)
    assert library != "openvino", "refused on a GPU before"
    passport = bundle.passport(graph, library, precision)
    if passport is None:
        raise BundleError(
            f"{bundle.path} has no {library} engine of graph '{graph}' in {precision}. "
            f"Build it: pflx build {shlex.quote(str(bundle.path))} --engine {library}"
            f"{f' --precision {precision}' if precision != bundle.manifest.precision else ''}"
        )
    source = bundle.source(graph, precision)
    require_match(passport, this_machine(library, gpu.cuda.ordinal), str(bundle.path), source)
    read = partial(bundle.read_engine, passport)
    return TrtContext(bundle.path / passport.file, passport, info.inputs, info.outputs, gpu, stream, read)
