from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pflx.engines import BackendMissingError, DeviceError, FeedError
from pflx.runtime import FaceState, Ledger, ListenerFrame, MediaError, open_speaker
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.media import sinks
from pflx.runtime.media.sinks import CallbackSink, NullSink, Sink, StopWatching, VideoFileSink, WindowSink, as_sink

UInt8Array = npt.NDArray[np.uint8]


def frame(number: int, level: int = 0, sample: int = 0, size: tuple[int, int] = (64, 48)) -> ListenerFrame:
    return ListenerFrame(
        image=np.full((size[1], size[0], 3), level, np.uint8),
        coefficients=np.zeros(58, np.float32),
        generated_pose=np.zeros(6, np.float32),
        time_s=number / 25,
        sample=sample,
        face=FaceState.LOCKED,
        ledger=Ledger(frame=number, sample=sample, segment=0, picture=number, rung=Rung.FULL, time_s=number / 25),
    )


def levels(path: Path) -> list[int]:
    """The brightness of each picture of a file, as a multiple of 10."""
    video = np.concatenate([chunk.video for chunk in open_speaker(path).chunks()])
    return [round(level / 10) * 10 for level in video.mean(axis=(1, 2, 3)).tolist()]


class FakeWindows:
    """What cv2 with windows is to a sink. `keys` are pressed one by one; `shut` clicks the X after so many frames."""

    WND_PROP_VISIBLE = 4

    class error(Exception):  # noqa: N801, N818 - OpenCV's name
        pass

    def __init__(
        self, keys: Sequence[int] = (), shut: int | None = None, gui: str = "QT5", forgets: bool = False
    ) -> None:
        self._keys = iter(keys)
        self._shut = shut
        self._gui = gui
        self._forgets = forgets
        self.shown: list[UInt8Array] = []
        self.open: set[str] = set()
        self.threads: set[int] = set()

    def getBuildInformation(self) -> str:  # noqa: N802
        return f"General configuration\n  GUI:                           {self._gui}\n  Media I/O:\n"

    def imshow(self, title: str, image: UInt8Array) -> None:
        assert image.flags.c_contiguous
        self.threads.add(threading.get_ident())
        self.open.add(title)
        self.shown.append(image)

    def waitKey(self, delay: int) -> int:  # noqa: N802
        assert delay > 0, "0 waits for ever"
        if self._shut == len(self.shown):
            self.open.clear()
        return next(self._keys, -1)

    def getWindowProperty(self, title: str, what: int) -> float:  # noqa: N802
        if self._forgets and title not in self.open:
            raise self.error("NULL guiReceiver")
        return 1.0 if title in self.open else 0.0

    def destroyWindow(self, title: str) -> None:  # noqa: N802
        self.threads.add(threading.get_ident())
        if title not in self.open:
            raise self.error("NULL window")
        self.open.remove(title)


def use_windows(monkeypatch: pytest.MonkeyPatch, windows: FakeWindows) -> FakeWindows:
    monkeypatch.setattr(sinks, "_window_library", lambda: windows)
    monkeypatch.setenv("DISPLAY", ":0")
    return windows


def test_what_a_sink_can_be_given_as(tmp_path: Path) -> None:
    seen: list[ListenerFrame] = []
    shown = frame(0)
    called = as_sink(seen.append)
    assert isinstance(called, CallbackSink)
    called.show(shown)
    called.close(None)
    assert seen == [shown]
    null = NullSink()
    null.show(shown)
    null.close(RuntimeError())
    assert as_sink(null) is null
    assert as_sink(None) is None
    assert isinstance(as_sink(tmp_path / "a.mp4"), VideoFileSink)
    assert isinstance(as_sink(str(tmp_path / "a.mp4")), VideoFileSink)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [7, NullSink, [print]])
def test_what_is_no_sink_is_refused_in_one_line(given: Any) -> None:
    with pytest.raises(FeedError, match="is no sink") as caught:
        as_sink(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sink", [NullSink(), CallbackSink(print)])
def test_a_sink_may_be_closed_twice(sink: Sink) -> None:
    sink.close(None)
    sink.close(RuntimeError())


def test_a_file_shows_the_frames_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = VideoFileSink(path)
    for number in range(20):
        sink.show(frame(number, 10 * number))
    assert not path.exists()
    sink.close(None)
    sink.close(None)
    assert levels(path) == [10 * number for number in range(20)]
    assert open_speaker(path).source_fps == 25
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=10, deadline=None)
@given(first=st.integers(0, 10**6), gaps=st.lists(st.integers(1, 9), max_size=12))
def test_a_gap_repeats_the_picture_before_it(
    tmp_path_factory: pytest.TempPathFactory, first: int, gaps: list[int]
) -> None:
    path = tmp_path_factory.mktemp("gaps") / "out.mp4"
    sink = VideoFileSink(path)
    numbers = [first + step for step in np.concatenate([[0], np.cumsum(gaps)]).astype(int).tolist()]
    for index, number in enumerate(numbers):
        sink.show(frame(number, 20 * index))
    sink.close(None)
    expected = [20 * index for index, gap in enumerate(gaps) for _ in range(gap)] + [20 * len(gaps)]
    assert levels(path) == expected


