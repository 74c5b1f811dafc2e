"""`pflx run`: a speaker's clip → the listener's video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pflx.cli.support.console import print_line, print_untrained, progress_bar
from pflx.cli.support.options import (
    FRAME_S,
    MOST_SAMPLES,
    Badge,
    ChainOptions,
    DenoisingOptions,
    EngineOptions,
    Foresight,
    Lookahead,
    OwnBundle,
    Portrait,
    RendererChoice,
    Seed,
    Size,
    SpeakerOptions,
    grouped,
)
from pflx.cli.support.paths import check_apart, check_output

if TYPE_CHECKING:
    from pflx.runtime import Ledger, ListenerFrame
    from pflx.runtime.generators.protocol import StepDifference


@grouped
def run(
    speaker: Annotated[Path, typer.Argument(help="Clip of the speaker.")],
    portrait: Portrait,
    bundle: OwnBundle = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Video to write, .mp4. [SPEAKER.listener.mp4, here]")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, max=MOST_SAMPLES, help="Reactions to make; more than one are numbered.")
    ] = 1,
    lookahead: Lookahead = 13,
    foresight: Foresight = None,
    seed: Seed = 0,
    duration: Annotated[
        float | None, typer.Option(metavar="S", min=FRAME_S, help="Stop after S seconds of the clip.")
    ] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Speaker and all reactions in one video.")
    ] = False,
    coefficients: Annotated[Path | None, typer.Option(help="Also write the coefficients, .npz.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Also write when each stage ran, .json for Perfetto.")] = None,
    renderer: RendererChoice = None,
    size: Size = None,
    badge: Badge = False,
    fallback: Annotated[bool, typer.Option("--fallback", help="Take the CPU where the GPU cannot be had.")] = False,
    *,
    known: SpeakerOptions,
    denoising: DenoisingOptions,
    chain: ChainOptions,
    engines: EngineOptions,
) -> None:
    """Render a listener's reaction to a clip."""
    from pflx.runtime import Listener, SpeakerSettings, open_speaker
    from pflx.runtime.dataset.film import Film
    from pflx.runtime.dataset.track import ReactionTrack
    from pflx.runtime.media.video_writer import numbered

    output = output or Path(f"{speaker.stem}.listener.mp4")
    check_output(output, ".mp4")
    check_output(coefficients, ".npz")
    check_output(trace, ".json")
    videos = [output] if side_by_side else numbered(output, samples)
    check_apart(
        reads={
            "SPEAKER": speaker,
            "--portrait": portrait,
            "--bundle": bundle,
            "--foresight": foresight,
            **known.files(),
            **denoising.files(),
        },
        writes={"--output": videos, "--coefficients": coefficients, "--trace": trace},
    )
    clip = open_speaker(speaker)
    if duration is not None:
        clip = clip.limited(duration)
    track, stamps = ReactionTrack(samples), _Stamps()
    with ExitStack() as stack:
        with progress_bar() as report:
            report("opening the networks", 0, None)
            listener = Listener.open(
                bundle,
                portrait,
                device=engines.device,
                engines=engines.settings(fallback=fallback),
                renderer=None if renderer is None else renderer.value,
                size=size,
                lookahead=lookahead,
                foresight=foresight,
                speaker=known.settings(),
                options=denoising.chosen(),
                person=denoising.person,
                chain=chain.chosen(),
                badge=badge,
            )
            stack.enter_context(listener)
            clip = clip.at_rate(listener.sample_rate_hz)
            report("looking at a first window", 0, None)
            difference = listener.step_difference(clip, seed=seed)
        if difference is not None:
            print_line(_told(difference))
        film = Film(videos, clip, listener.manifest.renderer.size, samples, side_by_side)
        with film, progress_bar() as report:
            print_untrained(listener.manifest)
            region = None
            if listener.reads_pictures:
                region = listener.find_region(clip, progress=lambda n: report("finding the face", n, clip.frames))
            frames = listener.react(clip, samples=samples, seed=seed, speaker=SpeakerSettings(region=region))
            frames = track.record(frames) if coefficients else frames
            film.shoot(stamps.record(frames) if trace else frames, report)
        if coefficients:
            track.write(coefficients, region, listener.manifest, **listener.made_with)
        if trace:
            stamps.write(trace, f"pflx run {speaker.name}")
    for path in filter(None, [*videos, coefficients, trace]):
        print_line(f"Wrote {path}")
    print_line(f"The reaction trails the speaker by {listener.algorithmic_delay_ms:.0f} ms at most, computing aside.")


def _told(difference: StepDifference) -> str:
    """What fewer steps, or another solver, change."""
    steps = f"{difference.n_steps} steps of {difference.solver} in place of 49 of ddim"
    head = f"{difference.head_mean_deg:.2g}° on average and {difference.head_largest_deg:.2g}° at most"
    return (
        f"{steps} change the coefficients of the first window by {difference.rms:.2g} RMS (they are "
        f"{difference.typical:.2g}) and {difference.largest:.2g} at most, the head's angles by {head}."
    )


class _Stamps:
    """Collects what `--trace` writes, as frames pass by."""

    def __init__(self) -> None:
        self._ledgers: list[Ledger] = []

    def record(self, frames: Iterator[ListenerFrame]) -> Iterator[ListenerFrame]:
        """The same frames, of which the ledgers are remembered."""
        for frame in frames:
            self._ledgers.append(frame.ledger)
            yield frame

    def write(self, path: Path, name: str) -> None:
        """Write the trace, whole or not at all."""
        from pflx.runtime.latency.trace import write_trace

        write_trace(path, self._ledgers, name=name)
