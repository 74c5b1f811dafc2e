"""A window of SDL: on its driver without a screen, and on a real screen that nobody looks at."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.media.frames import frame

from pflx.engines import BackendMissingError, DeviceError
from pflx.runtime import ListenerFrame, StopWatching, WindowSink

pygame = pytest.importorskip("pygame", reason="pflx[window] is not installed")


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield
    pygame.display.quit()


def coloured(number: int, colour: tuple[int, int, int], sample: int = 0) -> ListenerFrame:
    made = frame(number, sample=sample)
    made.image[:] = colour
    return made


def colour_of(sink: WindowSink, at: tuple[int, int] | None = None) -> tuple[int, ...]:
    surface = sink._window.get_surface()  # there is no other way to see it without a screen
    width, height = surface.get_size()
    return tuple(surface.get_at(at or (width // 2, height // 2)))[:3]


def press(sink: WindowSink, key: int) -> None:
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, window=sink._window))


def test_it_shows_the_pictures_of_its_sample_twice_as_large() -> None:
    sink = WindowSink("me")
    first = coloured(0, (200, 100, 50))
    sink.show(first)
    sink.show(coloured(0, (0, 0, 250), sample=1))
    assert colour_of(sink) == (200, 100, 50)
    height, width = first.image.shape[:2]
    assert sink._window.size == (2 * width, 2 * height)
    sink.show(coloured(1, (10, 20, 30)))
    assert colour_of(sink) == (10, 20, 30)
    sink.close(None)


def test_a_picture_keeps_its_shape_in_a_window_that_was_made_wider() -> None:
    sink = WindowSink()
    sink.show(coloured(0, (200, 100, 50)))
    width, height = sink._window.size
    sink._window.size = (3 * width, height)
    sink.show(coloured(1, (200, 100, 50)))
    assert colour_of(sink) == (200, 100, 50)
    assert colour_of(sink, (width // 2, height // 2)) == (0, 0, 0)
    sink.close(None)


def test_closing_from_another_thread_only_forbids_more_frames() -> None:
    sink = WindowSink("me")
    sink.show(frame(0))
    closing = threading.Thread(target=sink.close, args=(None,))
    closing.start()
    closing.join(10)
    assert sink.closed
    assert sink._window is not None
    with pytest.raises(StopWatching, match="'me' was closed"):
        sink.show(frame(1))
    sink.close(None)
    assert sink._window is None


@pytest.mark.parametrize("error", [None, RuntimeError()])
def test_closing_closes_its_window_once(error: Exception | None) -> None:
    sink = WindowSink()
    sink.close(error)
    sink = WindowSink()
    assert not sink.closed
    sink.show(frame(0))
    sink.close(error)
    sink.close(error)
    assert sink.closed
    assert sink._window is None


@pytest.mark.parametrize("key", [pygame.K_q, pygame.K_ESCAPE])
def test_q_or_esc_ends_the_session(key: int) -> None:
    sink = WindowSink()
    sink.show(frame(0))
    press(sink, pygame.K_x)
    sink.show(frame(1))
    press(sink, key)
    with pytest.raises(StopWatching, match="'pflx' was closed"):
        sink.show(frame(2))
    assert sink.closed


def test_the_windows_own_button_ends_the_session_and_no_other() -> None:
    one, other = WindowSink("one"), WindowSink("other")
    one.show(frame(0))
    other.show(frame(0))
    pygame.event.post(pygame.event.Event(pygame.WINDOWCLOSE, window=other._window))
    one.show(frame(1))
    with pytest.raises(StopWatching, match="'other' was closed"):
        other.show(frame(1))
    one.show(frame(2))
    one.close(None)


def test_without_the_library_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(BackendMissingError, match=r"pip install 'pflx\[window\]'"):
        WindowSink()


def test_a_machine_without_a_screen_is_an_error_and_not_the_end_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(DeviceError, match="no screen"):
        WindowSink()
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonsense")
    sink = WindowSink()
    with pytest.raises(DeviceError, match="No window can be opened here"):
        sink.show(frame(0))


SHOW = """
import numpy as np, sys
from support.media.frames import frame
from pflx.runtime import StopWatching, WindowSink

sink = WindowSink("pflx on a screen")
made = frame(0)
made.image[:] = (200, 40, 40)
sink.show(made)
print("shown", flush=True)
try:
    while True:
        sink.show(made)
except StopWatching:
    print("ended", flush=True)
"""


@contextmanager
def screen() -> Iterator[dict[str, str]]:
    """The environment of a screen without a window manager, where keys go to what is under the pointer."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL) as server:
        os.close(write)
        with os.fdopen(read) as told:
            display = f":{told.readline().strip()}"
        try:
            yield {name: value for name, value in os.environ.items() if name != "SDL_VIDEODRIVER"} | {
                "DISPLAY": display
            }
        finally:
            server.terminate()


@pytest.mark.skipif(not (shutil.which("Xvfb") and shutil.which("xdotool")), reason="needs Xvfb and xdotool")
def test_a_window_on_a_screen_ends_with_q() -> None:
    with screen() as env:
        paths = os.pathsep.join(filter(None, [*sys.path, env.get("PYTHONPATH")]))
        command = [sys.executable, "-c", SHOW]
        with subprocess.Popen(command, env=env | {"PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True) as show:
            assert show.stdout is not None
            assert show.stdout.readline() == "shown\n"
            press_q = ["xdotool", "mousemove", "400", "300", "key", "q"]
            for _ in range(100):  # a key that comes before the window is on the screen goes nowhere
                if show.poll() is None:
                    subprocess.run(press_q, env=env, check=True, timeout=20)
            show.kill()
            assert show.stdout.readline() == "ended\n"
