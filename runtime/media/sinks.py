"""Where a live session hands its frames: a function, a window, a file, or nowhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import get_ident
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pflx.engines import BackendMissingError, DeviceError, FeedError
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.timing import FPS
from pflx.runtime.media.errors import MediaError
from pflx.runtime.media.video_writer import VideoWriter

_LONGEST_GAP = 60 * FPS  # a longer one is a clock that was set, not a pause to be sat through
_CLOSING_KEYS = (ord("q"), ord("Q"), 27)  # 27: Esc


class StopWatching(Exception):  # noqa: N818 - like StopIteration, no error
    """Raised by a sink's `show`: nobody watches any more. The session ends, and ends well."""


@runtime_checkable
class Sink(Protocol):
    """Takes a session's frames when they are due."""

    def show(self, frame: ListenerFrame) -> None:
        """Take one frame, sample by sample; always called by the same thread, at the frame's deadline.

        What takes long here delays the frames that follow. `StopWatching` ends the session; anything else that is
        raised stops it with that error.
        """
        ...

    def close(self, error: BaseException | None) -> None:
        """The session has ended, in failure if there is an error. Closing twice is harmless."""
        ...


def as_sink(given: Sink | Callable[[ListenerFrame], object] | str | Path | None) -> Sink | None:
    """The sink that was meant: a function, a file by its path, or a sink as it is; None stays None.

    Raises:
        FeedError: it is none of these.
        MediaError: the file cannot be written.
    """
    if given is None:
        return None
    if isinstance(given, str | Path):
        return VideoFileSink(given)
    if not isinstance(given, type):
        if isinstance(given, Sink):
            return given
        if callable(given):
            return CallbackSink(given)
    kind = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
    raise FeedError(f"{kind} is no sink. Give a function, the path of an .mp4, or an object such as WindowSink().")


class CallbackSink:
    """Calls a function with every frame.

    Args:
        call: what it returns is ignored; it may raise `StopWatching`.
    """

    def __init__(self, call: Callable[[ListenerFrame], object]) -> None:
        self._call = call

    def show(self, frame: ListenerFrame) -> None:
        """Call the function."""
        self._call(frame)

    def close(self, error: BaseException | None) -> None:
        """Nothing to do."""


class NullSink:
    """Drops every frame."""

    def show(self, frame: ListenerFrame) -> None:
        """Drop it."""

    def close(self, error: BaseException | None) -> None:
        """Nothing to do."""


class VideoFileSink:
    """The listener as an MP4 of 25 pictures per second, without sound.

    Frames keep their distance: the picture before a gap is repeated, up to a minute. The file is complete under its
    name once the session has ended well, and not there if it failed; until then a file of that name stays.

    Args:
        path: where to; the suffix must be .mp4.
        sample: which of the reactions; the others are passed over.

    Raises:
        MediaError: it cannot be written there.
    """

    def __init__(self, path: str | Path, *, sample: int = 0) -> None:
        self._path = Path(path)
        self._sample = sample
        self._writer: VideoWriter | None = None
        self._number = 0
        self._picture: UInt8Array | None = None
        self._closed = False
        _check_place(self._path)

    def show(self, frame: ListenerFrame) -> None:
        """Write the frame, and before it what is missing.

        Raises:
            MediaError: the disk is full or gone, the size changed, or the sink is closed.
        """
        if self._closed:
            raise MediaError(f"{self._path} is finished. Open another sink for more frames.")
        if frame.sample != self._sample:
            return
        image, number = frame.image, frame.ledger.frame
        if self._writer is None or self._picture is None:
            height, width = image.shape[:2]
            self._writer = VideoWriter(self._path, size=(width, height))
            self._number = number - 1
        elif number - self._number <= _LONGEST_GAP:
            for _ in range(self._number + 1, number):
                self._writer.write(self._picture[None])
        self._writer.write(image[None])
        self._number, self._picture = number, image

    def close(self, error: BaseException | None) -> None:
        """Finish the file; after an error leave none.

        Raises:
            MediaError: it cannot be finished, or no frame came.
        """
        if self._closed:
            return
        self._closed, self._picture = True, None
        if self._writer is not None:
            self._writer.__exit__(None if error is None else type(error), error, None)
        elif error is None:
            raise MediaError(f"{self._path} was not written: there was no frame for it.")


class WindowSink:
    """Shows the listener in a window; q, Esc or the window's own button end the session.

    OpenCV's windows belong to the thread that calls `show`. On macOS that must be the main thread, which a session
    does not use for its sinks; show the frames yourself there, and anywhere else if you like:

        window = WindowSink()
        with listener.live(source) as session:
            for frame in session:
                window.show(frame)      # raises StopWatching
        window.close(None)

    Args:
        title: of the window.
        sample: which of the reactions; the others are passed over.

    Raises:
        BackendMissingError: this OpenCV was built without windows, as opencv-python-headless is.
        DeviceError: there is no screen.
    """

    def __init__(self, title: str = "pflx", *, sample: int = 0) -> None:
        self._cv2 = _windows()
        self._title = title
        self._sample = sample
        self._thread: int | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the window was closed, by the user or by `close`."""
        return self._closed

    def show(self, frame: ListenerFrame) -> None:
        """Show the frame and look for keys.

        Raises:
            StopWatching: the window was closed.
        """
        if self._closed:
            raise StopWatching(f"The window '{self._title}' was closed.")
        if frame.sample != self._sample:
            return
        self._thread = get_ident()
        self._cv2.imshow(self._title, np.ascontiguousarray(frame.image[..., ::-1]))
        if self._cv2.waitKey(1) & 0xFF in _CLOSING_KEYS or not self._visible():
            self.close(None)
            raise StopWatching(f"The window '{self._title}' was closed.")

    def close(self, error: BaseException | None) -> None:
        """Close the window. From another thread than `show`'s it only forbids more frames."""
        was_open, self._closed = not self._closed and self._thread == get_ident(), True
        if was_open:
            with suppress(self._cv2.error):  # the user's click may have destroyed it
                self._cv2.destroyWindow(self._title)

    def _visible(self) -> bool:
        try:
            return bool(self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) >= 1)
        except self._cv2.error:  # Qt no longer knows a window that was closed
            return False


class _Looked(Exception):  # noqa: N818 - no error
    pass


def _check_place(path: Path) -> None:
    """Begin a file and drop it: what is wrong is found now, and not at the first frame."""
    with suppress(_Looked), VideoWriter(path, size=(64, 64)):
        raise _Looked


def _windows() -> Any:
    """OpenCV, if it can open windows here."""
    cv2 = _window_library()
    interface = next((line for line in cv2.getBuildInformation().splitlines() if line.strip().startswith("GUI:")), "")
    if "NONE" in interface:
        raise BackendMissingError(
            "OpenCV with windows", "pip uninstall -y opencv-python-headless && pip install opencv-python"
        )
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        # Qt would end the whole process.
        raise DeviceError(
            "There is no screen for a window (DISPLAY is not set). Write a file or use a function instead."
        )
    return cv2


def _window_library() -> Any:
    import cv2

    return cv2
