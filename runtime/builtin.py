"""The listener that comes with pflx, for whoever has no checkpoints: no weights but a small PosNet, and no PyTorch.

Its graphs lie in `data`, made by tools/make_builtin.py; a test exports them again and compares.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

import pflx
from pflx.engines import Bundle, Manifest, MeanFace, PflInfo, bundle_writer, write_manifest
from pflx.engines.building.build import build_bundle_engines
from pflx.engines.building.compiler import Progress
from pflx.engines.bundle.tensorrt_library import Backend
from pflx.runtime.rendering.renderers import with_size

DEFAULT_POSNET = "pflx's default, fitted to tracked heads with jumps put in, not to this generator"
"""Note in the provenance of a bundle whose PosNet came with pflx."""

_T = TypeVar("_T")

_DATA = Path(__file__).parent / "data"
DEMO = _DATA / "demo"
"""A clip of a speaker and a portrait, `speaker.mp4` and `portrait.png`; where they come from is in NOTICE.txt there."""

SIZE = 256
"""Side of its pictures in pixels, unless another is asked for."""


@dataclass(frozen=True)
class BuiltinOptions:
    """What a copy of the built-in listener is to hold.

    Attributes:
        precision: "fp16" has FP16 graphs beside the FP32 ones, and uses them by default.
        size: side of its pictures in pixels, a multiple of 4.
        pfl: how the speaker is cropped.
        mean_face: what its coefficients are relative to; None leaves it upright.
    """

    precision: Literal["fp32", "fp16"] = "fp32"
    size: int = SIZE
    pfl: PflInfo | None = None
    mean_face: MeanFace | None = None


def builtin_bundle() -> Bundle:
    """The listener as it comes with pflx: FP32, FP16 beside it.

    Raises:
        BundleError: its files were changed.
    """
    return Bundle.open(builtin_path())


def builtin_path() -> Path:
    """Where it lies."""
    return _DATA / str(SIZE) / "listener.pflx"


def export_builtin(
    target: Path,
    options: BuiltinOptions | None = None,
    *,
    engine: Backend | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Write a copy of the built-in listener as a bundle of its own; it is there whole, or not at all.

    Args:
        target: folder to make, its name ends in `.pflx`.
        options: what it is to hold.
        engine: the TensorRT flavour to build engines for, or None.
        overwrite: replace a bundle that is there.
        progress: told about every engine.

    Raises:
        BundleError: it makes no pictures of that size.
        OutputError: the folder cannot be written.
        EngineError, BackendMissingError, DeviceError: an engine could not be built.
    """
    options = options or BuiltinOptions()
    source = builtin_bundle()
    manifest = with_size(source.manifest, options.size)
    kept = ("fp32",) if options.precision == "fp32" else ("fp32", "fp16")
    with bundle_writer(target, overwrite=overwrite) as folder:
        (folder / "graphs").mkdir()
        for graph in source.manifest.graphs.values():
            for precision in kept:
                shutil.copyfile(source.path / graph.files[precision], folder / graph.files[precision])
        report = json.loads((source.path / "report.json").read_text())
        (folder / "report.json").write_text(json.dumps(_report(report, kept), indent=2) + "\n")
        write_manifest(folder, _manifest(manifest, options, kept))
        if engine:
            build_bundle_engines(folder, engine, progress=progress)
    return Bundle.open(target, verify=False)


def _manifest(manifest: Manifest, options: BuiltinOptions, kept: Sequence[str]) -> Manifest:
    """The manifest of a copy with some of the precisions."""
    replace = msgspec.structs.replace
    return replace(
        manifest,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        pflx=pflx.__version__,
        precision=options.precision,
        pfl=options.pfl or manifest.pfl,
        mean_face=options.mean_face or manifest.mean_face,
        graphs={
            name: replace(graph, files=_of(graph.files, kept), fp32_nodes=_of(graph.fp32_nodes, kept))
            for name, graph in manifest.graphs.items()
        },
    )


def _of(given: dict[str, _T], kept: Sequence[str]) -> dict[str, _T]:
    return {name: value for name, value in given.items() if name in kept}


def _report(report: dict[str, dict[str, Any]], kept: Sequence[str]) -> dict[str, Any]:
    """What the report says of some precisions."""
    graphs = {name: _of(entry, ["tolerance_fp32", *kept]) for name, entry in report["graphs"].items()}
    return {"graphs": graphs, "end_to_end": _of(report["end_to_end"], kept)}
