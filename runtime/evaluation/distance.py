"""FRDist of the REACT challenge: dynamic time warping against the appropriate reactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pflx.engines import Array
from pflx.engines.graphs.protocol import import_backend
from pflx.runtime.evaluation.challenge import neighbour_rows
from pflx.runtime.evaluation.results import UndefinedError

INSTALL = "pip install 'pflx[evaluate]'"
FEATURES = 25
"""0…14 action units, 15 valence, 16 arousal, 17…24 probabilities of expressions."""

_UNITS, _AFFECT, _EXPRESSIONS = (slice(0, 15), 1 / 15), (slice(15, 17), 1.0), (slice(17, 25), 1 / 8)
"""Features that are warped together, and the weight of their distance; added up in this order. Source:
baseline_react2024 0c3ce58, metric, `compute_FRD`."""


def fr_dist(pred: Array, listener: Array, neighbours: Array, count: Callable[[int], None] = lambda _: None) -> float:
    """FRDist, lower is closer: distance to the nearest of the appropriate reactions, time warped.

    The smallest weighted sum of three warping distances (action units, valence and arousal, expressions) over the
    neighbours of a clip, mean over clips, *summed* over reactions. Runs of different K cannot be compared.

    Args:
        pred: `[N, K, T, 25]`.
        listener: `[N, T, 25]` true reactions.
        neighbours: `[N, N]`, 1 where reaction j (column) is appropriate to clip n (row).
        count: is told how many clips are done.

    Raises:
        UndefinedError: not 25 features.
        BackendMissingError: dtaidistance is not installed.
    """
    if pred.shape[-1] != FEATURES:
        raise UndefinedError(f"it is defined for the {FEATURES} emotion features, these have {pred.shape[-1]}")
    nearest = []
    for clip, near in zip(pred, neighbour_rows(neighbours), strict=True):
        nearest.append(_nearest(clip, listener[near]))
        count(len(nearest))
    return float(np.mean(nearest, axis=0).sum())


def _nearest(pred: Array, truth: Array) -> Array:
    """The least weighted sum of each reaction [K, T, 25] over true ones [J, T, 25], float64 [K].

    Valence and arousal have most of the weight, and two features are warped fastest. So they are warped first, for all
    pairs; a pair whose part of the sum is no less than the least sum so far needs no more. No distance is negative, and
    rounding keeps the order of sums: what is left out could not be the least, to the bit.
    """
    affect = _part(pred, truth, _AFFECT)
    least = np.full(len(pred), np.inf)
    for j in np.argsort(affect.mean(axis=0)):
        open_ = np.flatnonzero(affect[:, j] < least)
        expressions = _part(pred[open_], truth[j : j + 1], _EXPRESSIONS)[:, 0]
        still = affect[open_, j] + expressions < least[open_]
        open_, expressions = open_[still], expressions[still]
        units = _part(pred[open_], truth[j : j + 1], _UNITS)[:, 0]
        least[open_] = np.minimum(least[open_], units + affect[open_, j] + expressions)
    return least


def _part(pred: Array, truth: Array, group: tuple[slice, float]) -> Array:
    """What a group of features has of the sums, [K, J]."""
    features, weight = group
    return weight * warping(pred[..., features], truth[..., features]) if len(pred) else np.empty((0, len(truth)))


def warping(pred: Array, truth: Array) -> Array:
    """Dynamic time warping of every reaction with every true one.

    The square root of the least sum of squared Euclidean distances along a path of steps right, down and diagonal; no
    window. Runs on all cores where dtaidistance has OpenMP (`OMP_NUM_THREADS`).

    Args:
        pred: `[K, T, D]`.
        truth: `[J, T', D]`.

    Returns:
        float64 [K, J].

    Raises:
        BackendMissingError: dtaidistance is not installed.
    """
    import_backend("dtaidistance", INSTALL)
    dtw_ndim: Any = import_backend("dtaidistance.dtw_ndim", INSTALL)
    series = [np.ascontiguousarray(track, np.float64) for track in (*pred, *truth)]
    k = len(pred)
    openmp = dtw_ndim.dtw.dtw_cc_omp
    distances = dtw_ndim.distance_matrix_fast(
        series,
        ndim=pred.shape[-1],
        block=((0, k), (k, len(series))),
        compact=True,
        parallel=openmp is not None and bool(openmp.is_openmp_supported()),
    )
    return np.asarray(distances, np.float64).reshape(k, len(truth))
