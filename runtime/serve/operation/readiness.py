"""Whether visitors may be sent to a server: not before its listeners have run, and not when it is about to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence, Sized
from contextlib import suppress
from typing import Any, Literal

from pflx.runtime.listener import Listener
from pflx.runtime.live.push_source import PushSource
from pflx.runtime.media.sinks import NullSink
from pflx.runtime.serve.operation.journal import tell

log = logging.getLogger(__name__)

_POLL_S = 0.1

State = Literal["warming", "ready", "draining"]


class Readiness:
    """Warms a server up, and lets it run out.

    Args:
        listeners: of the server.
        admission: held while they are warmed up, so that whoever comes meanwhile waits.
        in_thread: runs something that takes long beside the event loop.

    Attributes:
        is_draining: whether nobody new is let in.
    """

    def __init__(
        self, listeners: Sequence[Listener], admission: asyncio.Lock, in_thread: Callable[..., Awaitable[Any]]
    ) -> None:
        self.is_draining = False
        self._listeners, self._admission, self._in_thread = listeners, admission, in_thread
        self._warming: asyncio.Task[None] | None = None
        self._is_warm = False

    @property
    def state(self) -> State:
        """In a word. A server that is full is ready: who comes is told so, and let in by this server later."""
        return "draining" if self.is_draining else "ready" if self._is_warm else "warming"

    def warm_up(self) -> None:
        """Begin to run every listener once: what only a first run takes no visitor waits for."""
        self._warming = asyncio.ensure_future(self._warm_up())

    async def drain(self, visitors: Sized, seconds: float) -> None:
        """Let nobody new in, and wait until all have left, or for as long as they may stay.

        Args:
            visitors: who are here.
            seconds: that they may stay.
        """
        self.is_draining = True
        tell("server.draining", sessions=len(visitors), seconds=seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while visitors:
                    await asyncio.sleep(_POLL_S)

    async def close(self) -> None:
        """Let nobody new in, and no listener run any more."""
        self.is_draining = True
        if self._warming is not None:
            await self._warming

    async def _warm_up(self) -> None:
        try:
            async with self._admission:
                for listener in self._listeners:
                    await self._in_thread(_rehearse, listener)
        except Exception:  # whoever comes is told by their own session
            log.exception("A listener cannot be run")
        else:
            self._is_warm = True
            tell("server.ready")


def _rehearse(listener: Listener) -> None:
    listener.live(PushSource(listener.sample_rate_hz, name="Nobody"), NullSink()).close()
