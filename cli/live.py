"""`pflx live`: a listener in a window, who watches the webcam and hears the microphone."""

from __future__ import annotations

import shlex
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pflx.cli.export import UsageError
from pflx.cli.support.console import print_line, print_untrained
from pflx.cli.support.options import (
    FRAME_S,
    MOST_PLAYOUT_MS,
    AnySeed,
    Badge,
    EngineOptions,
    Foresight,
    Lookahead,
    OwnBundleArgument,
    PersonFile,
    Portrait,
    Size,
    SpeakerOptions,
    grouped,
)
from pflx.engines import BackendMissingError

if TYPE_CHECKING:
    from pflx.runtime import Listener, SessionStats, Source, WindowSink

NO_MICROPHONE = "none"


@grouped
def live(
    portrait: Portrait,
    bundle: OwnBundleArgument = None,
    camera: Annotated[str | None, typer.Option(help="Number, path or address of the camera. [0]")] = None,
    no_camera: Annotated[bool, typer.Option("--no-camera", help="Listen to the microphone alone.")] = False,
    microphone: Annotated[str | None, typer.Option(help="Name of the microphone, or 'none'. [default]")] = None,
    speaker: Annotated[Path | None, typer.Option(help="A clip at its own pace, in the place of the camera.")] = None,
    playout: Annotated[
        float, typer.Option(metavar="MS", min=0, max=MOST_PLAYOUT_MS, help="Time to work in, on top of the delay.")
    ] = 100,
    lookahead: Lookahead = 0,
    foresight: Foresight = None,
    person: PersonFile = None,
    size: Size = None,
    badge: Badge = False,
    seed: AnySeed = None,
    duration: Annotated[float | None, typer.Option(metavar="S", min=FRAME_S, help="Stop after S seconds.")] = None,
    *,
    known: SpeakerOptions,
    engines: EngineOptions,
) -> None:
    """React to the webcam in a window, until q is pressed or the window closed."""
    from pflx.runtime import Listener, LiveSettings, StopWatching
    from pflx.runtime.frames.timing import FPS
    from pflx.runtime.stream.chain import any_seed

    if speaker is not None and (camera, microphone, no_camera) != (None, None, False):
        raise UsageError("--speaker takes the place of --camera and --microphone. Leave one of them out.")
    if no_camera and (camera is not None or microphone == NO_MICROPHONE):
        raise UsageError("--no-camera listens to the microphone alone. Leave out --camera, or --microphone none.")
    window = _window(portrait)
    with ExitStack() as stack:
        stack.callback(window.close, None)
        listener = stack.enter_context(
            Listener.open(
                bundle,
                portrait,
                device=engines.device,
                engines=engines.settings(),
                size=size,
                lookahead=lookahead,
                foresight=foresight,
                speaker=known.settings(),
                badge=badge,
                person=person,
            )
        )
        print_untrained(listener.manifest)
        source = speaker or _source(listener, None if no_camera else camera or "0", microphone or "default")
        settings = LiveSettings(playout_ms=playout)
        session = stack.enter_context(listener.live(source, settings=settings, seed=any_seed(seed)))
        print_line(f"The listener is {session.declared_delay_ms:.0f} ms behind. Press q in the window to end.")
        frames = islice(session, None if duration is None else round(duration * FPS))
        with suppress(StopWatching, KeyboardInterrupt):
            for frame in frames:  # windows belong to the thread that opened them; on macOS it must be this one
                window.show(frame)
        print_line(_summary(session.stats))


def _window(portrait: Path) -> WindowSink:
    from pflx.runtime import WindowSink

    try:
        return WindowSink("pflx: q ends")
    except BackendMissingError as error:
        raise UsageError(
            "pflx live shows the listener in a window, and there is no library for windows. Install one: pip install "
            f"'pflx[window]'. Or look at it in the browser: pflx serve -p {shlex.quote(str(portrait))}"
        ) from error


def _source(listener: Listener, camera: str | None, microphone: str) -> Source:
    from pflx.runtime import WebcamSource

    return WebcamSource(
        int(camera) if camera is not None and camera.isdecimal() else camera,
        None if microphone == NO_MICROPHONE else microphone,
        sample_rate_hz=listener.sample_rate_hz,
    )


def _summary(stats: SessionStats) -> str:
    rungs = ", ".join(f"{count} {name}" for name, count in stats.rungs.items() if count)
    share = stats.missed / stats.emitted if stats.emitted else 0.0
    return f"{stats.emitted} frames shown ({rungs or 'none'}), {share:.1%} missed their deadline."
