"""From the start of a process to the first picture of the listener that comes with pflx, and how much memory it takes.

PYTHONPATH=benchmarks python benchmarks/live/start.py CLIP PORTRAIT [--against CHECKOUT] [--rounds 15] [--frames 100]

Each round is a process of its own, the first of which does not count; with another checkout in turns.
The wall clock runs in the parent, from before the process. Linux only: memory is that of /proc.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import report

CHECKOUT = Path(__file__).resolve().parents[2]


def memory_mb(name: str) -> float:
    """Of this process, as the kernel counts it."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.split(f"{name}:")[1].split()[0]) / 1024, 1)


def child(clip: Path, portrait: Path, frames: int) -> None:
    """A session, whose figures go to stdout: when its first picture is there, and at its end."""
    from pflx.runtime import Listener

    with Listener.open(portrait=portrait) as listener:
        pictures = listener.react(clip)
        next(pictures)
        first = {"cpu_s": round(time.process_time(), 3), "resident_mb": memory_mb("VmRSS")}
        print(json.dumps(first), flush=True)
        sum(1 for _ in islice(pictures, frames))
        print(json.dumps({"peak_mb": memory_mb("VmHWM"), "own_mb": memory_mb("RssAnon")}))


def measured(checkout: Path, args: argparse.Namespace) -> dict[str, float]:
    """Figures of one process."""
    words = [str(word) for word in (args.clip, args.portrait, "--frames", args.frames, "--child")]
    begin = time.perf_counter()
    command = [sys.executable, __file__, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=report.of_checkout(checkout)) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        wall = time.perf_counter() - begin
        last = process.stdout.read()
    if process.returncode:
        sys.exit(f"{checkout}: the session ended with {process.returncode}.")
    return {"first_picture_s": round(wall, 3), **json.loads(first), **json.loads(last)}


def of_all(rounds: list[dict[str, float]]) -> Mapping[str, Mapping[str, float]]:
    """Least and median of every figure."""
    figures = {name: [each[name] for each in rounds] for name in rounds[0]}
    return {name: {"min": min(of), "median": round(statistics.median(of), 3)} for name, of in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("portrait", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.clip, args.portrait, args.frames)
        return
    machine, checkouts = report.machine(2), {"now": CHECKOUT}
    if args.against:
        checkouts["earlier"] = args.against.resolve()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for round_ in range(args.rounds + 1):
        for name, checkout in checkouts.items():
            figures = measured(checkout, args)
            if round_:
                found[name].append(figures)
    content: dict[str, Any] = {
        "what": "a process of its own from its start to the first picture, and its memory",
        "command": "PYTHONPATH=benchmarks python benchmarks/live/start.py CLIP PORTRAIT --against CHECKOUT",
        "machine": machine,
        "clip": args.clip.name,
        "rounds": args.rounds,
        **{name: of_all(rounds) for name, rounds in found.items()},
    }
    report.write("start", content)


if __name__ == "__main__":
    main()
