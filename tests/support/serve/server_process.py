"""`pflx serve` in a process of its own, asked over HTTP, with media on loopback."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Queue
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from support.serve.lines import Line, NetLine

_COMMAND = """
import aioice.ice, sys
aioice.ice.get_host_addresses = lambda **_: ["127.0.0.1"]
from pflx.__main__ import main
sys.argv[0] = "pflx"
main()
"""


@dataclass
class ServerProcess:
    """One that runs, and what it has written on stdout.

    Attributes:
        lines: of stdout, which nobody has taken yet.
        url: where it is found.
    """

    process: subprocess.Popen[str]
    lines: Queue[str] = field(default_factory=Queue)
    url: str = ""

    def read(self) -> None:
        """Take in what it writes, until it has ended."""
        for line in self.process.stdout or ():
            self.lines.put(line)

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next of such events; those before it are dropped."""
        while (line := json.loads(self.lines.get(timeout=60)))["event"] != event:
            pass
        found: dict[str, Any] = line
        return found

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    async def line(self) -> Line:
        """A web socket of the page."""
        return await NetLine.connected(self.url.replace("http", "ws", 1), self.url)


@contextmanager
def server_process(*options: str) -> Iterator[ServerProcess]:
    """One that logs in JSON, from when it listens until it has ended."""
    command = [sys.executable, "-c", _COMMAND, "serve", "--port", "0", "--log", "json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        server = ServerProcess(process)
        assert process.stdout is not None
        reader = Thread(target=server.read)
        reader.start()
        try:
            server.url = f"http://127.0.0.1:{server.wait_for('server.started')['port']}"
            yield server
        finally:
            process.kill()
            reader.join()
