"""The web server: one page, and what it asks for."""

from __future__ import annotations

import asyncio
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
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from pflx.engines import DeviceError
from pflx.runtime.serve.errors import TooLargeError
from pflx.runtime.serve.guard import HEALTH, METRICS, READINESS, Guard, RateLimit, SignIn, default_limits, refused
from pflx.runtime.serve.lobby import Lobby
from pflx.runtime.serve.network.connections import PromptProtocol
from pflx.runtime.serve.network.ports import require_range
from pflx.runtime.serve.operation.draining import DrainingServer
from pflx.runtime.serve.operation.metrics import CONTENT_TYPE
from pflx.runtime.serve.page_socket import PageSocket
from pflx.runtime.serve.refusals import told
from pflx.runtime.serve.settings import ServeSettings
from pflx.runtime.serve.uploads import MAX_BYTES

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

SESSION = "/api/session"
"""Of the web socket; see `PageSocket`."""

_MAX_JSON = 4096  # bytes, of a token
_BODY_S = 20.0  # for a request to arrive
_MAX_CONNECTIONS = 128


class _Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the sign-in page sends."""

    token: Annotated[str, Meta(max_length=512)]


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
        lobby.readiness.warm_up()
        yield
        await lobby.close()

    limits = limits or default_limits()
    sign_in = SignIn(lobby.settings.token)
    handlers: list[tuple[str, str, Handler]] = [
        (HEALTH, "GET", _health),
        (READINESS, "GET", _readiness),
        (METRICS, "GET", _metrics),
        ("/portrait.png", "GET", _first_still),
        ("/stills/{listener:int}/{portrait:int}.png", "GET", _still),
        ("/api/stills/{listener:int}", "PUT", _cut),
        ("/api/choices", "GET", _choices),
    ]

    async def visited(socket: WebSocket) -> None:
        await PageSocket(lobby, socket, limits).run()

    routes: list[BaseRoute] = [WebSocketRoute(SESSION, visited)]
    routes += [Route(path, _file(*file), methods=["GET"]) for path, file in _FILES.items()]
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
        ws="websockets-sansio",
        ws_max_size=MAX_BYTES,
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
    state = lobby.readiness.state
    return PlainTextResponse(f"{state}\n", 200 if state == "ready" else 503)


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


def _picture(content: bytes) -> Response:
    return Response(content, media_type="image/png")


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
    return refused(*told(error))


def _file(name: str, media_type: str, status: int = 200) -> Callable[[Request], Awaitable[Response]]:
    content = (_PAGE / name).read_bytes()
    headers = _DISCLOSURE if name == "index.html" else None

    async def answer(request: Request) -> Response:
        facts: dict[str, Any] = {"content": content, "media_type": media_type, "status_code": status}
        facts["headers"] = headers
        return Response(**facts)

    return answer
