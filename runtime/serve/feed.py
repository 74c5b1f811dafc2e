"""A visitor's camera and microphone, as a source of live sessions."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Generic, TypeVar

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.frame import Frame

from pflx.runtime.frames.timing import NS_PER_S, Clock
from pflx.runtime.live.timeline import MediaClock
from pflx.runtime.media.errors import MediaError
from pflx.runtime.media.sound import Downmix, MonoResampler, channels_of, names_of, tell_cancelled
from pflx.runtime.media.sources import Timed

MAX_SIDE = 1920
"""Pixels on the longer side of a visitor's picture; the page asks for 320x240."""

_PICTURES = 3  # that may wait for the reader: 120 ms
_BLOCKS = 15  # of sound, 20 ms each

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """Hands things from the event loop to one reading thread. Bounded: the oldest makes room.

    Args:
        size: how many may wait.

    Attributes:
        dropped: how many had to go.
    """

    def __init__(self, size: int) -> None:
        self.dropped = 0
        self._waiting: deque[Item] = deque()
        self._size = size
        self._news = threading.Condition()
        self._closed = False

    def put(self, item: Item) -> None:
        """Lay an item out; never waits."""
        with self._news:
            if len(self._waiting) == self._size:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(item)
            self._news.notify()

    def close(self) -> None:
        """No more will come, and what waits is left."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """The items as they come, until it is closed."""
        while True:
            with self._news:
                while not self._waiting and not self._closed:
                    self._news.wait()
                if self._closed:
                    return
                item = self._waiting.popleft()
            yield item


class PeerSource:
    """What one live session reads of a visitor.

    Stamps of pictures and sound begin anywhere. Both are put on the server's clock by the moment at which they
    arrived, and from then on followed: what the network delays is not taken for a late capture.

    Args:
        sample_rate_hz: of the sound to give.
        hears: whether the visitor sends sound.
    """

    live = True

    def __init__(self, sample_rate_hz: int, *, hears: bool = True) -> None:
        self.pictures: Mailbox[tuple[av.VideoFrame, int]] = Mailbox(_PICTURES)
        self.blocks: Mailbox[tuple[av.AudioFrame, int]] = Mailbox(_BLOCKS)
        self._rate_hz, self._hears = sample_rate_hz, hears

    @property
    def sample_rate_hz(self) -> int | None:
        """See the class; None without sound."""
        return self._rate_hz if self._hears else None

    @property
    def dropped(self) -> int:
        """Pictures and blocks of sound that came faster than they were read."""
        return self.pictures.dropped + self.blocks.dropped

    def tracks(self) -> Sequence[Iterator[Timed]]:
        """The pictures; and the sound, if there is any."""
        return [self._seen(), self._heard()] if self._hears else [self._seen()]

    def close(self) -> None:
        """End it, from any thread; closing twice is harmless."""
        self.pictures.close()
        self.blocks.close()

    def _seen(self) -> Iterator[Timed]:
        clock = MediaClock(live=True)
        for frame, arrival in self.pictures:
            start_s = _time_s(frame)
            clock.observe(0, start_s, start_s, arrival)
            yield Timed(clock.at(start_s) / NS_PER_S, video=np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))

    def _heard(self) -> Iterator[Timed]:
        clock, downmix = MediaClock(live=True), Downmix(partial(tell_cancelled, "A visitor's microphone"))
        resampler: MonoResampler | None = None
        for frame, arrival in self.blocks:
            start_s = _time_s(frame)
            clock.observe(0, start_s, start_s + frame.samples / frame.sample_rate, arrival)
            resampler = resampler or MonoResampler(frame.sample_rate, self._rate_hz)
            heard = resampler.push(downmix.mix(channels_of(frame), names_of(frame)))
            if len(heard):
                yield Timed(clock.at(start_s) / NS_PER_S, audio=heard)


class PeerFeed:
    """Takes what arrives of a visitor off the network, always and at once, and gives it to the session of the moment.

    Args:
        clock: stamps what arrives.

    Attributes:
        source: of the session of the moment; what arrives without one is dropped.
        heard_of: when something came last.
    """

    def __init__(self, clock: Clock = time.perf_counter_ns) -> None:
        self.source: PeerSource | None = None
        self.heard_of = clock()
        self._clock = clock

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
            self.heard_of = self._clock()
            self._take(frame, self.heard_of)

    def _take(self, frame: object, now: int) -> None:
        source = self.source
        if isinstance(frame, av.VideoFrame):
            if max(frame.width, frame.height) > MAX_SIDE:
                size = f"{frame.width}x{frame.height}"
                raise MediaError(f"The camera sends {size} px; at most {MAX_SIDE} a side are taken.")
            if source is not None:
                source.pictures.put((frame, now))
        elif isinstance(frame, av.AudioFrame) and source is not None:
            source.blocks.put((frame, now))


def _time_s(frame: Frame) -> float:
    assert frame.pts is not None
    assert frame.time_base
    return float(frame.pts * frame.time_base)
