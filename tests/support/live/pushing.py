"""Pictures and sound pushed by a clock that the test holds, and what a session reads of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from support.fakes import ONE_FACE

from pflx.runtime import Face, PushSource, Timed

MS = 1_000_000
BEGIN = 50 * 1000 * MS


class Hand:
    """A clock that shows what it is set to, in ns."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> int:
        return self.now

    def at(self, time_s: float) -> None:
        self.now = BEGIN + round(time_s * 1e9)


class Daylight:
    """Finds a face in whatever is not black."""

    def detect(self, frame_rgb: Any) -> list[Face]:
        return ONE_FACE.detect(frame_rgb) if frame_rgb.any() else []


def patient(clock: Callable[[], int], **options: Any) -> PushSource:
    """A source in which everything may wait."""
    return PushSource(16_000, picture_ms=1e9, sound_ms=1e9, clock=clock, **options)


def everything(source: PushSource, track: int) -> list[Timed]:
    """All that a track gives of what was pushed."""
    found: list[Timed] = []
    box = (source._pictures, source._blocks)[track]
    reader = threading.Thread(target=lambda: found.extend(source.tracks()[track]), daemon=True)
    reader.start()
    until = time.monotonic() + 10
    while len(box._items):
        assert time.monotonic() < until
        time.sleep(0.001)
    source.close()
    reader.join(10)
    assert not reader.is_alive()
    return found


def tone(seconds: float, rate: int, hz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def sound_of_items(items: Iterable[Timed]) -> np.ndarray:
    return np.concatenate([item.audio for item in items if item.audio is not None])
