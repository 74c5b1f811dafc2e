"""Connections that must ask for something soon: uvicorn waits for the head of a request for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from h11 import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
"""For the head of a request to arrive, since the connection was made or the last answer was given."""


class PromptProtocol(H11Protocol):
    """HTTP, whose connections are closed that send no whole head of a request in time."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def handle_events(self) -> None:
        """Wait no longer once a head is whole; how long a body may take is the handler's to say."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._wait_no_longer()

    def handle_websocket_upgrade(self, event: Request) -> None:
        """Nothing more is waited for: what a socket may say, and when, is the application's."""
        self._wait_no_longer()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """Begin to wait again, before the next head is looked for in what has come."""
        self._wait()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for."""
        self._wait_no_longer()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._wait_no_longer()
        self._late = self.loop.call_later(HEAD_S, self.transport.close)

    def _wait_no_longer(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
