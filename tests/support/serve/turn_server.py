"""A TURN server of its own process on loopback: coturn."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_COMMON = """
listening-ip=127.0.0.1
relay-ip=127.0.0.1
min-port=20600
max-port=20699
realm=pflx
fingerprint
allow-loopback-peers
no-cli
no-tls
no-dtls
relay-threads=1
verbose
simple-log
log-file=stdout
"""


@dataclass
class Turn:
    """One that runs, and what it has written."""

    url: str
    log: Path

    def users(self) -> set[str]:
        """Who was given a relay."""
        return set(re.findall(r"user <([^>]+)>: incoming packet ALLOCATE processed, success", self.log.read_text()))


def find_turn_server() -> str | None:
    """Where coturn is."""
    return shutil.which("turnserver")


@contextmanager
def turn_server(folder: Path, *lets_in: str) -> Iterator[Turn]:
    """Coturn with these lines in its configuration; the test is skipped where it is not installed."""
    program = find_turn_server()
    if program is None:
        pytest.skip("coturn is not installed (apt-get install coturn)")
    port = _free_port()
    configuration = folder / "turnserver.conf"
    lines = [f"listening-port={port}", f"pidfile={folder / 'turn.pid'}", f"userdb={folder / 'turn.db'}", *lets_in]
    configuration.write_text(_COMMON + "\n".join(lines) + "\n")
    log = folder / "turn.log"
    with log.open("w") as file:
        process = subprocess.Popen([program, "-c", str(configuration)], stdout=file, stderr=file, cwd=folder)
    try:
        _wait_for(port, log)
        yield Turn(f"turn:127.0.0.1:{port}", log)
    finally:
        process.terminate()
        process.wait(10)


def without_ports(offer: str) -> str:
    """An offer that leads to nobody: no address of the visitor's own has a port that is listened at."""
    return re.sub(r"(a=candidate:.* )\d+( typ host)", r"\g<1>9\2", offer)


def without_a_way_but(sdp: str, kind: str) -> str:
    """A description with addresses of one kind alone."""
    lines = sdp.splitlines()
    return "\r\n".join([line for line in lines if "a=candidate" not in line or f" typ {kind}" in line] + [""])


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_for(port: int, log: Path) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        else:
            return
