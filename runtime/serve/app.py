"""The web server: one page, and what it asks for."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import uvicorn
from msgspec import Meta
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pflx.engines import DeviceError, PflxError
from pflx.runtime.rendering.picture_file import PortraitError
from pflx.runtime.serve.connections import PromptProtocol
from pflx.runtime.serve.guard import HEALTH, METRICS, READINESS, Guard, RateLimit, SignIn, refused
from pflx.runtime.serve.lobby import BusyError, GoneError, Lobby, SeatsTakenError, WishError
from pflx.runtime.serve.network.ice import ice_servers
from pflx.runtime.serve.network.ports import NoAddressError, NoPortError, require_range
from pflx.runtime.serve.offer import OfferError
from pflx.runtime.serve.operation.draining import ClosingError, DrainingServer
from pflx.runtime.serve.operation.metrics import CONTENT_TYPE
from pflx.runtime.serve.peer import Peer, Wish
from pflx.runtime.serve.settings import ServeSettings
from pflx.runtime.serve.uploads import MAX_BYTES

log = logging.getLogger(__name__)

_PAGE = Path(__file__).parent / "page"
_FILES = {
    "/": ("index.html", "text/html"),
    "/style.css": ("style.css", "text/css"),
    "/sign-in": ("sign-in.html", "text/html"),
    "/sign-in.js": ("sign-in.js", "text/javascript"),
    **{
        f"/scripts/{file.name}": (f"scripts/{file.name}", "text/javascript")
        for file in (_PAGE / "scripts").glob("*.js")
    },
}
"""Every path that a file answers; they are read once, at the start, and no path of a request is ever looked up."""

_DISCLOSURE = {"AI-Disclosure": "mode=machine-generated"}
"""Of the page that shows the listener. Source: Internet-Draft draft-abaris-aicdh; browsers do nothing with it yet."""

_MAX_JSON = 65_536  # bytes; an offer of a browser has 5 to 10 kB
_BODY_S = 20.0  # for a request to arrive
_MAX_CONNECTIONS = 128


class _Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a page sends to begin; `replaces` is the id of the session that it had before, if any."""

    sdp: Annotated[str, Meta(max_length=_MAX_JSON)]
    wish: Wish
    replaces: Annotated[str, Meta(max_length=64)] | None = None


class _Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the sign-in page sends."""

    token: Annotated[str, Meta(max_length=512)]


class TooLargeError(PflxError, ValueError):
    """A request has more bytes than it may have."""


_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (BusyError, 503, "busy"),
    (SeatsTakenError, 503, "full"),
    (ClosingError, 503, "full"),
    (NoPortError, 503, "full"),
    (NoAddressError, 503, "network"),
    (GoneError, 404, "gone"),
    (TooLargeError, 413, "large"),
    (PortraitError, 422, "portrait"),
    (OfferError, 422, "offer"),
    (WishError, 422, "wish"),
    (msgspec.ValidationError, 422, "request"),
    (msgspec.DecodeError, 400, "request"),
    (TimeoutError, 408, "slow"),
    (ClientDisconnect, 400, "request"),
)
"""What is told to a visitor, and how. Of anything else they learn only that it has happened."""

Handler = Callable[[Lobby, Request], Awaitable[Response]]
Model = TypeVar("Model")


def make_app(lobby: Lobby, port: int, limits: Mapping[str, RateLimit] | None = None) -> Guard:
    """The server as an ASGI application.

    Args:
        lobby: of its visitors; closed when the application ends.
        port: that is listened at.
        limits: on the rate of requests; see `Guard`.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        require_range(lobby.settings.udp_ports)
        lobby.warm_up()
        yield
        await lobby.close()

    sign_in = SignIn(lobby.settings.token)
    handlers: list[tuple[str, str, Handler]] = [
        (HEALTH, "GET", _health),
        (READINESS, "GET", _readiness),
        (METRICS, "GET", _metrics),
        ("/portrait.png", "GET", _first_still),
        ("/stills/{listener:int}/{portrait:int}.png", "GET", _still),
        ("/api/stills/{listener:int}", "PUT", _cut),
        ("/api/choices", "GET", _choices),
        ("/api/ice-servers", "GET", _ice_servers),
        ("/api/sessions", "POST", _begin),
        ("/api/sessions/{id}", "PATCH", _tune),
        ("/api/sessions/{id}", "DELETE", _end),
        ("/api/sessions/{id}/portrait", "PUT", _show_own_portrait),
        ("/api/sessions/{id}/portraits/{portrait:int}", "POST", _show_portrait),
    ]
    routes = [Route(path, _file(*file), methods=["GET"]) for path, file in _FILES.items()]
    routes += [Route(path, _telling(partial(act, lobby)), methods=[method]) for path, method, act in handlers]
    routes.append(Route("/sign-in", _telling(partial(_sign_in, sign_in)), methods=["POST"]))
    missing = _file("missing.html", "text/html", 404)

    async def not_found(request: Request, _: Exception) -> Response:
        wants_page = "text/html" in request.headers.get("accept", "")
        return await missing(request) if wants_page else refused(404, "path", "There is no such path.")

    application = Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: not_found})
    return Guard(application, sign_in, lobby.settings, port, limits)


