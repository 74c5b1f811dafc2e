"""Slots out of pictures and sound of any rate, order and delay."""

from __future__ import annotations

import math
import re
import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pflx.engines import FeedError
from pflx.runtime.sources import Timed
from pflx.runtime.timeline import FRAME_NS, GRACE_NS, SECOND, Slot, Timeline

MS = 1_000_000
RATE = 16_000
START = 7 * SECOND  # of the session's clock; media time has another zero
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


def sounds(stamps: Sequence[float], length: int = 640, latency_s: float = 0.0) -> Track:
    """Blocks that can be read at their end."""
    return [(stamp + length / RATE + latency_s, Timed(stamp, audio=ramp(stamp, length))) for stamp in stamps]


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
            self.closed_s.append((self.now - START) / SECOND)

    def go_to(self, time: int) -> None:
        while (look := self.timeline.next_look()) is not None and look <= time:
            self.now = max(self.now, look)
            before = len(self.slots)
            self.look()
            assert len(self.slots) > before, "next_look promised a slot"
        self.now = max(self.now, time)


def play(*tracks: Track, live: bool = True, first: int = 0, end: bool = False, until_s: float = 0.0) -> Run:
    """What a session does with its tracks, each read by a reader of its own."""
    run = Run(Timeline(live=live, first=first))
    places = [0] * len(tracks)
    held: list[Timed | None] = [None] * len(tracks)

    def ready_at(index: int) -> int | None:
        item = held[index]
        if item is not None:
            return run.now if live else max(run.now, run.timeline.due(index, item))
        if places[index] == len(tracks[index]):
            return None
        return max(run.now, START + round(tracks[index][places[index]][0] * SECOND))

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
    run.go_to(START + round(until_s * SECOND))
    if end:
        run.timeline.end()
        run.look()
    check(run, first, end)
    return run


def check(run: Run, first: int = 0, ended: bool = False) -> None:
    """What holds for every run."""
    slots = run.slots
    assert [slot.number for slot in slots] == list(range(first, first + len(slots)))
    scheduled = [slot.scheduled for slot in slots]
    assert scheduled == sorted(scheduled)
    assert all(slot.sound.shape == (640,) and slot.sound.dtype == np.float32 for slot in slots)
    assert all(slot.picture.shape == slots[0].picture.shape for slot in slots)
    for slot, closed_s in zip(slots, run.closed_s, strict=True):
        closed = START + round(closed_s * SECOND)
        assert slot.read <= closed
        assert ended or 0 <= closed - slot.scheduled <= GRACE_NS + MS  # the clock moves by up to 1 ms


def on_grid(slots: Sequence[Slot]) -> bool:
    steps = np.diff([slot.time_s for slot in slots])
    return bool(np.allclose(steps, 0.04, atol=1e-6))


def heard_s(slot: Slot) -> npt.NDArray[np.float64]:
    """By how much each sample was captured later than its place in the slot says; NaN for silence."""
    place = slot.time_s + np.arange(640) / RATE
    apart = (slot.sound.astype(np.float64) - 1 - place + 0.5) % 1 - 0.5
    return np.where(slot.sound > 0.5, apart, np.nan)


