"""Does the peak memory of `pflx run` grow with the clip? Synthetic clips, the frame renderer replaced by a fake engine.

Linux only: it reads /proc.

python benchmarks/memory.py BUNDLE PORTRAIT [--minutes 1 10]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import report

from pflx.engines import Array, Bundle, Engine, FakeEngine, OrtEngine
from pflx.runtime import Listener
from pflx.runtime.media.video_writer import VideoWriter


def synthetic_clip(path: Path, minutes: float) -> None:
    """A drifting gradient with noise for sound, 160×120 at 25 fps."""
    rng = np.random.default_rng(0)
    ramp = np.arange(160, dtype=np.uint16)
    with VideoWriter(path, size=(160, 120), audio=True) as writer:
        for second in range(round(minutes * 60)):
            rows = [((ramp + 25 * second + k) % 256).astype(np.uint8) for k in range(25)]
            writer.write(np.stack([np.broadcast_to(row[None, :, None], (120, 160, 3)) for row in rows]))
            writer.write_audio(rng.normal(0, 0.1, 16_000).astype(np.float32))


def open_with_fake_renderer(path: Path, portrait: Path, **_: object) -> Listener:
    bundle = Bundle.open(path)
    graphs = bundle.manifest.graphs
    engines: dict[str, Engine] = {
        name: OrtEngine(bundle.graph_path(name, "fp32")) for name in graphs if name != "pirender_frame"
    }
    size = bundle.manifest.renderer.size
    image: dict[str, Array] = {"image": np.zeros((1, 1, size, size, 3), np.uint8)}
    frame = graphs["pirender_frame"]
    engines["pirender_frame"] = FakeEngine(lambda _: image, frame.inputs, frame.outputs)
    listener = Listener(bundle.manifest, engines, portrait)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading, which is larger and varies
    return listener


def peak_mb() -> float:
    """Largest resident memory since it was last forgotten."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def run_with_fake_renderer(bundle: str, clip: str, portrait: str) -> None:
    """In a child process: `pflx run`, then the peak memory after loading in MB on stdout."""
    from pflx.cli import main as pflx

    Listener.open = staticmethod(open_with_fake_renderer)  # type: ignore[method-assign,assignment]
    output = Path(clip).with_suffix(".out.mp4")
    words = ("-b", bundle, "-p", portrait, "-o", output, "--coefficients", output.with_suffix(".npz"))
    sys.argv = ["pflx", "run", clip, *map(str, words)]
    try:
        pflx()
    except SystemExit as ended:
        if ended.code:
            raise
    print("PEAK", peak_mb())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("portrait", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run_with_fake_renderer(str(args.bundle), str(args.child), str(args.portrait))
        return
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for minutes in args.minutes:
            clip = Path(folder) / f"{minutes:g}.mp4"
            synthetic_clip(clip, minutes)
            command = [sys.executable, __file__, str(args.bundle), str(args.portrait), "--child", str(clip)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks[f"{minutes:g}"] = round(float(done.stdout.split("PEAK")[1]), 1)
    content = {
        "command": f"python benchmarks/memory.py BUNDLE PORTRAIT --minutes {' '.join(f'{m:g}' for m in args.minutes)}",
        "machine": report.machine(2),
        "peak_mb_by_minutes": peaks,
    }
    report.write("memory_cpu", content)


if __name__ == "__main__":
    main()
