"""The challenge's metrics on a case of its size, against one loop per pair, lag and feature, in one run.

    pip install tslearn==0.10.0
    python benchmarks/evaluation.py [--clips 4] [--rounds 3] [--full-split]

tslearn is what the published code warps with, one pair at a time; pflx does not need it. The other loops are written as
the published code goes about it, with numpy in the place of its parts.

`--full-split` evaluates a whole validation split besides, of made-up numbers in files as `pflx collect` writes them:
how long each figure takes, and how much memory all of it. It takes 1.4 GB of disk in the folder for temporary files.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import report

from pflx.engines import Array
from pflx.engines.graphs.protocol import import_backend
from pflx.runtime.evaluation import Inputs, evaluate, fr_corr, fr_dist, fr_div, fr_dvs, fr_syn, fr_var, read_predictions
from pflx.runtime.evaluation.distance import warping

SAMPLES, FRAMES, FEATURES, NEIGHBOURS = 10, 750, 25, 3
GROUPS = ((slice(0, 15), 1 / 15), (slice(15, 17), 1.0), (slice(17, 25), 1 / 8))


def plain_corr(pred: Array, listener: Array, neighbours: Array) -> float:
    def concordance(truth: Array, track: Array) -> float:
        values = []
        for t, p in zip(truth.T, track.T, strict=True):
            spread = t.var() + p.var() + (t.mean() - p.mean()) ** 2 + 1e-8
            values.append(2 * np.corrcoef(t, p)[0, 1] * t.std() * p.std() / spread)
        return float(np.mean(values))

    return best_of(pred, listener, neighbours, concordance, max)


def plain_dist(pred: Array, listener: Array, neighbours: Array) -> float:
    dtw: Any = import_backend("tslearn.metrics", "pip install tslearn==0.10.0").dtw

    def distance(truth: Array, track: Array) -> float:
        return float(sum(weight * dtw(truth[:, group], track[:, group]) for group, weight in GROUPS))

    return best_of(pred, listener, neighbours, distance, min)


def best_of(
    pred: Array,
    listener: Array,
    neighbours: Array,
    judge: Callable[[Array, Array], float],
    best: Callable[[list[float]], float],
) -> float:
    total = 0.0
    for k in range(pred.shape[1]):
        for n in range(len(pred)):
            near = np.flatnonzero(neighbours[n] == 1)
            total += best([judge(listener[j], pred[n, k]) for j in near]) / len(pred)
    return total


def every_pair(pred: Array, listener: Array, neighbours: Array) -> float:
    """FRDist by the same warping of all pairs and all groups."""
    near = [np.flatnonzero(row == 1) for row in neighbours]
    sums = [
        sum(weight * warping(clip[..., group], listener[rows][..., group]) for group, weight in GROUPS)
        for clip, rows in zip(pred, near, strict=True)
    ]
    return float(np.mean([np.min(each, axis=1) for each in sums], axis=0).sum())


def plain_syn(pred: Array, speaker: Array) -> float:
    found = []
    for n, k in np.ndindex(pred.shape[:2]):
        curve = []
        for lag in range(-49, 50):
            p, s = (pred[n, k, lag:], speaker[n, : FRAMES - lag]) if lag >= 0 else (pred[n, k, :lag], speaker[n, -lag:])
            curve.append(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(p.T, s.T, strict=True)]))
        found.append(abs(49 - int(np.argmax(curve))))
    return float(np.mean(found))


def plain_spread(pred: Array) -> float:
    """FRVar + FRDiv + FRDvs."""
    n, k, t, d = pred.shape
    flat = pred.reshape(n, k, -1).astype(np.float64)
    variance = float(np.mean([np.var(track, axis=0, ddof=1) for clip in pred for track in clip]))
    inside = sum(float(np.square(a - b).sum()) for clip in flat for a in clip for b in clip) / n
    across = sum(float(np.square(a[i] - b[i]).sum()) for i in range(k) for a in flat for b in flat)
    return float(variance + inside / (k * (k - 1) * t * d) + across / (n * (n - 1) * k * t * d))


SPLIT = {"clips": 562, "samples": SAMPLES, "frames": FRAMES, "neighbours": 8}
"""The validation split of the challenge, twice 281 pairs. How many reactions are appropriate to a clip of it was not
seen; 8 is an assumption, and FRDist and FRCorr take time in proportion."""


def write_split(path: Path, clips: int, features: int) -> None:
    """A split's predictions: [N, K, T, 25] called `pred`, or coefficients [N, K, T, 58] and the generated pose."""
    rng = np.random.default_rng(features)
    tracks = np.empty((clips, SAMPLES + 2, FRAMES, features), np.float32)
    for clip in tracks:
        clip[:] = made_up(rng, 1, len(clip), features)[0]
    near = sum(np.roll(np.eye(clips), step, axis=1) for step in range(min(SPLIT["neighbours"], clips)))
    pred: dict[str, Any] = {"pred": tracks[:, :SAMPLES]}
    if features == 58:
        pred = {"coefficients": pred["pred"], "generated_pose": pred["pred"][..., 52:], "hop": np.array(8)}
    np.savez(path, **pred, listener_gt=tracks[:, -2], speaker=tracks[:, -1], neighbour=near)


