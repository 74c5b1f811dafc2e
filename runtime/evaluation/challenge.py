"""The metrics of the REACT 2024 challenge that need no alignment: variance, diversity, correlation.

Predictions are `[N, K, T, D]`: N clips, K reactions to each, T frames, D features. Everything is computed in float64.

Source: REACT 2024 baseline (baseline_react2024 0c3ce58) and PFLPosNet 6c274a2, folder `metric`, the same in both. Their
traps (sums over K, K = 1) are kept, as published figures have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pflx.engines import Array
from pflx.runtime.evaluation.results import UndefinedError


def fr_var(pred: Array) -> float:
    """FRVar, higher is livelier: unbiased variance over time, mean over clips, reactions and features.

    Raises:
        UndefinedError: one frame only.
    """
    if pred.shape[2] < 2:
        raise UndefinedError("one frame has no variance over time; give at least 2")
    return float(np.mean([np.var(clip, axis=1, ddof=1, dtype=np.float64).mean() for clip in pred]))


def fr_div(pred: Array) -> float:
    """FRDiv, higher is more diverse: mean squared distance between two reactions to the same clip.

    Over ordered pairs k ≠ k', per frame and feature; that is twice the unbiased variance over k. One reaction to each
    clip gives 0, as published.
    """
    if pred.shape[1] < 2:
        return 0.0
    return 2 * float(np.mean([np.var(clip, axis=0, ddof=1, dtype=np.float64).mean() for clip in pred]))


def fr_dvs(pred: Array) -> float:
    """FRDvs, higher is more diverse: mean squared distance between reactions to two clips.

    Over ordered pairs n ≠ n' of the same k, per frame and feature; that is twice the unbiased variance over n.

    Raises:
        UndefinedError: one clip only.
    """
    n = len(pred)
    if n < 2:
        raise UndefinedError("it compares clips, and there is one; give predictions of several, [N, K, T, D]")
    mean = pred.mean(axis=0, dtype=np.float64)
    spread = float(sum(np.square(clip - mean).sum() for clip in pred))
    return 2 * spread / ((n - 1) * int(mean.size))


def fr_corr(pred: Array, listener: Array, neighbours: Array, count: Callable[[int], None] = lambda _: None) -> float:
    """FRCorr, higher is closer: concordance with the best of the appropriate reactions.

    The largest concordance correlation coefficient over the neighbours of a clip, mean over clips, *summed* over
    reactions: up to K. Runs of different K cannot be compared.

    Args:
        pred: `[N, K, T, D]`.
        listener: `[N, T, D]` true reactions.
        neighbours: `[N, N]`, 1 where reaction j (column) is appropriate to clip n (row).
        count: is told how many clips are done.
    """
    truth = _moments(listener)
    best = []
    for clip, near in zip(pred, neighbour_rows(neighbours), strict=True):
        best.append(_concordance(_moments(clip), truth.only(near)).max(axis=1))
        count(len(best))
    return float(np.mean(best, axis=0).sum())


def concordance(pred: Array, truth: Array) -> Array:
    """Concordance correlation coefficient of every reaction with every true one, mean over features.

    Per feature 2·ρ·σ_t·σ_p / (σ_t² + σ_p² + (μ_t − μ_p)² + 1e-8), of population moments; ρ is 0 where one of the two
    does not vary.

    Args:
        pred: `[K, T, D]`.
        truth: `[J, T, D]`.

    Returns:
        float64 [K, J].
    """
    return _concordance(_moments(pred), _moments(truth))


def neighbour_rows(neighbours: Array) -> Iterator[Array]:
    """Indices of the appropriate reactions of each clip."""
    return (np.flatnonzero(row == 1) for row in neighbours)


@dataclass(frozen=True)
class _Moments:
    """Tracks without their means, features first: `centred` [D, X, T], `mean` and `std` [D, X]."""

    centred: Array
    mean: Array
    std: Array

    def only(self, rows: Array) -> _Moments:
        return _Moments(self.centred[:, rows], self.mean[:, rows], self.std[:, rows])


def _moments(tracks: Array) -> _Moments:
    by_feature = np.moveaxis(tracks, -1, 0).astype(np.float64)
    mean = by_feature.mean(axis=2)
    centred = by_feature
    centred -= mean[..., None]
    variance = np.stack([np.square(feature).mean(axis=1) for feature in centred])  # one by one: no second copy of all
    return _Moments(centred, mean, np.sqrt(variance))


def _concordance(pred: _Moments, truth: _Moments) -> Array:
    covariance = pred.centred @ truth.centred.swapaxes(1, 2) / pred.centred.shape[2]
    limit = pred.std[:, :, None] * truth.std[:, None]
    apart = np.square(pred.mean[:, :, None] - truth.mean[:, None])
    spread = np.square(pred.std)[:, :, None] + np.square(truth.std)[:, None]
    ccc: Array = (2 * np.clip(covariance, -limit, limit) / (spread + apart + 1e-8)).mean(axis=0)
    return ccc
