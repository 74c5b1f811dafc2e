"""FRSyn of the REACT challenge: by how many frames a reaction trails or leads the speaker."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pflx.engines import Array
from pflx.runtime.evaluation.results import UndefinedError

MAX_LAG = 49
"""Frames; 2 s at 25 fps, less one. Source: baseline_react2024 0c3ce58, metric, `compute_TLCC`."""

MIN_FRAMES = MAX_LAG + 2
"""At the largest lag two frames are left to correlate."""


def fr_syn(pred: Array, speaker: Array, *, all_samples: bool = False) -> float:
    """FRSyn, lower is closer: mean over clips of the lag at which a reaction follows the speaker best.

    Args:
        pred: `[N, K, T, D]`.
        speaker: `[N, T, D]`.
        all_samples: score every reaction. By default only the first one (k = 0) is, as `compute_TLCC_mp` does, which
            returns inside its loop over k and which the evaluation scripts call.

    Raises:
        UndefinedError: fewer than 51 frames.
    """
    return float(lags(pred if all_samples else pred[:, :1], speaker).mean())


def lags(pred: Array, speaker: Array, count: Callable[[int], None] = lambda _: None) -> Array:
    """The absolute lag in frames at which each reaction correlates best with the speaker, int64 [N, K].

    A feature that does not vary (binarised action units, for one) has no correlation. The first lag without one
    counts as the best, as `torch.argmax` has it: a feature that never varies gives 49.

    Args:
        pred: `[N, K, T, D]`.
        speaker: `[N, T, D]`.
        count: is told how many clips are done.

    Raises:
        UndefinedError: fewer than 51 frames.
    """
    best = []
    for clip, heard in zip(pred, speaker, strict=True):
        best.append(np.argmax(lag_correlation(clip, heard), axis=1))
        count(len(best))
    offsets: Array = np.abs(np.stack(best) - MAX_LAG)
    return offsets


def lag_correlation(pred: Array, speaker: Array) -> Array:
    """Pearson correlation at lags -49…49, mean over features; NaN where a feature does not vary.

    At lag L > 0 `pred[L:]` is compared with `speaker[:-L]`, at L < 0 `pred[:L]` with `speaker[-L:]`.

    Args:
        pred: `[K, T, D]`.
        speaker: `[T, D]`.

    Returns:
        float64 [K, 99].

    Raises:
        UndefinedError: fewer than 51 frames.
    """
    frames = pred.shape[1]
    if frames < MIN_FRAMES:
        raise UndefinedError(f"it compares lags up to {MAX_LAG} frames; give at least {MIN_FRAMES}, not {frames}")
    a, b = _centred(np.moveaxis(pred, -1, 0)), _centred(speaker.T[:, None])
    # One product for all lags: row j holds speaker[t + j - 49], zero outside, which is lag 49 - j.
    shifted = sliding_window_view(np.pad(b[:, 0], ((0, 0), (MAX_LAG, MAX_LAG))), frames, axis=1)
    cross = (a @ shifted.swapaxes(1, 2))[..., ::-1]
    late, early = _ends(a), _starts(b)  # lags 0…49
    ahead, behind = _starts(a), _ends(b)  # lags 0…-49
    sums_a, squares_a = (np.concatenate([x[..., :0:-1], y], axis=2) for x, y in zip(ahead, late, strict=True))
    sums_b, squares_b = (np.concatenate([x[..., :0:-1], y], axis=2) for x, y in zip(behind, early, strict=True))
    n = frames - np.abs(np.arange(-MAX_LAG, MAX_LAG + 1))
    variances = (squares_a - np.square(sums_a) / n) * (squares_b - np.square(sums_b) / n)
    with np.errstate(invalid="ignore"):
        pearson = (cross - sums_a * sums_b / n) / np.sqrt(np.maximum(variances, np.finfo(np.float64).tiny))
    mean: Array = np.clip(pearson, -1, 1).mean(axis=0)
    return mean


def _centred(tracks: Array) -> Array:
    """Float64 [D, X, T] around the mean of what all lags see, if there is such a part: then nothing cancels."""
    wide = tracks.astype(np.float64)
    core = wide[..., MAX_LAG : wide.shape[-1] - MAX_LAG]
    centred: Array = wide - (core if core.shape[-1] else wide).mean(axis=-1, keepdims=True)
    return centred


def _starts(tracks: Array) -> tuple[Array, Array]:
    """Sums, and sums of squares, of the first T, T - 1, … T - 49 frames, [D, X, 50]; NaN where they do not vary.

    Summed outwards, so that nothing outside of a stretch leaves its rounding error in it.
    """
    sums = np.cumsum(tracks, axis=-1)[..., : -MAX_LAG - 2 : -1]
    squares = np.cumsum(np.square(tracks), axis=-1)[..., : -MAX_LAG - 2 : -1]
    varies = np.cumsum(np.diff(tracks, axis=-1) != 0, axis=-1)[..., : -MAX_LAG - 2 : -1] > 0
    return sums, np.where(varies, squares, np.nan)


def _ends(tracks: Array) -> tuple[Array, Array]:
    """The same, of the last T, T - 1, … T - 49 frames."""
    return _starts(tracks[..., ::-1])