def evaluate_split(path: Path) -> dict[str, Any]:
    """Seconds of each figure of a file, and the most memory that it took."""
    seconds: dict[str, float] = {}
    doing, since = "reading", time.perf_counter()

    def note(what: str, *_: object) -> None:
        nonlocal doing, since
        if what != doing:
            now = time.perf_counter()
            seconds[doing] = round(seconds.get(doing, 0.0) + now - since, 2)
            doing, since = what, now

    predictions = read_predictions(path)
    inputs = Inputs(
        predictions=predictions,
        listener=predictions.listener,
        speaker=predictions.speaker,
        neighbours=predictions.neighbours,
    )
    evaluate(inputs, progress=note)
    note("the end")
    return {
        "file_gb": round(path.stat().st_size / 1e9, 2),
        "seconds": seconds,
        "total_s": round(sum(seconds.values()), 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
    }


def full_split(clips: int) -> dict[str, Any]:
    """Of 25 and 58 features, each in a process of its own. Motion is counted with FRSyn, which comes before it."""
    found: dict[str, Any] = {"case": SPLIT | {"clips": clips}}
    with tempfile.TemporaryDirectory() as folder:
        for features in (25, 58):
            path = Path(folder) / f"{features}.npz"
            write_split(path, clips, features)
            done = subprocess.run(
                [sys.executable, __file__, "--child", path], capture_output=True, text=True, check=True
            )
            found[f"{features} features"] = json.loads(done.stdout)
            path.unlink()
    return found


def without_what_cannot_be_least(rng: np.random.Generator, rounds: int) -> dict[str, Any]:
    """FRDist of two clips, against the same warping of all pairs."""
    near = np.ones((2, SPLIT["neighbours"]))
    pred, listener = made_up(rng, 2, SAMPLES), made_up(rng, 1, SPLIT["neighbours"])[0]
    seconds = report.interleaved(
        {
            "pflx": lambda: fr_dist(pred, listener, near),
            "every_pair": lambda: every_pair(pred, listener, near),
        },
        rounds=rounds,
    )
    return {
        "pflx": report.summary(seconds["pflx"]),
        "every_pair": report.summary(seconds["every_pair"]),
        "ratio": report.ratio(seconds, "pflx", "every_pair"),
        "equal": fr_dist(pred, listener, near) == every_pair(pred, listener, near),
    }


def made_up(rng: np.random.Generator, clips: int, tracks: int, features: int = FEATURES) -> Array:
    """Random walks in 0…1, float32 [clips, tracks, T, D]."""
    walks = np.cumsum(rng.normal(size=(clips, tracks, FRAMES, features)), axis=2) / 20
    return (1 / (1 + np.exp(-walks))).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full-split", action="store_true")
    parser.add_argument("--split-clips", type=int, default=SPLIT["clips"])
    parser.add_argument("--child", type=Path)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(evaluate_split(given.child)))
        return
    rng = np.random.default_rng(0)
    tracks = made_up(rng, given.clips, SAMPLES + 2)
    pred, listener, speaker = tracks[:, :SAMPLES], tracks[:, -2], tracks[:, -1]
    steps = range(min(NEIGHBOURS, given.clips))
    near: Array = np.sum([np.roll(np.eye(given.clips), step, axis=1) for step in steps], axis=0)
    machine = report.machine(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    machine["versions"] |= {name: version(name) for name in ("dtaidistance", "tslearn")}
    pairs: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "FRSyn, all reactions": (lambda: fr_syn(pred, speaker, all_samples=True), lambda: plain_syn(pred, speaker)),
        "FRCorr": (lambda: fr_corr(pred, listener, near), lambda: plain_corr(pred, listener, near)),
        "FRDist": (lambda: fr_dist(pred, listener, near), lambda: plain_dist(pred, listener, near)),
        "FRVar, FRDiv, FRDvs": (lambda: fr_var(pred) + fr_div(pred) + fr_dvs(pred), lambda: plain_spread(pred)),
    }
    figures = {}
    for name, (ours, plain) in pairs.items():
        seconds = report.interleaved({"pflx": ours, "loops": plain}, rounds=given.rounds)
        figures[name] = {
            "pflx": report.summary(seconds["pflx"]),
            "loops": report.summary(seconds["loops"]),
            "ratio": report.ratio(seconds, "pflx", "loops"),
            "values_apart_relative": abs(ours() / plain() - 1),
        }
    figures[f"FRDist of {SPLIT['neighbours']} neighbours"] = without_what_cannot_be_least(rng, given.rounds)
    case = {"clips": given.clips, "samples": SAMPLES, "frames": FRAMES, "features": FEATURES, "neighbours": NEIGHBOURS}
    command = f"python benchmarks/evaluation.py --clips {given.clips} --rounds {given.rounds}"
    content = {"machine": machine, "case": case, "figures": figures}
    if given.full_split:
        command += " --full-split"
        content["full_split"] = full_split(given.split_clips)
    report.write("evaluation", {"command": command, **content})


if __name__ == "__main__":
    main()
