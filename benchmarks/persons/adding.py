"""What it costs to add a person: time and memory of `pflx person make` with a hypernetwork as large as the published.

Linux only: it reads /proc. Its files, 18 GB while they are written and 9 GB after, are deleted at the end.

    python benchmarks/persons/adding.py [--work DIR] [--threads 2]

The hypernetwork has PerFRDiffRender's layers, seeded numbers, and an optimiser's buffer for each of them, as the
published training code saves them. It is read twice: first from the disk, then as far as the system still has it in
memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pflx.engines import Bundle
from pflx.export import untrained
from pflx.export.persons.hypernetwork import LAYOUTS
from pflx.runtime.persons import read_person

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import report
from memory import peak_mb

WIDTH = 1024
BLOCK = 1 << 24


def hypernetwork(path: Path) -> int:
    """Write a hypernetwork of full size as its training code does; how many numbers it has."""
    shapes: dict[str, tuple[int, ...]] = {"shared_layers.0.weight": (WIDTH, 512), "shared_layers.0.bias": (WIDTH,)}
    shapes |= {"shared_layers.1.weight": (WIDTH, WIDTH), "shared_layers.1.bias": (WIDTH,)}
    for n, branch in enumerate(LAYOUTS["render"]):
        shapes |= {f"branches.{n}.weight": (branch.size, WIDTH), f"branches.{n}.bias": (branch.size,)}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        weights = {key: numbers(Path(folder) / key, shape, seeded=True) for key, shape in shapes.items()}
        moments = {key: numbers(Path(folder) / f"{key}.moment", shape, seeded=False) for key, shape in shapes.items()}
        state = {n: {"momentum_buffer": value} for n, value in enumerate(moments.values())}
        torch.save({"epoch": 60, "state_dict": weights, "optimizer": {"state": state, "param_groups": []}}, path)
    return sum(value.numel() for value in weights.values())


def numbers(path: Path, shape: tuple[int, ...], *, seeded: bool) -> torch.Tensor:
    """A tensor that lies on the disk, zeros or seeded: one block of normal numbers, again and again."""
    made = np.memmap(path, np.float32, "w+", shape=shape)
    if seeded:
        flat = made.reshape(-1)
        block = np.random.default_rng(0).standard_normal(min(BLOCK, flat.size), np.float32) * np.float32(0.06 / 32)
        for start in range(0, flat.size, BLOCK):
            flat[start : start + BLOCK] = block[: flat.size - start]
    return torch.from_numpy(made)


def forget(path: Path) -> None:
    """Let the system forget what it has of a file in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(words: list[str]) -> None:
    """In a child process: a command of pflx, then seconds, processor seconds and peak memory on stdout."""
    from pflx.cli import main as pflx

    start = time.perf_counter()
    sys.argv = ["pflx", *words]
    try:
        pflx()
    except SystemExit as ended:
        if ended.code:
            raise
    used = resource.getrusage(resource.RUSAGE_SELF)
    print("FIGURES", time.perf_counter() - start, used.ru_utime + used.ru_stime, peak_mb())


def measured(*words: str | Path, threads: int) -> dict[str, float]:
    """What a command of pflx takes, in a process of its own."""
    command = [sys.executable, __file__, "--child", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    seconds, processor_s, peak = map(float, done.stdout.split("FIGURES")[1].split())
    return {"seconds": round(seconds, 1), "processor_seconds": round(processor_s, 1), "peak_mb": round(peak)}


def adding(work: Path, threads: int) -> dict[str, Any]:
    """Seconds and memory of `pflx person make`, and the sizes of what it reads and writes."""
    bundle, encoder, modifier, person = (work / name for name in ("me.pflx", "encoder.pth", "modifier.pth", "a.person"))
    torch.save({"state_dict": untrained("perfrdiff_person", 0)}, encoder)
    if not bundle.exists():
        denoiser = work / "denoiser.pth"
        torch.save({"state_dict": untrained("perfrdiff_render", 0)}, denoiser)
        options = ("--mean-face", "zero", "--persons", "-o", bundle)
        measured("export", "--generator", denoiser, *options, threads=threads)
    np.save(work / "listener.npy", np.random.default_rng(0).standard_normal((750, 58), np.float32) * 0.3)
    try:
        count, size = hypernetwork(modifier), modifier.stat().st_size
        forget(modifier)
        words = ("person", "make", bundle, "--coefficients", work / "listener.npy", "--person-encoder", encoder)
        runs = {
            how: measured(*words, "--modifier", modifier, "-o", person, threads=threads) for how in ("disk", "memory")
        }
    finally:
        modifier.unlink(missing_ok=True)
    edited = sum(value.size for value in read_person(person).weights.values())
    return {
        "hypernetwork": {"numbers": count, "file_gb": round(size / 1e9, 2)},
        "person": {"numbers": edited, "file_mb": round(person.stat().st_size / 1e6, 2)},
        "bundle_mb": round(sum(info.bytes for info in Bundle.open(bundle).manifest.files.values()) / 1e6),
        "read_from": runs,
    }


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        run(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keep the bundle here, and take the one that is here")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    environment = report.machine(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        work.mkdir(exist_ok=True)
        content = {
            "command": f"python benchmarks/persons/adding.py --threads {args.threads}",
            "machine": environment,
            **adding(work, args.threads),
        }
    report.write("persons_adding", content)


if __name__ == "__main__":
    main()
