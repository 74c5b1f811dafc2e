"""A real server, and connections that send little."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.typing import Origin

from pflx.runtime.serve import ServeSettings
from pflx.runtime.serve.app import listen, make_server
from pflx.runtime.serve.guard import Guard, SignIn

HEAD = "GET /slow HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a server that waits 0.3 s for the head of a request, and whose answer takes 0.6 s."""
    monkeypatch.setattr("pflx.runtime.serve.network.connections.HEAD_S", 0.3)

    async def slow(_: Request) -> Response:
        await asyncio.sleep(0.6)
        return PlainTextResponse("here")

    async def echo(line: WebSocket) -> None:
        await line.accept()
        await line.send_text(await line.receive_text())

    settings = ServeSettings(port=0)
    place = listen(settings)
    number = place.getsockname()[1]
    app = Guard(Starlette(routes=[Route("/slow", slow), WebSocketRoute("/echo", echo)]), SignIn(None), settings, number)
    server = make_server(app)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[place])))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield number
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


@pytest.mark.parametrize("sent", ["", "GET / HT", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "])
def test_a_head_that_does_not_end_closes_its_connection(port: int, sent: str) -> None:
    with connected(port) as connection:
        connection.sendall(sent.encode())
        assert connection.recv(100) == b""


def test_a_web_socket_is_no_head_that_does_not_end(port: int) -> None:
    async def talk() -> str | bytes:
        async with connect(f"ws://127.0.0.1:{port}/echo", origin=Origin(f"http://127.0.0.1:{port}")) as line:
            await asyncio.sleep(0.8)
            await line.send("here")
            return await line.recv()

    assert asyncio.run(talk()) == "here"


def test_a_head_that_drips_does_too(port: int) -> None:
    with connected(port) as connection, pytest.raises(OSError, match=r"reset|closed|[Bb]roken"):
        drip(connection)


def drip(connection: socket.socket) -> None:
    for _ in range(200):
        connection.sendall(b"G")
        time.sleep(0.05)


def test_an_answer_may_take_longer_and_the_next_request_has_its_own_time(port: int) -> None:
    with connected(port) as connection:
        for _ in range(2):
            connection.sendall(HEAD.format(port=port).encode())
            assert _answer(connection).endswith("here")
        connection.sendall(2 * HEAD.format(port=port).encode())  # the second waits while the first is answered
        answers = _answer(connection)
        while answers.count("here") < 2:
            answers += _answer(connection)
        connection.sendall(b"GET /")
        assert connection.recv(100) == b""


def _answer(connection: socket.socket) -> str:
    answer = ""
    while not answer.endswith("here"):
        answer += (received := connection.recv(1000).decode())
        assert received, answer
    return answer
