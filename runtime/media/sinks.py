"""Where a live session hands its frames: a function, a window, a file, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeAlias, cast, runtime_checkable

from pflx.engines import FeedError
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.timing import FPS
from pflx.runtime.media.errors import MediaError
from pflx.runtime.media.video_writer import VideoWriter

_LONGEST_GAP = 60 * FPS  # a longer one is a clock that was set, not a pause to be sat through


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


Shown: TypeAlias = Sink | Callable[[ListenerFrame], object] | str | Path
"""What may be given for a sink: an object, a function, or the path of an .mp4."""


def as_sinks(given: Shown | Sequence[Shown] | None, source: object = None) -> list[Sink]:
    """The sinks that were meant: none, one, or several.

    Args:
        given: what the user gave.
        source: that the session reads; a file is not written over it.

    Raises:
        FeedError: one of them is none, or would write what is read.
        MediaError: a file cannot be written.
    """
    several = given if isinstance(given, list | tuple) else [cast("Shown | None", given)]
    sinks = [sink for one in several if (sink := as_sink(one)) is not None]
    read = getattr(source, "path", None)
    for path in (getattr(sink, "path", None) for sink in sinks):
        if isinstance(read, Path) and isinstance(path, Path) and path.exists() and path.samefile(read):
            raise FeedError(f"The sink {path} is {read}, the clip that the session reads. Choose another place for it.")
    return sinks


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

    Attributes:
        path: where to.

    Raises:
        MediaError: it cannot be written there.
    """

    def __init__(self, path: str | Path, *, sample: int = 0) -> None:
        self.path = Path(path)
        self._sample = sample
        self._writer: VideoWriter | None = None
        self._number = 0
        self._picture: UInt8Array | None = None
        self._closed = False
        _check_place(self.path)

    def show(self, frame: ListenerFrame) -> None:
        """Write the frame, and before it what is missing.

        Raises:
            MediaError: the disk is full or gone, the size changed, or the sink is closed.
        """
        if self._closed:
            raise MediaError(f"{self.path} is finished. Open another sink for more frames.")
        if frame.sample != self._sample:
            return
        image, number = frame.image, frame.ledger.frame
        if self._writer is None or self._picture is None:
            height, width = image.shape[:2]
            self._writer = VideoWriter(self.path, size=(width, height), generated=True)
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
            raise MediaError(f"{self.path} was not written: there was no frame for it.")


class _Looked(Exception):  # noqa: N818 - no error
    pass


def _check_place(path: Path) -> None:
    """Begin a file and drop it: what is wrong is found now, and not at the first frame."""
    with suppress(_Looked), VideoWriter(path, size=(64, 64)):
        raise _Looked