def listen(settings: ServeSettings) -> socket.socket:
    """A socket at the address; the operating system chooses the port where it is 0.

    Raises:
        DeviceError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise DeviceError(
            f"Nothing can be served at {settings.host}, port {settings.port} ({_reason(error)}). Choose another "
            "--port, or stop what uses it."
        ) from error


def _reason(error: OSError) -> str:
    return str(error) if isinstance(error, socket.gaierror) or error.errno is None else os.strerror(error.errno)


def make_server(
    app: Guard,
    *,
    drain: Callable[[], Awaitable[None]] | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
) -> uvicorn.Server:
    """What runs the application on a socket; its `serve(sockets=[…])` returns when it has stopped.

    Args:
        app: of `make_app`.
        drain: what is waited for at SIGTERM; see `DrainingServer`.
        certificate: PEM file, for https.
        key: PEM file, likewise.
    """
    config = uvicorn.Config(
        app,
        ws="none",
        http=PromptProtocol,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        lifespan="on",
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=1,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    return DrainingServer(config, drain)


async def _health(lobby: Lobby, request: Request) -> Response:
    return PlainTextResponse("alive\n")


async def _readiness(lobby: Lobby, request: Request) -> Response:
    return PlainTextResponse(f"{lobby.state}\n", 200 if lobby.state == "ready" else 503)


async def _metrics(lobby: Lobby, request: Request) -> Response:
    return Response(lobby.metrics.text(), headers={"content-type": CONTENT_TYPE})


async def _sign_in(sign_in: SignIn, request: Request) -> Response:
    given = await _decoded(request, _Token)
    return sign_in.by_token(given.token, request.scope)


async def _first_still(lobby: Lobby, request: Request) -> Response:
    return _picture(lobby.still(0, 0))


async def _still(lobby: Lobby, request: Request) -> Response:
    return _picture(lobby.still(request.path_params["listener"], request.path_params["portrait"]))


async def _cut(lobby: Lobby, request: Request) -> Response:
    """How a visitor's picture would be shown; it is kept nowhere."""
    picture = await lobby.decode(await _body(request, MAX_BYTES))
    return _picture(await lobby.cut(picture, request.path_params["listener"]))


async def _choices(lobby: Lobby, request: Request) -> Response:
    return JSONResponse(lobby.describe())


async def _ice_servers(lobby: Lobby, request: Request) -> Response:
    """For one connection: credentials are asked for anew with the next."""
    return JSONResponse(ice_servers(lobby.settings.ice_servers, lobby.settings.turn))


async def _begin(lobby: Lobby, request: Request) -> Response:
    offer = await _decoded(request, _Offer)
    peer, answer = await lobby.admit(offer.sdp, offer.wish, offer.replaces)
    return JSONResponse({"id": peer.id, "sdp": answer}, 201)


async def _tune(lobby: Lobby, request: Request) -> Response:
    peer = _peer(lobby, request)
    await lobby.tune(peer, await _decoded(request, Wish))
    return Response(status_code=204)


async def _end(lobby: Lobby, request: Request) -> Response:
    await _peer(lobby, request).close()
    return Response(status_code=204)


async def _show_own_portrait(lobby: Lobby, request: Request) -> Response:
    peer = _peer(lobby, request)
    picture = await lobby.decode(await _body(request, MAX_BYTES))
    still = await lobby.cut(picture, peer.wish.listener if peer.wish else 0)
    await peer.show_portrait(picture)
    return _picture(still)


async def _show_portrait(lobby: Lobby, request: Request) -> Response:
    peer = _peer(lobby, request)
    await peer.show_portrait(lobby.portrait(request.path_params["portrait"]))
    return Response(status_code=204)


def _picture(content: bytes) -> Response:
    return Response(content, media_type="image/png")


def _peer(lobby: Lobby, request: Request) -> Peer:
    return lobby.peer(request.path_params["id"])


async def _decoded(request: Request, model: type[Model]) -> Model:
    return msgspec.json.decode(await _body(request, _MAX_JSON), type=model)


async def _body(request: Request, most: int) -> bytes:
    """The whole of a request's body, which is read no further than it may be long."""
    parts, length = [], 0
    async with asyncio.timeout(_BODY_S):
        async for part in request.stream():
            parts.append(part)
            length += len(part)
            if length > most:
                raise TooLargeError(f"This is more than {most // 1024} kB. Send less.")
    return b"".join(parts)


def _telling(act: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """A handler whose errors become answers."""

    async def answer(request: Request) -> Response:
        try:
            return await act(request)
        except Exception as error:
            return _told(error)

    return answer


def _told(error: Exception) -> Response:
    for kind, status, name in _STATUS:
        if isinstance(error, kind):
            return refused(status, name, str(error) or "The request cannot be read.")
    log.error("A request has failed", exc_info=error)
    return refused(500, "server", "Something went wrong on the server. Its log says what.")


def _file(name: str, media_type: str, status: int = 200) -> Callable[[Request], Awaitable[Response]]:
    content = (_PAGE / name).read_bytes()
    headers = _DISCLOSURE if name == "index.html" else None

    async def answer(request: Request) -> Response:
        facts: dict[str, Any] = {"content": content, "media_type": media_type, "status_code": status}
        facts["headers"] = headers
        return Response(**facts)

    return answer
