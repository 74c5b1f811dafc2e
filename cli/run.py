"""`pflx run`: a speaker's clip → the listener's video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from enum import StrEnum
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
import typer

from pflx.cli.console import Report, print_line, print_untrained, progress_bar
from pflx.cli.options import (
    DenoisingOptions,
    EngineOptions,
    Lookahead,
    OwnBundle,
    Portrait,
    Seed,
    Size,
    SpeakerOptions,
    grouped,
)
from pflx.cli.paths import check_apart, check_output
from pflx.engines import Array, Manifest
from pflx.engines.files.writer import write_whole

if TYPE_CHECKING:
    from pflx.runtime import Ledger, ListenerFrame, Region, SpeakerFile
    from pflx.runtime.generators.protocol import StepDifference
    from pflx.runtime.media.video_writer import VideoWriter


class Renderer(StrEnum):
    """Renderers that a bundle may hold."""

    PIRENDER = "pirender"
    WARP = "warp"


@grouped
def run(
    speaker: Annotated[Path, typer.Argument(help="Clip of the speaker.")],
    portrait: Portrait,
    bundle: OwnBundle = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Video to write, .mp4. [SPEAKER.listener.mp4, here]")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Reactions to make; more than one are numbered.")] = 1,
    lookahead: Lookahead = 13,
    seed: Seed = 0,
    duration: Annotated[float | None, typer.Option(metavar="S", help="Stop after S seconds of the clip.")] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Speaker and all reactions in one video.")
    ] = False,
    coefficients: Annotated[Path | None, typer.Option(help="Also write the coefficients, .npz.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Also write when each stage ran, .json for Perfetto.")] = None,
    renderer: Annotated[
        Renderer | None, typer.Option(help="The one to use of the bundle's; warp is a quick preview. [its own]")
    ] = None,
    size: Size = None,
    fallback: Annotated[bool, typer.Option("--fallback", help="Take the CPU where the GPU cannot be had.")] = False,
    *,
    known: SpeakerOptions,
    denoising: DenoisingOptions,
    engines: EngineOptions,
) -> None:
    """Render a listener's reaction to a clip."""
    from pflx.runtime import Listener, SpeakerSettings, open_speaker

    output = output or Path(f"{speaker.stem}.listener.mp4")
    check_output(output, ".mp4")
    check_output(coefficients, ".npz")
    check_output(trace, ".json")
    videos = [output] if side_by_side or samples == 1 else _numbered(output, samples)
    check_apart(
        reads={"SPEAKER": speaker, "--portrait": portrait, "--bundle": bundle, **known.files()},
        writes={"--output": videos, "--coefficients": coefficients, "--trace": trace},
    )
    clip = open_speaker(speaker)
    if duration is not None:
        clip = clip.limited(duration)
    track, stamps = _Track(samples), _Stamps()
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
                speaker=known.settings(),
                options=denoising.chosen(),
            )
            stack.enter_context(listener)
            clip = clip.at_rate(listener.sample_rate_hz)
            report("looking at a first window", 0, None)
            difference = listener.step_difference(clip, seed=seed)
        if difference is not None:
            print_line(_told(difference))
        film = _Film(videos, clip, listener.manifest.renderer.size, samples, side_by_side)
        with film, progress_bar() as report:
            print_untrained(listener.manifest)
            region = None
            if listener.reads_pictures:
                region = listener.find_region(clip, progress=lambda n: report("finding the face", n, clip.frames))
            frames = listener.react(clip, samples=samples, seed=seed, speaker=SpeakerSettings(region=region))
            frames = track.record(frames) if coefficients else frames
            film.shoot(stamps.record(frames) if trace else frames, report)
        if coefficients:
            track.write(coefficients, region, listener.manifest)
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


def _numbered(output: Path, samples: int) -> list[Path]:
    return [output.with_stem(f"{output.stem}-{sample}") for sample in range(samples)]


