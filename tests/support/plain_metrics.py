"""The challenge's metrics as loops over pairs, lags and features: slow, and plain enough to be seen right."""

from __future__ import annotations

import math

import numpy as np

from pflx.engines import Array

GROUPS = ((slice(0, 15), 1 / 15), (slice(15, 17), 1.0), (slice(17, 25), 1 / 8))


def variance(pred: Array) -> float:
    wide = pred.astype(np.float64)
    return float(np.mean([np.var(track, axis=0, ddof=1) for clip in wide for track in clip]))


def diversity(pred: Array) -> float:
    wide = pred.astype(np.float64)
    _, k, t, d = wide.shape
    if k == 1:
        return 0.0
    sums = [sum(np.square(a - b).sum() for a in clip for b in clip) for clip in wide]
    mean = float(np.mean(sums))
    return mean / int(k * (k - 1) * t * d)


def diversity_over_clips(pred: Array) -> float:
    wide = pred.astype(np.float64)
    n, k, t, d = wide.shape
    total = float(sum(np.square(a[i] - b[i]).sum() for i in range(k) for a in wide for b in wide))
    return total / int(n * (n - 1) * k * t * d)


def correlation(pred: Array, listener: Array, neighbours: Array) -> float:
    n, k = pred.shape[:2]
    total = 0.0
    for i in range(k):
        for row in range(n):
            near = np.flatnonzero(neighbours[row] == 1)
            total += max(concordance(listener[j], pred[row, i]) for j in near) / n
    return total


def concordance(truth: Array, pred: Array) -> float:
    values = []
    for t, p in zip(truth.T.astype(np.float64), pred.T.astype(np.float64), strict=True):
        rho = pearson(t, p)
        spread = t.var() + p.var() + (t.mean() - p.mean()) ** 2 + 1e-8
        values.append(2 * (0 if math.isnan(rho) else rho) * t.std() * p.std() / spread)
    return float(np.mean(values))


def distance(pred: Array, listener: Array, neighbours: Array) -> float:
    n, k = pred.shape[:2]
    total = 0.0
    for i in range(k):
        for row in range(n):
            near = np.flatnonzero(neighbours[row] == 1)
            total += min(sum(w * warping(pred[row, i][:, g], listener[j][:, g]) for g, w in GROUPS) for j in near) / n
    return total


def warping(a: Array, b: Array) -> float:
    cost = np.full((len(a) + 1, len(b) + 1), np.inf)
    cost[0, 0] = 0
    for i, x in enumerate(a.astype(np.float64)):
        for j, y in enumerate(b.astype(np.float64)):
            cost[i + 1, j + 1] = np.square(x - y).sum() + min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
    return math.sqrt(cost[-1, -1])


def lag_curve(pred: Array, speaker: Array) -> Array:
    """[T, D] and [T, D] → the 99 correlations."""
    curve = []
    for lag in range(-49, 50):
        p, s = (pred[lag:], speaker[: len(speaker) - lag]) if lag >= 0 else (pred[:lag], speaker[-lag:])
        curve.append(np.mean([pearson(x, y) for x, y in zip(p.T, s.T, strict=True)]))
    return np.array(curve)


def lag(pred: Array, speaker: Array) -> int:
    curve = lag_curve(pred, speaker)
    missing = np.flatnonzero(np.isnan(curve))
    return abs(49 - int(missing[0] if missing.size else np.argmax(curve)))


def pearson(a: Array, b: Array) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    x, y = a - a.mean(), b - b.mean()
    return float(np.clip((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()), -1, 1))
