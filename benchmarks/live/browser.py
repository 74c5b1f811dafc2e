"""One visitor of `pflx serve` in a real browser, on the same machine: at which rate it is shown the listener.

    PYTHONPATH=benchmarks python benchmarks/live/browser.py [--seconds 60] [--against FOLDER] [--rounds 2]

The server is a process of its own; Chromium is headless, and its camera and microphone are clips. It encodes, decodes
and draws on the same CPUs as the server. Told are the server's own counters, and what the page's video has shown.
With --against, the server of another checkout is visited too, in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import report
from live.visitors import counted
from support.serve.chromium import chromium, find_chromium
from support.serve.recordings import fake_devices
from support.serve.server_process import server_process
from support.serve.window import IS_LIVE

from pflx.runtime.bench.measure.environment import commit_of

_SETTLE_S = 3.0
_SHOWN = "document.getElementById('listener').getVideoPlaybackQuality().totalVideoFrames"


def visit(checkout: Path, seconds: float) -> dict[str, Any]:
    """A visit of so long, from when the listener is seen."""
    binary = find_chromium()
    if binary is None:
        sys.exit("No Chromium is installed (or name one by PFLX_CHROMIUM).")
    with (
        TemporaryDirectory() as folder,
        patch.dict("os.environ", report.of_checkout(checkout)),
        chdir(folder),  # a server imports what is in its folder before all else
    ):
        flags = ["--allow-loopback-in-peer-connection", *fake_devices(Path(folder))]
        with server_process() as server, chromium(binary, Path(folder) / "profile", flags) as browser:
            server.wait_for("server.ready")
            page = browser.new_page()
            page.resize((1280, 900))
            page.open(server.url)
            page.until("document.querySelector('#choice option')")
            page.click("go")
            page.until(IS_LIVE)
            time.sleep(_SETTLE_S)
            begun, before, shown = time.monotonic(), asyncio.run(counted(server)), page.run(_SHOWN)
            time.sleep(seconds)
            took, after, shown = time.monotonic() - begun, asyncio.run(counted(server)), page.run(_SHOWN) - shown
    counts = {name: after[name] - before[name] for name in after if name.endswith("_total") and name in before}
    return {
        "frames": round(counts["pflx_serve_frames_total"]),
        "missed": round(counts["pflx_serve_frames_missed_total"]),
        "shown_per_s": round(shown / took, 2),
        "server_cpu_ms_per_frame": round(1000 * (after["cpu_s"] - before["cpu_s"]) / (25 * took), 2),
    }


def main() -> None:
    """The visits, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    checkouts = {"here": Path(__file__).resolve().parents[2]}
    if given.against:
        checkouts["there"] = given.against.resolve()
    command = f"PYTHONPATH=benchmarks python benchmarks/live/browser.py --seconds {given.seconds:g}"
    command += f" --rounds {given.rounds}" + (" --against FOLDER" if given.against else "")
    content: dict[str, Any] = {
        "command": command,
        "machine": report.machine(1),
        "seconds": given.seconds,
        "commits": {name: commit_of(checkout) for name, checkout in checkouts.items()},
    }
    visits: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
    for number in range(given.rounds):
        for name in sorted(checkouts, reverse=bool(number % 2)):
            visits[name].append(visit(checkouts[name], given.seconds))
            print(name, visits[name][-1], flush=True)
    report.write("browser", content | {"visits": visits})


if __name__ == "__main__":
    main()
