"""Kills pflx at random moments, with no way to tidy up, and looks at what is left; counts go to benchmarks/results.

    python tools/long_runs/kill_runs.py [--verbs run export …] [--kills 40]

Every verb writes over the outputs of an earlier run. Half of the kills come at any moment of its run, the other half
while something half-written lies in the folder. After each, the old output must be there whole, or the new one; the
next run must come through, and leave nothing but its output. `build` takes the extra tensorrt-rtx.

Commands run in forks of this process, which has imported everything, so that few kills fall into imports.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from pflx.calibration.feeds.feeds import ArrayStore, Feeds, digests_of
from pflx.engines import Bundle
from pflx.runtime.builtin import builtin_path
from pflx.runtime.media.clip import open_speaker
from pflx.runtime.media.video_writer import VideoWriter

ROOT = Path(__file__).resolve().parents[2]
MEDIA = ROOT / "tests" / "media"
CLIP, SECOND = MEDIA / "podium_speech_8s.mp4", MEDIA / "webcam_cap12_12s.mp4"
PORTRAIT = MEDIA / "portrait_astronaut_256.png"
PRELOADED = ("pflx.cli", "cv2", "onnxruntime", "torch", "safetensors.torch", "matplotlib.figure", "dtaidistance")
_AIMED_S = 0.002
"""How often the folder is looked at for something half-written."""


@dataclass(frozen=True)
class Job:
    """A verb, and how its outputs are looked at.

    Attributes:
        words: of the command, made of the folder.
        outputs: name in the folder to a function that raises where the output is not whole.
        before: what is there before it runs the first time.
    """

    words: Callable[[Path], list[str | Path]]
    outputs: dict[str, Callable[[Path], object]]
    before: Callable[[Path], object] = lambda folder: None


def main() -> None:
    """Kill the verbs that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", nargs="+", choices=sorted(JOBS), default=sorted(JOBS))
    parser.add_argument("--kills", type=int, default=40, help="of each verb")
    parser.add_argument("--seconds", type=float, default=3600.0, help="after which a verb is done with fewer kills")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.path.append(str(ROOT / "benchmarks"))
    report: Any = importlib.import_module("report")
    machine = report.machine(threads=1)
    for name in PRELOADED:
        importlib.import_module(name)
    found = _earlier(report.RESULTS / "kill_runs.json")
    total: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="pflx-kills-") as work:
        for verb in arguments.verbs:
            until = time.monotonic() + arguments.seconds
            counts = kill(JOBS[verb], Path(work) / verb.replace(" ", "_"), arguments.kills, until, arguments.seed)
            found[verb] = {"command": shlex.join(["python", *sys.argv]), **counts}
            total = {key: sum(each[key] for each in found.values()) for key in ("kills", *BAD)}
            counted = {"machine": machine, "verbs": dict(sorted(found.items())), **total}
            report.write("kill_runs", counted)
    if any(total.get(key) for key in BAD):
        sys.exit("Something was broken, or left.")


BAD = ("broken", "next_failed", "left_after_next")
"""Counts that must be 0."""


def kill(job: Job, folder: Path, kills: int, until: float, seed: int) -> dict[str, Any]:
    """Kill one verb again and again."""
    folder.mkdir()
    job.before(folder)
    words = [str(word) for word in job.words(folder)]
    spans = _measure(job, folder, words)
    counts: Counter[str] = Counter()
    draw = random.Random(seed)
    while counts["kills"] < kills and time.monotonic() < until:
        job.before(folder)
        old = {name: _state(folder / name) for name in job.outputs}
        child = _start(words, folder)
        aimed = bool(counts["kills"] % 2) and _wait_for_partial(child, folder)
        time.sleep(draw.uniform(0, spans["half_written_s" if aimed else "whole_s"]))
        if not _end(child):
            counts["over_before"] += 1
            continue
        counts["kills"] += 1
        counts["kills_while_half_written"] += bool(_partials(folder))
        for name, look in job.outputs.items():
            kept = _state(folder / name) == old[name]
            counts["outputs_old" if kept else "outputs_new"] += 1
            if not kept and not _is_whole(look, folder / name):
                counts["broken"] += 1
                print(f"{words[0]}: {name} is broken after kill {counts['kills']}", file=sys.stderr)
        through = _run(words, folder) and all(_is_whole(look, folder / name) for name, look in job.outputs.items())
        counts["next_failed"] += not through
        strangers = {path.name for path in folder.iterdir()} - {*job.outputs, "log"}
        counts["left_after_next"] += bool(_partials(folder) or strangers)
    names = ("kills", "kills_while_half_written", "over_before", "outputs_old", "outputs_new", *BAD)
    return {**{name: counts[name] for name in names}, **spans}


def _measure(job: Job, folder: Path, words: list[str]) -> dict[str, float]:
    """How long a run takes over the outputs of one before, and how much of that something half-written lies there."""
    if not _run(words, folder):
        raise SystemExit(f"{shlex.join(words)}\n{(folder / 'log').read_text()}")
    job.before(folder)
    began, child, seen_s = time.monotonic(), _start(words, folder), 0.0
    while not _is_over(child):
        seen_s += _AIMED_S * bool(_partials(folder))
        time.sleep(_AIMED_S)
    return {"whole_s": round(time.monotonic() - began, 3), "half_written_s": round(max(seen_s, 0.02), 3)}


