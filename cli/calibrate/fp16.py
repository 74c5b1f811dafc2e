"""`pflx calibrate fp16`: which nodes must stay in FP32."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import structs

from pflx.cli.support.console import command_line, print_line, print_untrained, progress_bar
from pflx.cli.support.options import BundleArgument, Threads
from pflx.cli.support.options import Feeds as FeedsOption
from pflx.cli.support.paths import check_apart, check_output
from pflx.engines import Bundle


def fp16(
    bundle: BundleArgument,
    feeds: FeedsOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Policy to write, .json.")],
    report: Annotated[Path | None, typer.Option(help="Also write all that was tried, .json.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw it, .png.")] = None,
    psnr: Annotated[float, typer.Option(min=0, max=100, help="Asked of the worst picture, dB.")] = 45.0,
    ssim: Annotated[float, typer.Option(min=0, max=1, help="Structural similarity asked of the worst picture.")] = 0.95,
    head: Annotated[
        float, typer.Option(min=0, max=180, help="Largest difference of an angle of the head, degrees.")
    ] = 0.5,
    trials: Annotated[int, typer.Option(min=2, help="Candidates per graph, at most.")] = 24,
    curve: Annotated[int, typer.Option(min=0, help="Candidates per graph, at least.")] = 6,
    pictures: Annotated[int, typer.Option(min=2, help="Rendered of each held-out take.")] = 6,
    device: Annotated[
        str | None, typer.Option(metavar="cuda[:N]", help="GPU on which every candidate is also timed.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Find the few nodes that must stay in FP32, judged on pictures and motion of held-out takes.

    The policy goes to `pflx export --precision fp16 --policy`. FP16 is emulated, so that no GPU is needed.
    """
    from pflx.calibration.feeds.feeds import Feeds
    from pflx.calibration.judge import Bound
    from pflx.calibration.precision.fp16 import Fp16Options, calibrate_fp16
    from pflx.calibration.precision.fp16_report import plot_report, report_lines, require_held
    from pflx.calibration.reports import save_report
    from pflx.engines.bundle.policy import encode_policy
    from pflx.engines.files.writer import write_whole

    for path, suffix in ((output, ".json"), (report, ".json"), (plot, ".png")):
        check_output(path, suffix)
    check_apart(
        reads={"BUNDLE": bundle, "--feeds": feeds}, writes={"--output": output, "--report": report, "--plot": plot}
    )
    options = Fp16Options(
        bound=Bound(psnr_db=psnr, ssim=ssim, head_deg=head),
        trials=trials,
        curve=curve,
        pictures=pictures,
        threads=threads,
        device=device,
    )
    opened = Bundle.open(bundle)
    with progress_bar() as tell:
        policy, found = calibrate_fp16(opened, Feeds.open(feeds), options, progress=tell)
    print_untrained(opened.manifest)
    for line in report_lines(found):
        print_line(line)
    if report:
        save_report(report, structs.replace(found, command=command_line()))
    if plot:
        plot_report(plot, found)
    require_held(found)
    write_whole(output, encode_policy(policy))
    for path in filter(None, (output, report, plot)):
        print_line(f"Wrote {path}")
