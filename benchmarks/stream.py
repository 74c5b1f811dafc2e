"""What the stream adds to its engines, and how long the first frame takes.

python benchmarks/stream.py BUNDLE CLIP PORTRAIT [--threads 2] [--hops 6]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import report

from pflx.engines import Array, Bundle, Engine, OrtEngine
from pflx.runtime import BlazeFace, Listener, SpeakerSettings, open_speaker
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
from pflx.runtime import Listener, open_speaker
threads, verify = int(sys.argv[4]), sys.argv[5] == "1"
listener = Listener.open(sys.argv[1], sys.argv[3], threads=threads, precision="fp32", lookahead=0, verify=verify)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("bundle", "clip", "portrait"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hops", type=int, default=6)
    parser.add_argument("--starts", type=int, default=5)
    args = parser.parse_args()
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
