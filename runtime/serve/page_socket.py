"""A page's web socket: all that a page and its session have to say to one another but for the media.

A page asks, in JSON and with a number of its own, and gets a reply of that number:

    {"ask": 1, "type": "begin", "wish": {…}, "replaces": "…"}    a place; both may be left out
        → {"type": "reply", "ask": 1, "ok": {"id", "epoch", "wish", "ice_servers"}}
    {"ask": 2, "type": "offer", "sdp": "…"}                      → {…, "ok": {"sdp"}}
    {"ask": 3, "type": "tune", "wish": {…}}                      → {…, "ok": null}
    {"ask": 4, "type": "portrait", "number": 0}                  → {…, "ok": null}
    {"ask": 5, "type": "own_portrait"}, and then the file        → {…, "ok": null}
    {"ask": 6, "type": "leave"}                                  → {…, "ok": null}
    {"type": "ping", "ping": "…"}                                → {"type": "pong", "ping": "…"}

Refused is what has `"error": {"kind", "message"}` in place of `"ok"`. By itself the server says `panel`, `events` and
`ended`. The session lasts as long as the socket, and the socket as long as the session.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocket, WebSocketDisconnect

from pflx.runtime.serve.errors import GoneError, HurriedError, TooLargeError
from pflx.runtime.serve.guard import RateLimit, visitor_of
from pflx.runtime.serve.lobby import Lobby
from pflx.runtime.serve.network.ice import ice_servers
from pflx.runtime.serve.peer import Peer, Wish
from pflx.runtime.serve.refusals import told
from pflx.runtime.serve.uploads import MAX_BYTES

MAX_TEXT = 65_536
"""Characters of what a page says; an offer of a browser has 5 to 10 kB."""

BEGIN_S = 20.0
"""For a page to ask for a place, and for a portrait to follow its announcement."""

_MOST_WAITING = 4  # messages for a slow network, from which on figures are left out
_LOST = (RuntimeError, WebSocketDisconnect)  # what sending to who has gone raises
_NORMAL = 1000  # RFC 6455, section 7.4.1


class _Begin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="begin"):
    ask: int
    wish: Wish | None = None
    replaces: Annotated[str, Meta(max_length=64)] | None = None


class _Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="offer"):
    ask: int
    sdp: str


class _Tune(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="tune"):
    ask: int
    wish: Wish


class _Portrait(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="portrait"):
    ask: int
    number: int


class _OwnPortrait(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="own_portrait"):
    ask: int


class _Leave(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="leave"):
    ask: int


class _Ping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ping"):
    ping: Annotated[str, Meta(max_length=64)]


_Asked = _Begin | _Offer | _Tune | _Portrait | _OwnPortrait | _Leave
_DECODER: msgspec.json.Decoder[_Asked | _Ping] = msgspec.json.Decoder(_Asked | _Ping)


class PageSocket:
    """One page, from its first word to its last.

    Args:
        lobby: where it wants to be.
        socket: of the page, not accepted yet.
        limits: on the rate of what is asked, by name; see `default_limits`.
    """

    def __init__(self, lobby: Lobby, socket: WebSocket, limits: Mapping[str, RateLimit]) -> None:
        self._lobby, self._socket, self._limits = lobby, socket, limits
        self._visitor = visitor_of(socket.scope)
        self._pings = RateLimit(10, 240)
        self._peer: Peer | None = None
        self._waiting: deque[Mapping[str, Any] | None] = deque()
        self._news = asyncio.Event()
        self._answering = asyncio.Lock()
        self._hanging_up: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Listen and answer until either side has ended it; then everything of the session is freed."""
        await self._socket.accept()
        sides = [asyncio.ensure_future(self._listen()), asyncio.ensure_future(self._speak())]
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
            async with self._answering:  # what was asked last may have been for a place
                if self._peer is not None:
                    await self._peer.close()

    def say(self, message: Mapping[str, Any] | None) -> None:
        """Send something, without waiting; None closes the socket after all that was said before."""
        kind = "" if message is None else message["type"]
        if self._hanging_up is not None and kind in ("panel", "events"):
            return
        if not (kind == "panel" and len(self._waiting) >= _MOST_WAITING):
            self._waiting.append(message)
            self._news.set()
        if kind == "ended":
            self._hanging_up = asyncio.ensure_future(self._hang_up())

    async def _speak(self) -> None:
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            message = self._waiting.popleft()
            try:
                if message is None:
                    await self._socket.close(_NORMAL)
                    return
                await self._socket.send_text(msgspec.json.encode(message).decode())
            except _LOST:
                return

    async def _hang_up(self) -> None:
        async with self._answering:  # for what the page has asked it is told, too
            self.say(None)

    async def _listen(self) -> None:
        while True:
            try:
                async with asyncio.timeout(BEGIN_S if self._peer is None else None):
                    came = await self._socket.receive()
            except TimeoutError as error:
                _, kind, text = told(error)
                self.say({"type": "refused", "error": {"kind": kind, "message": text}})
                return self.say(None)
            except _LOST:
                return None
            if came["type"] == "websocket.disconnect":
                return None
            # What is begun is done, though the page goes meanwhile: it leaves nothing half made.
            await asyncio.shield(asyncio.ensure_future(self._take(came)))

    async def _take(self, came: Mapping[str, Any]) -> None:
        async with self._answering:
            await self._answer(came)

    async def _answer(self, came: Mapping[str, Any]) -> None:
        number = None
        try:
            asked = _DECODER.decode(_text(came))
            if isinstance(asked, _Ping):
                self._pong(asked.ping)
            else:
                number = asked.ask
                self.say({"type": "reply", "ask": number, "ok": await self._do(asked)})
        except Exception as error:
            _, kind, text = told(error)
            reply = {"type": "refused"} if number is None else {"type": "reply", "ask": number}
            self.say({**reply, "error": {"kind": kind, "message": text}})
        if self._peer is None:  # for whom there is no place, or who does not know how to ask for one
            self.say(None)

    def _pong(self, ping: str) -> None:
        if self._peer is not None and self._pings.allows(self._visitor):
            self._peer.heard()
            self.say({"type": "pong", "ping": ping})

    async def _do(self, asked: _Asked) -> Any:
        if isinstance(asked, _Begin):
            return await self._begin(asked)
        peer = self._peer
        if peer is None or peer.is_over:
            raise GoneError("This session has ended.")
        if isinstance(asked, _Offer):
            return {"sdp": await self._lobby.connect(peer, asked.sdp)}
        if isinstance(asked, _Leave):
            return await self._lobby.leave(peer)
        if not self._limits["session"].allows(self._visitor):
            raise HurriedError
        if isinstance(asked, _Tune):
            return await self._lobby.tune(peer, asked.wish)
        if isinstance(asked, _Portrait):
            return await self._lobby.show_portrait(peer, asked.number)
        return await self._lobby.show_own_portrait(peer, await self._file())

    async def _begin(self, asked: _Begin) -> dict[str, Any]:
        if self._peer is not None:
            raise GoneError("This session has begun already.")
        peer = self._peer = await self._lobby.admit(asked.wish, asked.replaces, self.say)
        settings = self._lobby.settings
        servers = ice_servers(settings.ice_servers, settings.turn)  # with credentials that last for a while
        return {"id": peer.id, "epoch": peer.epoch, "wish": peer.wished, "ice_servers": servers}

    async def _file(self) -> bytes:
        async with asyncio.timeout(BEGIN_S):
            came = await self._socket.receive()
        if came["type"] == "websocket.disconnect":
            raise ClientDisconnect
        data = came.get("bytes") or b""
        if len(data) > MAX_BYTES:
            raise TooLargeError(f"This is more than {MAX_BYTES // 1024} kB. Send less.")
        return data


def _text(came: Mapping[str, Any]) -> str:
    text = came.get("text")
    if not isinstance(text, str):
        raise msgspec.DecodeError("A file came that nobody has asked for.")
    if len(text) > MAX_TEXT:
        raise TooLargeError(f"This is more than {MAX_TEXT // 1024} kB. Send less.")
    return text
