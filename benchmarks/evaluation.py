"""The challenge's metrics on a case of its size, against one loop per pair, lag and feature, in one run.

    pip install tslearn==0.10.0
    python benchmarks/evaluation.py [--clips 4] [--rounds 3]

tslearn is what the published code warps with, one pair at a time; pflx does not need it. The other loops are written as
the published code goes about it, with numpy in the place of its parts.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import report

from pflx.engines import Array
from pflx.engines.graphs.protocol import import_backend
from pflx.runtime.evaluation import fr_corr, fr_dist, fr_div, fr_dvs, fr_syn, fr_var

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    tracks = np.cumsum(rng.normal(size=(given.clips, SAMPLES + 2, FRAMES, FEATURES)), axis=2) / 20
    tracks = (1 / (1 + np.exp(-tracks))).astype(np.float32)
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
    case = {"clips": given.clips, "samples": SAMPLES, "frames": FRAMES, "features": FEATURES, "neighbours": NEIGHBOURS}
    command = f"python benchmarks/evaluation.py --clips {given.clips} --rounds {given.rounds}"
    report.write("evaluation", {"command": command, "machine": machine, "case": case, "figures": figures})


if __name__ == "__main__":
    main()
