"""Frames of a live session for whoever iterates over it, in a thread or in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.live.clock import LiveClock, Monitor
from pflx.runtime.live.queues import MediaQueue, Policy


class Viewer:
    """Lays frames out until they are taken. What is not taken in time goes, by the queue's policy.

    Args:
        clock: of the session.
        monitor: of the session; it guards the queue.
        queue: of frames that were due.
        block_ns: how long `offer` waits for room, with the policy BLOCK.
        stale_ns: a frame that has waited for longer goes, unless it is the newest.
    """

    def __init__(
        self,
        clock: LiveClock,
        monitor: Monitor,
        queue: MediaQueue[ListenerFrame],
        *,
        block_ns: int,
        stale_ns: int,
    ) -> None:
        self._clock, self._monitor, self._queue = clock, monitor, queue
        self._block_ns, self._stale_ns = block_ns, stale_ns
        self._wakers: list[Callable[[], None]] = []
        self._ended = False
        self._error: BaseException | None = None

    def offer(self, frame: ListenerFrame) -> None:
        """Lay a frame out. Called with the monitor held."""
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
        while True:
            with self._monitor:
                while not len(self._queue) and not self._ended:
                    self._monitor.wait()
                frame = self._take()
            if frame is None:
                return
            yield frame

    async def __aiter__(self) -> AsyncIterator[ListenerFrame]:
        """The frames as they are due; the event loop goes on meanwhile."""
        loop = asyncio.get_running_loop()
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
