"""The packets and frames of a file, as FFmpeg gives them; what cannot be decoded is left out and counted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pflx.runtime.media.errors import MediaError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

log = logging.getLogger(__name__)


TIME_TOLERANCE_S = 0.0006  # Matroska and FLV round time stamps to the nearest millisecond
LONGEST_GAP_S = 60.0  # a longer step forward is taken for a broken clock, not for a pause

StreamKind: TypeAlias = Literal["video", "audio"]


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """A file, open while the block lasts.

    Raises:
        MediaError: FFmpeg does not read it.
    """
    import av
    from av.error import FFmpegError

    try:
        # Absolute: FFmpeg would take "a:b.mp4" for an address.
        container = av.open(str(path.absolute()), **_tolerance(av.__version__))
    except (FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{path} is no video that FFmpeg can read ({reason}).") from error
    with container:
        yield container


def _tolerance(version: str) -> dict[str, Any]:
    """What lets PyAV open a file with a tag that is not UTF-8: from 19 on nothing, before it a word for it."""
    return {} if int(version.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}


def stream_of(container: InputContainer, kind: StreamKind) -> Any:
    """The first stream of its kind that is not a cover picture."""
    from av.stream import Disposition

    for stream in container.streams:
        if stream.type == kind and not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def is_picture(container: InputContainer) -> bool:
    """FFmpeg reads pictures, and text files as terminal art, as if they were videos."""
    name = container.format.name
    return name in ("image2", "tty") or name.endswith("_pipe")


def stated_duration_s(container: InputContainer, stream: Any) -> float | None:
    """The length that a file states, if it does."""
    import av

    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base


def stamp_s(frame: av.VideoFrame | av.AudioFrame) -> float | None:
    """When a frame is shown or heard by its own time stamp, if it has one."""
    if frame.pts is None or not frame.time_base:  # None, and 0/1 from PyAV 19 on
        return None
    return float(frame.pts * frame.time_base)


@dataclass
class DecodedStream:
    """The decoded frames of one stream of a file.

    Each stream opens the file for itself: however the two are interleaved, nothing has to be kept while one
    waits for the other.
    """

    path: Path
    kind: StreamKind
    skipped: int = 0

    def __iter__(self) -> Iterator[Any]:
        from av.error import FFmpegError

        with opened(self.path) as container:
            stream = stream_of(container, self.kind)
            packets = container.demux(stream)
            while (packet := self._next(packets, FFmpegError)) is not None:
                try:
                    frames = packet.decode()
                except FFmpegError:
                    self._skip()
                    continue
                yield from (frame for frame in frames if not (frame.is_corrupt and self._skip()))

    def _next(self, packets: Iterator[Any], failure: type[Exception]) -> Any:
        """The next packet; None at the end, also where the file breaks off."""
        try:
            return next(packets, None)
        except failure:
            self._skip()
            return None

    def _skip(self) -> bool:
        if self.skipped == 0:
            log.warning("%s: a damaged part of the %s was left out.", self.path, self.kind)
        self.skipped += 1
        return True
