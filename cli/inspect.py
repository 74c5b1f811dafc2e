"""`pflx inspect`: what a bundle holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pflx.cli.console import out, print_untrained
from pflx.engines import Bundle, GraphInfo, Manifest, TensorSpec
from pflx.engines.manifest import encode_manifest


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Bundle made by `pflx export`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Show components, shapes, precisions, sizes, cost, provenance and engines, after checking every file."""
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    if as_json:
        typer.echo(encode_manifest(manifest).decode(), nl=False)
        return
    print_untrained(manifest)
    _print_head(opened)
    out.print(_graph_table(manifest))
    out.print(_provenance_table(manifest))
    _print_parity(opened)
    _print_engines(manifest)


def _print_head(bundle: Bundle) -> None:
    manifest = bundle.manifest
    generator, pfl = manifest.generator, manifest.pfl
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    lines = (
        f"{bundle.path}, schema {manifest.schema}, written {manifest.created} by pflx {manifest.pflx} ({versions})",
        f"generator  {generator.name}: window {generator.window}, hop {generator.hop} frames at {manifest.fps} fps; "
        f"needs {', '.join(generator.needs)}",
        f"smoother   {manifest.smoother.name}: slide {manifest.smoother.slide} frames",
        f"renderer   {manifest.renderer.name}: {manifest.renderer.size}x{manifest.renderer.size} px",
        f"crop       {pfl.mode}: window {pfl.window} px, padding {pfl.padding} px",
        f"mean face  {manifest.mean_face.source}",
        f"precision  {manifest.precision} unless asked otherwise",
    )
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)


def _graph_table(manifest: Manifest) -> Table:
    table = Table("graph", "takes", "gives", "weights", "GFLOP", "files", title="Graphs", title_justify="left")
    for name, graph in manifest.graphs.items():
        gflop = "?" if graph.flops is None else f"{graph.flops / 1e9:.2f}"
        table.add_row(
            name,
            _tensors(graph.inputs),
            _tensors(graph.outputs),
            f"{graph.parameters / 1e6:.2f} M",
            gflop,
            _files(manifest, graph),
        )
    return table


def _tensors(specs: dict[str, TensorSpec]) -> str:
    return "\n".join(f"{name} {spec}" for name, spec in specs.items()).replace("[", r"\[")


def _files(manifest: Manifest, graph: GraphInfo) -> str:
    rows = []
    for precision, file in graph.files.items():
        kept = len(graph.fp32_nodes.get(precision, []))
        note = f", {kept} nodes in fp32" if kept else ""
        rows.append(f"{precision} {manifest.files[file].bytes / 1e6:.1f} MB{note}")
    return "\n".join(rows)


def _provenance_table(manifest: Manifest) -> Table:
    table = Table("slot", "source", "sha256", "tensors", "note", title="Weights", title_justify="left")
    for entry in manifest.provenance:
        table.add_row(entry.slot, entry.source, entry.sha256[:12], str(entry.keys), entry.note)
    return table


def _print_parity(bundle: Bundle) -> None:
    report = json.loads((bundle.path / "report.json").read_text())
    for precision, result in report["end_to_end"].items():
        out.print(
            f"end to end {precision} against {result['against']}: {result['max_levels']} levels, "
            f"{result['psnr_db']:.1f} dB",
            soft_wrap=True,
        )


def _print_engines(manifest: Manifest) -> None:
    if not manifest.engines:
        out.print("No engines. Build them where they will run: pflx build BUNDLE")
        return
    table = Table(
        "graph",
        "backend",
        "precision",
        "built for",
        "driver",
        "os",
        "MB",
        title="Engines",
        title_justify="left",
    )
    for passport in manifest.engines:
        table.add_row(
            passport.graph,
            f"{passport.backend} {passport.backend_version}",
            passport.precision,
            " ".join(passport.compute_capabilities),
            passport.driver or "none",
            passport.os,
            f"{manifest.files[passport.file].bytes / 1e6:.1f}",
        )
    out.print(table)
