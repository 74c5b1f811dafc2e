"""What speakers are heard with: a dialogue, a speech and white noise, all at 16 kHz."""

from __future__ import annotations

from functools import cache

import av
import numpy as np
from support.places import MEDIA

from pflx.engines import Array
from pflx.runtime.media.clip import open_speaker

RATE_HZ = 16_000


@cache
def dialogue() -> Array:
    """19 s in which two speak in turns."""
    with av.open(str(MEDIA / "dialogue_19s.flac")) as container:
        frames = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32) / 32768


@cache
def podium() -> Array:
    """8 s of a speech."""
    chunks = open_speaker(MEDIA / "podium_speech_8s.mp4", RATE_HZ).chunks()
    return np.concatenate([chunk.audio for chunk in chunks])


def white_noise(seconds: float, level: float = 0.1) -> Array:
    """Noise, the same every time."""
    return np.asarray(level * np.random.default_rng(0).standard_normal(int(seconds * RATE_HZ)), np.float32)
