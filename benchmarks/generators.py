"""What each generator asks for, how far it trails, and what a second of video costs: the table of docs/generators.md.

python benchmarks/generators.py CLIP PORTRAIT BUNDLE... [--threads 2] [--seconds 8]

Each bundle reacts to the clip in full but renders nothing, so that what is timed is the generator with PosNet, and
what makes its input. Coefficients come from the clip's face landmarks, emotion from a made-up series, for no public
network tells it; neither changes the time a generator takes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import report

from pflx.engines import Array
from pflx.runtime import EngineSettings, Listener, Recorded, Rung, SpeakerSettings, open_speaker
from pflx.runtime.frames.pace import Unhurried
from pflx.runtime.frames.timing import FPS
from pflx.runtime.generators.protocol import delay_frames
from pflx.runtime.speaker.extractor import Extractors

DOCS = Path(__file__).parent.parent / "docs" / "generators.md"
START, END = "<!-- benchmarks/generators.py writes from here -->\n", "<!-- to here -->\n"


class Watch(Unhurried):
    """Renders nothing and keeps what each segment took, from its complete input to PosNet."""

    def __init__(self) -> None:
        self.segments_s: list[float] = []

    def rung(self, frame: int, *, ahead: int) -> Rung:
        return Rung.HOLD

    def generated(self, steps: int | None, duration_ns: int) -> None:
        self.segments_s.append(duration_ns / 1e9)


def made_up_emotion(frames: int) -> Array:
    """A slow series in 0…1, float32 [frames, 25]."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 2 * np.pi, 25)
    return np.asarray(0.5 + 0.3 * np.sin(0.1 * np.arange(frames)[:, None] + phase), np.float32)


def measured(bundle: Path, args: argparse.Namespace) -> dict[str, Any]:
    frames = round(args.seconds * FPS)
    extractors: Extractors = {"coefficients": "landmarks", "emotion": Recorded(made_up_emotion(frames))}
    with Listener.open(
        bundle,
        args.portrait,
        engines=EngineSettings(threads=args.threads, precision="fp32"),
        speaker=SpeakerSettings(extractors=extractors),
    ) as listener:
        clip = open_speaker(args.clip, listener.sample_rate_hz).limited(args.seconds)
        region = listener.find_region(clip)
        generator, watch, busy_s, fed = listener.generator, Watch(), 0.0, 0
        with listener.stream(speaker=SpeakerSettings(region=region)) as stream:
            for chunk in islice(clip.chunks(1), frames):
                begin = time.perf_counter()
                stream.push(video=chunk.video, audio=chunk.audio)
                list(stream.pull(watch))
                busy_s, fed = busy_s + time.perf_counter() - begin, fed + 1
        settled = watch.segments_s[generator.window // generator.hop :]
        manifest, graphs = listener.manifest, listener.manifest.graphs
        return {
            "generator": manifest.generator.name,
            "window": generator.window,
            "hop": generator.hop,
            "lead": generator.lead,
            "needs": list(generator.needs),
            "sample_rate_hz": manifest.sample_rate_hz,
            "delay_ms": {
                "lookahead_13": listener.algorithmic_delay_ms,
                "lookahead_0": delay_frames(generator, 0) * 1000 / FPS,
            },
            "stored_weights_m": round(
                sum(graphs[name].parameters for name in manifest.generator.graphs.values()) / 1e6, 2
            ),
            "segment": report.summary(settled),
            "ms_per_second_of_video": round(1e3 * float(np.median(settled)) * FPS / generator.hop, 1),
            "all_ms_per_second_of_video": round(1e3 * busy_s * FPS / fed, 1),
            "parity": parity(bundle),
        }


def parity(bundle: Path) -> dict[str, Any]:
    """Of the FP32 graphs, run by the runtime, against the published networks in PyTorch; by the export."""
    found = json.loads((bundle / "report.json").read_text())["end_to_end"]["fp32"]
    return {name: found[name] for name in ("coefficients_max_abs_error", "max_levels", "equal_share")}


def table(rows: Sequence[Mapping[str, Any]], machine: Mapping[str, Any]) -> str:
    """The rows as Markdown."""
    lines = [
        "| | window / hop / lead | reads | sound | delay | per segment | per second of video | parity |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        delay, segment = row["delay_ms"], row["segment"]
        lines.append(
            f"| {row['generator']} | {row['window']} / {row['hop']} / {row['lead']} | {', '.join(row['needs'])} | "
            f"{row['sample_rate_hz'] / 1000:g} kHz | {delay['lookahead_13']:.0f} ms ({delay['lookahead_0']:.0f}) | "
            f"{segment['median_ms']:.0f} ms | {row['ms_per_second_of_video']:.0f} ms | "
            f"{row['parity']['coefficients_max_abs_error']:.1e} |"
        )
    lines.append("")
    versions = machine["versions"]
    lines.append(
        f"Measured on {machine['cpu']}, {machine['threads']} threads, FP32, ONNX Runtime {versions['onnxruntime']}, "
        "one reaction, seeded weights. On a GPU: [gpu.md](gpu.md)."
    )
    return "\n".join(lines) + "\n"


def write_docs(text: str) -> None:
    """Replace what stands between the marks."""
    old = DOCS.read_text()
    head, _, rest = old.partition(START)
    _, _, tail = rest.partition(END)
    DOCS.write_text(f"{head}{START}\n{text}\n{END}{tail}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("clip", "portrait"):
        parser.add_argument(name, type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0)
    args = parser.parse_args()
    machine = report.machine(args.threads)
    rows = [measured(bundle, args) for bundle in args.bundles]
    content = {
        "command": f"python benchmarks/generators.py CLIP PORTRAIT BUNDLE... --threads {args.threads} "
        f"--seconds {args.seconds:g}",
        "clip": args.clip.name,
        "machine": machine,
        "generators": rows,
    }
    report.write("generators_cpu", content)
    write_docs(table(rows, machine))


if __name__ == "__main__":
    main()
