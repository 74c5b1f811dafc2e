"""The media clock of a live session: time-stamped pictures and sound of any rate → 25 fps slots on one clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pflx.engines import FeedError
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.timing import FPS, NS_PER_S, SAMPLE_RATE_HZ, samples_per_frame
from pflx.runtime.media.pictures import fit_picture
from pflx.runtime.media.sources import Timed
from pflx.runtime.stream.inbox import check_sound, described

GRACE_NS = 60_000_000
"""How long after its end a slot waits for a picture or sound that is late, before it goes on without."""

_LEAP_S = 1.0  # a step between the stamps of neighbours that is no pause of a camera but another time line ...
_AWAY_NS = NS_PER_S // 5  # ... if it also leads so far away from now; and nothing live can come so early
_MEMORY_NS = NS_PER_S  # late for so long: the source was held up, and stays behind
_SLEW = 1e-3  # the clock follows a source whose clock runs up to 1000 ppm fast or slow
_SOUND_GONE_NS = NS_PER_S // 2  # no slot waits for sound that has not been heard for so long
_SOUND_STEP_S = 0.02  # stamps within it are jitter or drift; beyond it sound is missing or doubled
_SMOOTHING_S = 0.8  # time constant of the running mean of the sound's offset
_DARK_NS = NS_PER_S  # who is heard for so long before any picture comes has no camera
_DARK_SIDE = 640  # of the black square that then stands for pictures
_OFFSET_S = 0.001  # a mean offset beyond it is worked off ...
_STRETCH = 0.01  # ... by making the sound up to 1 % longer or shorter


class MediaClock:
    """Where the speaker's media time is on the session's monotonic clock.

    The first item sets it. From then on it follows a source whose clock drifts, by at most 1 ms a second. It starts
    anew where the time stamps leap by more than a second, where everything has come late for a second, and where
    something live comes early, for then all before it was late. When one track leaps, the others are on a time line
    that was left until they leap too.

    Attributes:
        reanchored: how often it started anew.
    """

    def __init__(self, *, live: bool) -> None:
        self.reanchored = 0
        self._live = live
        self._zero: int | None = None  # monotonic time of media time 0
        self._line = 0
        self._lines: dict[int, int] = {}  # by track
        self._spans_s: dict[int, tuple[float, float]] = {}  # by track, of its last item
        self._zeros: deque[tuple[int, int]] = deque()  # by time, rising: the earliest zeros that items spoke for lately
        self._late_since: int | None = None
        self._followed = 0

    def at(self, time_s: float) -> int:
        """When media time `time_s` is, in ns."""
        assert self._zero is not None, "no item came yet"
        return self._zero + round(time_s * NS_PER_S)

    def time_s(self, now: int) -> float:
        """Media time now."""
        return (now - self.at(0)) / NS_PER_S

    def counts(self, track: int) -> bool:
        """Whether the last item of a track is on this time line, not on one that was left."""
        return self._lines[track] == self._line

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
        # A live item has just been captured; an item of a file begins now.
        zero = now - round((end_s if self._live else start_s) * NS_PER_S)
        steps = self._steps(track, start_s, end_s)
        leaps = steps and self._is_away(start_s, end_s, now)
        self._line += leaps
        if steps or track not in self._lines:
            self._lines[track] = self._line
        if not self.counts(track):
            return False
        if self._zero is None or leaps or self._is_off(zero, now):
            self.reanchored += self._zero is not None
            self._zero, self._followed, self._late_since = zero, now, None
            self._zeros.clear()
            return True
        self._follow(zero, now)
        return False

    def _steps(self, track: int, start_s: float, end_s: float) -> bool:
        """Whether an item does not go on where its track was."""
        before = self._spans_s.get(track, (start_s, start_s))
        self._spans_s[track] = start_s, end_s
        return max(before[0] - start_s, start_s - before[1]) > _LEAP_S

    def _is_away(self, start_s: float, end_s: float, now: int) -> bool:
        """Whether an item has nothing to do with now. One of a file may be early by as much as the last was long."""
        return max(self.at(2 * start_s - end_s) - now, now - self.at(end_s)) > _AWAY_NS

    def _is_off(self, zero: int, now: int) -> bool:
        """Whether an item is earlier than it can be, or all have been late for long."""
        late = zero - self.at(0)
        if late <= GRACE_NS:
            self._late_since = None
        elif self._late_since is None:
            self._late_since = now
        behind = self._late_since is not None and now - self._late_since > _MEMORY_NS
        return behind or (self._live and late < -_AWAY_NS)

    def _follow(self, zero: int, now: int) -> None:
        """Move towards the items of the last second that came with the least delay."""
        assert self._zero is not None
        while self._zeros and self._zeros[-1][1] >= zero:
            self._zeros.pop()
        self._zeros.append((now, zero))
        while now - self._zeros[0][0] > _MEMORY_NS:
            self._zeros.popleft()
        lag = self._zeros[0][1] - self._zero
        if not self._live:
            lag = max(lag, 0)  # items of a file are early by nature, and wait
        most = round(min(now - self._followed, _MEMORY_NS) * _SLEW)
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
        sound: float32 [sample rate / 25].
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

    A picture belongs to the slot whose start it is nearest to, and of several the nearest is taken. A slot is complete
    at its end, when a picture for it or a later one has come and all its sound; what it still lacks `GRACE_NS` after
    its end, it goes on without: the last picture is repeated, and sound that is missing is silence. So a source that
    stalls goes on as a speaker who sits still. Sound whose clock drifts against the pictures' is stretched until it
    fits again. All pictures get the size of the first.

    A speaker without a camera is one of whom a source says so (`Timed.dark`), or who is heard for a second before any
    picture comes: slots go on in the dark, without waiting for pictures, until one comes.

    Args:
        live: see `Source`.
        first: number of the first slot.
        sample_rate_hz: of the items' sound and of the slots', a multiple of 25.
    """

    def __init__(self, *, live: bool, first: int = 0, sample_rate_hz: int = SAMPLE_RATE_HZ) -> None:
        self.clock = MediaClock(live=live)
        self._rate_hz = sample_rate_hz
        self._number = first
        self._start_s: float | None = None  # media time of slot `_base`; None until a picture comes
        self._base = first
        self._pictures: deque[_Picture] = deque()  # of slots that are not closed
        self._last: UInt8Array | None = None
        self._dark = False  # no picture is waited for
        self._heard: int | None = None  # when the first sound came
        self._sound = _SoundTrack(0, sample_rate_hz)
        self._read = 0
        self._ended = False

    @property
    def next_slot(self) -> int:
        """Number of the slot that is not complete yet."""
        return self._number

    def observe(self, track: int, item: Timed, now: int) -> None:
        """Let the clock see an item as it is read; call `add` once it is due, before the track's next one is read."""
        _check(item)
        scheduled = None if self._start_s is None else self._scheduled()
        if self.clock.observe(track, item.time_s, _end_s(item, self._rate_hz), now):
            self._sound = _SoundTrack(now, self._rate_hz)
            if scheduled is not None:
                self._start_anew(scheduled)

    def due(self, track: int, item: Timed) -> int:
        """When an item begins by its own time stamp, in ns; the zero of all times if that means nothing any more."""
        return self.clock.at(item.time_s) if self.clock.counts(track) else 0

    def add(self, track: int, item: Timed, now: int) -> None:
        """Take an item in. Dropped is what belongs to slots that are closed, and what a leap in time has overtaken."""
        if not self.clock.counts(track):
            return
        self._read = now
        if item.video is not None:
            self._add_picture(item.time_s, item.video, item.dark, now)
        if item.audio is not None:
            self._sound.add(item.time_s, item.audio, now)
            if self._start_s is None:  # no slot takes any sound yet
                self._heard = now if self._heard is None else self._heard
                self._sound.forget(item.time_s - 1)

    def end(self) -> None:
        """No more will come: what is there fills the last slots."""
        self._ended = True
        if self._start_s is None and self._heard is not None and (start_s := self._sound.start_s) is not None:
            self._go_dark(start_s)

    def ready(self, now: int) -> Iterator[Slot]:
        """The slots that are complete by now, or will not get any better."""
        if self._start_s is None and self._heard is not None and now - self._heard >= _DARK_NS:
            self._go_dark(self.clock.time_s(now - GRACE_NS) - 1 / FPS)
        while self._start_s is not None and self._is_ready(now):
            yield self._close_slot()

    def next_look(self) -> int | None:
        """When the next slot will be ready if nothing more comes, in ns; None while nothing is known of the speaker."""
        if self._start_s is None and self._heard is not None:
            return self._heard + _DARK_NS
        if self._start_s is None or self._ended:
            return None
        scheduled = self._scheduled()
        return scheduled if self._is_complete(scheduled) else scheduled + GRACE_NS

    def _go_dark(self, start_s: float) -> None:
        """Begin without a picture."""
        self._start_s, self._dark = start_s, True
        self._last = np.zeros((_DARK_SIDE, _DARK_SIDE, 3), np.uint8)

    def _start_anew(self, scheduled: int) -> None:
        """Let the slots go on in time, whatever the stamps do."""
        if self._pictures:
            self._last, self._dark = self._pictures[-1].picture, self._pictures[-1].dark
        self._pictures.clear()
        self._base, self._start_s = self._number, self.clock.time_s(scheduled) - 1 / FPS

    def _time_s(self) -> float:
        assert self._start_s is not None
        return self._start_s + (self._number - self._base) / FPS

    def _scheduled(self) -> int:
        return self.clock.at(self._time_s() + 1 / FPS)

    def _is_ready(self, now: int) -> bool:
        if self._ended:
            begun = self._dark and self._sound.reaches(self._time_s() + 1 / self._rate_hz)
            return bool(self._pictures) or begun
        late = now - self._scheduled()
        return late >= GRACE_NS or (late >= 0 and self._is_complete(now))

    def _is_seen(self) -> bool:
        return bool(self._pictures) or self._dark

    def _is_complete(self, now: int) -> bool:
        heard = self._sound.reaches(self._time_s() + 1 / FPS) or self._sound.is_gone(now)
        return self._is_seen() and heard

    def _close_slot(self) -> Slot:
        if self._pictures and self._pictures[0].slot == self._number:
            shown = self._pictures.popleft()
            self._last, self._dark = shown.picture, shown.dark
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

    def _add_picture(self, time_s: float, picture: UInt8Array, dark: bool, now: int) -> None:
        if self._last is None:
            self._last = picture
        picture = fit_picture(picture, (self._last.shape[1], self._last.shape[0]))
        if self._start_s is None:  # what is late already must not make up for all the time that it took
            self._start_s = max(time_s, self.clock.time_s(now) - 1 / FPS)
        place = self._base + (time_s - self._start_s) * FPS
        new = _Picture(math.floor(place + 0.5), abs(place - math.floor(place + 0.5)), picture, dark)
        if new.slot < self._number:  # too late for its own slot, but newer than what the next ones would repeat
            self._last, self._dark = picture, dark
        elif not self._pictures or new.slot > self._pictures[-1].slot:
            self._pictures.append(new)
        elif new.slot == self._pictures[-1].slot and new.distance < self._pictures[-1].distance:
            self._pictures[-1] = new


