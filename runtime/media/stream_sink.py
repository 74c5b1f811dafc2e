"""The listener as a stream to a server, or to a file that grows: whatever FFmpeg has a protocol for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from pflx.engines import FeedError
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.timing import FPS
from pflx.runtime.media.decoding.converter import Converter
from pflx.runtime.media.errors import MediaError
from pflx.runtime.media.mark import COMMENT

if TYPE_CHECKING:
    from av.container import OutputContainer

_FORMATS = {"rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp", "rtsps": "rtsp", "udp": "mpegts", "tcp": "mpegts"}
_RATE_HZ = 48_000  # of the silence
_LONGEST_GAP = 60 * FPS  # a longer one is a clock that was set: the stream goes on without it
_OPTIONS = {"libx264": {"preset": "veryfast", "tune": "zerolatency"}}


class StreamSink:
    """The listener as live video of 25 pictures per second, to a server or a file that grows.

    The connection is made with the first frame. What cannot be connected to, or breaks off, raises MediaError in
    `show`, and the sink is over; in a session with several sinks the others go on. A server that does not answer at all
    keeps the sink's thread for as long as the operating system tries.

    Args:
        url: rtmp://, rtmps://, rtsp://, udp:// or tcp:// address, or the path of a file.
        format: of FFmpeg, such as "mpegts"; None takes the usual one of the protocol, or of the file's suffix.
        codec: of the video, by FFmpeg's name.
        silence: send a silent AAC track too, without which many services show nothing.
        sample: which of the reactions; the others are passed over.

    Raises:
        FeedError: the address names no protocol that is known here, or the codec cannot encode.
    """

    def __init__(
        self, url: str, *, format: str | None = None, codec: str = "libx264", silence: bool = True, sample: int = 0
    ) -> None:
        self._url, self._codec, self._silence, self._sample = str(url), codec, silence, sample
        scheme = urlsplit(self._url).scheme if "://" in self._url else "file"
        if format is None and scheme != "file":
            if scheme not in _FORMATS:
                known = ", ".join(f"{name}://" for name in _FORMATS)
                raise FeedError(f"{scheme}:// is none of {known}. Name the format too: StreamSink(url, format=...).")
            format = _FORMATS[scheme]
        self._format = format
        self._name = _without_secrets(self._url)
        self._container: OutputContainer | None = None
        self._video: Any = None
        self._audio: Any = None
        self._converter = Converter()
        self._first = self._last = self._heard = 0
        self._skipped = 0  # pictures that a leap of the clock left out of the stream's time
        self._closed = False
        _check_encoder(codec)

    def show(self, frame: ListenerFrame) -> None:
        """Send the frame, at its place in time.

        Raises:
            MediaError: nothing can be sent there, or the sink is closed.
        """
        if self._closed:
            raise MediaError(f"The stream to {self._name} is closed. Open another sink for more frames.")
        if frame.sample != self._sample:
            return
        number = frame.ledger.frame
        with self._failures():
            if self._container is None:
                self._open(frame.image)
                self._first, self._last = number, number - 1
            if number - self._last > _LONGEST_GAP:
                self._skipped += number - self._last - 1
            self._last = number
            self._send(frame.image, number - self._first - self._skipped)

    def close(self, error: BaseException | None) -> None:
        """End the stream; closing twice is harmless.

        Raises:
            MediaError: what was sent last did not arrive.
        """
        if self._closed:
            return
        self._closed = True
        if self._container is None:
            return
        try:
            if error is None:
                with self._failures():
                    self._finish(self._container)
        finally:
            self._drop()

    def _open(self, image: UInt8Array) -> None:
        import av

        height, width = image.shape[:2]
        options = {"rtsp_transport": "tcp"} if self._format == "rtsp" else {}
        self._container = av.open(self._url, "w", format=self._format, options=options)
        self._container.metadata["comment"] = COMMENT
        self._video = self._container.add_stream(self._codec, rate=FPS, options=_OPTIONS.get(self._codec, {}))
        self._video.width, self._video.height = width + width % 2, height + height % 2
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.gop_size = 2 * FPS  # whoever tunes in sees something within two seconds
        self._video.codec_context.time_base = Fraction(1, FPS)
        if self._silence:
            self._audio = self._container.add_stream("aac", rate=_RATE_HZ, layout="stereo")
        self._container.start_encoding()

    def _send(self, image: UInt8Array, place: int) -> None:
        import av

        assert self._container is not None
        height, width = image.shape[:2]
        even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        picture.pts, picture.time_base = place, Fraction(1, FPS)
        self._container.mux(self._video.encode(self._converter.convert(picture, format="yuv420p")))
        if self._audio is not None:
            for block in self._silent_until((place + 1) * _RATE_HZ // FPS):
                self._container.mux(self._audio.encode(block))

    def _silent_until(self, samples: int) -> Iterator[Any]:
        import av

        while self._heard < samples:
            count = min(samples - self._heard, _RATE_HZ // FPS)
            block = av.AudioFrame.from_ndarray(np.zeros((2, count), np.float32), format="fltp", layout="stereo")
            block.sample_rate, block.pts, block.time_base = _RATE_HZ, self._heard, Fraction(1, _RATE_HZ)
            self._heard += count
            yield block

    def _finish(self, container: OutputContainer) -> None:
        for stream in (self._video, self._audio):
            if stream is not None:
                container.mux(stream.encode(None))
        container.close()

    def _drop(self) -> None:
        """Let the connection go; a failure here would hide the one that led here."""
        from av.error import FFmpegError

        container, self._container = self._container, None
        if container is not None:
            with suppress(FFmpegError, OSError):
                container.close()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        from av.error import FFmpegError

        try:
            yield
        except (FFmpegError, OSError, ValueError) as error:
            self._closed = True
            self._drop()
            reason = getattr(error, "strerror", None) or error
            raise MediaError(
                f"Nothing can be sent to {self._name} ({reason}). Check that it listens there and takes this stream."
            ) from None  # the error of FFmpeg holds the whole address


def _without_secrets(url: str) -> str:
    """An address as it may be told: keys of streams stand in its path, passwords before its host."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{'/…' if parts.path.strip('/') or parts.query else ''}"


def _check_encoder(codec: str) -> None:
    import av

    try:
        found = av.Codec(codec, "w")
    except ValueError as error:
        raise FeedError(f"PyAV has no encoder {codec!r} here. Give another codec, such as libx264.") from error
    if found.type != "video":
        raise FeedError(f"{codec!r} encodes {found.type}. Give a codec of video, such as libx264.")
