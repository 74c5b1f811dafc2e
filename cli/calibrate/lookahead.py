"""`pflx calibrate lookahead`: what waiting for the future buys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import structs

from pflx.cli.support.console import command_line, print_line, print_untrained, progress_bar
from pflx.cli.support.options import BundleArgument, Foresight, Precision, Threads
from pflx.cli.support.options import Feeds as FeedsOption
from pflx.cli.support.paths import check_apart, check_output
from pflx.engines import Bundle


def lookahead(
    bundle: BundleArgument,
    feeds: FeedsOption,
    json: Annotated[Path | None, typer.Option(help="Also write the curve, .json.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw it, .png.")] = None,
    foresight: Foresight = None,
    precision: Precision = None,
    psnr: Annotated[
        float, typer.Option(min=0, max=100, help="Of the worst picture, dB, for the look-ahead that is named.")
    ] = 38.0,
    threads: Threads = None,
) -> None:
    """Show how pictures and seams improve with the renderer's look-ahead, and what delay that adds."""
    from pflx.calibration.feeds.feeds import Feeds
    from pflx.calibration.lookahead import curve_lines, lookahead_curve, plot_curve, smallest_good
    from pflx.calibration.reports import save_report
    from pflx.runtime.bundle_engines import EngineSettings, close_engines, open_engines
    from pflx.runtime.frames.foresight import Foresight as FittedForesight

    check_output(json, ".json")
    check_output(plot, ".png")
    check_apart(
        reads={"BUNDLE": bundle, "--feeds": feeds, "--foresight": foresight}, writes={"--json": json, "--plot": plot}
    )
    opened = Bundle.open(bundle)
    recorded = Feeds.open(feeds)
    recorded.require_match(opened)
    foretold = None if foresight is None else FittedForesight.read(foresight, opened.manifest.generator.hop)
    engines, gpu = open_engines(opened, settings=EngineSettings(precision=precision, threads=threads))
    try:
        with progress_bar() as report:
            curve = lookahead_curve(
                opened,
                recorded,
                engines,
                precision=precision or opened.manifest.precision,
                foresight=foretold,
                progress=report,
            )
    finally:
        close_engines(engines, gpu)
    print_untrained(opened.manifest)
    print_line(f"{curve.pictures} pictures around seams, against those of the full window of 13 frames")
    for line in curve_lines(curve):
        print_line(line)
    best = smallest_good(curve, psnr)
    print_line(f"From --lookahead {best} on, every picture has {psnr:g} dB or more.")
    if json:
        save_report(json, structs.replace(curve, command=command_line()))
    if plot:
        plot_curve(plot, curve)
    for path in filter(None, (json, plot)):
        print_line(f"Wrote {path}")
