"""Make tests/golden/mfcc*.npz: python tests/make_mfcc_golden.py REFERENCE_DIR. Needs torch and torchaudio.

16 and 44.1 kHz are the fixtures of PFLPosNet's speaker features. 48 kHz is computed here, frame by frame, with
torchaudio's Kaldi functions, after they gave the same numbers as the fixtures for the other two.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torchaudio.compliance.kaldi  # pyright: ignore[reportMissingImports]
import torchaudio.functional  # pyright: ignore[reportMissingImports]
from support.places import GOLDEN

Float32Array = npt.NDArray[np.float32]


def mfcc_by_torchaudio(sound: Float32Array, rate: int) -> Float32Array:
    samples = int(rate / 25)
    padded = np.pad(sound, (0, -len(sound) % samples))
    rows = []
    for chunk in torch.split(torch.from_numpy(padded), samples):
        values = torchaudio.compliance.kaldi.mfcc(chunk[None], sample_frequency=rate, use_energy=True).t()
        delta = torchaudio.functional.compute_deltas(values)
        rows.append(torch.stack([values, delta, torchaudio.functional.compute_deltas(delta)]).flatten())
    return np.asarray(torch.stack(rows).numpy(), np.float32)


def main(reference: Path) -> None:
    for rate in (16000, 44100):
        case = np.load(reference / "perfrdiff" / f"case_mfcc{rate}.npz")
        np.testing.assert_allclose(mfcc_by_torchaudio(case["waveform"], rate), case["mfcc78"], rtol=0, atol=1e-6)
        np.savez_compressed(GOLDEN / f"mfcc{rate}.npz", waveform=case["waveform"], mfcc78=case["mfcc78"])
    sound = swept_noise(48000)
    np.savez_compressed(GOLDEN / "mfcc48000.npz", waveform=sound, mfcc78=mfcc_by_torchaudio(sound, 48000))


def swept_noise(rate: int) -> Float32Array:
    """11.6 frames of voice-like sound: noise and a tone that swells, then silence, then noise again."""
    random = np.random.default_rng(7)
    seconds = np.arange(int(rate * 11.6 / 25)) / rate
    swell = (1 + np.sin(6 * np.pi * seconds)) / 2
    sound = 0.3 * swell * np.sin(2 * np.pi * 180 * seconds) + 0.05 * random.standard_normal(len(seconds))
    sound[rate // 5 : rate // 4] = 0
    return sound.astype(np.float32)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