# Rates, jitter and pictures


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("fps", [10, 15, 24, 25, 30, 60, 250])
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_pictures_of_any_rate_with_jitter_fill_every_slot_once_with_the_nearest(
    fps: int, live: bool, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    exact = np.array(every(1 / fps, 4.0, 3.0))
    stamps = np.sort(exact + rng.uniform(-0.015, 0.015, len(exact)))
    latency = rng.uniform(0, 0.005)
    video = [(at - 3 + latency, item) for at, item in pictures(stamps)]
    audio = moved(sounds(every(0.04, 4.0, 3.0), latency_s=latency), arrival_s=-3.0)
    run = play(video, audio, live=live)
    assert on_grid(run.slots)
    assert 20 <= len(run.slots) <= 26
    assert run.timeline.clock.reanchored == 0
    for before, slot in pairwise(run.slots[:-2]):
        apart = np.abs(stamps - slot.time_s)
        if apart.min() < 0.0199:
            assert abs(stamps[number_of(slot)] - slot.time_s) <= apart.min() + 1e-6
        elif apart.min() > 0.0201:
            assert number_of(slot) == number_of(before)


def test_twice_as_many_pictures_give_every_other_one() -> None:
    run = play(pictures(every(0.02, 4.0)), live=False)
    assert [number_of(slot) for slot in run.slots] == list(range(0, 2 * len(run.slots), 2))


@pytest.mark.parametrize("live", [True, False])
def test_a_slot_is_there_at_its_end_and_not_before(live: bool) -> None:
    run = play(pictures(every(0.04, 2.0)), sounds(every(0.04, 2.0)), live=live)
    assert len(run.slots) >= 48
    np.testing.assert_allclose(run.closed_s[1:], np.arange(2, len(run.slots) + 1) * 0.04, atol=1e-6)
    assert [slot.scheduled for slot in run.slots] == [START + (k + 1) * FRAME_NS for k in range(len(run.slots))]


def test_the_numbers_go_on_from_where_they_are_told_to() -> None:
    assert play(pictures(every(0.04, 1.0)), first=100).slots[0].number == 100


def test_a_size_that_changes_is_fitted_into_the_first() -> None:
    track: Track = [
        (k / 25, Timed(k / 25, video=np.full(((40, 48, 3), (80, 20, 3))[k % 2], 200, np.uint8))) for k in range(20)
    ]
    run = play(track)
    assert {slot.picture.shape for slot in run.slots} == {(40, 48, 3)}
    assert len(run.slots) >= 18
    assert (run.slots[1].picture[:, :19] == 0).all()
    assert (run.slots[1].picture[:, 20:28] == 200).all()


def test_without_sound_there_is_silence_and_no_offset() -> None:
    run = play(pictures(every(0.04, 3.0)))
    assert not any(slot.sound.any() or slot.av_offset_ns for slot in run.slots)
    assert max(np.subtract(run.closed_s, np.arange(1, len(run.slots) + 1) * 0.04)[25:]) < 1e-6  # nobody is waited for


def test_without_pictures_there_are_no_slots_and_little_memory() -> None:
    timeline = Timeline(live=True)
    tracemalloc.start()
    for k in range(15_000):
        item = Timed(k / 25, audio=np.ones(640, np.float32))
        now = START + (k + 1) * FRAME_NS
        timeline.observe(0, item, now)
        timeline.add(0, item, now)
        assert not list(timeline.ready(now))
    assert timeline.next_look() is None
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("live", [True, False])
def test_the_slots_begin_with_the_first_picture_and_its_sound(live: bool) -> None:
    video = moved(pictures(every(0.04, 2.0)), 5.01, 5.01)
    run = play(video, sounds(every(0.04, 7.0)) if live else at_once(sounds(every(0.04, 7.0))), live=live)
    assert run.slots[0].time_s == pytest.approx(5.01)
    assert run.slots[0].scheduled == pytest.approx(START + 5.05 * SECOND)
    assert all(np.nanmax(np.abs(heard_s(slot))) < 1e-4 for slot in run.slots[:-2])


# Sound


def chunked(total: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
    places = [0, *sorted({cut % total for cut in cuts} - {0}), total]
    return list(pairwise(places))


@given(cuts=st.lists(st.integers(0, 31_999), max_size=60))
@example(cuts=list(range(1500)))
@example(cuts=[])
@settings(max_examples=25, deadline=None)
def test_any_cut_of_the_sound_gives_the_same_slots(cuts: list[int]) -> None:
    sound = np.random.default_rng(1).uniform(-1, 1, 32_000).astype(np.float32)
    audio: Track = [(0.0, Timed(begin / RATE, audio=sound[begin:end])) for begin, end in chunked(32_000, cuts)]
    run = play(pictures(every(0.04, 2.0)), audio, live=False, end=True)
    np.testing.assert_array_equal(np.concatenate([slot.sound for slot in run.slots]), sound)


@pytest.mark.parametrize("length", [1, 7, 80, 333, 640, 1024, 4096, 80_000])
def test_blocks_of_any_length_are_heard_where_they_belong(length: int) -> None:
    seconds = 11.0 if length > 4096 else 2.0
    audio = at_once(sounds(every(length / RATE, seconds), length))
    run = play(pictures(every(0.04, seconds)), audio, live=False)
    assert all(np.nanmax(np.abs(heard_s(slot))) < 1e-4 for slot in run.slots)
    assert not any(np.isnan(heard_s(slot)).any() for slot in run.slots[:-1])


@pytest.mark.parametrize("length", [1, 7, 80, 333, 640, 900])
def test_live_blocks_shorter_than_the_grace_are_heard_in_full(length: int) -> None:
    audio = sounds(every(length / RATE, 2.0), length)
    run = play(pictures(every(0.04, 2.0)), audio)
    for slot in run.slots[2:-2]:
        assert np.abs(heard_s(slot)).max() < 1e-4


def test_live_blocks_of_5_s_disturb_no_picture() -> None:
    run = play(pictures(every(0.04, 12.0)), sounds(every(5.0, 10.0), 80_000))
    assert [number_of(slot) for slot in run.slots] == list(range(len(run.slots)))
    assert run.timeline.clock.reanchored == 0


@pytest.mark.parametrize("live", [True, False])
def test_sound_that_stops_is_silence_and_is_not_waited_for_any_more(live: bool) -> None:
    run = play(pictures(every(0.04, 4.0)), sounds(every(0.04, 2.0)), live=live)
    assert all(slot.sound.any() for slot in run.slots if slot.time_s < 1.95)
    assert not any(slot.sound.any() for slot in run.slots if slot.time_s > 2.0)
    waited = [at - (slot.scheduled - START) / SECOND for slot, at in zip(run.slots, run.closed_s, strict=True)]
    assert max(waited) == pytest.approx(GRACE_NS / SECOND)
    assert waited[-5] == pytest.approx(0)


@pytest.mark.parametrize("live", [True, False])
def test_sound_that_starts_later_is_heard_where_it_belongs(live: bool) -> None:
    run = play(pictures(every(0.04, 4.0)), sounds(every(0.04, 4.0, 1.013)), live=live)
    places = np.concatenate([heard_s(slot) for slot in run.slots[:-2]])
    assert np.isnan(places[: int(1.013 * RATE) - 2]).all()
    assert np.abs(places[26 * 640 :]).max() < 1e-4  # nobody waited for the first block


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("gap_s", [0.03, 0.2, 1.5])
def test_a_gap_in_the_sound_is_silence_and_what_follows_is_in_its_place(gap_s: float, live: bool) -> None:
    stamps = [*every(0.04, 1.0), *every(0.04, 4.0, 1.0 + gap_s)]
    run = play(pictures(every(0.04, 4.0)), sounds(stamps), live=live)
    places = np.concatenate([heard_s(slot) for slot in run.slots[:-2]])
    assert np.nanmax(np.abs(places)) < 1e-4
    waited = gap_s < 0.5  # else the slot in which it begins again may be closed by then
    assert np.isnan(places).sum() == pytest.approx(gap_s * RATE, abs=2 if waited else 642)


@pytest.mark.parametrize("live", [True, False])
def test_sound_that_comes_twice_is_heard_once(live: bool) -> None:
    audio = sounds(every(0.04, 2.0))
    twice = [item for k in range(len(audio)) for item in ([audio[k]] if k % 9 else [audio[k], audio[k]])]
    run = play(pictures(every(0.04, 2.0)), twice, live=live)
    assert all(np.abs(heard_s(slot)).max() < 1e-4 for slot in run.slots[:-2])


@given(
    blocks=st.lists(st.tuples(st.floats(-0.3, 0.6), st.integers(0, 3000), st.floats(0, 0.2)), max_size=40),
    live=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_mess_of_sound_leaves_the_slots_whole(blocks: list[tuple[float, int, float]], live: bool) -> None:
    audio: Track = []
    stamp = at = 0.0
    for step, length, latency in blocks:
        stamp = max(0.0, stamp + step)
        at = max(at, stamp + length / RATE + latency)
        audio.append((at, Timed(stamp, audio=np.ones(length, np.float32))))
    run = play(pictures(every(0.04, 2.0)), audio, live=live, until_s=2.0)
    assert len(run.slots) >= 45
    assert all(set(np.unique(slot.sound)) <= {0.0, 1.0} for slot in run.slots)


def test_sound_that_comes_too_late_is_left_out_and_later_sound_is_in_its_place() -> None:
    audio = sounds(every(0.04, 3.0))
    late = [(at + (0.15 if 20 <= k < 26 else 0.0), item) for k, (at, item) in enumerate(audio)]
    late = [
        (max(at, *(before for before, _ in late[max(0, k - 6) : k + 1])), item) for k, (at, item) in enumerate(late)
    ]
    run = play(pictures(every(0.04, 3.0)), late)
    places = np.concatenate([heard_s(slot) for slot in run.slots[:-2]])
    assert np.nanmax(np.abs(places)) < 1e-4
    assert 0 < np.isnan(places).sum() < 0.4 * RATE


# Drift


def drifting_sound(ppm: float, seconds: float, length: int, jitter_s: float = 0.0) -> Track:
    """Blocks of a card whose clock runs `ppm` fast, stamped by the clock of the pictures."""
    rate = RATE * (1 + ppm * 1e-6)
    rng = np.random.default_rng(0)
    track: Track = []
    for k in range(int(seconds * RATE / length)):
        start, end = k * length / rate, (k + 1) * length / rate
        stamp = start + (rng.uniform(-jitter_s, jitter_s) if jitter_s else 0.0)
        track.append((end + jitter_s, Timed(stamp, audio=ramp(start, length, rate))))
    return track


def assert_in_step(run: Run) -> None:
    offsets = np.array([slot.av_offset_ns for slot in run.slots])
    assert np.abs(offsets).max() < 5 * MS
    for slot in run.slots[1 : -60 : max(1, len(run.slots) // 3000)]:
        assert np.median(np.abs(heard_s(slot))) < 0.005  # not the maximum: a stretched block blurs the ramp's edge


@pytest.mark.parametrize("ppm", [-200, 200])
def test_sound_whose_clock_drifts_for_an_hour_stays_within_5_ms_of_the_pictures(ppm: float) -> None:
    run = play(pictures(every(0.04, 3600.0)), drifting_sound(ppm, 3599.0, 640))
    assert len(run.slots) > 89_900
    assert_in_step(run)


@pytest.mark.parametrize("length", [16, 160, 700])
@pytest.mark.parametrize("ppm", [-1000, 200, 1000])
def test_drift_is_worked_off_whatever_the_blocks(ppm: float, length: int) -> None:
    run = play(pictures(every(0.04, 40.0)), drifting_sound(ppm, 39.0, length, jitter_s=0.002))
    assert_in_step(run)


@pytest.mark.parametrize("ppm", [-200, 200])
def test_a_source_that_drifts_against_the_session_for_an_hour_is_not_waited_for(ppm: float) -> None:
    video = [(at * (1 + ppm * 1e-6), item) for at, item in pictures(every(0.04, 3600.0))]
    audio = [(at * (1 + ppm * 1e-6), item) for at, item in sounds(every(0.04, 3600.0))]
    run = play(video, audio)
    assert len(run.slots) > 89_900
    assert on_grid(run.slots)
    assert run.timeline.clock.reanchored == 0
    arrived = np.array([(slot.time_s + 0.04) * (1 + ppm * 1e-6) for slot in run.slots])
    scheduled = np.array([(slot.scheduled - START) / SECOND for slot in run.slots])
    assert np.abs(scheduled - arrived).max() < 0.005
    assert np.abs(np.array(run.closed_s) - arrived).max() < 0.005


@pytest.mark.parametrize("delay_s", [0.06, 0.1, 0.15, 0.25, 1.0])
def test_a_source_that_comes_later_for_good_is_followed_within_two_seconds(delay_s: float) -> None:
    video = [(at + (delay_s if at > 1 else 0), item) for at, item in pictures(every(0.04, 6.0))]
    audio = [(at + (delay_s if at > 1 else 0), item) for at, item in sounds(every(0.04, 6.0))]
    run = play(video, audio)
    after = [slot for slot, at in zip(run.slots, run.closed_s, strict=True) if 3.0 + delay_s < at < 5.9]
    assert len(after) > 45
    assert all(np.abs(heard_s(slot)).max() < 1e-4 for slot in after)
    shown = [number_of(slot) for slot in run.slots]
    assert max(np.diff([at for at, new in zip(run.closed_s[1:], np.diff(shown), strict=True) if new])) < delay_s + 0.1


# Stalls, leaps and bursts


def stalled(track: Track, at_s: float, stall_s: float, *, burst: bool = False) -> Track:
    """A stall of the camera, which is off meanwhile; or of the way, from which all comes at once."""
    if burst:
        return [(max(at, at_s + stall_s) if at > at_s else at, item) for at, item in track]
    return [(at, item) for at, item in track if not at_s < at < at_s + stall_s]


@pytest.mark.parametrize("burst", [False, True])
def test_a_live_source_that_stalls_goes_on_with_the_last_picture_and_comes_back_without_delay(burst: bool) -> None:
    video, audio = pictures(every(0.04, 10.0)), sounds(every(0.04, 10.0))
    run = play(stalled(video, 3, 3, burst=burst), stalled(audio, 3, 3, burst=burst))
    assert on_grid(run.slots)
    assert run.timeline.clock.reanchored == 0
    assert run.closed_s == sorted(run.closed_s)
    gap = [slot for slot, at in zip(run.slots, run.closed_s, strict=True) if 3.2 < at < 5.9]
    assert len(gap) in (66, 67, 68)
    assert {number_of(slot) for slot in gap} == {75}
    assert not any(slot.sound.any() for slot in gap)
    after = [(slot, at) for slot, at in zip(run.slots, run.closed_s, strict=True) if 6.2 < at < 9.9]
    for slot, at in after:
        assert abs(number_of(slot) / 25 - slot.time_s) < 1e-6
        assert at - slot.time_s == pytest.approx(0.04, abs=0.0011)
        assert np.abs(heard_s(slot)).max() < 1e-4


def test_a_paced_source_that_is_held_up_goes_on_where_it_was_with_a_new_anchor() -> None:
    video = [(at + (3 if at > 3 else 0), item) for at, item in pictures(every(0.04, 10.0))]
    audio = [(at + (3 if at > 3 else 0), item) for at, item in sounds(every(0.04, 10.0))]
    run = play(video, audio, live=False)
    assert run.timeline.clock.reanchored == 1
    shown = [number_of(slot) for slot in run.slots]
    assert shown == sorted(shown)
    after = [slot for slot, at in zip(run.slots, run.closed_s, strict=True) if 7.3 < at < 12.9]
    assert on_grid(after)
    assert all(np.abs(heard_s(slot)).max() < 1e-4 for slot in after)
    assert [number_of(slot) / 25 for slot in after] == pytest.approx([slot.time_s for slot in after], abs=0.02)


def test_a_file_whose_reading_hangs_catches_up() -> None:
    video, audio = pictures(every(0.04, 10.0)), sounds(every(0.04, 10.0))
    run = play(
        *([(4.0 if k > 50 else 0.0, item) for k, (_, item) in enumerate(track)] for track in (video, audio)), live=False
    )
    assert run.timeline.clock.reanchored == 0
    after = [slot for slot, at in zip(run.slots, run.closed_s, strict=True) if at > 4.2]
    assert [number_of(slot) / 25 for slot in after] == pytest.approx([slot.time_s for slot in after])


def test_what_waited_in_a_live_source_before_the_first_read_leaves_no_delay() -> None:
    late = [(max(at, 5.0), item) for at, item in pictures(every(0.04, 8.0))]
    sound = [(max(at, 5.0), item) for at, item in sounds(every(0.04, 8.0))]
    run = play(late, sound)
    for slot, at in list(zip(run.slots, run.closed_s, strict=True))[8:-2]:
        assert at - slot.time_s < 0.25
        assert np.abs(heard_s(slot)).max() < 1e-4
    assert len(run.slots) > 70


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("leap_s", [-40.0, -2.5, 2.5, 40.0, 86_400.0])
def test_a_leap_in_time_starts_anew_once_and_the_output_goes_on_at_once(leap_s: float, first: int, live: bool) -> None:
    begin = 50.0
    video, audio = moved(pictures(every(0.04, 6.0)), begin), moved(sounds(every(0.04, 6.0)), begin)
    at_s = [3.0, 3.0]
    at_s[1 - first] += 0.1  # the other track leaps a little later
    tracks = [
        [(at, item if at < leap_at else Timed(item.time_s + leap_s, item.video, item.audio)) for at, item in track]
        for track, leap_at in zip((video, audio), at_s, strict=True)
    ]
    run = play(*tracks, live=live)
    assert run.timeline.clock.reanchored == 1
    assert np.diff(run.closed_s).max() < 0.15
    assert 145 <= len(run.slots) <= 152
    shown = [number_of(slot) for slot in run.slots]
    assert np.diff(shown).min() >= 0
    after = [slot for slot, at in zip(run.slots, run.closed_s, strict=True) if 3.4 < at < 5.9]
    assert all(abs(number_of(slot) / 25 + begin + leap_s - slot.time_s) < 0.0201 for slot in after)
    apart = np.stack([heard_s(slot) for slot in after])
    assert np.abs((apart + leap_s + 0.5) % 1 - 0.5).max() < 1e-3
    assert all(slot.sound.all() for slot in after)


@pytest.mark.parametrize("live", [True, False])
@given(
    items=st.lists(
        st.tuples(
            st.integers(0, 1), st.one_of(st.just(0.04), st.floats(-100, 100)), st.floats(0, 0.3), st.integers(0, 900)
        ),
        max_size=80,
    )
)
@settings(max_examples=60, deadline=None)
def test_any_stamps_and_delays_leave_the_slots_whole(items: list[tuple[int, float, float, int]], live: bool) -> None:
    tracks: list[Track] = [[], []]
    stamps, at = [0.0, 0.0], 0.0
    for track, step, pause, length in items:
        stamps[track] += step
        at += pause
        content: dict[str, Any] = {"audio": np.ones(length, np.float32)} if track else {"video": picture(1)}
        tracks[track].append((at, Timed(stamps[track], **content)))
    play(*tracks, live=live, until_s=at + 1)


def test_one_item_may_hold_a_picture_and_its_sound() -> None:
    both: Track = [(k / 25, Timed(k / 25, picture(k), ramp(k / 25, 640))) for k in range(50)]
    for live in (True, False):
        run = play([(at + 0.04 * live, item) for at, item in both], live=live, end=True)
        assert [number_of(slot) for slot in run.slots] == list(range(50))
        assert all(np.abs(heard_s(slot)).max() < 1e-4 for slot in run.slots)


def test_the_end_hands_out_what_is_there() -> None:
    run = play(pictures(every(0.04, 1.0)), live=False, end=True)
    assert [number_of(slot) for slot in run.slots] == list(range(25))
    assert run.timeline.next_look() is None


def test_memory_is_bounded_however_long_fast_input_comes() -> None:
    timeline = Timeline(live=True)
    tracemalloc.start()
    for k in range(20_000):
        now = START + k * 4 * MS
        for track, item in enumerate((Timed(k / 250, video=picture(k)), Timed(k / 250, audio=np.ones(64, np.float32)))):
            timeline.observe(track, item, now)
            timeline.add(track, item, now)
            for _ in timeline.ready(now):
                pass
    assert tracemalloc.get_traced_memory()[1] < 500_000
    tracemalloc.stop()


def test_stamps_that_run_ten_times_too_fast_leave_the_slots_in_time() -> None:
    run = play([(k / 250, Timed(k / 25, video=picture(k))) for k in range(1000)])
    assert len(run.slots) >= 95
    assert np.diff(run.closed_s).max() < 0.15
    assert np.diff([number_of(slot) for slot in run.slots]).max() < 30


# Errors


def broken_items() -> Iterable[Any]:
    double: Any = np.zeros(9)
    pixels: Any = [[[0, 0, 0]]]
    for name, item, said in (
        ("NaN", Timed(float("nan"), video=picture(0)), "time stamp nan; give seconds"),
        ("infinite", Timed(float("inf"), video=picture(0)), "time stamp inf"),
        ("nothing", Timed(1.0), "at 1.000 s holds neither"),
        (
            "float picture",
            Timed(0.0, video=np.zeros((4, 4, 3), np.float32)),
            "uint8 [H, W, 3] RGB, got float32 [4, 4, 3]",
        ),
        ("grey picture", Timed(0.0, video=np.zeros((4, 4), np.uint8)), "got uint8 [4, 4]"),
        ("empty picture", Timed(0.0, video=np.zeros((0, 4, 3), np.uint8)), "got uint8 [0, 4, 3]"),
        ("list", Timed(0.0, video=pixels), "got list"),
        (
            "double sound",
            Timed(0.0, audio=double),
            "Sound is float32 [N], 16 kHz mono in [-1, 1], got float64 [9]",
        ),
        ("stereo", Timed(0.0, audio=np.zeros((9, 2), np.float32)), "got float32 [9, 2]"),
        ("NaN in sound", Timed(0.0, audio=np.full(9, np.nan, np.float32)), "NaN or infinite samples"),
    ):
        yield pytest.param(item, said, id=name)


@pytest.mark.parametrize(("item", "said"), list(broken_items()))
def test_a_broken_item_is_one_clear_error(item: Timed, said: str) -> None:
    timeline = Timeline(live=True)
    with pytest.raises(FeedError, match=re.escape(said)) as caught:
        timeline.observe(0, item, START)
    assert "\n" not in str(caught.value)
