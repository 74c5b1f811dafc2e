"""What generators hear of the speaker: MFCC rows, one for each video frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pflx.engines import FeedError
from pflx.runtime.frames.arrays import Float32Array, Float64Array
from pflx.runtime.frames.timing import FPS

MFCC_SIZE = 78
"""Numbers in a row: 3 kinds (value, delta, delta of delta) of 13 coefficients of 2 overlapping windows of 25 ms."""
LOWEST_RATE_HZ = 4000
"""Below it a mel band holds no frequency of the transform, and its coefficients would mean nothing."""

_WINDOW_S, _HOP_S = 0.025, 0.010
_BANDS, _CEPSTRA, _LIFTER, _PREEMPHASIS = 23, 13, 22.0, 0.97
_LOWEST_HZ = 20.0
_FLOOR = float(np.finfo(np.float32).eps)  # torchaudio's, of single precision whatever the precision of the sums
_ENERGY_FLOOR = 1.0
_ROWS_AT_ONCE = 1500  # a minute: memory stays the same however long the sound is
_DELTA = 0.3  # regression over 5 frames, the first and last repeated, of a series of two: (c1 - c0) * 3 / 10


def mfcc(sound: npt.ArrayLike, sample_rate_hz: int) -> Float32Array:
    """MFCC rows, one for each video frame of 40 ms.

    Frame t hears `int(sample_rate_hz / 25)` samples from there on and nothing before them: a row depends on its own
    samples alone, so any run of whole frames gives the same rows as the whole sound. `MfccRows` takes sound in pieces
    of any size. Index = kind * 26 + coefficient * 2 + window. Deltas of two windows are equal, and deltas of deltas
    are 0: 13 columns are duplicates and the last 26 are zero.

    Args:
        sound: [N] in [-1, 1], mono.
        sample_rate_hz: rate of `sound`. The rows depend on it, for the highest band ends at half of it: give the
            rate that the generator was trained with.

    Returns:
        float32 [T, 78], T = ceil(N / samples per frame). An incomplete last frame is filled with zeros.

    Raises:
        FeedError: `sound` is not one row of finite numbers, or the rate is below 4000 Hz.

    Source: torchaudio `compliance.kaldi.mfcc` with `use_energy`, its other defaults and no dither, and
    `functional.compute_deltas`, per frame as PFLPosNet 6c274a2 calls them; agrees to 2e-4 on tests/golden/mfcc*.npz.
    """
    samples = _checked(sound)
    plan = _plan(sample_rate_hz)
    count = math.ceil(len(samples) / plan.frame)
    rows = np.zeros((count, MFCC_SIZE), np.float32)
    for first in range(0, count, _ROWS_AT_ONCE):
        piece = samples[first * plan.frame : (first + _ROWS_AT_ONCE) * plan.frame]
        piece = np.pad(piece, (0, -len(piece) % plan.frame))
        rows[first : first + _ROWS_AT_ONCE] = _rows(piece.reshape(-1, plan.frame), plan)
    return rows


class MfccRows:
    """MFCC rows of sound that comes in pieces of any size: together the rows that `mfcc` gives for all of it.

    Args:
        sample_rate_hz: rate of the sound.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._frame = _plan(sample_rate_hz).frame
        self._rest = np.zeros(0, np.float32)

    def push(self, sound: npt.ArrayLike) -> Float32Array:
        """float32 [T, 78] of the frames that are complete now; [0, 78] while none is."""
        samples = np.concatenate([self._rest, _checked(sound)])
        whole = len(samples) // self._frame * self._frame
        self._rest = samples[whole:].copy()
        return mfcc(samples[:whole], self._rate)

    def flush(self) -> Float32Array:
        """float32 [0 or 1, 78]: the incomplete last frame, filled with zeros. The next push starts anew."""
        rest, self._rest = self._rest, self._rest[:0]
        return mfcc(rest, self._rate)