def test_a_leap_of_the_clock_is_not_filled(tmp_path: Path) -> None:
    sink = VideoFileSink(tmp_path / "out.mp4")
    for number, level in ((0, 0), (10**9, 50), (10**9 + 1, 100), (3, 150), (4, 200)):
        sink.show(frame(number, level))
    sink.close(None)
    assert levels(tmp_path / "out.mp4") == [0, 50, 100, 150, 200]


def test_a_file_holds_one_of_several_reactions(tmp_path: Path) -> None:
    sink = VideoFileSink(tmp_path / "out.mp4", sample=1)
    for number in range(5):
        for sample in range(3):
            sink.show(frame(number, 100 * sample, sample))
    sink.close(None)
    assert levels(tmp_path / "out.mp4") == [100] * 5


def test_a_session_that_fails_leaves_no_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    sink = VideoFileSink(path)
    sink.show(frame(0))
    sink.close(RuntimeError("an engine failed"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(MediaError, match="is finished"):
        sink.show(frame(1))


def test_a_session_without_frames_says_that_there_is_no_file(tmp_path: Path) -> None:
    sink = VideoFileSink(tmp_path / "out.mp4")
    with pytest.raises(MediaError, match="no frame"):
        sink.close(None)
    VideoFileSink(tmp_path / "out.mp4").close(RuntimeError())
    assert list(tmp_path.iterdir()) == []


def test_a_bad_place_is_found_before_the_session_begins(tmp_path: Path) -> None:
    for name, reason in (("missing/out.mp4", "no folder"), ("out.avi", "suffix"), ("/proc/out.mp4", "Cannot write")):
        with pytest.raises(MediaError, match=reason):
            as_sink(tmp_path / name)


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    sink = VideoFileSink(tmp_path / "out.mp4")
    sink.show(frame(0))
    with pytest.raises(MediaError, match="48, 64"):
        sink.show(frame(1, size=(32, 32)))
    sink.close(RuntimeError())


def test_a_window_shows_bgr_in_the_thread_that_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = use_windows(monkeypatch, FakeWindows())
    sink = WindowSink("me")
    shown = frame(0)
    shown.image[:] = (1, 2, 3)
    sink.show(shown)
    sink.show(frame(0, sample=1))
    assert [image[0, 0].tolist() for image in windows.shown] == [[3, 2, 1]]
    assert windows.open == {"me"}
    closing = threading.Thread(target=sink.close, args=(None,))
    closing.start()
    closing.join(10)
    assert sink.closed
    assert windows.threads == {threading.get_ident()}


@pytest.mark.parametrize("error", [None, RuntimeError()])
def test_closing_a_window_sink_closes_its_window(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    windows = use_windows(monkeypatch, FakeWindows())
    sink = WindowSink()
    assert not sink.closed
    sink.show(frame(0))
    sink.close(error)
    sink.close(error)
    assert sink.closed
    assert not windows.open


def test_a_window_that_was_never_shown_is_closed_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = use_windows(monkeypatch, FakeWindows())
    WindowSink().close(None)
    assert not windows.threads


@pytest.mark.parametrize("key", [ord("q"), ord("Q"), 27, 0x100000 | ord("q")])
def test_q_or_esc_ends_the_session(monkeypatch: pytest.MonkeyPatch, key: int) -> None:
    windows = use_windows(monkeypatch, FakeWindows(keys=[-1, ord("x"), key]))
    sink = WindowSink()
    sink.show(frame(0))
    sink.show(frame(1))
    with pytest.raises(StopWatching):
        sink.show(frame(2))
    assert sink.closed
    assert not windows.open
    with pytest.raises(StopWatching, match="'pflx' was closed"):
        sink.show(frame(3))
    assert len(windows.shown) == 3


@pytest.mark.parametrize("forgets", [False, True])
def test_the_windows_own_button_ends_the_session(monkeypatch: pytest.MonkeyPatch, forgets: bool) -> None:
    windows = use_windows(monkeypatch, FakeWindows(shut=2, forgets=forgets))
    sink = WindowSink()
    sink.show(frame(0))
    with pytest.raises(StopWatching):
        sink.show(frame(1))
    assert sink.closed
    assert len(windows.shown) == 2


def test_an_opencv_without_windows_is_named_with_the_line_that_replaces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    use_windows(monkeypatch, FakeWindows(gui="NONE"))
    with pytest.raises(BackendMissingError, match=r"pip install opencv-python$"):
        WindowSink()


def test_the_installed_opencv_either_has_windows_or_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises((BackendMissingError, DeviceError), match="window"):
        WindowSink()


def test_a_machine_without_a_screen_is_an_error_and_not_the_end_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    use_windows(monkeypatch, FakeWindows())
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(DeviceError, match="no screen"):
        WindowSink()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    WindowSink()
