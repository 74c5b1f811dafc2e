"""Visitors of `pflx serve`: real WebRTC connections with a camera and a microphone that are clips.

    PYTHONPATH=benchmarks python benchmarks/live/visitors.py [--sessions 1 2 4] [--seconds 30] [--bundle me.pflx]

The server is a process of its own, the visitors are aiortc peers in this one, on loopback. For each number of them:
how long it took from asking for a place to the first picture, what the server's own counters say of its frames, and
the CPU time of its process. The visitors' own work (they encode and decode, too) takes CPUs away from the server where
both share them, so frames may be missed earlier than with visitors elsewhere; CPU time per session does not count it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import av
import numpy as np
import psutil
from aiortc.mediastreams import MediaStreamTrack
from prometheus_client.parser import text_string_to_metric_families
from report import machine, write

TESTS = Path(__file__).parents[2] / "tests"
sys.path.append(str(TESTS))

from support.serve.serve_client import WISH, Visitor  # noqa: E402
from support.serve.server_process import ServerProcess, server_process  # noqa: E402

FACES, VOICE = TESTS / "media/webcam_cap12_12s.mp4", TESTS / "media/podium_speech_8s.mp4"
RATE_HZ, BLOCK = 48_000, 960
SETTLE_S = 3.0


class Clip(MediaStreamTrack):
    """Frames that are shown or heard in a circle, at their pace.

    Args:
        kind: "video" or "audio".
        frames: pictures of 25 fps, or blocks of 20 ms.
        begin: number of the first one.
    """

    def __init__(self, kind: str, frames: Sequence[Any], begin: int) -> None:
        super().__init__()
        self.kind, self._frames, self._at, self._n = kind, frames, begin, 0
        self._rate, self._step = (90_000, 3600) if kind == "video" else (RATE_HZ, BLOCK)
        self._begun: float | None = None

    async def recv(self) -> Any:
        """The next one, when it is due."""
        self._begun = self._begun or time.monotonic()
        await asyncio.sleep(self._begun + self._n * self._step / self._rate - time.monotonic())
        frame = self._frames[(self._at + self._n) % len(self._frames)]
        frame.pts, frame.time_base = self._n * self._step, Fraction(1, self._rate)
        self._n += 1
        return frame


def pictures() -> list[av.VideoFrame]:
    """A face, as the page's camera sends it."""
    with av.open(str(FACES)) as clip:
        return [frame.reformat(width=320, height=240, format="yuv420p") for frame in clip.decode(video=0)]


def blocks() -> list[av.AudioFrame]:
    """Speech."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ, frame_size=BLOCK)
    with av.open(str(VOICE)) as clip:
        return [*chain.from_iterable(resampler.resample(frame) for frame in clip.decode(audio=0))]


async def visit(server: ServerProcess, camera: Clip, microphone: Clip) -> tuple[Visitor, float | None]:
    """Come in: the visitor, and how long it took in ms; None for who was turned away."""
    visitor = Visitor(server, camera=camera, sound=False)
    visitor.connection.addTrack(microphone)
    begun = time.monotonic()
    answer = await visitor.come(WISH)
    if answer.kind:
        return visitor, None
    await visitor.see(1)
    return visitor, 1000 * (time.monotonic() - begun)


async def counted(server: ServerProcess) -> dict[str, float]:
    """The server's counters, summed over their labels, and the CPU time of its processes in s."""
    _, text = await asyncio.to_thread(server.get, "/metrics")
    found: dict[str, float] = {}
    for sample in chain.from_iterable(family.samples for family in text_string_to_metric_families(text.decode())):
        found[sample.name] = found.get(sample.name, 0.0) + sample.value
    root = psutil.Process(server.process.pid)
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return found | {"cpu_s": sum(each.user + each.system for each in times)}


async def measure(server: ServerProcess, sessions: int, seconds: float) -> dict[str, Any]:
    """So many visitors at once, who come one after the other and stay."""
    seen, heard = pictures(), blocks()
    visits = []
    for number in range(sessions):
        camera = Clip("video", seen, 60 * number % len(seen))
        visits.append(await visit(server, camera, Clip("audio", heard, 70 * number % len(heard))))
    await asyncio.sleep(SETTLE_S)
    begun, before, own = time.monotonic(), await counted(server), time.process_time()
    await asyncio.sleep(seconds)
    took, after, own = time.monotonic() - begun, await counted(server), time.process_time() - own
    joins_ms = [join_ms for _, join_ms in visits if join_ms is not None]
    for visitor, _ in visits:
        await visitor.leave()
    while (await counted(server))["pflx_serve_sessions"]:
        await asyncio.sleep(0.1)
    frames, missed, cpu_s = (
        after[name] - before[name] for name in ("pflx_serve_frames_total", "pflx_serve_frames_missed_total", "cpu_s")
    )
    return {
        "sessions": len(joins_ms),
        "refused": sessions - len(joins_ms),
        "join_ms": joins(joins_ms),
        "frames": round(frames),
        "missed": round(missed),
        "cpu_s_per_session_s": round(cpu_s / took / len(joins_ms), 3),
        "sessions_per_core": round(len(joins_ms) * took / cpu_s, 1),
        "visitors_cpu_s_per_session_s": round(own / took / len(joins_ms), 3),
    }


def joins(each_ms: Sequence[float]) -> dict[str, int]:
    """From asking for a place to the first picture."""
    return {name: round(float(np.percentile(each_ms, int(name[1:])))) for name in ("p50", "p95")}


def run(sessions: Sequence[int], seconds: float, bundle: Path | None) -> list[dict[str, Any]]:
    """A row for each number of visitors, on one server."""
    options = ("--max-sessions", str(max(sessions)), "--max-load", "10")
    bundles = () if bundle is None else (str(bundle),)

    async def measured(server: ServerProcess) -> list[dict[str, Any]]:
        return [await measure(server, count, seconds) for count in sessions]

    with (
        patch("aioice.ice.get_host_addresses", lambda **_: ["127.0.0.1"]),
        server_process(*bundles, *options) as server,
    ):
        server.wait_for("server.ready")
        return asyncio.run(measured(server))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--bundle", type=Path, help="the listener that comes with pflx, if it is left out")
    given = parser.parse_args()
    before = machine(1) | {"webrtc": {name: version(name) for name in ("aiortc", "av")}}
    rows = run(given.sessions, given.seconds, given.bundle)
    command = " ".join(["python benchmarks/live/visitors.py", *sys.argv[1:]])
    write("visitors", {"command": command, "machine": before, "seconds": given.seconds, "rows": rows})


if __name__ == "__main__":
    main()
