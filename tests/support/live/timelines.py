"""Sources played to a timeline as a session does it, and what holds for all that comes out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pflx.runtime.frames.timing import NS_PER_S
from pflx.runtime.live.timeline import GRACE_NS, Slot, Timeline
from pflx.runtime.media.sources import Timed

MS = 1_000_000
RATE = 16_000
START = 7 * NS_PER_S  # of the session's clock; media time has another zero
Item = tuple[float, Timed]  # when it can be read, in s from START, and what
Track = list[Item]


def picture(number: int) -> npt.NDArray[np.uint8]:
    return np.array([[[number % 256, number // 256 % 256, number // 65536]]], np.uint8)


def number_of(slot: Slot) -> int:
    low, middle, high = slot.picture[0, 0].tolist()
    return int(low + 256 * middle + 65536 * high)


def ramp(start_s: float, count: int, rate: float = RATE) -> npt.NDArray[np.float32]:
    """Sound whose samples say when they were captured: 1 + the time, modulo a second."""
    return (1 + np.modf(start_s + np.arange(count) / rate)[0]).astype(np.float32)


def pictures(stamps: Iterable[float], latency_s: float = 0.0) -> Track:
    return [(stamp + latency_s, Timed(stamp, video=picture(index))) for index, stamp in enumerate(stamps)]


def sounds(stamps: Sequence[float], length: int = 640, latency_s: float = 0.0, rate: int = RATE) -> Track:
    """Blocks that can be read at their end."""
    return [(stamp + length / rate + latency_s, Timed(stamp, audio=ramp(stamp, length, rate))) for stamp in stamps]


def at_once(track: Track) -> Track:
    return [(0.0, item) for _, item in track]


def every(step_s: float, until_s: float, start_s: float = 0.0) -> list[float]:
    return [start_s + k * step_s for k in range(math.ceil((until_s - start_s) / step_s - 1e-9))]


def moved(track: Track, media_s: float = 0.0, arrival_s: float = 0.0) -> Track:
    return [(at + arrival_s, Timed(item.time_s + media_s, item.video, item.audio)) for at, item in track]


@dataclass(repr=False)
class Run:
    """A timeline, the time, and all slots with the moment in which they were closed, in s from START."""

    timeline: Timeline
    now: int = START
    slots: list[Slot] = field(default_factory=list)
    closed_s: list[float] = field(default_factory=list)

    def look(self) -> None:
        for slot in self.timeline.ready(self.now):
            self.slots.append(slot)
            self.closed_s.append((self.now - START) / NS_PER_S)

    def go_to(self, time: int) -> None:
        while (look := self.timeline.next_look()) is not None and look <= time:
            self.now = max(self.now, look)
            before = len(self.slots)
            self.look()
            assert len(self.slots) > before, "next_look promised a slot"
        self.now = max(self.now, time)


def play(
    *tracks: Track, live: bool = True, first: int = 0, end: bool = False, until_s: float = 0.0, rate: int = RATE
) -> Run:
    """What a session does with its tracks, each read by a reader of its own."""
    run = Run(Timeline(live=live, first=first, sample_rate_hz=rate))
    places = [0] * len(tracks)
    held: list[Timed | None] = [None] * len(tracks)

    def ready_at(index: int) -> int | None:
        item = held[index]
        if item is not None:
            return run.now if live else max(run.now, run.timeline.due(index, item))
        if places[index] == len(tracks[index]):
            return None
        return max(run.now, START + round(tracks[index][places[index]][0] * NS_PER_S))

    while events := [(at, index) for index in range(len(tracks)) if (at := ready_at(index)) is not None]:
        at, index = min(events)
        run.go_to(at)
        item = held[index]
        if item is None:
            held[index] = tracks[index][places[index]][1]
            places[index] += 1
            run.timeline.observe(index, held[index], run.now)  # type: ignore[arg-type]
        elif at <= run.now:
            run.timeline.add(index, item, run.now)
            held[index] = None
            run.look()
    run.go_to(START + round(until_s * NS_PER_S))
    if end:
        run.timeline.end()
        run.look()
    check(run, first, end, rate)
    return run


def check(run: Run, first: int = 0, ended: bool = False, rate: int = RATE) -> None:
    """What holds for every run."""
    slots = run.slots
    assert [slot.number for slot in slots] == list(range(first, first + len(slots)))
    scheduled = [slot.scheduled for slot in slots]
    assert scheduled == sorted(scheduled)
    assert all(slot.sound.shape == (rate // 25,) and slot.sound.dtype == np.float32 for slot in slots)
    assert all(slot.picture.shape == slots[0].picture.shape for slot in slots)
    for slot, closed_s in zip(slots, run.closed_s, strict=True):
        closed = START + round(closed_s * NS_PER_S)
        assert slot.read <= closed
        assert ended or 0 <= closed - slot.scheduled <= GRACE_NS + MS  # the clock moves by up to 1 ms


def on_grid(slots: Sequence[Slot]) -> bool:
    steps = np.diff([slot.time_s for slot in slots])
    return bool(np.allclose(steps, 0.04, atol=1e-6))


def heard_s(slot: Slot) -> npt.NDArray[np.float64]:
    """By how much each sample was captured later than its place in the slot says; NaN for silence."""
    place = slot.time_s + np.arange(len(slot.sound)) / (25 * len(slot.sound))
    apart = (slot.sound.astype(np.float64) - 1 - place + 0.5) % 1 - 0.5
    return np.where(slot.sound > 0.5, apart, np.nan)