class _Film:
    """The videos of one run: one per sample, or one with the speaker on the left. Opened before any work is done."""

    def __init__(self, paths: list[Path], clip: SpeakerFile, size: int, samples: int, side_by_side: bool) -> None:
        self._paths = paths
        self._clip, self._size, self._samples, self._side_by_side = clip, size, samples, side_by_side

    def __enter__(self) -> Self:
        with ExitStack() as opened:  # closes the first ones where a later one cannot be opened
            self._writers = [opened.enter_context(self._writer(path)) for path in self._paths]
            self._stack = opened.pop_all()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._stack.__exit__(*failure)

    def shoot(self, frames: Iterator[ListenerFrame], report: Report) -> None:
        """Write every frame as it comes, with the speaker's sound."""
        for index, (picture, sound) in enumerate(_speaker_frames(self._clip)):
            reactions = [frame.image for frame in islice(frames, self._samples)]
            images = [self._beside(picture, reactions)] if self._side_by_side else reactions
            for writer, image in zip(self._writers, images, strict=True):
                writer.write(image[None])
                if self._clip.has_audio:
                    writer.write_audio(sound)
            report("rendering", index + 1, self._clip.frames)

    def _writer(self, path: Path) -> VideoWriter:
        from pflx.runtime.media.video_writer import VideoWriter

        width = self._size * (1 + self._samples) if self._side_by_side else self._size
        return VideoWriter(
            path, size=(width, self._size), audio=self._clip.has_audio, sample_rate_hz=self._clip.sample_rate_hz
        )

    def _beside(self, picture: Array, reactions: list[Array]) -> Array:
        """The speaker, fitted into a square, and every reaction to the right of it."""
        from pflx.runtime.media.pictures import fit_picture

        return np.concatenate([fit_picture(picture, (self._size, self._size)), *reactions], axis=1)


def _speaker_frames(clip: SpeakerFile) -> Iterator[tuple[Array, Array]]:
    """Picture and sound of every frame of the clip."""
    from pflx.runtime.frames.timing import samples_per_frame

    for chunk in clip.chunks():
        yield from zip(chunk.video, chunk.audio.reshape(-1, samples_per_frame(clip.sample_rate_hz)), strict=True)


class _Track:
    """Collects what `--coefficients` writes, as frames pass by."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._coefficients: list[Array] = []
        self._generated_pose: list[Array] = []
        self._emotion: list[Array] = []
        self._times: list[float] = []
        self._faces: list[int] = []

    def record(self, frames: Iterator[ListenerFrame]) -> Iterator[ListenerFrame]:
        """The same frames, remembered without their pictures."""
        for frame in frames:
            self._coefficients.append(frame.coefficients)
            self._generated_pose.append(frame.generated_pose)
            self._emotion += [] if frame.emotion is None else [frame.emotion]
            if frame.sample == 0:
                self._times.append(frame.time_s)
                self._faces.append(frame.face)
            yield frame

    def write(self, path: Path, region: Region | None, manifest: Manifest) -> None:
        """Write all tracks, `[sample, frame, …]`, whole or not at all."""
        content = BytesIO()
        edges = [] if region is None else [region.left, region.top, region.right, region.bottom]
        emotion: dict[str, Any] = {"emotion": self._by_sample(self._emotion)} if self._emotion else {}
        np.savez_compressed(
            content,
            coefficients=self._by_sample(self._coefficients),
            generated_pose=self._by_sample(self._generated_pose),
            time_s=np.array(self._times),
            face=np.array(self._faces),
            region=np.array(edges, np.int64),
            fps=np.array(manifest.fps),
            hop=np.array(manifest.generator.hop),
            untrained=np.array(-1 if manifest.untrained is None else manifest.untrained),
            **emotion,
        )
        write_whole(path, content.getbuffer())

    def _by_sample(self, rows: list[Array]) -> Array:
        return np.stack(rows).reshape(-1, self._samples, rows[0].size).swapaxes(0, 1)


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
