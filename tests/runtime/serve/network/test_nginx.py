"""A server behind a real nginx, set up as docs/network.md says."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.places import MEDIA, ROOT
from support.serve.chromium import wait_for
from support.serve.window import Server
from websockets.asyncio.client import connect
from websockets.typing import Origin

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
NAME, TOKEN = "me.example", "a token of some length"
ANNA, BERT = "127.0.0.11", "127.0.0.12"

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx is installed (apt-get install nginx-light)")


def write_certificate(folder: Path) -> None:
    """One of its own, with its key, both in PEM."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.OID_COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.DNSName(NAME)])
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    (folder / "me.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "me.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, plain))


def documented(upstream: str, port: int, folder: Path) -> str:
    """The configuration of the page, with this machine's port and paths, in what nginx wants around it."""
    page = (ROOT / "docs/network.md").read_text()
    (server,) = re.findall(r"```nginx\n(.*?)```", page, re.DOTALL)
    for given, here in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl": str(folder),
        "http://127.0.0.1:8000": f"http://{upstream}",
    }.items():
        assert given in server
        server = server.replace(given, here)
    temporary = "".join(
        f"{kind}_temp_path {folder};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers may not read the test's folder
    return (
        f"{user}\ndaemon off;\nmaster_process on;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/errors;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{server}}}\n"
    )


@contextmanager
def nginx_before(server: Server, folder: Path) -> Iterator[int]:
    """The port of one that runs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    write_certificate(folder)
    upstream = server.url.removeprefix("http://").rstrip("/").replace("localhost", "127.0.0.1")
    (folder / "nginx.conf").write_text(documented(upstream, port, folder))
    assert NGINX is not None
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "errors")]
    with subprocess.Popen(command) as process:
        try:
            wait_for(lambda: process.poll() is not None or _listens(port))
            assert process.poll() is None, (folder / "errors").read_text()
            yield port
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


class _Connection(http.client.HTTPSConnection):
    """To a port of this machine, by the name that the proxy has."""

    def connect(self) -> None:
        own: Any = self  # what http.client tells no types of
        raw = socket.create_connection(("127.0.0.1", self.port), 20, own.source_address)
        self.sock = own._context.wrap_socket(raw, server_hostname=NAME)


def asked(
    port: int,
    folder: Path,
    method: str,
    path: str,
    body: bytes = b"",
    visitor: str = ANNA,
    *,
    forwarded: str = "",
    cookie: str = "",
    authorization: str = "",
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of what a visitor gets."""
    context = ssl.create_default_context(cafile=str(folder / "me.pem"))
    connection = _Connection(NAME, port, context=context, source_address=(visitor, 0), timeout=20)
    try:
        headers = {"host": NAME, "origin": f"https://{NAME}", "x-forwarded-for": forwarded}
        headers |= {"cookie": cookie, "authorization": authorization}
        connection.request(method, path, body, {name: value for name, value in headers.items() if value})
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content
    finally:
        connection.close()


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    folder = tmp_path_factory.mktemp("nginx")
    with (
        Server(token=TOKEN, origins=(f"https://{NAME}",), trusted_proxies=("127.0.0.1",)) as server,
        nginx_before(server, folder) as port,
    ):
        yield port, folder


def signed_in(port: int, folder: Path, visitor: str = ANNA) -> str:
    token = json.dumps({"token": TOKEN}).encode()
    status, headers, _ = asked(port, folder, "POST", "/sign-in", token, visitor)
    assert status == 204
    assert "; secure" in headers["set-cookie"].lower()
    return headers["set-cookie"].partition(";")[0]


def test_visitors_sign_in_and_see_the_page(proxied: tuple[int, Path]) -> None:
    cookie = signed_in(*proxied)
    status, headers, page = asked(*proxied, "GET", "/", cookie=cookie)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"A face that listens" in page
    assert asked(*proxied, "GET", "/api/choices")[0] == 401


def test_a_session_goes_through_as_a_web_socket(proxied: tuple[int, Path]) -> None:
    port, folder = proxied
    headers = {"cookie": signed_in(port, folder)}
    trusted = ssl.create_default_context(cafile=str(folder / "me.pem"))

    async def act() -> None:
        options: dict[str, Any] = {"host": "127.0.0.1", "port": port, "ssl": trusted, "additional_headers": headers}
        async with connect(f"wss://{NAME}/api/session", origin=Origin(f"https://{NAME}"), **options) as socket:
            await socket.send(json.dumps({"ask": 1, "type": "begin"}))
            reply = json.loads(await socket.recv())
            assert (reply["type"], reply["ask"]) == ("reply", 1)
            assert reply["ok"]["wish"]["listener"] == 0

    asyncio.run(act())


def test_a_portrait_as_large_as_may_be_comes_through_and_a_larger_one_does_not(proxied: tuple[int, Path]) -> None:
    cookie = signed_in(*proxied)
    picture = (MEDIA / "portrait_astronaut_256.png").read_bytes()
    large = picture + bytes(12 * 1024 * 1024 - len(picture))
    assert asked(*proxied, "PUT", "/api/stills/0", large, cookie=cookie)[0] == 200
    assert asked(*proxied, "PUT", "/api/stills/0", large + b"1", cookie=cookie)[0] == 413


def test_limits_count_visitors_and_not_nginx(proxied: tuple[int, Path]) -> None:
    wrong = json.dumps({"token": "a wrong token, surely"}).encode()
    tries = [asked(*proxied, "POST", "/sign-in", wrong, ANNA, forwarded=f"192.0.2.{n}") for n in range(7)]
    assert [status for status, *_ in tries] == [401] * 5 + [429] * 2
    assert asked(*proxied, "POST", "/sign-in", wrong, BERT)[0] == 401


def test_counters_and_probes_are_not_for_who_comes_by_the_proxy(proxied: tuple[int, Path]) -> None:
    for path in ("/metrics", "/healthz", "/readyz"):
        assert asked(*proxied, "GET", path, authorization=f"Bearer {TOKEN}")[0] == 404