@dataclass(frozen=True)
class _Picture:
    """A picture, the slot it belongs to, and how far it is from the slot's start, in slots; `dark` as of `Timed`."""

    slot: int
    distance: float
    picture: UInt8Array
    dark: bool


class _SoundTrack:
    """Sound by media time: gaps are silence, overlaps are cut, and drift is worked off.

    Args:
        now: in ns; from then on it may take as long to be heard as it may pause.
        rate_hz: samples per second.
    """

    def __init__(self, now: int, rate_hz: int) -> None:
        self.start_s: float | None = None  # media time of the first sample
        self._rate_hz, self._per_frame = rate_hz, samples_per_frame(rate_hz)
        self._samples = np.zeros(0, np.float32)
        self._offset_s = 0.0
        self._room = 0.0  # samples by which the sound may be stretched now
        self._broken = False  # it ran out, so that nothing has to fit to it
        self._heard = now

    @property
    def offset_ns(self) -> int:
        """How far the sound is ahead of its stamps, smoothed."""
        return round(self._offset_s * NS_PER_S)

    def reaches(self, time_s: float) -> bool:
        """Whether the sound is there up to `time_s`."""
        return self.start_s is not None and self._end_s() >= time_s - 0.5 / self._rate_hz

    def is_gone(self, now: int) -> bool:
        """Whether there is no sound to wait for."""
        return now - self._heard > _SOUND_GONE_NS

    def add(self, time_s: float, samples: Float32Array, now: int) -> None:
        """Append a block by its stamp."""
        self._heard = now
        if self.start_s is None or time_s - self._end_s() > _LEAP_S:
            self.start_s, self._samples, self._broken = time_s, np.zeros(0, np.float32), False
        offset_s = time_s - self._end_s()
        if self._broken or abs(offset_s) > _SOUND_STEP_S:
            samples = self._mend(round(offset_s * self._rate_hz), samples)
            self._offset_s = 0.0
        else:
            weight = min(1.0, len(samples) / self._rate_hz / _SMOOTHING_S)
            self._offset_s += weight * (offset_s - self._offset_s)
            samples = self._stretch(samples)
        self._broken = self._broken and not len(samples)
        self._samples = np.concatenate([self._samples, samples])

    def take(self, time_s: float) -> Float32Array:
        """The 40 ms from `time_s` on; silence where there is nothing."""
        sound = np.zeros(self._per_frame, np.float32)
        if self.start_s is None:
            return sound
        skip = round((time_s - self.start_s) * self._rate_hz)
        heard = self._samples[max(skip, 0) : max(skip + self._per_frame, 0)]
        begin = max(-skip, 0)
        sound[begin : begin + len(heard)] = heard
        self.forget(time_s + 1 / FPS)
        return sound

    def forget(self, time_s: float) -> None:
        """Drop all before `time_s`; what still comes for it is too late."""
        if self.start_s is None:
            return
        count = round((time_s - self.start_s) * self._rate_hz)
        if count > len(self._samples):
            self.start_s, self._samples, self._broken = time_s, self._samples[:0], True
        elif count > 0:
            self.start_s, self._samples = self.start_s + count / self._rate_hz, self._samples[count:]

    def _end_s(self) -> float:
        assert self.start_s is not None
        return self.start_s + len(self._samples) / self._rate_hz

    def _mend(self, missing: int, samples: Float32Array) -> Float32Array:
        """A block that follows what there is: with silence before it, or without what came already."""
        return np.concatenate([np.zeros(max(missing, 0), np.float32), samples[max(-missing, 0) :]])

    def _stretch(self, samples: Float32Array) -> Float32Array:
        """A block that is a little longer where the sound runs ahead, shorter where it lags."""
        self._room = min(self._room, 1.0) + len(samples) * _STRETCH
        if abs(self._offset_s) <= _OFFSET_S or not len(samples):
            return samples
        most = int(self._room)
        change = max(-most, min(most, round(self._offset_s * self._rate_hz)))
        if not change:
            return samples
        self._room -= abs(change)
        self._offset_s -= change / self._rate_hz
        places = np.linspace(0, len(samples) - 1, len(samples) + change)
        return np.interp(places, np.arange(len(samples)), samples).astype(np.float32)


def _end_s(item: Timed, rate_hz: int) -> float:
    return item.time_s + (0 if item.audio is None else len(item.audio) / rate_hz)


def _check(item: Timed) -> None:
    if not np.isfinite(item.time_s):
        raise FeedError(f"A speaker item has the time stamp {item.time_s}; give seconds on the source's clock.")
    if item.video is None and item.audio is None:
        raise FeedError(f"The speaker item at {item.time_s:.3f} s holds neither a picture nor sound.")
    if item.video is not None:
        shape, dtype = described(item.video)
        if shape is None or dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise FeedError(f"A speaker picture is uint8 [H, W, 3] RGB, got {dtype} {list(shape or ())}.")
    if item.audio is not None:
        check_sound(item.audio)
