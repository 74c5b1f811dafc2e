"""Visitors of `pflx serve --ray`, as `visitors.py` has them, on two servers of a Ray on this machine; some are killed.

    PYTHONPATH=benchmarks python benchmarks/live/visitors_on_ray.py [--sessions 1 2 4] [--seconds 30] [--kills 3]

Servers, Ray's own processes and the visitors share this machine's CPUs. CPU time is that of the servers; what Ray takes
besides is told for each second. Frames are what servers tell their pages. A gap is the time from the kill -9 of a
visitor's server to the first picture of another one, on which the visitor goes on, and how many frames of its motion it
goes back by; the visitor tries twice a second, as a page does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from live.visitors import SETTLE_S, Clip, blocks, joins, pictures
from report import machine, write
from support.serve.scene import told_last
from support.serve.serve_client import WISH, Visitor, until
from support.serve.sites import Grounds, free_port, kill, processes, server_of
from websockets.exceptions import WebSocketException

from pflx.runtime import Listener
from pflx.runtime.builtin import DEMO
from pflx.runtime.cluster.ray_session import LOCAL
from pflx.runtime.cluster.site import Site, SiteSettings, running
from pflx.runtime.rendering.portrait import load_picture
from pflx.runtime.serve import ServeSettings
from pflx.runtime.serve.settings import ServedListener

SERVERS = 2


@dataclass(frozen=True)
class Loopback(ServedListener):
    """A listener whose server finds no other address than that of the loopback network."""

    def open(self) -> Listener:
        """The listener; raises what `Listener.open` does."""
        patch("aioice.ice.get_host_addresses", lambda *_, **__: ["127.0.0.1"]).start()
        return super().open()


@contextmanager
def site(places: int) -> Iterator[Grounds]:
    """Two servers with so many places each, on a Ray of a user who never had one."""
    port = free_port()
    picture = load_picture(DEMO / "portrait.png")
    settings = ServeSettings(port=port, max_sessions=places, max_load=10)
    described = Site(
        {"listener": Loopback(None, picture)},
        {"portrait": picture},
        settings,
        SiteSettings((SERVERS, SERVERS), drain_s=5),
    )
    folders = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "tests")]
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        seen = {"HOME": home, "PYTHONPATH": os.pathsep.join(folders)}
        with (
            patch.dict(os.environ, seen),
            patch("aioice.ice.get_host_addresses", lambda *_, **__: ["127.0.0.1"]),
            running(described, LOCAL) as begun,
        ):
            yield Grounds(described, begun)


async def seated(place: Grounds, number: int, media: tuple[list[Any], list[Any]], **more: Any) -> tuple[Visitor, float]:
    """A visitor who tries until they see something, and how long the try took that let them in, in ms."""
    seen, heard = media
    while True:
        visitor = Visitor(place, camera=Clip("video", seen, 60 * number % len(seen)), sound=False)
        visitor.connection.addTrack(Clip("audio", heard, 70 * number % len(heard)))
        begun = time.monotonic()
        try:
            answer = await visitor.come(None if "replaces" in more else WISH, **more)
            if not answer.kind:
                await visitor.see(1, 60)
                return visitor, 1000 * (time.monotonic() - begun)
        except (OSError, WebSocketException):  # while a server ends
            pass
        await visitor.connection.close()
        await asyncio.sleep(0.5)


def cpu_s(which: Sequence[psutil.Process]) -> float:
    """CPU time of processes."""
    return sum(sum(process.cpu_times()[:2]) for process in which)


async def measure(place: Grounds, sessions: int, seconds: float, media: tuple[list[Any], list[Any]]) -> dict[str, Any]:
    """So many visitors at once, who come one after the other and stay."""
    came = [await seated(place, number, media) for number in range(sessions)]
    await asyncio.sleep(SETTLE_S)
    servers, ours = processes("ServeReplica:"), psutil.Process().children(recursive=True)
    begun, before = time.monotonic(), [told_last(visitor) for visitor, _ in came]
    spent = {"servers": cpu_s(servers), "all": cpu_s(ours), "own": time.process_time()}
    await asyncio.sleep(seconds)
    took, after = time.monotonic() - begun, [told_last(visitor) for visitor, _ in came]
    now = {"servers": cpu_s(servers), "all": cpu_s(ours), "own": time.process_time()}
    used = {name: now[name] - spent[name] for name in now}
    for visitor, _ in came:
        await visitor.leave()
    counts = {
        name: sum(b[name] - a[name] for a, b in zip(before, after, strict=True)) for name in ("emitted", "missed")
    }
    return {
        "sessions": sessions,
        "join_ms": joins([join_ms for _, join_ms in came]),
        "frames": counts["emitted"],
        "missed": counts["missed"],
        "cpu_s_per_session_s": round(used["servers"] / took / sessions, 3),
        "sessions_per_core": round(sessions * took / used["servers"], 1),
        "ray_cpu_s_per_s": round((used["all"] - used["servers"]) / took, 3),
        "visitors_cpu_s_per_session_s": round(used["own"] / took / sessions, 3),
    }


def frame_of(visitor: Visitor) -> int:
    """Number of the frame that was shown last; -1 before the first."""
    return [-1, *(int(told["frame"]) for told in visitor.told if told.get("frame") is not None)][-1]


async def killed(place: Grounds, media: tuple[list[Any], list[Any]]) -> dict[str, Any]:
    """A visitor whose server is killed after six seconds."""
    visitor, _ = await seated(place, 0, media)
    await until(lambda: frame_of(visitor) >= 150, 60)
    frame, begun = frame_of(visitor), time.monotonic()
    kill(server_of(visitor.connection.remoteDescription.sdp))
    line = visitor.line
    assert line is not None
    await until(lambda: line.closed is not None, 60)
    noticed = time.monotonic()
    again, _ = await seated(place, 0, media, replaces=visitor.id)
    gap_s = time.monotonic() - begun
    await until(lambda: frame_of(again) >= 0, 60)
    back = frame - frame_of(again)
    await visitor.connection.close()
    await again.leave()
    return {
        "noticed_s": round(noticed - begun, 2),
        "gap_s": round(gap_s, 2),
        "frames_back": back,
        "same": again.id == visitor.id,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--kills", type=int, default=3)
    given = parser.parse_args()
    before = machine(1) | {"webrtc": {name: version(name) for name in ("aiortc", "av", "ray")}}
    media = (pictures(), blocks())

    async def measured(place: Grounds) -> dict[str, Any]:
        rows = [await measure(place, sessions, given.seconds, media) for sessions in given.sessions]
        return {"rows": rows, "kills": [await killed(place, media) for _ in range(given.kills)]}

    with site(-(-max(given.sessions) // SERVERS)) as place:
        found = asyncio.run(measured(place))
    command = " ".join(["PYTHONPATH=benchmarks python benchmarks/live/visitors_on_ray.py", *sys.argv[1:]])
    write(
        "visitors_on_ray",
        {"command": command, "machine": before, "servers": SERVERS, "seconds": given.seconds, **found},
    )


if __name__ == "__main__":
    main()
