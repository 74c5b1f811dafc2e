"""Slots out of pictures and sound of any rate, order and delay."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.live.timelines import (
    MS,
    START,
    Track,
    at_once,
    every,
    heard_s,
    moved,
    number_of,
    on_grid,
    picture,
    pictures,
    play,
    ramp,
    sounds,
)

from pflx.engines import FeedError
from pflx.runtime.frames.timing import FRAME_NS, NS_PER_S
from pflx.runtime.live.timeline import GRACE_NS, Timeline
from pflx.runtime.media.sources import Timed

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


def test_without_pictures_slots_go_on_in_the_dark_after_a_second_in_little_memory() -> None:
    timeline = Timeline(live=True)
    slots = []
    tracemalloc.start()
    for k in range(15_000):
        item = Timed(k / 25, audio=np.ones(640, np.float32))
        now = START + (k + 1) * FRAME_NS
        timeline.observe(0, item, now)
        timeline.add(0, item, now)
        slots += [(slot.number, now - slot.scheduled, slot.picture.max()) for slot in timeline.ready(now)]
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()
    assert [number for number, _, _ in slots] == list(range(len(slots)))
    assert len(slots) == 15_000 - 25 + 1
    assert max(late for _, late, _ in slots) <= GRACE_NS  # the first one's; then no picture is waited for
    assert {late for _, late, _ in slots[2:]} == {slots[2][1]}
    assert slots[2][1] < FRAME_NS
    assert not any(brightest for *_, brightest in slots)


@pytest.mark.parametrize("live", [True, False])
def test_the_slots_begin_with_the_first_picture_and_its_sound(live: bool) -> None:
    video = moved(pictures(every(0.04, 2.0)), 0.91, 0.91)
    run = play(video, sounds(every(0.04, 3.0)) if live else at_once(sounds(every(0.04, 3.0))), live=live)
    assert run.slots[0].time_s == pytest.approx(0.91)
    assert run.slots[0].scheduled == pytest.approx(START + 0.95 * NS_PER_S)
    assert all(np.nanmax(np.abs(heard_s(slot))) < 1e-4 for slot in run.slots[:-2])


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
    floats: Any = np.zeros((4, 4, 3), np.float32)
    pixels: Any = [[[0, 0, 0]]]
    for name, item, said in (
        ("NaN", Timed(float("nan"), video=picture(0)), "time stamp nan; give seconds"),
        ("infinite", Timed(float("inf"), video=picture(0)), "time stamp inf"),
        ("nothing", Timed(1.0), "at 1.000 s holds neither"),
        (
            "float picture",
            Timed(0.0, video=floats),
            "uint8 [H, W, 3] RGB, got float32 [4, 4, 3]",
        ),
        ("grey picture", Timed(0.0, video=np.zeros((4, 4), np.uint8)), "got uint8 [4, 4]"),
        ("empty picture", Timed(0.0, video=np.zeros((0, 4, 3), np.uint8)), "got uint8 [0, 4, 3]"),
        ("list", Timed(0.0, video=pixels), "got list"),
        (
            "double sound",
            Timed(0.0, audio=double),
            "Sound is float32 [N], mono in [-1, 1], got float64 [9]",
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
