"""A session's frames as one video for the visitor: M listeners side by side, at the moments at which they are due."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import VideoFrame

from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.frames.event import Event
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.timing import NS_PER_S
from pflx.runtime.media.decoding.converter import Converter

_RATE_HZ = 90_000  # of time stamps of video in RTP
_ENCODED = "yuv420p"
"""What encoders take. aiortc would convert every picture with threads that begin and end with it."""


class ListenerTrack(MediaStreamTrack):
    """The video that a visitor gets. At most one picture waits for the encoder: a newer one takes its place.

    It has no clock of its own: pictures go out when the session shows them, stamped with their deadlines, which are
    40 ms apart. So what waits for the network or the encoder is never older than one frame.

    Args:
        loop: that the connection runs in.

    Attributes:
        dropped: pictures that a newer one took the place of.
        sent: pictures that went to the encoder.
    """

    kind = "video"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.dropped = self.sent = 0
        self._runs_in = loop
        self._lock = threading.Lock()
        self._newest: VideoFrame | None = None
        self._converter = Converter()
        self._news = asyncio.Event()
        self._first: int | None = None
        self._pts = -1

    def offer(self, image: UInt8Array, deadline: int) -> None:
        """Show a picture, from any thread.

        Args:
            image: uint8 [H, W, 3] RGB, which stays as it is.
            deadline: when it is due, ns on a clock that only grows.
        """
        frame = self._converter.convert(VideoFrame.from_ndarray(image, format="rgb24"), format=_ENCODED)
        with self._lock:
            frame.pts, frame.time_base = self._stamp(deadline), Fraction(1, _RATE_HZ)
            self.dropped += self._newest is not None
            self._newest = frame
        if not self._runs_in.is_closed():
            self._runs_in.call_soon_threadsafe(self._news.set)

    async def recv(self) -> VideoFrame:
        """The next picture, as soon as there is one.

        Raises:
            MediaStreamError: the track was stopped.
        """
        while (frame := self._take()) is None:
            if self.readyState != "live":
                raise MediaStreamError
            self._news.clear()
            await self._news.wait()
        self.sent += 1
        return frame

    def stop(self) -> None:
        """End it; whoever waits for a picture is told."""
        super().stop()
        self._news.set()

    def _take(self) -> VideoFrame | None:
        with self._lock:
            taken, self._newest = self._newest, None
        return taken

    def _stamp(self, deadline: int) -> int:
        if self._first is None:
            self._first = deadline
        self._pts = max(self._pts + 1, (deadline - self._first) * _RATE_HZ // NS_PER_S)
        return self._pts


class TrackSink:
    """Puts the samples of a session side by side and shows them on a track.

    Args:
        track: of the visitor.
        samples: of the session.
        told: gets what the first sample begins to do, in the session's thread.
    """

    def __init__(
        self, track: ListenerTrack, samples: int, told: Callable[[Sequence[Event]], None] = lambda events: None
    ) -> None:
        self._track, self._samples, self._told = track, samples, told
        self._tiles: dict[int, UInt8Array] = {}

    def show(self, frame: ListenerFrame) -> None:
        """Take a frame; with the last sample of a moment the picture is complete."""
        self._tiles[frame.sample] = frame.image
        if frame.events and frame.sample == 0:
            self._told(frame.events)
        if frame.sample == self._samples - 1 and len(self._tiles) == self._samples:
            tiles = [self._tiles[sample] for sample in range(self._samples)]
            self._track.offer(tiles[0] if self._samples == 1 else np.concatenate(tiles, axis=1), _due(frame))

    def close(self, error: BaseException | None) -> None:
        """Nothing to do: the track outlives the session."""


def _due(frame: ListenerFrame) -> int:
    assert frame.ledger.deadline is not None, "a live session's frames have deadlines"
    return frame.ledger.deadline
