"""A speaker without a camera: slots go on in the dark, and with pictures as soon as there are some."""

from __future__ import annotations

import numpy as np
import pytest
from support.fakes import fake_listener, sound_of
from support.live.live_sessions import run
from support.live.pushing import Daylight
from support.live.timelines import RATE, every, moved, number_of, pictures, play, sounds

from pflx.runtime import FaceState, Timed
from pflx.runtime.frames.timing import NS_PER_S
from pflx.runtime.live.timeline import GRACE_NS

BLACK = np.zeros((2, 2, 3), np.uint8)


@pytest.mark.parametrize("live", [True, False])
def test_a_camera_that_is_off_from_the_start_is_not_waited_for(live: bool) -> None:
    run = play([(0.0, Timed(0.0, video=BLACK, dark=True))], sounds(every(0.04, 2.0)), live=live, until_s=1.9)
    assert len(run.slots) >= 45
    late = np.subtract(run.closed_s, [(slot.scheduled - 7 * NS_PER_S) / NS_PER_S for slot in run.slots])
    assert late[2:45].max() < (1e-6 if live else 0.041)  # of a file, sound is read in the order of its beginnings
    assert all(slot.picture.shape == (2, 2, 3) for slot in run.slots)
    assert all(slot.sound.min() >= 1 for slot in run.slots[2:45])


def test_a_camera_that_goes_off_and_on_again() -> None:
    off = [(1.0, Timed(1.0, video=BLACK[:1, :1], dark=True))]
    video = pictures(every(0.04, 1.0)) + off + [(at, item) for at, item in pictures(every(0.04, 4.0)) if at > 2.5]
    run = play(video, sounds(every(0.04, 4.0)))
    numbers = {round(slot.time_s * 25): number_of(slot) for slot in run.slots}
    assert [numbers[k] for k in (24, 25, 40, 62)] == [24, 0, 0, 0]
    assert [numbers[k] for k in (63, 80)] == [63, 80]
    late = {round(slot.time_s * 25): at - slot.time_s for slot, at in zip(run.slots, run.closed_s, strict=True)}
    assert max(late[k] for k in range(26, 62)) < 0.0401  # at its end: no picture is waited for


def test_a_picture_that_comes_after_the_dark_is_put_into_its_square() -> None:
    wide = np.full((90, 160, 3), 200, np.uint8)
    items = [(at, Timed(at, video=wide)) for at in every(0.04, 3.0, 2.0)]
    run = play(items, sounds(every(0.04, 3.0)))
    assert run.slots[0].scheduled <= 7 * NS_PER_S + 1.1 * NS_PER_S
    assert {slot.picture.shape for slot in run.slots} == {(640, 640, 3)}
    last = run.slots[-1].picture
    assert (last[140:500] == 200).all()
    assert not last[:140].any()


def test_sound_alone_that_ends_within_a_second_is_reacted_to_all_the_same() -> None:
    run = play(sounds(every(0.04, 0.5), rate=RATE), end=True)
    assert len(run.slots) == 13
    assert all(slot.sound.min() >= 1 for slot in run.slots)


def test_pictures_that_come_within_a_second_begin_the_slots_as_ever() -> None:
    video = moved(pictures(every(0.04, 1.0)), 0.6, 0.6)
    run = play(video, sounds(every(0.04, 1.6)))
    assert run.slots[0].time_s == pytest.approx(0.6)
    assert run.slots[0].picture.shape == (1, 1, 3)
    assert run.slots[0].scheduled - 7 * NS_PER_S <= 0.64 * NS_PER_S + GRACE_NS


def test_a_session_of_sound_alone_shows_frames_without_a_face_on_time() -> None:
    sound = sound_of(100)
    items = [Timed(k / 25, audio=sound[640 * k : 640 * k + 640]) for k in range(100)]
    frames = run(items, listener=fake_listener(detector=Daylight(), lookahead=0)).frames
    assert len(frames) >= 65
    assert {frame.face for frame in frames} == {FaceState.LOST}
    assert max(np.diff([frame.ledger.emitted or 0 for frame in frames[2:]])) <= 41_000_000
