"""What stands for a browser where none is needed: requests to the application, and a peer with a made-up camera."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from typing import Any, Protocol

import av
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, MediaStreamTrack, VideoStreamTrack
from PIL import Image
from support.fakes import SIZE, fake_listener, frames_of, portrait_of
from support.serve.lines import AppLine, Line, Reply

from pflx.runtime import Listener, Person
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.serve.app import SESSION, make_app
from pflx.runtime.serve.guard import Guard
from pflx.runtime.serve.keeping import Keeper
from pflx.runtime.serve.lobby import Lobby
from pflx.runtime.serve.settings import ServeSettings

PORT = 8000
ORIGIN = f"http://127.0.0.1:{PORT}"
PORTRAITS: Mapping[str, UInt8Array] = {
    "fake": portrait_of(),
    "red": np.full((SIZE, SIZE, 3), (220, 20, 20), np.uint8),
}
WISH = {"listener": 0, "samples": 1, "lookahead": 0, "playout_ms": 100, "person": 0}


@pytest.fixture(autouse=True, scope="module")
def loopback_only() -> Iterator[None]:
    """Media goes over the loopback address, which ICE leaves out otherwise: the tests need no network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aioice.ice.get_host_addresses", lambda **_: ["127.0.0.1"])
        yield


@dataclass
class Answer:
    """What came back of a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Browser:
    """Asks the application as a page of it would."""

    app: Guard
    headers: dict[str, str] = field(default_factory=lambda: {"host": f"127.0.0.1:{PORT}", "origin": ORIGIN})
    address: str = "127.0.0.1"
    secure: bool = False

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = b"",
        headers: Mapping[str, str | None] | None = None,
        *,
        query: str = "",
    ) -> Answer:
        """One request; a header that is None is left out."""
        sent = self.headers | dict(headers or {})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https" if self.secure else "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in sent.items() if v is not None],
            "client": (self.address, 1234),
            "server": ("127.0.0.1", PORT),
        }
        parts = [content[at : at + 65_536] for at in range(0, len(content), 65_536)] or [b""]
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": part, "more_body": at < len(parts) - 1} for at, part in enumerate(parts)
        ]
        came: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            came.append(message)

        await self.app(scope, receive, send)
        start, *rest = came
        found = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], found, b"".join(message.get("body", b"") for message in rest))

    async def line(self, headers: Mapping[str, str] | None = None, path: str = SESSION) -> Line:
        """A web socket of the page."""
        return AppLine(self.app, self.headers | dict(headers or {}), self.address, path)


class Camera(VideoStreamTrack):
    """Noise at 30 fps; slower where asked for."""

    def __init__(self, size: tuple[int, int] = (64, 48)) -> None:
        super().__init__()
        self._frames = frames_of(30, size=size)
        self._n = 0

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        frame = av.VideoFrame.from_ndarray(self._frames[self._n % 30], format="rgb24")
        self._n += 1
        frame.pts, frame.time_base = pts, Fraction(time_base)
        return frame


class Lines(Protocol):
    """Where a page's web socket comes from."""

    async def line(self) -> Line: ...


class Visitor:
    """A peer that sends a camera and a microphone, and keeps what it sees and is told."""

    def __init__(
        self, lines: Lines, *, camera: MediaStreamTrack | None = None, sees: bool = True, sound: bool = True
    ) -> None:
        self.pictures: list[av.VideoFrame] = []
        self.begun: dict[str, Any] = {}
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        if sees:
            self.connection.addTrack(camera or Camera())
        else:
            self.connection.addTransceiver("video", direction="recvonly")
        if sound:
            self.connection.addTrack(AudioStreamTrack())
        self.connection.on("track", lambda track: self._tasks.append(asyncio.ensure_future(self._watch(track))))
        self._lines = lines
        self.line: Line | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def id(self) -> str:
        """Of the session."""
        return str(self.begun.get("id", ""))

    @property
    def told(self) -> list[dict[str, Any]]:
        """What the server said by itself."""
        return [] if self.line is None else self.line.told

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def begin(self, wish: Mapping[str, Any] | None = WISH, **more: Any) -> Reply:
        """Ask for a place."""
        self.line = await self._lines.line()
        reply = await self.line.ask("begin", wish=wish, **more)
        self.begun = reply.ok or {}
        return reply

    async def ask(self, type: str, file: bytes | None = None, **more: Any) -> Reply:
        """Ask something of the session."""
        assert self.line is not None
        return await self.line.ask(type, file, **more)

    async def say(self, message: Mapping[str, Any]) -> None:
        """Say something that nothing is replied to."""
        assert self.line is not None
        await self.line.send(json.dumps(message))

    async def offered(self, sdp: str, wish: Mapping[str, Any] = WISH) -> Reply:
        """Ask for a place, and make an offer; nothing is done by the answer."""
        reply = await self.begin(wish)
        return reply if reply.kind else await self.ask("offer", sdp=sdp)

    async def come(self, wish: Mapping[str, Any] | None = WISH, **more: Any) -> Reply:
        """Ask for a place, offer, and connect if let in."""
        reply = await self.begin(wish, **more)
        if not reply.kind:
            reply = await self.ask("offer", sdp=await self.offer())
        if not reply.kind:
            await self.accept(reply.ok["sdp"])
        return reply

    async def accept(self, sdp: str) -> None:
        """Connect by an answer."""
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

    async def see(self, count: int, timeout_s: float = 20) -> None:
        """Wait until so many pictures have come."""
        await until(lambda: len(self.pictures) >= count, timeout_s)

    async def lost_packets(self) -> int:
        """Of what the server has sent, packets that did not come."""
        report = await self.connection.getStats()
        return sum(each.packetsLost for each in report.values() if each.type == "inbound-rtp")

    async def leave(self) -> None:
        await self.connection.close()
        if self.line is not None:
            await self.line.close()

    async def _watch(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.VideoFrame)
                self.pictures.append(frame)
        except MediaStreamError:
            return


async def until(what: Any, timeout_s: float = 20) -> None:
    """Wait for something to come true."""
    async with asyncio.timeout(timeout_s):
        while not what():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(
    *listeners: Listener,
    settings: ServeSettings | None = None,
    portraits: Mapping[str, UInt8Array] = PORTRAITS,
    persons: Sequence[Person] = (),
    keeper: Keeper | None = None,
    **limits: Any,
) -> AsyncIterator[tuple[Browser, Lobby]]:
    """A server without a network, and what a page would ask it with."""
    named = {f"fake-{number}": listener for number, listener in enumerate(listeners or (fake_listener(),))}
    lobby = Lobby(named, portraits, settings or ServeSettings(port=PORT), persons, keeper)
    try:
        yield Browser(make_app(lobby, PORT, **limits)), lobby
    finally:
        await lobby.close()


def shape_of(samples: int = 1) -> tuple[int, int]:
    """Height and width of what a visitor sees."""
    return SIZE, SIZE * samples


def packed(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as the bytes of a file."""
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