def _start(words: list[str], folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["pflx", *words]
        from pflx.__main__ import main as pflx

        pflx()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        os._exit(code)


def _run(words: list[str], folder: Path) -> bool:
    return os.waitpid(_start(words, folder), 0)[1] == 0


def _is_over(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(child: int) -> bool:
    """Kill a process; whether it was still at work."""
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _wait_for_partial(child: int, folder: Path) -> bool:
    """Wait until something half-written lies in the folder; False if the process ended before."""
    while not _partials(folder):
        if _is_over(child):
            return False
        time.sleep(_AIMED_S)
    return True


def _partials(folder: Path) -> list[Path]:
    return [Path(at) / name for at, folders, files in os.walk(folder) for name in (*folders, *files) if ".part" in name]


def _state(path: Path) -> list[tuple[str, int, bytes]]:
    """All of an output: its files with their sizes and contents."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return [(str(each), each.stat().st_size, each.read_bytes()) for each in files if each.exists()]


def _is_whole(look: Callable[[Path], object], path: Path) -> bool:
    try:
        look(path)
    except Exception as error:  # whatever a library says of half a file
        print(f"{path.name}: {error}", file=sys.stderr)
        return False
    return True


def _earlier(path: Path) -> dict[str, Any]:
    """What was counted of other verbs."""
    return dict(json.loads(path.read_text())["verbs"]) if path.exists() else {}


def _video(path: Path) -> None:
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 25
    with av.open(str(path)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 16_000


def _arrays(path: Path) -> None:
    with np.load(path) as arrays:
        assert arrays["coefficients"].shape == (1, 25, 58)


def _picture(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()


def _weights(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(str(path), framework="np") as weights:
        for name in weights.keys():  # noqa: SIM118 - it is no mapping
            weights.get_tensor(name)


def _feeds(path: Path) -> None:
    feeds = Feeds.open(path)
    store = ArrayStore(path / "arrays")
    for digest in digests_of(feeds.index):
        store.get(digest)
    assert feeds.index.recordings


def _json(path: Path) -> None:
    json.loads(path.read_text())


def _one_clip(folder: Path) -> None:
    """Feeds of one clip, recorded once, to which the next is added."""
    for clip in (CLIP, SECOND):
        _shorten(clip, folder.parent / clip.name)
    kept = folder.parent / "feeds_of_one_clip"
    if not kept.exists():
        words = _record(folder, CLIP)
        if not _run([str(word) for word in words], folder):
            raise SystemExit((folder / "log").read_text())
        shutil.copytree(folder / "feeds", kept)
    shutil.rmtree(folder / "feeds", ignore_errors=True)
    shutil.copytree(kept, folder / "feeds")


def _record(folder: Path, clip: Path) -> list[str | Path]:
    short = folder.parent / clip.name
    return ["calibrate", "record", builtin_path(), "-s", short, "-p", PORTRAIT, "-o", folder / "feeds"]


def _shorten(clip: Path, target: Path) -> None:
    """The first two seconds of a clip."""
    if target.exists():
        return
    speaker = open_speaker(clip).limited(2)
    with VideoWriter(target, (speaker.width, speaker.height), audio=True) as writer:
        for chunk in speaker.chunks():
            writer.write(chunk.video)
            writer.write_audio(chunk.audio)


def _weightless(folder: Path) -> None:
    """The bundle that comes with pflx, and what engines were built of it so far."""
    if not (folder / "me.pflx").exists():
        shutil.copytree(builtin_path(), folder / "me.pflx")


def _predictions(folder: Path) -> Path:
    path = folder.parent / "predictions.npy"
    if not path.exists():
        np.save(path, np.random.default_rng(0).standard_normal((1, 2, 250, 58)).astype(np.float32))
    return path


JOBS = {
    "run": Job(
        lambda at: [
            *("run", CLIP, "-p", PORTRAIT, "--duration", "1", "-o", at / "out.mp4"),
            *("--coefficients", at / "out.npz", "--trace", at / "out.json"),
        ],
        {"out.mp4": _video, "out.npz": _arrays, "out.json": _json},
    ),
    "export": Job(
        lambda at: ["export", "-o", at / "me.pflx", "--overwrite"],
        {"me.pflx": Bundle.open},
    ),
    "build": Job(
        lambda at: ["build", at / "me.pflx", "--engine", "tensorrt-rtx", "--capability", "sm_89"],
        {"me.pflx": Bundle.open},
        _weightless,
    ),
    "evaluate": Job(
        lambda at: ["evaluate", _predictions(at), "--hop", "8", "--json", at / "out.json", "--plot", at / "out.png"],
        {"out.json": _json, "out.png": _picture},
    ),
    "calibrate posnet": Job(
        lambda at: [
            *("calibrate", "posnet", MEDIA / "head_cap13_31s.npy", "--slide", "8", "--steps", "10"),
            *("-o", at / "posnet.safetensors", "--json", at / "posnet.json"),
        ],
        {"posnet.safetensors": _weights, "posnet.json": _json},
    ),
    "calibrate record": Job(lambda at: _record(at, SECOND), {"feeds": _feeds}, _one_clip),
}

if __name__ == "__main__":
    main()
