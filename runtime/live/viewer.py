"""Whoever a live session shows its frames to: sinks, and readers in threads or event loops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from weakref import WeakSet

from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.live.clock import LiveClock, Monitor
from pflx.runtime.live.errors import SessionError
from pflx.runtime.live.queues import MediaQueue, Policy, QueueGauge
from pflx.runtime.live.session_queues import sink_queue, viewer_queue
from pflx.runtime.live.settings import LiveSettings
from pflx.runtime.media.sinks import Sink, StopWatching
from pflx.runtime.stream.stream import StreamError

log = logging.getLogger(__name__)


class Viewer:
    """Lays frames out until they are taken. What is not taken in time goes, by the queue's policy.

    Args:
        clock: of the session.
        monitor: of the session; it guards the queue.
        queue: of frames that were due.
        block_ns: how long `offer` waits for room, with the policy BLOCK.
        stale_ns: a frame that has waited for longer goes, unless it is the newest.
        sample: the one of the reactions that it sees; None sees all of them.

    Attributes:
        is_read: whether somebody iterates over it.
    """

    def __init__(
        self,
        clock: LiveClock,
        monitor: Monitor,
        queue: MediaQueue[ListenerFrame],
        *,
        block_ns: int,
        stale_ns: int,
        sample: int | None = None,
    ) -> None:
        self._clock, self._monitor, self._queue = clock, monitor.another(), queue
        self._block_ns, self._stale_ns, self._sample = block_ns, stale_ns, sample
        self._wakers: list[Callable[[], None]] = []
        self._ended = False
        self._error: BaseException | None = None
        self.is_read = False

    @property
    def dropped(self) -> int:
        """Frames that were not taken in time."""
        return self._queue.dropped

    def gauge(self, now: int) -> QueueGauge:
        """What waits in it."""
        return self._queue.gauge(now)

    def offer(self, frame: ListenerFrame) -> None:
        """Lay a frame out. Called with the monitor held."""
        if self._sample not in (None, frame.sample):
            return
        until = self._clock() + self._block_ns
        while self._queue.policy is Policy.BLOCK and self._queue.is_full and not self._ended and self._clock() < until:
            self._monitor.wait(until)
        self._queue.put(frame)
        self._wake()

    def end(self, error: BaseException | None) -> None:
        """No more will come; an error is raised in whoever iterates. Called with the monitor held."""
        self._ended, self._error = True, self._error or error
        self._wake()

    def __iter__(self) -> Iterator[ListenerFrame]:
        """The frames as they are due."""
        self.is_read = True
        return self._each()

    def __aiter__(self) -> AsyncIterator[ListenerFrame]:
        """The frames as they are due; the event loop goes on meanwhile."""
        self.is_read = True
        return self._each_beside()

    def _each(self) -> Iterator[ListenerFrame]:
        try:
            while True:
                with self._monitor:
                    while not len(self._queue) and not self._ended:
                        self._monitor.wait()
                    frame = self._take()
                if frame is None:
                    return
                yield frame
        finally:
            self.is_read = False

    async def _each_beside(self) -> AsyncIterator[ListenerFrame]:
        loop = asyncio.get_running_loop()
        try:
            while True:
                news = asyncio.Event()
                with self._monitor:
                    frame, ended = self._take(), self._ended
                    if frame is None:
                        self._wakers.append(_waker(loop, news))
                if frame is not None:
                    yield frame
                elif ended:
                    return
                else:
                    await news.wait()
        finally:
            self.is_read = False

    def _take(self) -> ListenerFrame | None:
        if self._error is not None:
            raise self._error
        if not len(self._queue):
            return None
        oldest = self._clock() - self._stale_ns
        while (frame := self._queue.peek(0)) and len(self._queue) > 1 and (frame.ledger.emitted or 0) < oldest:
            self._queue.drop()
        self._monitor.notify()  # there is room again
        return self._queue.take()

    def _wake(self) -> None:
        self._monitor.notify()
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            waker()


def _waker(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> Callable[[], None]:
    def wake() -> None:
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(news.set)

    return wake


class Audience:
    """Whoever a session shows its frames to.

    A single sink is called by the player itself, and its failure is the session's. Of several, each has a queue and a
    thread of its own: one that is slow misses frames, one that fails is told of and left, and the others go on.

    Args:
        clock: of the session.
        monitor: of the session.
        settings: of the session.
        samples: of the session.
        sinks: of the session; one without any is iterated over.

    Attributes:
        first: lays frames out from the session's start, for whoever iterates over it.
        served: how many sinks have a thread of their own.
        errors: of the sinks that failed while others went on.
    """

    def __init__(
        self, clock: LiveClock, monitor: Monitor, settings: LiveSettings, samples: int, sinks: Sequence[Sink]
    ) -> None:
        self._clock, self._monitor, self._settings, self._samples = clock, monitor, settings, samples
        self.sinks = list(sinks)
        self.errors: list[SessionError] = []
        self.first = self._viewer(viewer_queue(samples, settings, settings.policy), None)
        self.served = len(self.sinks) if len(self.sinks) > 1 else 0
        self._beside = {place: self._viewer(sink_queue(samples, settings), None) for place in range(self.served)}
        self._readers: WeakSet[Viewer] = WeakSet()
        self._ended = False
        self._error: BaseException | None = None

    def free(self) -> Viewer:
        """One for whoever iterates over the session itself.

        Raises:
            StreamError: the session has a sink.
        """
        if self.sinks:
            raise StreamError("This session has a sink; iterate over session.frames(), or open it without one.")
        return self.join(None, latest=False) if self.first.is_read else self.first

    def join(self, sample: int | None, *, latest: bool) -> Viewer:
        """Another reader, from now on; see `LiveSession.frames`."""
        samples = self._samples if sample is None else 1
        queue = viewer_queue(samples, self._settings, Policy.DROP_OLDEST, latest=latest)
        viewer = self._viewer(queue, sample)
        with self._monitor:
            if self._ended:
                viewer.end(self._error)
            self._readers.add(viewer)
        return viewer

    def show(self, frame: ListenerFrame) -> None:
        """Hand a frame to everybody. A single sink may raise."""
        with self._monitor:
            for viewer in [*([] if self.sinks else [self.first]), *self._beside.values(), *self._readers]:
                viewer.offer(frame)
        if not self.served and self.sinks:
            self.sinks[0].show(frame)

    def end(self, error: BaseException | None) -> None:
        """No more will come. Called with the monitor held."""
        self._ended, self._error = True, self._error or error
        for viewer in [self.first, *self._beside.values(), *self._readers]:
            viewer.end(error)

    def close(self, error: BaseException | None) -> None:
        """Close the sink that the player calls; where there are several, their threads do."""
        if not self.served and self.sinks:
            self.sinks[0].close(error)

    def close_all(self, error: BaseException) -> None:
        """Close every sink that no thread will close: of a session that could not start."""
        for sink in self.sinks:
            with suppress(Exception):  # what kept it from starting is told
                sink.close(error)

    def serve(self, place: int) -> None:
        """The whole of the thread of one of several sinks.

        Raises:
            StopWatching: nobody watches any more.
            Exception: it has failed, and is the last, or the session had ended.
        """
        sink, viewer = self.sinks[place], self._beside[place]
        failure: BaseException | None = None
        try:
            for frame in viewer:
                sink.show(frame)
        except BaseException as error:
            failure = error
        ended_so = failure is not None and failure is self._error  # the session's own failure, which is told already
        try:
            sink.close(None if isinstance(failure, StopWatching) else failure)
        except Exception as error:
            failure = error if failure is None else failure
        with self._monitor:
            self._beside.pop(place)
            last = self._ended or not self._beside
        if failure is None or ended_so:
            return
        if last:
            raise failure
        if not isinstance(failure, StopWatching):
            self.errors.append(SessionError("sink", failure))
            log.error("%s. The other sinks go on.", self.errors[-1])

    def _viewer(self, queue: MediaQueue[ListenerFrame], sample: int | None) -> Viewer:
        block_ns, stale_ns = self._settings.block_ns, self._settings.stale_ns
        return Viewer(self._clock, self._monitor, queue, block_ns=block_ns, stale_ns=stale_ns, sample=sample)
