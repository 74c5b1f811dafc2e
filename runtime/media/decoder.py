"""The packets and frames of a file, as FFmpeg gives them; what cannot be decoded is left out and counted."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pflx.runtime.media.decoding.file_kinds import what_it_is
from pflx.runtime.media.errors import MediaError, MediaMemoryError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

log = logging.getLogger(__name__)


TIME_TOLERANCE_S = 0.0006  # Matroska and FLV round time stamps to the nearest millisecond
LONGEST_GAP_S = 60.0  # a longer step forward is taken for a broken clock, not for a pause

NO_MEMORY = (MemoryError, BlockingIOError)  # the second where there is none for another thread

StreamKind: TypeAlias = Literal["video", "audio"]


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """A file, open while the block lasts.

    Raises:
        MediaError: FFmpeg does not read it.
        MemoryError: there is no memory to read it; see `memory_told`.
    """
    import av
    from av.error import FFmpegError

    try:
        # Absolute: FFmpeg would take "a:b.mp4" for an address.
        container = av.open(str(path.absolute()), **_tolerance(av.__version__))
    except NO_MEMORY:
        raise
    except (FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, PermissionError):
            raise MediaError(f"{path} cannot be read ({reason}). Check its permissions.") from error
        kind = what_it_is(path)
        raise MediaError(f"{path} {kind or f'is no video that FFmpeg can read ({reason}).'}") from error
    with container:
        yield container


def _tolerance(version: str) -> dict[str, Any]:
    """What lets PyAV open a file with a tag that is not UTF-8: from 19 on nothing, before it a word for it."""
    return {} if int(version.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}


@contextmanager
def memory_told(path: Path) -> Iterator[None]:
    """Says which clip there was not enough memory for: that is no damaged part of it, to be left out.

    Raises:
        MediaMemoryError: in the place of whatever FFmpeg or numpy raised in the block.
    """
    try:
        yield
    except NO_MEMORY as error:
        raise MediaMemoryError(
            f"There is not enough memory to read {path}. Free some, or give a clip of a smaller size."
        ) from error


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


@dataclass(frozen=True)
class Track:
    """One stream of a file, and how to read it.

    Attributes:
        kind: pictures or sound.
        index: of the stream in the file.
        by_decode_time: the file says when its pictures are decoded, not when they are shown.
    """

    kind: StreamKind
    index: int
    by_decode_time: bool = False


@dataclass
class DecodedStream:
    """The decoded frames of one stream of a file, in the order in which they are shown.

    Each stream opens the file for itself: however the two are interleaved, nothing has to be kept while one
    waits for the other.

    Attributes:
        path: the file.
        track: which of its streams.
        skipped: damaged packets and frames left out so far.
        quiet: say nothing of them.
        threads: of the decoder; 0 leaves it to FFmpeg, which takes one for each core.
        pixel_aspect: width of a pixel to its height, as last decoded; None if it is not stated.
    """

    path: Path
    track: Track
    skipped: int = 0
    quiet: bool = False
    threads: int = 0
    pixel_aspect: Fraction | None = field(default=None, init=False)
    _stated_aspect: Fraction | None = field(default=None, init=False)
    _coded_aspects: dict[tuple[int, int], Fraction | None] = field(default_factory=dict, init=False)

    def __iter__(self) -> Generator[Any, None, None]:
        from av.error import FFmpegError

        with opened(self.path) as container:
            stream: Any = container.streams[self.track.index]
            if stream.codec_context is None:  # a codec that FFmpeg does not know
                return
            stream.codec_context.thread_count = self.threads
            first_dts, delay = None, None
            packets = container.demux(stream)
            while (packet := self._next(packets, FFmpegError)) is not None:
                first_dts = packet.dts if first_dts is None else first_dts
                try:
                    frames = packet.decode()
                except NO_MEMORY:
                    raise
                except FFmpegError:
                    self._skip()
                    continue
                for frame in frames:
                    if self.track.kind == "video":
                        self._note_aspect(stream, frame)
                    if self.track.by_decode_time and frame.dts is not None:
                        # The decoder gives a picture with the time of the packet that pushed it out.
                        delay = frame.dts - (first_dts or 0) if delay is None else delay
                        frame.pts = frame.dts - delay
                    elif self.track.by_decode_time:
                        frame.pts = None
                    if not (frame.is_corrupt and self._skip()):
                        yield frame

    def _note_aspect(self, stream: Any, frame: av.VideoFrame) -> None:
        """The shape of a picture's pixels: the container's word if it differs from the codec's, which may change."""
        context, size = stream.codec_context, (frame.width, frame.height)
        if not self._coded_aspects and stream.sample_aspect_ratio != context.sample_aspect_ratio:
            self._stated_aspect = stream.sample_aspect_ratio
        if size == (context.width, context.height):  # else it is of a part before, and the decoder is ahead of it
            self._coded_aspects[size] = context.sample_aspect_ratio
        self.pixel_aspect = self._stated_aspect or self._coded_aspects.get(size)

    def _next(self, packets: Iterator[Any], failure: type[Exception]) -> Any:
        """The next packet; None at the end, also where the file breaks off."""
        try:
            return next(packets, None)
        except NO_MEMORY:
            raise
        except failure:
            self._skip()
            return None

    def _skip(self) -> bool:
        if self.skipped == 0 and not self.quiet:
            log.warning("%s: a damaged part of the %s was left out.", self.path, self.track.kind)
        self.skipped += 1
        return True
