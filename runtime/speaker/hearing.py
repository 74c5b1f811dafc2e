"""What is heard of a speaker, causally and in pieces: whether somebody speaks, and at which pitch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pflx.engines import Array, Engine
from pflx.runtime.frames.arrays import Float32Array
from pflx.runtime.speaker.faces import open_packaged

MODEL_PATH = Path(__file__).parent / "data" / "silero_vad.onnx"
MODEL_SHA256 = "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85"

SAMPLE_RATE_HZ = 16_000
TICKS_PER_S = 100
BLOCK_FRAMES = 4
"""Video frames after which both ticks (10 ms) and looks of the voice network (32 ms) come out even."""

LOWEST_HZ, HIGHEST_HZ = 60.0, 400.0
"""Pitch of speech that is told. Source: the ranges of men's and women's voices, with room for a laugh."""

_TICK = SAMPLE_RATE_HZ // TICKS_PER_S
_VOICE, _VOICE_BEFORE = 512, 64  # Silero VAD at 16 kHz: samples of a look, and those before it that it sees again

_SUMMED = 400  # YIN integrates over 25 ms
_LONGEST = int(SAMPLE_RATE_HZ / LOWEST_HZ) + 1  # period in samples
_SHORTEST = int(SAMPLE_RATE_HZ / HIGHEST_HZ)
_BEFORE = _SUMMED + _LONGEST - _TICK  # samples before a tick that its pitch is told from, too
_FFT = 1024
_APERIODIC = 0.2
"""Dips of the normalised difference function above it are no period. Source: de Cheveigné & Kawahara 2002, step 4, who
take 0.1 for clean speech; of a voice outdoors that leaves little, and that noise is no voice is known otherwise.
"""


class Heard(NamedTuple):
    """What was heard in each 10 ms.

    Attributes:
        voice: float32 [T], probability that somebody speaks, 0…1.
        pitch_hz: float32 [T], 0 where the sound has no pitch.
    """

    voice: Float32Array
    pitch_hz: Float32Array


class Hearing:
    """Voice activity and pitch of sound that comes in pieces. A step is pure; nothing of what comes later is heard.

    Args:
        engine: runs the voice network; by default ONNX Runtime, one thread, on the file that comes with pflx, which
            is opened when the first sound comes.

    Raises:
        DetectorFileError: the model file is missing or its SHA-256 is wrong, at the first step.

    Source: Silero VAD 6.2 (MIT) for voices; YIN (de Cheveigné & Kawahara 2002) for pitch.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self._given = engine

    @cached_property
    def _engine(self) -> Engine:
        return self._given if self._given is not None else open_packaged(MODEL_PATH, MODEL_SHA256)

    def start(self) -> dict[str, Array]:
        """The state before the first sound: silence."""
        memory = {name: np.zeros((1, 1, 128), np.float32) for name in ("h", "c")}
        return {**memory, "sound": np.zeros(_BEFORE, np.float32)}

    def step(self, sound: Array, state: Mapping[str, Array]) -> tuple[Heard, dict[str, Array]]:
        """Hear the next piece.

        Args:
            sound: float32 [n · 2560], mono in [-1, 1] at 16 kHz: whole blocks of 160 ms.
            state: of `start`, or of the last step.

        Returns:
            What was heard in its 10 ms ticks, and the next state.
        """
        known = np.concatenate([state["sound"], sound])
        looks = _pieces(known[_BEFORE - _VOICE_BEFORE :], _VOICE + _VOICE_BEFORE, _VOICE)
        told = self._engine.run({"input": np.ascontiguousarray(looks), "h": state["h"], "c": state["c"]})
        ends = np.arange(1, len(sound) // _TICK + 1) * _TICK - 1
        heard = Heard(np.asarray(told["speech_probs"])[ends // _VOICE], pitches(known))
        return heard, {"h": told["hn"].copy(), "c": told["cn"].copy(), "sound": known[-_BEFORE:].copy()}


def pitches(sound: Array) -> Float32Array:
    """Pitch in Hz of each 10 ms by the 42 ms that end with it, float32 [T]; 0 where there is none.

    Args:
        sound: float32 [507 + T · 160] at 16 kHz; the first 507 samples came before the first tick.

    Source: de Cheveigné & Kawahara 2002, "YIN, a fundamental frequency estimator for speech and music", steps 1-5.
    """
    frames = _pieces(sound, _SUMMED + _LONGEST, _TICK).astype(np.float64)
    return _periods(_normalised(_differences(frames)))


def _pieces(sound: Array, length: int, step: int) -> Array:
    return np.lib.stride_tricks.sliding_window_view(sound, length)[::step]


def _differences(frames: Array) -> Array:
    """Squared difference of each frame's beginning and the same shifted by 0…longest period, [T, longest + 1]."""
    spectrum = np.fft.rfft(frames, _FFT)
    products = np.fft.irfft(np.conj(np.fft.rfft(frames[:, :_SUMMED], _FFT)) * spectrum, _FFT)[:, : _LONGEST + 1]
    energy = np.cumsum(np.pad(np.square(frames), ((0, 0), (1, 0))), axis=1)
    energies = energy[:, _SUMMED:] - energy[:, : _LONGEST + 1]
    return np.asarray(energies[:, :1] + energies - 2 * products)


def _normalised(differences: Array) -> Array:
    """Each difference over the mean of those of shorter shifts; 1 in silence."""
    sums = np.cumsum(differences[:, 1:], axis=1)
    shifts = np.arange(1, differences.shape[1])
    small = sums <= 1e-9  # rounding is all there is of sound
    normalised = np.where(small, 1.0, differences[:, 1:] * shifts / np.where(small, 1.0, sums))
    return np.pad(normalised, ((0, 0), (1, 0)), constant_values=1.0)


def _periods(normalised: Array) -> Float32Array:
    """The first dip that is deep enough, with a parabola through its bottom, as Hz."""
    inner = normalised[:, _SHORTEST:-1]
    is_deep = np.logical_or.accumulate(inner < _APERIODIC, axis=1)
    is_bottom = is_deep & (inner <= normalised[:, _SHORTEST + 1 :])
    rows, shift = np.arange(len(inner)), _SHORTEST + is_bottom.argmax(axis=1)
    before, bottom, after = (normalised[rows, shift + near] for near in (-1, 0, 1))
    bend = before - 2 * bottom + after
    lean = np.where(bend > 0, (before - after) / (2 * np.where(bend > 0, bend, 1.0)), 0.0)
    hz = SAMPLE_RATE_HZ / (shift + np.clip(lean, -0.5, 0.5))
    return np.where(is_bottom.any(axis=1), hz, 0.0).astype(np.float32)
