"""A proxy before a server, that adds who asked, over what and under what name, as docs/network.md sets up nginx."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Proxy(ThreadingHTTPServer):
    """Listens on loopback; what it is told to hand on to may be known later.

    Attributes:
        upstream: host and port of the server.
        inner_name: under which the server is asked, and told the other; empty for the one that was asked for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.inner_name = "", ""

    @property
    def address(self) -> str:
        """Host and port."""
        return f"localhost:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _hand_on(self) -> None:
        server = self.server
        assert isinstance(server, Proxy)
        if self.headers.get("upgrade") == "websocket":
            self._tunnel(server)
            return
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = self._told(server)
        connection = http.client.HTTPConnection(server.upstream, timeout=20)
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        if answer.status != 204:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _told(self, server: Proxy) -> dict[str, str]:
        """The headers, with who has asked."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        before = headers.get("x-forwarded-for")
        headers["x-forwarded-for"] = f"{before}, {self.client_address[0]}" if before else self.client_address[0]
        headers["x-forwarded-proto"] = "http"
        if server.inner_name:
            headers["x-forwarded-host"], headers["host"] = headers["host"], server.inner_name
        return headers

    def _tunnel(self, server: Proxy) -> None:
        """Hand a web socket on, byte by byte."""
        host, _, port = server.upstream.partition(":")
        self.close_connection = True
        with socket.create_connection((host, int(port))) as upstream:
            lines = [f"{self.command} {self.path} HTTP/1.1", *(": ".join(each) for each in self._told(server).items())]
            upstream.sendall("\r\n".join([*lines, "", ""]).encode())
            there = threading.Thread(target=_pour, args=(self.connection, upstream), daemon=True)
            there.start()
            _pour(upstream, self.connection)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _hand_on  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def _pour(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65_536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


@contextmanager
def proxy() -> Iterator[Proxy]:
    """One that runs."""
    with Proxy() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


def asked(
    address: str,
    method: str,
    path: str,
    body: str = "",
    headers: Mapping[str, str] | None = None,
    *,
    visitor: str = "127.0.0.1",
) -> tuple[int, dict[str, str]]:
    """Status and headers of what a visitor gets who has that address of the loopback network."""
    connection = http.client.HTTPConnection(address, timeout=20, source_address=(visitor, 0))
    try:
        connection.request(method, path, body.encode(), dict(headers or {}))
        answer = connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()
