"""Another precision of a bundle, put in beside the others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pflx.engines import Admission, Bundle, BundleError, Manifest, bundle_writer, require_space, write_manifest
from pflx.engines.bundle.export_report import EXPORT_REPORT, read_export_report
from pflx.engines.bundle.manifest import MANIFEST
from pflx.engines.files.locks import locked
from pflx.engines.files.writer import write_whole

CALIBRATED = "calibrated"
"""Where the reports of variants stand in the bundle's report, by precision."""


def add_variant(
    bundle: Bundle,
    target: Path,
    precision: str,
    graphs: Mapping[str, bytes],
    *,
    admission: Admission,
    fp32_nodes: Mapping[str, list[str]],
    report: msgspec.Struct,
    overwrite: bool = False,
) -> None:
    """Write a bundle that has one more variant, in the place of one of that name.

    All else is shared with the old bundle where the disk allows links, else copied. The new bundle appears whole, by a
    rename; stopped before, the old one is as it was.

    Args:
        bundle: the old one.
        target: where the new one is to be; the old one's own path to replace it.
        precision: name of the variant.
        graphs: graph to its ONNX file; the others are those of FP32.
        admission: of the variant.
        fp32_nodes: graph to the nodes that were kept in FP32.
        report: how it was found; goes into the bundle's report.
        overwrite: replace another bundle at `target`.

    Raises:
        BundleError: the variant would replace FP32, or the old bundle was changed meanwhile.
        OutputError, OutputExistsError: see `bundle_writer`.
    """
    if precision == "fp32":
        raise BundleError("The variant 'fp32' is what all others are made of. Give another name.")
    require_space(target.absolute().parent, sum(map(len, graphs.values())))
    in_place = os.path.realpath(target) == os.path.realpath(bundle.path)
    with locked(bundle.path / MANIFEST):
        manifest = Bundle.open(bundle.path, verify=False).manifest
        if manifest != bundle.manifest:
            raise BundleError(f"{bundle.path} was changed meanwhile. Calibrate again.")
        with bundle_writer(target, overwrite=overwrite or in_place) as folder:
            new = _entered(manifest, precision, graphs, admission, fp32_nodes)
            _share(bundle, folder, new)
            for graph, content in graphs.items():
                write_whole(folder / new.graphs[graph].files[precision], content)
            read_export_report(bundle)  # what is malformed is refused, not added to
            write_whole(folder / EXPORT_REPORT, _reported(bundle.path / EXPORT_REPORT, precision, report))
            write_manifest(folder, new)


def _entered(
    manifest: Manifest,
    precision: str,
    graphs: Mapping[str, bytes],
    admission: Admission,
    fp32_nodes: Mapping[str, list[str]],
) -> Manifest:
    """The manifest with the variant in it, and without engines of the one it replaces."""
    entered = {
        name: msgspec.structs.replace(
            info,
            files={
                **info.files,
                precision: f"graphs/{name}.{precision}.onnx" if name in graphs else info.files["fp32"],
            },
            fp32_nodes={**info.fp32_nodes, **({precision: fp32_nodes[name]} if name in fp32_nodes else {})},
        )
        for name, info in manifest.graphs.items()
    }
    return msgspec.structs.replace(
        manifest,
        graphs=entered,
        engines=[passport for passport in manifest.engines if passport.precision != precision],
        admissions={**manifest.admissions, precision: admission},
    )


def _share(bundle: Bundle, folder: Path, new: Manifest) -> None:
    """Put what the new bundle has of the old one into its folder."""
    kept = {file for info in new.graphs.values() for file in info.files.values()}
    kept |= {passport.file for passport in new.engines}
    for file in bundle.manifest.files:
        if file in kept or file.split("/")[0] not in ("graphs", "engines"):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            _link(bundle.path / file, folder / file)
    (folder / "graphs").mkdir(exist_ok=True)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)  # in a hub's cache, files are links
    except OSError:
        shutil.copy2(source, target)


def _reported(path: Path, precision: str, report: msgspec.Struct) -> bytes:
    old: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    entries = {**old.get(CALIBRATED, {}), precision: msgspec.to_builtins(report)}
    return json.dumps({**old, CALIBRATED: entries}, indent=2).encode() + b"\n"
