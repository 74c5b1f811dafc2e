"""What the stream adds to its engines, and how long the first frame takes.

python benchmarks/stream.py BUNDLE CLIP PORTRAIT [--threads 2] [--hops 6]

    ... --against FOLDER     the runtime's own work a segment and a frame, and that of another checkout, in turns

The second needs no bundle: networks are stubs.
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
from tempfile import TemporaryDirectory

import numpy as np
import report

from pflx.engines import Array, Bundle, Engine, OrtEngine
from pflx.runtime import BlazeFace, Listener, SpeakerSettings, open_speaker
from pflx.runtime.bench.measure.environment import commit_of
from pflx.runtime.bundle_engines import CALL_SIZES
from pflx.runtime.speaker.faces import MODEL_PATH


class Timed:
    """An engine that adds up the time spent in it."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.seconds = engine, 0.0
        self.inputs, self.outputs = engine.inputs, engine.outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        start = time.perf_counter()
        try:
            return self.engine.run(feeds)
        finally:
            self.seconds += time.perf_counter() - start

    def close(self) -> None:
        self.engine.close()


def hop_overhead(args: argparse.Namespace) -> dict[str, object]:
    bundle = Bundle.open(args.bundle)
    engines = {
        name: Timed(OrtEngine(bundle.graph_path(name, "fp32"), threads=args.threads, sizes=CALL_SIZES))
        for name in bundle.manifest.graphs
    }
    detector = Timed(OrtEngine(MODEL_PATH, threads=1))
    listener = Listener(
        bundle.manifest, engines, args.portrait, speaker=SpeakerSettings(detector=BlazeFace(engine=detector))
    )
    clip = open_speaker(args.clip)
    region = listener.find_region(clip)
    hop = listener.generator.hop
    timed = [*engines.values(), detector]
    rows = []
    with listener, listener.stream(speaker=SpeakerSettings(region=region)) as stream:
        for chunk in islice(clip.chunks(hop), args.hops + 3):
            before = sum(engine.seconds for engine in timed)
            start = time.perf_counter()
            stream.push(video=chunk.video, audio=chunk.audio)
            frames = len(list(stream.pull()))
            rows.append((time.perf_counter() - start, sum(engine.seconds for engine in timed) - before, frames))
    full = [row for row in rows if row[2] == hop]  # the first hops fill the look-ahead
    ratios = [whole / inside for whole, inside, _ in full]
    return {
        "hops": len(full),
        "frames_per_hop": hop,
        "whole_ms": report.summary([whole for whole, _, _ in full]),
        "engines_ms": report.summary([inside for _, inside, _ in full]),
        "whole_to_engines_median": round(float(np.median(ratios)), 4),
        "whole_to_engines_max": round(max(ratios), 4),
    }


_START = """
import sys, time
start = time.perf_counter()
import pflx.runtime
imported = time.perf_counter()
from pflx.engines import Bundle
from pflx.runtime import EngineSettings, Listener, open_speaker
settings = EngineSettings(precision="fp32", threads=int(sys.argv[4]))
bundle = Bundle.open(sys.argv[1], verify=sys.argv[5] == "1")
listener = Listener.open(bundle, sys.argv[3], engines=settings, lookahead=0)
opened = time.perf_counter()
clip = open_speaker(sys.argv[2])
stream = listener.stream()
for chunk in clip.chunks(listener.generator.hop):
    stream.push(video=chunk.video, audio=chunk.audio)
    frame = next(stream.pull(), None)
    if frame is not None:
        break
print(imported - start, opened - imported, time.perf_counter() - opened)
"""


def start_up(args: argparse.Namespace, *, verify: bool) -> dict[str, dict[str, float]]:
    rows = []
    for _ in range(args.starts):
        given = [str(args.bundle), str(args.clip), str(args.portrait), str(args.threads), str(int(verify))]
        done = subprocess.run([sys.executable, "-c", _START, *given], capture_output=True, text=True, check=True)
        rows.append([float(value) for value in done.stdout.split()])
    names = ("import_pflx_runtime", "open_bundle", "first_frame_after_opening")
    return {name: report.summary([row[i] for row in rows]) for i, name in enumerate(names)}


def own_work(checkout: Path) -> dict[str, float]:
    """What the runtime of a checkout adds to stub networks: medians in ms, of a segment and of a frame."""
    with TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = "-m pflx bench-latency --stub --mode single-stream --duration 10 --json"
        subprocess.run(
            [sys.executable, *command.split(), found],
            env=report.of_checkout(checkout),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        figures = json.loads(found.read_text())["figures"]
    return {name: figures[name]["p50"]["value"] for name in ("hop_work", "frame_work")}


def compare(other: Path, rounds: int) -> dict[str, object]:
    """This checkout and another one, in turns."""
    checkouts = {"here": Path(__file__).parents[1], "there": other}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for n in range(rounds):
        for name in sorted(checkouts, reverse=bool(n % 2)):
            found[name].append(own_work(checkouts[name]))
    figures: dict[str, object] = {}
    for work in ("hop_work", "frame_work"):
        here, there = ([row[work] for row in found[name]] for name in ("here", "there"))
        figures[work] = {
            "here_ms": here,
            "there_ms": there,
            "ratio_of_least": round(min(here) / min(there), 3),
            "median_of_ratios": round(statistics.median(a / b for a, b in zip(here, there, strict=True)), 3),
        }
    return {"commits": {name: commit_of(checkout) for name, checkout in checkouts.items()}, "own_work": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bundle", "clip", "portrait"):
        parser.add_argument(name, type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hops", type=int, default=6)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--against", type=Path, metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    if args.against:
        command = f"python benchmarks/stream.py --against FOLDER --rounds {args.rounds}"
        machine = report.machine(args.threads)
        report.write("stream_against", {"command": command, "machine": machine, **compare(args.against, args.rounds)})
        return
    if args.portrait is None:
        parser.error("give BUNDLE, CLIP and PORTRAIT, or --against FOLDER")
    content = {
        "command": f"python benchmarks/stream.py BUNDLE CLIP PORTRAIT --threads {args.threads} --hops {args.hops}",
        "machine": report.machine(args.threads),
        "hop": hop_overhead(args),
        "start_up": start_up(args, verify=True),
        "start_up_without_hashing": start_up(args, verify=False),
    }
    report.write("stream_cpu", content)


if __name__ == "__main__":
    main()
