"""A data set through crop, batch, collect and evaluate, killed and stopped on the way: on one process, two, and Ray.

    PYTHONPATH=benchmarks python benchmarks/dataset/resumed.py CLIP... [--count 54] [--samples 3]

The set is cut out of the clips that are given: each from several places, 2 to 4 s long; after the first cut of each,
slower, faster, mirrored, louder and softer. Cropping is killed once (-9, all processes); reacting is killed once, and
stopped by Ctrl-C once; each time the same command goes on. What comes out has to be the same to the bit on every way,
or the run fails. Times are of all commands, the broken ones and every start included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import report

from pflx.runtime import open_speaker
from pflx.runtime.frames.timing import FPS
from pflx.runtime.media.video_writer import VideoWriter

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 2 * FPS
"""Of each reaction, what is collected: the shortest cut."""
RATE_HZ = 16_000

WAYS: dict[str, tuple[Sequence[object], Sequence[object]]] = {
    "one process": (("--workers", 1), ("--workers", 1)),
    "two processes": (("--workers", 2), ("--workers", 2)),
    "Ray, two actors": (("--workers", 2), ("--ray", "--workers", 2)),
}
"""Options of crop and of batch; Ray is for the second alone."""


@dataclass(frozen=True)
class Cut:
    """What is taken of a clip, and what is done to it.

    Attributes:
        start: of it, as a share of what can be left out.
        seconds: how much, as it is shown in the end.
        speed: how much faster it is shown.
        mirrored: whether left is right.
        gain: of its sound.
    """

    start: float = 0.0
    seconds: float = 3.0
    speed: float = 1.0
    mirrored: bool = False
    gain: float = 1.0


def cuts(count: int) -> Iterator[Cut]:
    """So many different ones of one clip, the first as it is."""
    for number in range(count):
        yield Cut(
            start=round(number / max(1, count - 1), 3),
            seconds=(3.0, 2.0, 2.4, 3.2, 4.0)[number % 5],
            speed=(1.0, 1.0, 0.8, 1.25)[number % 4],
            mirrored=number % 2 == 1,
            gain=(1.0, 0.5, 2.0)[number % 3],
        )


def write_cuts(clip: Path, count: int, folder: Path) -> list[Path]:
    """Write them as clips of their own."""
    speaker, written = open_speaker(clip, RATE_HZ), []
    chunks = list(speaker.chunks())
    video = np.concatenate([chunk.video for chunk in chunks])
    sound = np.concatenate([chunk.audio for chunk in chunks])
    for number, cut in enumerate(cuts(count)):
        frames = min(round(cut.seconds * FPS), int((len(video) - 1) / cut.speed))
        first = round(cut.start * (len(video) - 1 - (frames - 1) * cut.speed))
        pictures = video[(first + np.arange(frames) * cut.speed).astype(int)]
        at = first * RATE_HZ / FPS + np.arange(frames * RATE_HZ // FPS) * cut.speed
        heard = np.interp(at, np.arange(len(sound)), sound).astype(np.float32) * cut.gain
        path = folder / clip.stem / f"{number:02d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (speaker.width, speaker.height)
        with VideoWriter(path, size, audio=speaker.has_audio, threads=1) as writer:
            writer.write(np.ascontiguousarray(pictures[:, :, ::-1]) if cut.mirrored else pictures)
            if speaker.has_audio:
                writer.write_audio(np.clip(heard, -1, 1))
        written.append(path)
    return written


class Way:
    """The whole chain in a folder, with the options of one way."""

    def __init__(self, clips: Path, folder: Path, crop: Sequence[object], batch: Sequence[object]) -> None:
        self._clips, self._folder, self._crop, self._batch = clips, folder, crop, batch
        self.seconds: dict[str, float] = {}

    def run(self, count: int, samples: int) -> dict[str, Any]:
        """Everything, and what came out."""
        crops, out, pred = self._folder / "crops", self._folder / "reactions", self._folder / "pred.npz"
        crop = ("crop", self._clips, "-o", crops, *self._crop)
        batch = ("batch", crops, "-o", out, "--samples", samples, *self._batch)
        killed_crop = self._broken("crop", crop, crops, ".crop.json", count // 4, signal.SIGKILL)
        self._whole("crop", crop)
        killed = self._broken("batch", batch, out, ".npz", count // 4, signal.SIGKILL)
        stopped = self._broken("batch", batch, out, ".npz", count // 2, signal.SIGINT)
        told = self._whole("batch", batch)
        self._whole("collect", ("collect", out, "-o", pred, "--frames", FRAMES))
        self._whole("evaluate", ("evaluate", pred, "--json", self._folder / "found.json"))
        figures = json.loads((self._folder / "found.json").read_text())
        return {
            "clips": figures["clips"],
            "done_when_killed": {"crop": killed_crop, "batch": killed},
            "done_when_stopped": {"batch": stopped},
            "said_in_the_end": told.strip().rpartition(": ")[2],
            "sha256": {"crops": _hash_files(crops, "*.mp4"), "collected": _hash_arrays(pred)},
            "evaluation": {name: figures[name] for name in ("challenge", "motion")},
            "seconds": {name: round(taken, 1) for name, taken in self.seconds.items()},
        }

    def _whole(self, step: str, words: Sequence[object]) -> str:
        """Run a command to its end; what it said."""
        began = time.perf_counter()
        done = subprocess.run(_command(words), capture_output=True, text=True)
        self._took(step, began)
        if done.returncode:
            raise SystemExit(f"pflx {step}: {done.stderr}")
        return done.stdout

    def _broken(
        self, step: str, words: Sequence[object], folder: Path, suffix: str, count: int, how: signal.Signals
    ) -> int:
        """Run a command, send all its processes a signal once so many files are there, and count them in the end."""
        began = time.perf_counter()
        process = subprocess.Popen(
            _command(words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        family: set[psutil.Process] = set()
        while len(list(folder.rglob(f"*{suffix}"))) < count:
            if process.poll() is not None:
                raise SystemExit(f"pflx {step} was done before it was stopped: {process.communicate()[1]}")
            with suppress(psutil.NoSuchProcess):
                family |= {*psutil.Process(process.pid).children(recursive=True)}
            time.sleep(0.05)
        os.killpg(process.pid, how)
        process.communicate()
        psutil.wait_procs(family, timeout=60)
        self._took(step, began)
        if process.returncode != (130 if how == signal.SIGINT else -how):
            raise SystemExit(f"pflx {step} ended with {process.returncode}")
        return len(list(folder.rglob(f"*{suffix}")))

    def _took(self, step: str, began: float) -> None:
        self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - began


def _command(words: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "pflx", *map(str, words)]


def _hash_files(folder: Path, pattern: str) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob(pattern)):
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def _hash_arrays(path: Path) -> str:
    found = hashlib.sha256()
    with np.load(path) as arrays:
        for name in sorted(arrays):
            array = arrays[name]
            found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def _named(clip: Path) -> str:
    path = clip.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=54, help="of cuts in all, at least")
    parser.add_argument("--samples", type=int, default=3)
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it, and their children
    machine = report.machine(2)
    machine["versions"]["ray"] = version("ray")
    each = math.ceil(given.count / len(given.clips))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = [path for clip in given.clips for path in write_cuts(clip, each, folder / "clips")]
        found = {}
        for number, (name, options) in enumerate(WAYS.items()):
            (folder / str(number)).mkdir()
            found[name] = Way(folder / "clips", folder / str(number), *options).run(len(made), given.samples)
            print(name, found[name]["seconds"], file=sys.stderr)
    first, *others = found.values()
    if any((each["sha256"], each["evaluation"]) != (first["sha256"], first["evaluation"]) for each in others):
        raise SystemExit(f"Not the same: {json.dumps(found, indent=1)}")
    evaluation, sha256 = first["evaluation"], first["sha256"]
    own = ("done_when_killed", "done_when_stopped", "said_in_the_end", "seconds")
    content = {
        "command": f"PYTHONPATH=benchmarks python benchmarks/dataset/resumed.py {' '.join(map(_named, given.clips))}"
        f" --count {given.count} --samples {given.samples}",
        "machine": machine,
        "clips": len(made),
        "cuts_of_each_clip": [asdict(cut) for cut in cuts(each)],
        "same_on_all_ways": {"sha256": sha256, "evaluation": evaluation},
        "ways": {
            name: {key: way[key] for key in own} | {"seconds_in_all": round(sum(way["seconds"].values()), 1)}
            for name, way in found.items()
        },
    }
    report.write("dataset", content)


if __name__ == "__main__":
    main()
