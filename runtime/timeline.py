"""The media clock of a live session: time-stamped pictures and sound of any rate → 25 fps slots on one clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pflx.engines import FeedError
from pflx.runtime.inbox import Float32Array, UInt8Array
from pflx.runtime.media import FPS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, fit_picture
from pflx.runtime.sources import Timed

SECOND = 1_000_000_000
FRAME_NS = SECOND // FPS
GRACE_NS = FRAME_NS
"""How long after its end a slot waits for a picture or sound that is late, before it goes on without."""

_LEAP_S = 1.0  # a step between the stamps of neighbours that is no pause of a camera but another time line
_LATE_NS = SECOND // 5  # all items of the last second later than this: the source was held up, and stays behind
_MEMORY_NS = SECOND
_SLEW = 1e-3  # the clock follows a source whose clock runs up to 1000 ppm fast or slow
_SOUND_GONE_NS = SECOND // 2  # no slot waits for sound that has not been heard for so long
_SOUND_STEP_S = 0.02  # stamps within it are jitter or drift; beyond it sound is missing or doubled
_SMOOTHING = 0.05  # weight of a new block in the running mean of the sound's offset
_OFFSET_S = 0.001  # a mean offset beyond it is worked off ...
_STRETCH = 0.01  # ... by making a block up to 1 % longer or shorter


class MediaClock:
    """Where the speaker's media time is on the session's monotonic clock.

    The first item sets it. From then on it follows a source whose clock drifts, by at most 1 ms a second, and starts
    anew where the time stamps leap by more than a second or everything has come late for a second.

    Attributes:
        reanchored: how often it started anew.
    """

    def __init__(self, *, live: bool) -> None:
        self.reanchored = 0
        self._live = live
        self._zero: int | None = None  # monotonic time of media time 0
        self._late: deque[tuple[int, int]] = deque()  # when an item came, and how late, over the last second
        self._ends_s: dict[int, float] = {}
        self._followed = 0

    def at(self, time_s: float) -> int:
        """When media time `time_s` is, in ns."""
        assert self._zero is not None, "no item came yet"
        return self._zero + round(time_s * SECOND)

    def observe(self, track: int, start_s: float, end_s: float, now: int) -> bool:
        """Take note of an item that was read now.

        Args:
            track: of which track.
            start_s: its time stamp.
            end_s: when its last sample was captured; `start_s` for a picture.
            now: in ns.

        Returns:
            Whether the clock started anew with it.
        """
        expected_s = self._ends_s.get(track, start_s)
        self._ends_s[track] = end_s
        if self._zero is None:
            self._anchor(start_s, end_s, now)
            return True
        late = now - self.at(end_s)
        leapt = abs(start_s - expected_s) > _LEAP_S and abs(late) > _LATE_NS
        self._remember(now, late)
        if leapt or self._is_behind():
            self.reanchored += 1
            self._anchor(start_s, end_s, now)
            return True
        self._follow(now)
        return False

    def _anchor(self, start_s: float, end_s: float, now: int) -> None:
        # A live item has just been captured; an item of a file begins now.
        self._zero = now - round((end_s if self._live else start_s) * SECOND)
        self._late.clear()
        self._followed = now

    def _remember(self, now: int, late: int) -> None:
        self._late.append((now, late))
        while now - self._late[0][0] > _MEMORY_NS:
            self._late.popleft()

    def _is_behind(self) -> bool:
        full = self._late[-1][0] - self._late[0][0] > 0.9 * _MEMORY_NS
        return full and min(late for _, late in self._late) > _LATE_NS

    def _follow(self, now: int) -> None:
        """Move towards the items that came with the least delay."""
        assert self._zero is not None
        lag = min(late for _, late in self._late)
        if not self._live:
            lag = max(lag, 0)  # items of a file are early by nature, and wait
        most = round((now - self._followed) * _SLEW)
        self._zero += max(-most, min(most, lag))
        self._followed = now


@dataclass(frozen=True)
class Slot:
    """One 25 fps frame of the speaker with its sound.

    Attributes:
        number: consecutive.
        time_s: of its start on the speaker's media clock.
        scheduled: its end on the session's clock, when its sound is complete, in ns.
        read: when the last of it was read.
        picture: uint8 [H, W, 3] RGB.
        sound: float32 [640].
        av_offset_ns: see `Ledger`.
    """

    number: int
    time_s: float
    scheduled: int
    read: int
    picture: UInt8Array
    sound: Float32Array
    av_offset_ns: int


class Timeline:
    """Puts pictures and sound into slots by their time stamps; no slot is ever missing.

    A picture belongs to the slot whose start it is nearest to; of several the first is taken, for waiting would delay
    the rest. A slot that no picture came for repeats the last one, and sound that is missing is silence, `GRACE_NS`
    after its end. So a source that stalls goes on as a speaker who sits still. Sound whose clock drifts against the
    pictures' is stretched until it fits again. All pictures get the size of the first.

    Args:
        live: see `Source`.
        first: number of the first slot.
    """

    def __init__(self, *, live: bool, first: int = 0) -> None:
        self.clock = MediaClock(live=live)
        self._number = first
        self._start_s: float | None = None  # media time of slot `_base`; None until a picture comes
        self._base = first
        self._pictures: deque[tuple[int, UInt8Array, int]] = deque()  # slot, picture, when read
        self._last: UInt8Array | None = None
        self._sound = _SoundTrack(0)
        self._read = 0
        self._ended = False

    def observe(self, track: int, item: Timed, now: int) -> None:
        """Let the clock see an item as it is read; call `add` once it is due."""
        _check(item)
        if self.clock.observe(track, item.time_s, _end_s(item), now):
            self._start_s = None
            self._base = self._number
            self._pictures.clear()
            self._sound = _SoundTrack(now)

    def due(self, item: Timed) -> int:
        """When the last of an item is there by its own time stamps, in ns."""
        return self.clock.at(_end_s(item))

    def add(self, item: Timed, now: int) -> None:
        """Take an item in; what belongs to slots that are closed is dropped."""
        self._read = now
        if item.video is not None:
            self._add_picture(item.time_s, item.video, now)
        if item.audio is not None:
            self._sound.add(item.time_s, item.audio, now)

    def end(self) -> None:
        """No more will come: what is there fills the last slots."""
        self._ended = True

    def ready(self, now: int) -> Iterator[Slot]:
        """The slots that are complete by now, or will not get any better."""
        while self._start_s is not None and self._is_ready(now):
            yield self._close_slot()

    def next_look(self) -> int | None:
        """When a slot goes on without what it waits for, in ns; None while nothing is known of the speaker."""
        if self._start_s is None or self._ended:
            return None
        return self._scheduled() + GRACE_NS

    def _time_s(self) -> float:
        assert self._start_s is not None
        return self._start_s + (self._number - self._base) / FPS

    def _scheduled(self) -> int:
        return self.clock.at(self._time_s() + 1 / FPS)

    def _is_ready(self, now: int) -> bool:
        seen = bool(self._pictures) and self._pictures[-1][0] >= self._number
        if self._ended:
            return seen
        if now >= self._scheduled() + GRACE_NS:
            return True
        heard = self._sound.reaches(self._time_s() + 1 / FPS) or self._sound.is_gone(now)
        return seen and heard

    def _close_slot(self) -> Slot:
        if self._pictures and self._pictures[0][0] <= self._number:
            _, self._last, read = self._pictures.popleft()
            self._read = max(self._read, read)
        assert self._last is not None
        slot = Slot(
            number=self._number,
            time_s=self._time_s(),
            scheduled=self._scheduled(),
            read=self._read,
            picture=self._last,
            sound=self._sound.take(self._time_s()),
            av_offset_ns=self._sound.offset_ns,
        )
        self._number += 1
        return slot

    def _add_picture(self, time_s: float, picture: UInt8Array, now: int) -> None:
        if self._last is not None:
            picture = fit_picture(picture, (self._last.shape[1], self._last.shape[0]))
        if self._start_s is None:
            self._start_s = time_s
            self._last = picture if self._last is None else self._last
        slot = self._base + round((time_s - self._start_s) * FPS)
        newest = self._pictures[-1][0] if self._pictures else self._number - 1
        if slot > newest:
            self._pictures.append((slot, picture, now))


class _SoundTrack:
    """Sound by media time: gaps are silence, overlaps are cut, and drift is worked off.

    Args:
        now: in ns; from then on it may take as long to be heard as it may pause.
    """

    def __init__(self, now: int) -> None:
        self._samples = np.zeros(0, np.float32)
        self._start_s: float | None = None  # media time of the first sample
        self._offset_s = 0.0
        self._heard = now

    @property
    def offset_ns(self) -> int:
        """How far the sound is ahead of its stamps, smoothed."""
        return round(self._offset_s * SECOND)

    def reaches(self, time_s: float) -> bool:
        """Whether the sound is there up to `time_s`."""
        return self._start_s is not None and self._end_s() >= time_s - 0.5 / SAMPLE_RATE_HZ

    def is_gone(self, now: int) -> bool:
        """Whether there is no sound to wait for."""
        return now - self._heard > _SOUND_GONE_NS

    def add(self, time_s: float, samples: Float32Array, now: int) -> None:
        """Append a block by its stamp."""
        self._heard = now
        if self._start_s is None:
            self._start_s = time_s
        offset_s = time_s - self._end_s()
        if abs(offset_s) > _SOUND_STEP_S:
            samples = self._mend(round(offset_s * SAMPLE_RATE_HZ), samples)
            self._offset_s = 0.0
        else:
            self._offset_s += _SMOOTHING * (offset_s - self._offset_s)
            samples = self._stretch(samples)
        self._samples = np.concatenate([self._samples, samples])

    def take(self, time_s: float) -> Float32Array:
        """The 40 ms from `time_s` on; silence where there is nothing."""
        sound = np.zeros(SAMPLES_PER_FRAME, np.float32)
        if self._start_s is None:
            return sound
        skip = round((time_s - self._start_s) * SAMPLE_RATE_HZ)
        heard = self._samples[max(skip, 0) : max(skip + SAMPLES_PER_FRAME, 0)]
        begin = max(-skip, 0)
        sound[begin : begin + len(heard)] = heard[: max(SAMPLES_PER_FRAME - begin, 0)]
        used = min(max(skip + SAMPLES_PER_FRAME, 0), len(self._samples))
        self._samples = self._samples[used:]
        self._start_s += used / SAMPLE_RATE_HZ
        if not len(self._samples):
            self._start_s = max(self._start_s, time_s + 1 / FPS)  # what comes later for this slot is too late
        return sound

    def _end_s(self) -> float:
        assert self._start_s is not None
        return self._start_s + len(self._samples) / SAMPLE_RATE_HZ

    def _mend(self, missing: int, samples: Float32Array) -> Float32Array:
        if missing <= 0:
            return samples[-missing:]
        if not len(self._samples):
            assert self._start_s is not None
            self._start_s += missing / SAMPLE_RATE_HZ
            return samples
        return np.concatenate([np.zeros(missing, np.float32), samples])

    def _stretch(self, samples: Float32Array) -> Float32Array:
        """A block that is a little longer where the sound runs ahead, shorter where it lags."""
        if abs(self._offset_s) <= _OFFSET_S:
            return samples
        most = int(len(samples) * _STRETCH)
        change = max(-most, min(most, round(self._offset_s * SAMPLE_RATE_HZ)))
        if not change:
            return samples
        self._offset_s -= change / SAMPLE_RATE_HZ
        places = np.linspace(0, len(samples) - 1, len(samples) + change)
        return np.interp(places, np.arange(len(samples)), samples).astype(np.float32)


def _end_s(item: Timed) -> float:
    return item.time_s + (0 if item.audio is None else len(item.audio) / SAMPLE_RATE_HZ)


def _check(item: Timed) -> None:
    if not np.isfinite(item.time_s):
        raise FeedError(f"A speaker item has the time stamp {item.time_s}; give seconds on the source's clock.")
    if item.video is None and item.audio is None:
        raise FeedError(f"The speaker item at {item.time_s:.3f} s holds neither a picture nor sound.")
    if item.video is not None and (item.video.ndim != 3 or item.video.shape[2] != 3 or item.video.dtype != np.uint8):
        raise FeedError(f"A speaker picture is uint8 [H, W, 3] RGB, got {item.video.dtype} {list(item.video.shape)}.")
    if item.audio is not None and (item.audio.ndim != 1 or item.audio.dtype != np.float32):
        raise FeedError(f"Sound is float32 [N], 16 kHz mono, got {item.audio.dtype} {list(item.audio.shape)}.")
