"""`pflx calibrate bf16`: a variant that OpenVINO computes in bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pflx.cli.calibrate.variant import target_of
from pflx.cli.support.console import print_line, print_untrained, progress_bar
from pflx.cli.support.options import BundleArgument, Threads
from pflx.cli.support.options import Feeds as FeedsOption
from pflx.cli.support.paths import check_output
from pflx.engines import Bundle


def bf16(
    bundle: BundleArgument,
    feeds: FeedsOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Bundle to write; by default BUNDLE gets the variant.")
    ] = None,
    psnr: Annotated[float, typer.Option(min=0, max=100, help="Of the worst picture against FP32, dB.")] = 38.0,
    json: Annotated[Path | None, typer.Option(help="Also write the report, .json.")] = None,
    threads: Threads = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle at --output.")] = False,
) -> None:
    """Let OpenVINO compute a bundle's renderer and transformers in bf16, as far as the pictures bear it.

    For CPUs with AMX or AVX-512 and bf16. The variant is named bf16; its graphs are those of FP32.
    """
    from pflx.calibration.feeds.feeds import Feeds
    from pflx.calibration.judge import Bound
    from pflx.calibration.precision.bf16 import PRECISION, calibrate_bf16, report_lines
    from pflx.calibration.precision.variants import add_variant
    from pflx.calibration.reports import save_report

    check_output(json, ".json")
    target = target_of(bundle, feeds, output, overwrite=overwrite, json=json)
    opened = Bundle.open(bundle)
    recorded = Feeds.open(feeds)
    with progress_bar() as report:
        found = calibrate_bf16(opened, recorded, bound=Bound(psnr_db=psnr), threads=threads, progress=report)
    add_variant(
        opened,
        target,
        PRECISION,
        {},
        admission=found.admission,
        fp32_nodes={},
        report=found.report,
        overwrite=overwrite,
    )
    print_untrained(opened.manifest)
    for line in report_lines(found.report):
        print_line(line)
    if json:
        save_report(json, found.report)
    for path in filter(None, (target, json)):
        print_line(f"Wrote {path}")
    print_line(f"Use it: pflx run CLIP -b {target} -p PICTURE --engine openvino --precision {PRECISION}")
