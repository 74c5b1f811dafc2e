"""The end of a server that somebody waits at: nobody new comes in, and who is here may stay for a while."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn

from pflx.engines import PflxError


class ClosingError(PflxError, RuntimeError):
    """The server is about to end."""

    def __init__(self) -> None:
        super().__init__("This server is about to stop, or to be started anew.")


class DrainingServer(uvicorn.Server):
    """Ends at SIGTERM when all have left; at a second one, and at Ctrl-C, at once.

    Args:
        config: of uvicorn.
        drain: waits until all have left, or must; None ends at once.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]] | None = None) -> None:
        super().__init__(config)
        self._drain = drain
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        if sig != signal.SIGTERM or self._drain is None or self._draining is not None or self._loop is None:
            super().handle_exit(sig, frame)
            return
        self._captured_signals.append(sig)
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._draining = asyncio.ensure_future(self._leave())

    async def _leave(self) -> None:
        assert self._drain is not None
        try:
            await self._drain()
        finally:
            self.should_exit = True