@dataclass(frozen=True)
class _Plan:
    """What depends on the sample rate alone.

    The tables hold single precision numbers, as torchaudio computes them: what they are off by is in the features that
    the generators were trained with, and larger than the rounding of the sums, which are done in double.
    """

    frame: int
    offsets: tuple[int, ...]
    taper: Float64Array
    size: int
    bands: Float64Array
    cosines: Float64Array


def _checked(sound: npt.ArrayLike) -> Float32Array:
    samples = np.asarray(sound, np.float32)
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise FeedError(f"Sound is [N] finite samples of one channel, got {list(samples.shape)}. Mix it down first.")
    return samples


@lru_cache(maxsize=8)
def _plan(rate: int) -> _Plan:
    if rate < LOWEST_RATE_HZ:
        raise FeedError(f"MFCC need sound of at least {LOWEST_RATE_HZ} Hz, got {rate}. Resample it first.")
    frame, window, hop = int(rate / FPS), int(rate * _WINDOW_S), int(rate * _HOP_S)
    size = 1 << (window - 1).bit_length()
    return _Plan(
        frame=frame,
        offsets=(0, hop),
        taper=np.hanning(window) ** 0.85,
        size=size,
        bands=_mel_bands(rate, size),
        cosines=_cosines(),
    )


def _mel_bands(rate: int, size: int) -> Float64Array:
    """Triangles of equal width on the mel scale: [frequencies, 23]. The frequency at half the rate is left out."""
    lowest, highest = (1127 * math.log(1 + hz / 700) for hz in (_LOWEST_HZ, rate / 2))
    edges = np.float32(lowest) + np.arange(_BANDS + 2, dtype=np.float32) * np.float32((highest - lowest) / (_BANDS + 1))
    hz = np.float32(rate / size) * np.arange(size // 2, dtype=np.float32)[:, None]
    mel = np.float32(1127) * np.log(1 + hz / np.float32(700))
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bands = np.maximum(0, np.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)))
    return np.concatenate([bands, np.zeros((1, _BANDS), np.float32)]).astype(np.float64)


def _cosines() -> Float64Array:
    """Orthonormal DCT-II with the lifter: [23, 13]."""
    order = np.arange(_CEPSTRA, dtype=np.float32)
    places = np.arange(_BANDS, dtype=np.float32)[:, None] + np.float32(0.5)
    cosines = np.cos(np.float32(np.pi / _BANDS) * places * order) * np.float32(math.sqrt(2 / _BANDS))
    cosines[:, 0] *= np.float32(math.sqrt(0.5))
    lifter = 1 + np.float32(_LIFTER / 2) * np.sin(np.float32(np.pi) * order / np.float32(_LIFTER))
    return np.asarray(cosines.astype(np.float64) * lifter, np.float64)


def _rows(frames: Float32Array, plan: _Plan) -> Float64Array:
    """[T, samples] → [T, 78]."""
    values = np.stack([_cepstra(frames[:, at : at + len(plan.taper)], plan) for at in plan.offsets], axis=2)
    delta = np.repeat(_DELTA * (values[:, :, 1:] - values[:, :, :1]), 2, axis=2)
    return np.stack([values, delta, np.zeros_like(delta)], axis=1).reshape(-1, MFCC_SIZE)


def _cepstra(windows: Float32Array, plan: _Plan) -> Float64Array:
    """[T, 25 ms of samples] → [T, 13], the first of them the energy."""
    samples = windows.astype(np.float64)
    samples -= samples.mean(axis=1, keepdims=True)
    energy = np.log(np.maximum(np.square(samples).sum(axis=1), _ENERGY_FLOOR))
    before = np.concatenate([samples[:, :1], samples[:, :-1]], axis=1)
    spectrum = np.fft.rfft((samples - _PREEMPHASIS * before) * plan.taper, plan.size)
    power = spectrum.real**2 + spectrum.imag**2
    # Row by row: in one product of matrices, how a row is rounded depends on how many there are.
    cepstra = (np.log(np.maximum(power[:, None] @ plan.bands, _FLOOR)) @ plan.cosines)[:, 0]
    cepstra[:, 0] = energy
    return np.asarray(cepstra, np.float64)
