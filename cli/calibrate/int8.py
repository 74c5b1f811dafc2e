"""`pflx calibrate int8`: as much INT8 as the pictures bear."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pflx.cli.calibrate.variant import target_of
from pflx.cli.support.console import print_line, print_untrained, progress_bar
from pflx.cli.support.options import BundleArgument, Threads
from pflx.cli.support.options import Feeds as FeedsOption
from pflx.cli.support.paths import check_output
from pflx.engines import Bundle


class Int8Engine(StrEnum):
    """What runs INT8."""

    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


def int8(
    bundle: BundleArgument,
    feeds: FeedsOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Bundle to write; by default BUNDLE gets the variant.")
    ] = None,
    engine: Annotated[
        Int8Engine | None, typer.Option(help="What is to run it; by default openvino, if it is installed.")
    ] = None,
    psnr: Annotated[float, typer.Option(min=0, max=100, help="Of the worst picture against FP32, dB.")] = 38.0,
    json: Annotated[Path | None, typer.Option(help="Also write the report, .json.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw quality against INT8, .png.")] = None,
    threads: Threads = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle at --output.")] = False,
) -> None:
    """Quantise a bundle's renderer and transformers, leaving out the layers that the pictures do not bear.

    On CPUs, OpenVINO computes the rest in bf16 where it can. The variant is named int8, or int8-trt for TensorRT.
    """
    from pflx.calibration.feeds.feeds import Feeds
    from pflx.calibration.judge import Bound
    from pflx.calibration.precision.int8 import calibrate_int8
    from pflx.calibration.precision.int8_report import plot_report, report_lines
    from pflx.calibration.precision.int8_target import default_engine
    from pflx.calibration.precision.variants import add_variant
    from pflx.calibration.reports import save_report

    check_output(json, ".json")
    check_output(plot, ".png")
    target = target_of(bundle, feeds, output, overwrite=overwrite, json=json, plot=plot)
    opened = Bundle.open(bundle)
    recorded = Feeds.open(feeds)
    with progress_bar() as report:
        found = calibrate_int8(
            opened,
            recorded,
            engine.value if engine else default_engine(),
            bound=Bound(psnr_db=psnr),
            threads=threads,
            progress=report,
        )
    precision = found.report.precision
    add_variant(
        opened,
        target,
        precision,
        {graph: model.SerializeToString() for graph, model in found.graphs.items()},
        admission=found.admission,
        fp32_nodes=found.left_out,
        report=found.report,
        overwrite=overwrite,
    )
    print_untrained(opened.manifest)
    for line in report_lines(found.report):
        print_line(line)
    if json:
        save_report(json, found.report)
    if plot:
        plot_report(plot, found.report)
    for path in filter(None, (target, json, plot)):
        print_line(f"Wrote {path}")
    print_line(_use(found.report.engine, target, precision))


def _use(engine: str, bundle: Path, precision: str) -> str:
    if engine == "tensorrt":
        return f"Build it: pflx build {bundle} --engine tensorrt --precision {precision}"
    return f"Use it: pflx run CLIP -b {bundle} -p PICTURE --engine {engine} --precision {precision}"
