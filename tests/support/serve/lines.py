"""A page's web socket as a test holds it: to an application without a network, or over a real one."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp


@dataclass
class Reply:
    """What came back of what was asked: `ok`, or what kind of refusal, and in which words."""

    ok: Any = None
    kind: str = ""
    message: str = ""


class Line(ABC):
    """What a page says and hears.

    Attributes:
        told: what the server said by itself.
        closed: with which code it has closed the socket; None while it is open.
    """

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.closed: int | None = None
        self._asked = 0
        self._waiting: dict[int, asyncio.Future[Reply]] = {}

    @abstractmethod
    async def send(self, message: str | bytes) -> None:
        """Say anything."""

    @abstractmethod
    async def close(self) -> None:
        """Hang up."""

    async def ask(self, type: str, file: bytes | None = None, **more: Any) -> Reply:
        """Ask, and wait for the reply; or for the end, whose last words it is then."""
        self._asked += 1
        reply = self._waiting[self._asked] = asyncio.get_running_loop().create_future()
        await self.send(json.dumps({"ask": self._asked, "type": type, **more}))
        if file is not None:
            await self.send(file)
        if self.closed is not None:
            self.ended(self.closed)
        return await asyncio.wait_for(reply, 20)

    def heard(self, text: str) -> None:
        """Something came."""
        message = json.loads(text)
        if message["type"] == "reply":
            error = message.get("error", {})
            self._waiting.pop(message["ask"]).set_result(Reply(message.get("ok"), **error))
        else:
            self.told.append(message)

    def ended(self, code: int) -> None:
        """The server has closed it, or gone."""
        self.closed = code
        last = self.told[-1].get("error", {}) if self.told else {}
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_result(Reply(**{"kind": "closed", **last}))


class AppLine(Line):
    """To an application in this process.

    Args:
        app: to speak to.
        headers: of the handshake.
        address: that it comes from.
        path: that is asked for.
    """

    def __init__(self, app: ASGIApp, headers: Mapping[str, str], address: str, path: str) -> None:
        super().__init__()
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._said.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": (address, 1234),
            "server": ("127.0.0.1", 8000),
            "subprotocols": [],
        }
        self._run = asyncio.ensure_future(app(scope, self._said.get, self._take))

    async def send(self, message: str | bytes) -> None:
        kind = "text" if isinstance(message, str) else "bytes"
        self._said.put_nowait({"type": "websocket.receive", kind: message})

    async def close(self) -> None:
        self._said.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await self._run

    async def _take(self, message: Any) -> None:
        if message["type"] == "websocket.send":
            self.heard(message["text"])
        elif message["type"] == "websocket.close":
            self.ended(message.get("code", 1000))
            self._said.put_nowait({"type": "websocket.disconnect", "code": 1000})


class NetLine(Line):
    """To a server at an address; see `connected`."""

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._connection = connection
        self._listening = asyncio.ensure_future(self._listen())

    @classmethod
    async def connected(cls, url: str, origin: str) -> NetLine:
        """One that is open.

        Args:
            url: of the server, such as ws://127.0.0.1:8000.
            origin: of the page.
        """
        from websockets.asyncio.client import connect

        return cls(await connect(f"{url}/api/session", origin=origin, open_timeout=60))  # type: ignore[arg-type]

    async def send(self, message: str | bytes) -> None:
        await self._connection.send(message)

    async def close(self) -> None:
        await self._connection.close()
        await self._listening

    async def _listen(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            async for text in self._connection:
                self.heard(text)
        except ConnectionClosed:
            pass
        self.ended(self._connection.close_code or 1006)
