"""What arrives of a visitor, pushed into the session of the moment."""

from __future__ import annotations

import time

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.frames.pixels import PixelFormat
from pflx.runtime.frames.timing import NS_PER_S, Clock
from pflx.runtime.live.push_source import PushSource
from pflx.runtime.live.timeline import MediaClock
from pflx.runtime.media.decoding.converter import Converter
from pflx.runtime.media.errors import MediaError

MAX_SIDE = 1920
"""Pixels on the longer side of a visitor's picture; the page asks for 320x240."""


class PeerFeed:
    """Takes what arrives of a visitor off the network, always and at once, and gives it to the session of the moment.

    RTP stamps of pictures and sound begin anywhere. Both are put on the server's clock by the moment at which they
    arrived, and from then on followed: what the network delays is not taken for a late capture.

    Args:
        clock: stamps what arrives.

    Attributes:
        source: of the session of the moment; what arrives without one is dropped.
        heard_of: when something came last.
        fed_at: when a picture or sound came last.
    """

    def __init__(self, clock: Clock = time.perf_counter_ns) -> None:
        self.source: PushSource | None = None
        self.heard_of = self.fed_at = clock()
        self._clock = clock
        self._seen, self._heard = MediaClock(live=True), MediaClock(live=True)
        self._converter = Converter()

    async def pump(self, track: MediaStreamTrack) -> None:
        """Take a track in until it ends.

        Raises:
            MediaError: its pictures are larger than any session needs.
        """
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            self.heard_of = self.fed_at = self._clock()
            self.take(frame, self.fed_at)

    def take(self, frame: object, now: int) -> None:
        """Push one frame of a track that came now."""
        source = self.source
        if isinstance(frame, av.VideoFrame):
            if max(frame.width, frame.height) > MAX_SIDE:
                raise MediaError(
                    f"The camera sends {frame.width}x{frame.height} px; at most {MAX_SIDE} a side are taken."
                )
            time_s = _on_clock(self._seen, frame, 0.0, now)
            if source is not None:
                room, planes = (frame.width, frame.height), _planes(self._converter.convert(frame, format="yuv420p"))
                source.put_video(planes, format=PixelFormat.I420, size=room, time_s=time_s)
        elif isinstance(frame, av.AudioFrame):
            time_s = _on_clock(self._heard, frame, frame.samples / frame.sample_rate, now)
            if source is not None:
                source.put_audio(frame.to_ndarray(), frame.sample_rate, frame.layout.nb_channels, time_s=time_s)


def _on_clock(clock: MediaClock, frame: av.VideoFrame | av.AudioFrame, length_s: float, now: int) -> float:
    assert frame.pts is not None
    assert frame.time_base
    start_s = float(frame.pts * frame.time_base)
    clock.observe(0, start_s, start_s + length_s, now)
    return clock.at(start_s) / NS_PER_S


def _planes(frame: av.VideoFrame) -> UInt8Array:
    """Of yuv420p, the bytes of Y, U and V without the padding of their rows. RGB would keep the loop for longer."""
    rows = [
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    ]
    return np.concatenate([row.reshape(-1) for row in rows])
