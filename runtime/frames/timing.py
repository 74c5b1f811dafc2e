"""The one clock of everything inside: 25 frames a second, and the samples of sound that belong to a frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pflx.engines import FeedError

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

FPS = 25
"""Frames per second of everything inside pflx."""
FRAME_NS = NS_PER_S // FPS
"""Time from one frame to the next."""
SAMPLE_RATE_HZ = 16_000
"""Audio samples per second where nobody asks for another rate; a bundle's manifest says what its generator hears."""

Clock: TypeAlias = Callable[[], int]
"""Monotonic time in ns."""


def samples_per_frame(sample_rate_hz: int) -> int:
    """Samples of sound that belong to one picture.

    Raises:
        FeedError: the rate is no multiple of 25 Hz, so that frames would not all have the same number.
    """
    if sample_rate_hz <= 0 or sample_rate_hz % FPS:
        raise FeedError(f"A sample rate of {sample_rate_hz} Hz is no multiple of {FPS}. Take 16000, 44100 or 48000.")
    return sample_rate_hz // FPS
