"""A site on a Ray of its own, and visitors that come to it over the network of this machine."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from support.places import MEDIA
from support.serve.lines import Line, NetLine, Reply
from support.serve.scene import GREY, RED, plain
from support.serve.serve_client import WISH, Visitor
from support.serve.serve_listener import nodding_listener
from support.serve.turn_server import Turn
from websockets.exceptions import WebSocketException

from pflx.runtime import Listener
from pflx.runtime.cluster.ray_session import LOCAL
from pflx.runtime.cluster.site import RunningSite, Site, SiteSettings, begin, require_site, running
from pflx.runtime.serve import ServeSettings
from pflx.runtime.serve.settings import ServedListener

PORTRAITS = {"grey": plain(GREY), "red": plain(RED)}
PATIENCE_S = 150.0
"""For a server to begin on a busy machine."""


@dataclass(frozen=True)
class NoddingServed(ServedListener):
    """A light listener, whose server finds no other address than that of the loopback network."""

    def open(self) -> Listener:
        pytest.MonkeyPatch().setattr("aioice.ice.get_host_addresses", lambda *_, **__: ["127.0.0.1"])
        return nodding_listener(self.portrait)


@dataclass
class Grounds:
    """A site that runs, and how it is reached.

    Attributes:
        site: as it was begun last.
        begun: see `running`.
        turn: relay of its servers, where there is one.
    """

    site: Site
    begun: RunningSite
    turn: Turn | None = None

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.site.settings.port}"

    def exported(self) -> str:
        """What Ray has on this machine for Prometheus."""
        import ray

        (node,) = ray.nodes()  # type: ignore[no-untyped-call]
        with urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=60) as answer:
            return str(answer.read().decode())

    async def change(self, **changed: Any) -> None:
        """Put the same site with other settings of its own in its place; over when it is there."""
        self.site = replace(self.site, site=replace(self.site.site, **changed))
        await asyncio.to_thread(begin, require_site(), self.site)

    async def line(self) -> Line:
        """A web socket of a page."""
        return await NetLine.connected(self.origin.replace("http", "ws"), self.origin)

    async def come(self, wish: Any = WISH, **more: Any) -> tuple[Visitor, Reply]:
        """A visitor who has tried once."""
        visitor = Visitor(self)
        return visitor, await visitor.come(wish, **more)

    async def seated(self, wish: Any = WISH, **more: Any) -> Visitor:
        """A visitor who tries again, as a page does, until they are let in and see something."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                visitor = Visitor(self)
                try:
                    reply = await visitor.come(wish, **more)
                except (OSError, WebSocketException):  # while there is no server
                    reply = Reply(kind="closed")
                if not reply.kind:
                    await visitor.see(1, PATIENCE_S)
                    return visitor
                assert reply.kind in ("full", "closed"), reply
                await asyncio.sleep(2.0 if reply.kind == "full" else 0.5)  # 30 a minute are let ask


@contextmanager
def grounds(**settings: Any) -> Iterator[Grounds]:
    """Two servers with one place each, on a Ray of four logical CPUs, of a user who never had one."""
    place = ServeSettings(port=free_port(), max_sessions=1, max_load=10, replica="blue")
    listeners = {"nodding": NoddingServed(None, PORTRAITS["grey"])}
    site = Site(listeners, PORTRAITS, place, SiteSettings(**{"replicas": (2, 2), "drain_s": 30.0, **settings}))
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        (Path(folder) / "home").mkdir()
        patch.setenv("HOME", f"{folder}/home")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(MEDIA.parent), os.environ.get("PYTHONPATH", "")]))
        patch.setattr("aioice.ice.get_host_addresses", lambda *_, **__: ["127.0.0.1"])
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patch.delenv(name)
        with running(site, LOCAL) as begun:
            yield Grounds(site, begun)


def processes(name: str) -> list[psutil.Process]:
    """Those of this one's Ray that are called so."""
    found = []
    for each in psutil.Process().children(recursive=True):
        try:
            if each.cmdline() and each.cmdline()[0].startswith(f"ray::{name}"):
                found.append(each)
        except psutil.Error:
            continue
    return found


def server_of(answer: str) -> psutil.Process:
    """The process that a visitor's media come from, by the port in the answer that they got."""
    ports = {int(port) for port in re.findall(r"a=candidate:\S+ 1 udp \d+ \S+ (\d+) typ host", answer)}
    for process in processes("ServeReplica:"):
        if ports & {each.laddr.port for each in process.net_connections("udp")}:
            return process
    raise AssertionError(f"nobody listens at {ports}")


def kill(process: psutil.Process) -> None:
    """As when its machine fails."""
    os.kill(process.pid, signal.SIGKILL)


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
