"""`pflx live`: a listener in a window."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import pflx, refusal
from support.fakes import ONE_FACE, fake_listener, frames_of, sound_of

from pflx.runtime import IterableSource, Listener, ListenerFrame, SpeakerSettings, StopWatching, Timed
from pflx.runtime.media.video_writer import VideoWriter

GIVEN = ("live", "me.pflx", "--portrait", "me.png")


class Window:
    """A window whose user presses q after so many frames."""

    def __init__(self, title: str, *, patience: int = 10**6) -> None:
        self.shown: list[ListenerFrame] = []
        self.closed = 0
        self._patience = patience

    def show(self, frame: ListenerFrame) -> None:
        self.shown.append(frame)
        if len(self.shown) >= self._patience:
            raise StopWatching("q")

    def close(self, error: BaseException | None) -> None:
        self.closed += 1


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[Window]:
    """The windows that were opened; `Listener.open` gives a fake listener."""
    opened: list[Window] = []

    def open_fake(*given: Any, lookahead: int, speaker: SpeakerSettings, **_: Any) -> Listener:
        assert [str(each) for each in given] == ["me.pflx", "me.png"]
        return fake_listener(detector=ONE_FACE, lookahead=lookahead, extractors=speaker.extractors)

    def window(title: str) -> Window:
        opened.append(Window(title))
        return opened[-1]

    monkeypatch.setattr(Listener, "open", open_fake)
    monkeypatch.setattr("pflx.runtime.WindowSink", window)
    return opened


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / "speaker.mp4", size=(64, 48)) as writer:
        writer.write(np.zeros((24, 48, 64, 3), np.uint8))
    return tmp_path / "speaker.mp4"


def test_a_clip_is_shown_and_summed_up(windows: list[Window], clip: Path) -> None:
    done = pflx(*GIVEN, "--speaker", clip)
    assert done.code == 0, done.err
    assert "Untrained weights" in done.err
    assert "The listener is 420 ms behind." in done.out  # a hop of 8 frames, and 100 ms of playout
    (window,) = windows
    assert window.shown
    assert window.closed == 1
    assert re.search(r"\d+ frames shown \(\d+ [A-Z_]+", done.out)


def test_it_ends_after_the_time_that_was_asked_for(windows: list[Window], clip: Path) -> None:
    assert pflx(*GIVEN, "--speaker", clip, "--duration", "0.2").code == 0
    assert len(windows[0].shown) == 5


def test_closing_the_window_ends_it_without_an_error(
    windows: list[Window], clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = Window("", patience=3)
    monkeypatch.setattr("pflx.runtime.WindowSink", lambda title: window)
    done = pflx(*GIVEN, "--speaker", clip)
    assert (done.code, len(window.shown), window.closed) == (0, 3, 1)


@pytest.mark.parametrize(
    ("options", "camera", "microphone"),
    [
        ((), 0, "default"),
        (("--camera", "2", "--microphone", "none"), 2, None),
        (("--camera", "/dev/video7", "--microphone", "plughw:0"), "/dev/video7", "plughw:0"),
        (("--no-camera",), None, "default"),
    ],
)
def test_camera_and_microphone_are_those_that_were_named(
    windows: list[Window],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    camera: int | str | None,
    microphone: str | None,
) -> None:
    asked: list[tuple[Any, ...]] = []

    def webcam(*given: Any, sample_rate_hz: int) -> IterableSource:
        asked.append((*given, sample_rate_hz))
        frames, sound = frames_of(9), sound_of(9)
        items = [Timed(n / 25, frames[n], sound[640 * n : 640 * n + 640]) for n in range(9)]
        return IterableSource(items, sample_rate_hz=sample_rate_hz)

    monkeypatch.setattr("pflx.runtime.WebcamSource", webcam)
    assert pflx(*GIVEN, *options).code == 0
    assert asked == [(camera, microphone, 16_000)]


def test_a_clip_and_a_camera_are_refused_together(windows: list[Window], clip: Path) -> None:
    assert "--speaker takes the place of --camera" in refusal(*GIVEN, "--speaker", clip, "--camera", "1")
    assert windows == []


def test_nobody_to_listen_to_is_refused(windows: list[Window], clip: Path) -> None:
    assert "microphone alone" in refusal(*GIVEN, "--no-camera", "--microphone", "none")
    assert "microphone alone" in refusal(*GIVEN, "--no-camera", "--camera", "1")
    assert "--speaker takes the place" in refusal(*GIVEN, "--speaker", clip, "--no-camera")
    assert windows == []
