"""ONNX graphs to TensorRT engines: of one file, and of a whole bundle. ONNX travels, engines do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypeAlias

from pflx.engines.building.compiler import EngineBuildError, Progress, compile_graph
from pflx.engines.bundle.bundle import Bundle, file_info
from pflx.engines.bundle.engine_passport import Passport, Profile, Source, operating_system, this_machine
from pflx.engines.bundle.manifest import BundleCorruptError, Manifest, on_gpu
from pflx.engines.bundle.tensorrt_library import Backend
from pflx.engines.bundle.variant_admission import require_admitted
from pflx.engines.bundle.writer import install_engine, require_own, require_space
from pflx.engines.files.locks import GoneError
from pflx.engines.files.writer import OutputError, write_whole
from pflx.engines.graphs.protocol import TensorSpec

Ranges: TypeAlias = Mapping[str, tuple[int, int, int]]
"""For each named dimension: its smallest, usual and largest size."""

HISTORY = 750
"""Frames that an engine looks back on where the bundle sets no bound."""


def build_engine(
    onnx_path: str | Path,
    out_path: str | Path,
    *,
    backend: Backend,
    profile: Profile,
    precision: str,
    compute_capabilities: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Passport:
    """Compile one ONNX file to an engine file, which appears whole or not at all.

    Args:
        onnx_path: the graph; its file name without the ending is the graph's name in the passport.
        out_path: the engine; replaced if it is there.
        backend: which library.
        profile: shapes of every input, see `profile_for`.
        precision: what the passport says of the graph; the graph itself decides what is built.
        compute_capabilities: GPU generations like `sm_89`, `tensorrt-rtx` only.
        progress: told about every step; raising in it stops the build.

    Raises:
        EngineBuildError: the file is missing, or the library rejects the graph.
        OutputError: `out_path` cannot be written.
        BackendMissingError, DeviceError: see `compile_graph`.
    """
    source, target = Path(onnx_path), Path(out_path)
    if not source.is_file():
        raise EngineBuildError(f"{source}: no such file. Give the path of an ONNX graph.")
    if not target.parent.is_dir():
        raise OutputError(f"{target.parent} is no folder. Make it, or write {target.name} elsewhere.")
    engine, capabilities = compile_graph(source, backend, profile, compute_capabilities, progress)
    require_space(target.parent, engine.nbytes)
    write_whole(target, engine)
    built_from = Source(onnx_sha256=file_info(source).sha256)
    return _passport(source.stem, target.name, backend, precision, profile, capabilities, built_from)


def build_bundle_engines(
    path: str | Path,
    backend: Backend,
    precision: str | None = None,
    *,
    ranges: Ranges | None = None,
    compute_capabilities: Sequence[str] | None = None,
    progress: Progress | None = None,
    gpu: int = 0,
) -> list[Passport]:
    """Compile every graph of a bundle and put the engines in, each as soon as it is built.

    Stopped at any point, the bundle is valid and holds the engines that were finished.

    Args:
        path: the bundle.
        backend: which library.
        precision: which variant; None takes the bundle's own.
        ranges: sizes of the named dimensions, in place of those of `default_ranges`.
        compute_capabilities: GPU generations like `sm_89`, `tensorrt-rtx` only.
        progress: told `graph: phase` and its steps; raising in it stops the build.
        gpu: on which `tensorrt` builds, as the driver counts them.

    Returns:
        The passports, in the order of the manifest's graphs.

    Raises:
        BundleError: the bundle is damaged or has no such variant.
        PassportError: the variant was admitted for another library.
        EngineBuildError: the library rejects a graph, or a dimension has no range.
        OutputError: the bundle cannot be written to, its disk has not enough space, or it was replaced meanwhile.
        BackendMissingError, DeviceError: see `compile_graph`.
    """
    bundle = Bundle.open(path)
    chosen = precision or bundle.manifest.precision
    if admission := bundle.manifest.admissions.get(chosen):
        require_admitted(admission, f"{path} in {chosen}", backend)
    bundle.check_graphs(chosen)
    graphs = on_gpu(bundle.manifest)
    sources = {name: bundle.graph_path(name, chosen) for name in graphs}
    sizes = {**default_ranges(bundle.manifest), **(ranges or {})}
    profiles = {name: profile_for(graph.inputs, sizes) for name, graph in graphs.items()}
    _require_writable(bundle.path, sum(source.stat().st_size for source in sources.values()))
    passports = []
    for name, source in sources.items():
        report = _named(progress, name)
        engine, capabilities = compile_graph(source, backend, profiles[name], compute_capabilities, report, gpu=gpu)
        passport = _passport(name, "", backend, chosen, profiles[name], capabilities, bundle.source(name, chosen), gpu)
        try:
            passports.append(install_engine(bundle.path, passport, engine))
        except (BundleCorruptError, FileNotFoundError, GoneError) as error:
            raise OutputError(f"{path} was replaced or removed while its engines were built. Build again.") from error
    return passports


def _require_writable(root: Path, n_bytes: int) -> None:
    """Check, before a long piece of work starts, that engines can be put into a bundle.

    Raises:
        OutputError: they cannot.
    """
    require_own(root)
    try:
        with TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise OutputError(
            f"{root} cannot be written to: {error.strerror}. Copy the bundle to a place of your own, and build there."
        ) from error
    require_space(root, n_bytes)


def default_ranges(manifest: Manifest) -> dict[str, tuple[int, int, int]]:
    """Sizes for the named dimensions of a bundle's graphs.

    One to four speakers, samples and portraits; one frame rendered at a time, up to a segment; and the
    coefficient track that such frames look at, 13 before and 13 after, for up to two segments. Pictures of the renderer
    that makes them in any size have up to 512 pixels a side. A generator with a
    growing history looks back on as much as the bundle says, or on half a minute.
    """
    hop = manifest.generator.hop
    history = int(manifest.generator.settings.get("history", 0)) or HISTORY
    batch = (1, 1, 4)
    return {
        "speakers": batch,
        "samples": batch,
        "portraits": batch,
        "frames": (1, 1, hop),
        "track": (1, hop + 26, 2 * hop + 26),
        "history": (1, history, history),
        "side": (64, manifest.renderer.size, max(512, manifest.renderer.size)),
    }


def profile_for(inputs: Mapping[str, TensorSpec], ranges: Ranges) -> Profile:
    """Smallest, usual and largest shape of every input.

    Raises:
        EngineBuildError: a named dimension has no range.
    """
    return {name: _shapes(name, spec.shape, ranges) for name, spec in inputs.items()}


def _shapes(
    name: str, shape: Iterable[int | str], ranges: Ranges
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    axes = [(size,) * 3 if isinstance(size, int) else ranges.get(size, size) for size in shape]
    unknown = [axis for axis in axes if isinstance(axis, str)]
    if unknown:
        raise EngineBuildError(
            f"Dimension '{unknown[0]}' of input '{name}' has no range; there are {', '.join(ranges)}."
        )
    smallest, usual, largest = (tuple(int(axis[n]) for axis in axes) for n in range(3))
    return smallest, usual, largest


def _passport(
    graph: str,
    file: str,
    backend: Backend,
    precision: str,
    profile: Profile,
    compute_capabilities: list[str],
    source: Source,
    gpu: int = 0,
) -> Passport:
    machine = this_machine(backend, gpu)
    return Passport(
        file=file,
        graph=graph,
        precision=precision,
        backend=backend,
        backend_version=machine.backend_version,
        onnx_sha256=source.onnx_sha256,
        compute_capabilities=compute_capabilities,
        profile=profile,
        driver=machine.driver,
        os=operating_system(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        policy_sha256=source.policy_sha256,
    )


def _named(progress: Progress | None, graph: str) -> Progress | None:
    if progress is None:
        return None
    return lambda phase, step, total: progress(f"{graph}: {phase}", step, total)
