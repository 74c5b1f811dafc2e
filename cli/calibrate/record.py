"""`pflx calibrate record`: what the graphs of a bundle are given, from real clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pflx.cli.support.console import print_line, progress_bar
from pflx.cli.support.options import BundleArgument, Portrait, SpeakerOptions, Threads, grouped
from pflx.cli.support.paths import check_apart
from pflx.engines import Bundle


@grouped
def record(
    bundle: BundleArgument,
    speaker: Annotated[list[Path], typer.Option("--speaker", "-s", help="Clip of a speaker; repeat it for more.")],
    portrait: Portrait,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of feeds to make, or to add to.")],
    limit: Annotated[int, typer.Option(min=1, help="Feeds to keep of each graph.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of feeds, and of the reactions.")] = 0,
    threads: Threads = None,
    *,
    known: SpeakerOptions,
) -> None:
    """Record what the graphs are given while they react to real clips, to calibrate with.

    The end of each clip is held out to judge by. Stopped and run again, it goes on with the next clip.
    """
    from pflx.calibration.feeds.record import RecordOptions, record

    check_apart(
        reads={"BUNDLE": bundle, "--speaker": speaker, "--portrait": portrait, **known.files()},
        writes={"--output": output},
    )
    with progress_bar() as report:
        feeds = record(
            Bundle.open(bundle),
            speaker,
            portrait,
            output,
            options=RecordOptions(seed=seed, limit=limit, threads=threads),
            extractors=known.sources(),
            progress=report,
        )
    size = sum(path.stat().st_size for path in (output / "arrays").iterdir())
    print_line(f"{output}: {len(feeds.index.recordings)} clip(s), {size / 1e6:.0f} MB")
    for graph, kept in feeds.index.graphs.items():
        print_line(f"  {graph}: {len(kept.feeds)} of {kept.seen} calls")
