"""`pflx inspect`: what a bundle holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import typer

from pflx.cli.support.console import print_line, print_untrained, progress_bar
from pflx.cli.support.options import BundleArgument
from pflx.engines import Bundle, FakeEngine, GraphInfo, Manifest, TensorSpec
from pflx.engines.bundle.export_report import ExportReport, read_export_report
from pflx.engines.bundle.manifest import encode_manifest
from pflx.runtime.generators import Generator, joins_by_itself, make_generator
from pflx.runtime.generators.protocol import delay_frames
from pflx.runtime.rendering.renderers import reach

LARGEST_FP16 = float(np.finfo(np.float16).max)


def inspect(
    bundle: BundleArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Show components, shapes, precisions, sizes, cost, provenance and engines, after checking every file."""
    with progress_bar() as report:
        report("checking the files", 0, None)
        opened = Bundle.open(bundle)
        found = read_export_report(opened)
        opened.check_graphs()
    manifest = opened.manifest
    if as_json:
        typer.echo(encode_manifest(manifest).decode(), nl=False)
        return
    print_untrained(manifest)
    _print_head(opened)
    print_line("\nGraphs")
    for name, graph in manifest.graphs.items():
        _print_graph(manifest, name, graph)
    _print_weights(manifest)
    _print_parity(found)
    _print_ranges(found)
    _print_admissions(manifest)
    _print_engines(manifest)


def _smoother(manifest: Manifest) -> str:
    if joins_by_itself(manifest.generator.name):
        return f"none: the segments of {manifest.generator.name} go on where the last one ended"
    return f"{manifest.smoother.name}: slide {manifest.smoother.slide} frames"


def _print_head(bundle: Bundle) -> None:
    manifest = bundle.manifest
    pfl = manifest.pfl
    pixels = "" if pfl.square_pixels else ", pixels as stored"
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    for line in (
        f"{bundle.path}, schema {manifest.schema}, written {manifest.created} by pflx {manifest.pflx} ({versions})",
        *_generator_lines(manifest),
        f"smoother   {_smoother(manifest)}",
        *_renderer_lines(manifest),
        f"crop       {pfl.mode}: window {pfl.window} px, padding {pfl.padding} px{pixels}",
        f"mean face  {manifest.mean_face.source}",
        f"precision  {manifest.precision} unless asked otherwise",
    ):
        print_line(line)


def _renderer_lines(manifest: Manifest) -> Iterator[str]:
    for role, info in (("renderer", manifest.renderer), ("preview", manifest.preview)):
        if info is not None:
            yield f"{role:<10} {info.name}: {info.size}x{info.size} px"


def _generator_lines(manifest: Manifest) -> Iterator[str]:
    info = manifest.generator
    generator = _described(manifest)
    yield (
        f"generator  {info.name}: window {info.window}, hop {info.hop} frames at {manifest.fps} fps; "
        f"needs {', '.join(info.needs)}; sound at {manifest.sample_rate_hz} Hz"
    )
    waits = (0, reach(manifest.renderer))
    least, most = (delay_frames(generator, lookahead) * 1000 // manifest.fps for lookahead in waits)
    yield (
        f"timing     lead {generator.lead} frames: trails the speaker by {most} ms at most, or {least} ms without "
        "look-ahead"
    )
    if info.settings:
        yield "settings   " + ", ".join(f"{name} {value:g}" for name, value in info.settings.items())
    if generator.steps:
        yield f"steps      {', '.join(map(str, generator.steps))}"


def _described(manifest: Manifest) -> Generator:
    """The generator on engines that only say what they take and give."""
    engines = {
        name: FakeEngine(lambda feeds: feeds, graph.inputs, graph.outputs) for name, graph in manifest.graphs.items()
    }
    return make_generator(manifest.generator, engines)


def _print_graph(manifest: Manifest, name: str, graph: GraphInfo) -> None:
    cost = "operations not counted" if graph.flops is None else f"{graph.flops / 1e9:.2f} GFLOP at the smallest sizes"
    print_line(f"  {name}  {graph.parameters / 1e6:.2f} M weights, {cost}, opset {graph.opset}")
    for label, specs in (("takes", graph.inputs), ("gives", graph.outputs)):
        print_line(f"    {label}  {_tensors(specs)}")
    for precision, file in graph.files.items():
        kept = graph.fp32_nodes.get(precision, [])
        note = f", {len(kept)} nodes kept in fp32" if kept else ""
        if policy := graph.policies.get(precision):
            note += f" by policy {policy[:12]}"
        print_line(f"    {precision}   {manifest.files[file].bytes / 1e6:.2f} MB{note}")


def _tensors(specs: dict[str, TensorSpec]) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in specs.items())


def _print_weights(manifest: Manifest) -> None:
    print_line("\nWeights")
    for entry in manifest.provenance:
        facts = (entry.source, entry.sha256 and f"sha256 {entry.sha256[:12]}", f"{entry.keys} tensors", entry.note)
        print_line(f"  {entry.slot}  {', '.join(filter(None, facts))}")


def _print_parity(report: ExportReport) -> None:
    if report.end_to_end:
        print_line("\nFrames end to end")
    for precision, result in report.end_to_end.items():
        print_line(
            f"  {precision} against {result.against}: at most {result.max_levels:g} levels apart, "
            f"{result.psnr_db:.1f} dB, coefficients within {result.coefficients_max_abs_error:.1e}"
        )


def largest_in_fp16(report: ExportReport) -> list[tuple[str, str]]:
    """Each graph that stores numbers in FP16 and how far they go, those that go furthest first."""
    widest = {graph: node for graph, entry in report.graphs.items() if (node := entry.widest) is not None}
    return [
        (graph, f"up to {node.largest:.4g} of {LARGEST_FP16:.0f}, in {node.node} ({node.operator})")
        for graph, node in sorted(widest.items(), key=lambda item: -item[1].largest)
    ]


def _print_ranges(report: ExportReport) -> None:
    if widest := largest_in_fp16(report):
        print_line("\nLargest numbers in FP16")
        for graph, words in widest:
            print_line(f"  {graph}  {words}")


def _print_admissions(manifest: Manifest) -> None:
    if manifest.admissions:
        print_line("\nAdmitted")
    for precision, admission in manifest.admissions.items():
        computed = "".join(f", {graph} in {inference}" for graph, inference in admission.inference.items())
        cpu = f" on a CPU with {' '.join(admission.cpu)}" if admission.cpu else ""
        print_line(
            f"  {precision} for {' and '.join(admission.libraries)}: {admission.lowest_psnr_db:.1f} dB in the worst "
            f"picture, judged with {admission.judged_with}{computed}{cpu}, {admission.created}"
        )


def _print_engines(manifest: Manifest) -> None:
    print_line("\nEngines")
    if not manifest.engines:
        print_line("  none; build them where they will run: pflx build BUNDLE")
    for passport in manifest.engines:
        print_line(
            f"  {passport.graph} {passport.precision}  {passport.backend} {passport.backend_version}, "
            f"{manifest.files[passport.file].bytes / 1e6:.2f} MB, for {' '.join(passport.compute_capabilities)}, "
            f"driver {passport.driver or 'none'}, {passport.os}, built {passport.created}, "
            f"of ONNX sha256 {passport.onnx_sha256[:12]}"
            + (f", policy {passport.policy_sha256[:12]}" if passport.policy_sha256 else "")
        )
