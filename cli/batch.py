"""`pflx batch`: many clips → a file of coefficients for each, and videos if wanted."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pflx.cli.support.console import err, print_error, print_line, print_untrained, progress_bar
from pflx.cli.support.options import (
    FRAME_S,
    MOST_SAMPLES,
    ChainOptions,
    DenoisingOptions,
    EngineOptions,
    Lookahead,
    OwnBundle,
    RendererChoice,
    Seed,
    SpeakerOptions,
    grouped,
)
from pflx.cli.support.paths import check_apart
from pflx.cli.support.signals import asked_to_end
from pflx.engines import Bundle, FeedError, OutputError

if TYPE_CHECKING:
    from pflx.runtime.dataset import Row, RowResult

_ANSWER = "Stopping after the rows that run; once more stops at once. The same command goes on from there."
_MOST_TOLD = 20
"""Rows that failed, of which each gets a line."""


@grouped
def batch(
    *,
    clips: Annotated[
        Path | None, typer.Argument(help="Folder of clips, or a manifest, .csv or .jsonl; see docs/datasets.md.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of results.")],
    react: Annotated[
        Path | None, typer.Option(metavar="ROOT", help="In place of CLIPS: a folder in REACT's layout.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of --react: train, val or test.")] = "val",
    bundle: OwnBundle = None,
    portrait: Annotated[
        Path | None, typer.Option("--portrait", "-p", help="Of listeners whose row has none; for --video.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=MOST_SAMPLES, help="Reactions to each speaker.")] = 1,
    seed: Seed = 0,
    video: Annotated[bool, typer.Option("--video/--no-video", help="Render, too; or coefficients alone.")] = False,
    duration: Annotated[
        float | None, typer.Option(metavar="S", min=FRAME_S, help="Only S seconds of each clip.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes, each with its share of the cores. [1; with --ray as many as fit]"),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]", help="Work on a Ray cluster: HOST:PORT, auto, or nothing for one begun here."
        ),
    ] = None,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Make the I-th of N parts, for N machines.")] = "1/1",
    redo: Annotated[bool, typer.Option("--redo", help="Make rows again that were made otherwise.")] = False,
    lookahead: Lookahead = 13,
    renderer: RendererChoice = None,
    known: SpeakerOptions,
    denoising: DenoisingOptions,
    chain: ChainOptions,
    engines: EngineOptions,
) -> None:
    """React to many clips. A row that is done is not done again, so the same command goes on where it stopped."""
    from pflx.runtime.builtin import builtin_bundle
    from pflx.runtime.cluster.ray_session import check_address
    from pflx.runtime.dataset import DatasetSettings, react_dataset, read_react, read_rows

    if ray is not None:
        check_address(ray)
    if (clips is None) == (react is None):
        raise FeedError("Give either CLIPS or --react ROOT: what to react to.")
    check_apart(
        reads={
            "CLIPS": clips,
            "--react": react,
            "--portrait": portrait,
            "--bundle": bundle,
            **known.files(),
            **denoising.files(),
        },
        writes={"--output": output},
    )
    _check_outside(output, {"CLIPS": clips, "--react": react})
    found = read_rows(clips) if clips else read_react(react or Path(), split, portraits=portrait is None)
    settings = DatasetSettings(
        samples=samples,
        seed=seed,
        duration_s=duration,
        video=video,
        lookahead=lookahead,
        renderer=None if renderer is None else renderer.value,
        device=engines.device,
        engines=engines.settings(),
        options=denoising.chosen(),
        person=denoising.person,
        chain=chain.chosen(),
        extractors=known.sources(),
    )
    opened = Bundle.open(bundle) if bundle else builtin_bundle()
    print_untrained(opened.manifest)
    tally = _Tally()
    with asked_to_end(_ANSWER) as is_asked, progress_bar() as report:
        report("looking for what is done", 0, None)
        results = react_dataset(
            found,
            output,
            bundle=opened,
            portrait=portrait,
            settings=settings,
            workers=workers,
            ray=ray,
            shard=_shard(shard),
            redo=redo,
            should_stop=is_asked,
        )
        for result in results:
            tally.add(result)
            report(tally.told(), result.done, result.total)
    tally.print(output)


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None:
        raise FeedError(f"--shard is '{text}'; give I/N, like 1/4.")
    return int(found[1]), int(found[2])


def _check_outside(output: Path, inputs: dict[str, Path | None]) -> None:
    """Refuse a folder of results among the clips: their videos would be reacted to the next time."""
    place = output.absolute()
    for option, path in inputs.items():
        if path is not None and path.is_dir() and path.resolve() in [place.resolve(), *place.resolve().parents]:
            raise OutputError(f"--output {output} lies in {option} {path}. Choose a place outside of it.")


class _Tally:
    """What became of the rows so far."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._made = self._there = 0
        self._failed: list[tuple[Row, str]] = []

    def add(self, result: RowResult) -> None:
        """Count one more."""
        self._made += result.status == "made"
        self._there += result.status == "there"
        if result.error is not None:
            self._failed.append((result.row, result.error))

    def told(self) -> str:
        """Rows a second, and how many failed."""
        rate = (self._made + len(self._failed)) / max(time.monotonic() - self._began, 1e-3)
        failed = f", {len(self._failed)} failed" if self._failed else ""
        return f"reacting, {rate:.2g} rows/s{failed}"

    def print(self, output: Path) -> None:
        """Tell what there is, and end with 1 where a row failed."""
        told = [f"made {self._made}", f"had {self._there} already"]
        print_line(f"{output}: {', '.join(told)}, {len(self._failed)} failed.")
        for row, error in self._failed[:_MOST_TOLD]:
            print_error(f"{row.id}: {error}")
        if len(self._failed) > _MOST_TOLD:
            err.print(f"… and {len(self._failed) - _MOST_TOLD} more, each in its ID.failed.json", soft_wrap=True)
        if self._failed:
            raise typer.Exit(1)
