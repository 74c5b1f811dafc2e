"""The sound of the slots: blocks of any length, gaps, and clocks that drift."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.live.timelines import (
    MS,
    RATE,
    START,
    Run,
    Track,
    at_once,
    every,
    heard_s,
    number_of,
    on_grid,
    pictures,
    play,
    ramp,
    sounds,
)

from pflx.runtime.frames.timing import NS_PER_S
from pflx.runtime.live.timeline import GRACE_NS
from pflx.runtime.media.sources import Timed

# Sound


def chunked(total: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
    places = [0, *sorted({cut % total for cut in cuts} - {0}), total]
    return list(pairwise(places))


@given(cuts=st.lists(st.integers(0, 31_999), max_size=60), rate=st.sampled_from([16_000, 44_100, 48_000]))
@example(cuts=list(range(1500)), rate=16_000)
@example(cuts=list(range(1500)), rate=44_100)
@example(cuts=[], rate=16_000)
@settings(max_examples=25, deadline=None)
def test_any_cut_of_the_sound_gives_the_same_slots(cuts: list[int], rate: int) -> None:
    sound = np.random.default_rng(1).uniform(-1, 1, 2 * rate).astype(np.float32)
    audio: Track = [(0.0, Timed(begin / rate, audio=sound[begin:end])) for begin, end in chunked(2 * rate, cuts)]
    run = play(pictures(every(0.04, 2.0)), audio, live=False, end=True, rate=rate)
    np.testing.assert_array_equal(np.concatenate([slot.sound for slot in run.slots]), sound)


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("length", [1, 7, 80, 333, 640, 1024, 4096, 80_000])
def test_blocks_of_any_length_are_heard_where_they_belong(length: int, rate: int) -> None:
    seconds = 11.0 if length > 4096 else 2.0
    audio = at_once(sounds(every(length / rate, seconds), length, rate=rate))
    run = play(pictures(every(0.04, seconds)), audio, live=False, rate=rate)
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
    waited = [at - (slot.scheduled - START) / NS_PER_S for slot, at in zip(run.slots, run.closed_s, strict=True)]
    assert max(waited) == pytest.approx(GRACE_NS / NS_PER_S)
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


def drifting_sound(ppm: float, seconds: float, length: int, jitter_s: float = 0.0, rate: int = RATE) -> Track:
    """Blocks of a card whose clock runs `ppm` fast, stamped by the clock of the pictures."""
    true_rate = rate * (1 + ppm * 1e-6)
    rng = np.random.default_rng(0)
    track: Track = []
    for k in range(int(seconds * rate / length)):
        start, end = k * length / true_rate, (k + 1) * length / true_rate
        stamp = start + (rng.uniform(-jitter_s, jitter_s) if jitter_s else 0.0)
        track.append((end + jitter_s, Timed(stamp, audio=ramp(start, length, true_rate))))
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


@pytest.mark.parametrize(("length", "rate"), [(16, RATE), (160, RATE), (700, RATE), (441, 44_100)])
@pytest.mark.parametrize("ppm", [-1000, 200, 1000])
def test_drift_is_worked_off_whatever_the_blocks(ppm: float, length: int, rate: int) -> None:
    run = play(pictures(every(0.04, 40.0)), drifting_sound(ppm, 39.0, length, jitter_s=0.002, rate=rate), rate=rate)
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
    scheduled = np.array([(slot.scheduled - START) / NS_PER_S for slot in run.slots])
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
