"""A pushed speaker: any picture, any sound, from any thread, and slots as if it had been recorded so."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from itertools import cycle, repeat
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import fake_listener
from support.live.pushing import BEGIN, MS, Daylight, Hand, everything, patient, sound_of_items, tone
from support.live.timelines import play
from support.media.clips import click_train

from pflx.engines import FeedError
from pflx.runtime import Face, FaceState, ListenerFrame, PushSource, Timed
from pflx.runtime.frames.pixels import to_i420

# A smooth picture, for chroma of half the size must not matter.
_CORNERS = np.random.default_rng(4).integers(60, 190, (2, 3, 3)).astype(np.uint8)
SMOOTH = np.asarray(cv2.resize(_CORNERS, (64, 48), interpolation=cv2.INTER_LINEAR), np.uint8)


def nv12(picture: np.ndarray) -> np.ndarray:
    planes = to_i420(picture)
    height, width = picture.shape[:2]
    colour = planes[height:].reshape(2, -1).T.reshape(height // 2, width)
    return np.concatenate([planes[:height], colour])


GREY = np.asarray(cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2GRAY), np.uint8)
LAYOUTS: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "rgb": (SMOOTH, SMOOTH),
    "bgr": (SMOOTH[..., ::-1], SMOOTH),
    "rgba": (np.dstack([SMOOTH, np.full((48, 64), 9, np.uint8)]), SMOOTH),
    "grey": (GREY, np.repeat(GREY[..., None], 3, axis=2)),
    "i420": (to_i420(SMOOTH), SMOOTH),
    "nv12": (nv12(SMOOTH), SMOOTH),
}


def pushed(image: Any, **options: Any) -> np.ndarray:
    """What a session sees of one picture, without what was put around it."""
    source = patient(Hand(), max_side=64)
    source.put_video(image, **options)
    (item,) = everything(source, 0)
    assert item.video is not None
    assert item.video.shape == (64, 64, 3)
    return item.video


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_pictures_of_every_layout_are_seen_alike(name: str, flat: bool) -> None:
    image, expected = LAYOUTS[name]
    seen = pushed(image.tobytes(), format=name, size=(64, 48)) if flat else pushed(image, format=name)
    assert not seen[:8].any()
    assert not seen[56:].any()
    np.testing.assert_allclose(seen[8:56].astype(int), expected, atol=8 if name in ("i420", "nv12") else 0)


def test_planes_of_odd_size_are_seen_to_their_edges() -> None:
    odd = SMOOTH[:47, :63]
    padded = np.pad(odd, ((0, 1), (0, 1), (0, 0)), "edge")
    bright = to_i420(padded)[:48][:47, :63]
    colour = to_i420(padded)[48:].reshape(2, 24, 32)
    seen = pushed(np.concatenate([bright.reshape(-1), colour.reshape(-1)]), format="i420", size=(63, 47))
    whole = cv2.resize(odd, (64, 48), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(seen[8:56].astype(int), whole, atol=8)


@pytest.mark.parametrize(("rotation", "turns"), [(0, 0), (90, -1), (180, 2), (270, 1)])
def test_pictures_stand_upright(rotation: int, turns: int) -> None:
    square = SMOOTH[:48, :48]
    seen = pushed(np.ascontiguousarray(np.rot90(square, -turns)), rotation=rotation, size=(48, 48))
    expected = cv2.resize(square, (64, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("small", [(160, 90), (320, 180), (640, 360)])
def test_a_face_stays_where_it_is_when_the_pictures_grow(small: tuple[int, int]) -> None:
    large = np.zeros((720, 1280, 3), np.uint8)
    cv2.ellipse(large, (500, 300), (120, 160), 0, 0, 360, (200, 160, 140), -1)
    source = patient(Hand())
    source.put_video(np.asarray(cv2.resize(large, small, interpolation=cv2.INTER_AREA), np.uint8))
    source.put_video(large)
    first, second = (item.video for item in everything(source, 0))
    assert first is not None
    assert second is not None
    assert first.shape == second.shape == (640, 640, 3)
    edges = [np.array(cv2.boundingRect((video[..., 0] > 100).astype(np.uint8))) for video in (first, second)]
    np.testing.assert_allclose(edges[0], edges[1], atol=3)
    np.testing.assert_allclose(edges[1], (190, 210, 121, 161), atol=2)  # half as large, below 140 px of black


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"image": SMOOTH, "format": "yuyv"}, "'yuyv' is none of rgb, bgr, rgba, grey, i420, nv12"),
    ({"image": SMOOTH.astype(np.float32)}, "uint8 array or bytes, got float32"),
    ({"image": None}, "got NoneType"),
    ({"image": GREY}, r"rgb picture is uint8 \[H, W, 3\], got \[48, 64\]"),
    ({"image": SMOOTH.tobytes()}, r"Give its size=\(width, height\)"),
    ({"image": SMOOTH.tobytes(), "size": (64, 50)}, "64x50 has 9600 bytes, got 9216"),
    ({"image": SMOOTH, "rotation": 45}, "rotation is 45; give 0, 90, 180 or 270"),
    ({"image": SMOOTH, "time_s": float("nan")}, "time_s is nan"),
    ({"image": to_i420(SMOOTH).reshape(-1), "format": "i420"}, r"Give its size=\(width, height\)"),
    ({"image": to_i420(SMOOTH), "format": "nv12", "size": (66, 48)}, "66x48 has 4752 bytes, got 4608"),
    ({"image": np.zeros((0, 5, 3), np.uint8)}, r"got \[0, 5, 3\]"),
]


@pytest.mark.parametrize(("given", "told"), REFUSED)
def test_what_is_no_picture_is_refused_and_nothing_else_happens(given: dict[str, Any], told: str) -> None:
    source = PushSource(16_000)
    with pytest.raises(FeedError, match=told):
        source.put_video(**given)
    source.put_video(SMOOTH)
    assert source.dropped == 0
    assert next(source.tracks()[0]).video is not None


# Sound

STEREO = np.stack([tone(0.5, 48_000), tone(0.5, 48_000)])


@pytest.mark.parametrize(
    ("samples", "channels"),
    [
        ((STEREO.T * 32_767).astype(np.int16), 2),
        ((STEREO * 32_767).astype(np.int16), 2),
        ((STEREO.T.reshape(-1) * 32_767).astype(np.int16), 2),
        ((STEREO.T.reshape(1, -1) * 32_767).astype(np.int16), 2),
        ((STEREO.T.reshape(-1) * 32_767).astype(np.int16).tobytes(), 2),
        ((STEREO.T * 2_147_483_000).astype(np.int32), 2),
        (STEREO.T, 2),
        (STEREO.astype(np.float64), 2),
        (STEREO[0], 1),
        (STEREO[:1], 1),
    ],
)
def test_sound_of_every_layout_is_heard_alike(samples: Any, channels: int) -> None:
    source = patient(Hand())
    source.put_audio(samples, 48_000, channels)
    heard = sound_of_items(everything(source, 1))
    assert 8000 - 40 <= len(heard) <= 8000
    np.testing.assert_allclose(heard[200:], tone(0.5, 16_000)[200 : len(heard)], atol=0.005)


@pytest.mark.parametrize(
    ("samples", "options", "told"),
    [
        (np.zeros(10, np.float32) + 12_000, {}, "floats in the range of 16-bit integers. Divide them by 32768"),
        (np.zeros(10, np.uint8), {}, "int16, int32, float32, float64, or bytes of int16; got uint8"),
        ([0.1, 0.2], {}, "got list"),
        (np.full(4, np.nan, np.float32), {}, "NaN"),
        (np.zeros(9, np.int16), {"channels": 2}, r"Sound of 2 channels is .*; got \[9\]"),
        (np.zeros((3, 100), np.int16), {"channels": 2}, r"got \[3, 100\]"),
        (np.zeros(9, np.int16), {"channels": 0}, "channels is 0"),
        (np.zeros(9, np.int16), {"rate_hz": 0}, "rate_hz is 0; give samples per second"),
        (np.zeros(9, np.int16), {"rate_hz": "16k"}, "rate_hz is '16k'"),
        (np.zeros(9, np.int16), {"channels": True}, "channels is True"),
        (np.zeros(9, np.int16), {"rate_hz": 48}, "rate_hz is 48; give samples per second"),
        (np.zeros(9, np.int16), {"time_s": float("inf")}, "time_s is inf"),
    ],
)
def test_what_is_no_sound_is_refused_with_what_would_do(samples: Any, options: dict[str, Any], told: str) -> None:
    source = PushSource(16_000)
    with pytest.raises(FeedError, match=told):
        source.put_audio(samples, **({"rate_hz": 16_000} | options))
    assert source.dropped == 0


def test_a_stream_and_an_iterable_refuse_floats_of_integers_too() -> None:
    with fake_listener().stream() as stream, pytest.raises(FeedError, match="Divide them by 32768"):
        stream.push(audio=np.full(640, 3000.0, np.float32))


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.floats(0.0001, 0.04), min_size=1, max_size=40),
    st.sampled_from([8000, 16_000, 44_100, 48_000]),
    st.sampled_from([1, 2]),
    st.booleans(),
)
def test_any_cut_of_pushed_sound_gives_the_same_samples_at_the_slots(
    lengths_s: list[float], rate: int, channels: int, stamped: bool
) -> None:
    samples = np.random.default_rng(rate + channels).integers(-9000, 9000, (rate, channels)).astype(np.int16)
    zero_s, black = BEGIN / 1e9, np.zeros((2, 2, 3), np.uint8)
    video = [(k / 25, Timed(zero_s + k / 25, video=black)) for k in range(25)]

    def slots(lengths: Iterator[int]) -> np.ndarray:
        hand = Hand()
        source = patient(hand)
        start = 0
        while start < rate:
            stop = min(start + next(lengths), rate)
            hand.at(stop / rate)
            source.put_audio(samples[start:stop], rate, channels, time_s=7.0 + start / rate if stamped else None)
            start = stop
        items = [item for item in everything(source, 1) if item.audio is not None]
        heard = [(item.time_s + len(item.audio) / 16_000 - zero_s, item) for item in items if item.audio is not None]
        return np.concatenate([slot.sound for slot in play(video, heard).slots])[: 16_000 - 1280]

    whole = slots(repeat(rate // 50))
    assert np.abs(whole[640:]).mean() > 0.01
    np.testing.assert_array_equal(slots(cycle(max(1, round(length_s * rate)) for length_s in lengths_s)), whole)


def test_sound_that_arrives_unevenly_is_heard_without_gaps() -> None:
    hand, source = Hand(), None
    source = patient(hand)
    samples = tone(3.0, 48_000)
    for number, delay in zip(range(150), [0.0, 0.03, 0.055, 0.01, 0.0] * 30, strict=True):
        hand.at((number + 1) * 0.02 + delay)
        source.put_audio(samples[960 * number : 960 * number + 960], 48_000)
    items = everything(source, 1)
    ends = [item.time_s + len(item.audio) / 16_000 for item in items if item.audio is not None]
    np.testing.assert_allclose([item.time_s for item in items[1:]], ends[:-1], atol=0.002)
    np.testing.assert_allclose(sound_of_items(items)[200:47_000], tone(3.0, 16_000)[200:47_000], atol=0.005)


@pytest.mark.parametrize(
    ("has", "stated", "times"),
    [(48_000, 16_000, "3.0"), (16_000, 48_000, "0.3"), (48_000, 48_000, ""), (44_100, 48_000, "")],
)
def test_a_rate_that_cannot_be_is_told_of_once(
    has: int, stated: int, times: str, caplog: pytest.LogCaptureFixture
) -> None:
    hand = Hand()
    source = PushSource(16_000, clock=hand, name="Ann")
    for number in range(500):
        hand.at(0.02 * (number + 1))
        source.put_audio(np.zeros(has // 50, np.int16), stated)
    said = [
        line
        for line in caplog.messages
        if line.startswith(f"Ann: sound comes {times} times as fast as time passes, by its rate of {stated} Hz")
    ]
    assert len(said) == len(caplog.messages) == bool(times)


def test_a_speaker_who_is_pushed_only_while_it_speaks_has_the_right_rate(caplog: pytest.LogCaptureFixture) -> None:
    hand = Hand()
    source = PushSource(16_000, clock=hand)
    for number in range(1000):
        if number % 100 < 50:  # a second of speech, and one of nothing
            hand.at(0.02 * (number + 1))
            source.put_audio(np.zeros(320, np.int16), 16_000)
    assert caplog.messages == []


def test_a_pause_of_the_sound_is_a_pause() -> None:
    hand = Hand()
    source = patient(hand)
    clicks = click_train(0.5, 16_000)[0]
    for begin in (0.0, 0.5, 3.2):
        hand.at(begin + 0.5)
        source.put_audio(clicks, 16_000)
    starts = [item.time_s - BEGIN / 1e9 for item in everything(source, 1)]
    np.testing.assert_allclose(starts, [0.0, 0.5, 3.2], atol=0.003)


def test_sound_and_pictures_keep_their_distance_by_their_stamps() -> None:
    hand = Hand()
    source = patient(hand)
    for number in range(25):
        hand.at(0.04 * number + 0.1)  # sound comes 60 ms after the pictures of its moment
        source.put_video(SMOOTH, time_s=1000 + 0.04 * number)
        source.put_audio(np.full(640, number / 100, np.float32), 16_000, time_s=1000 + 0.04 * number - 0.06)
    items = everything(source, 1)
    begins = np.array([item.time_s for item in items])
    np.testing.assert_allclose(np.diff(begins), 0.04, atol=1e-6)
    assert source._stamped.at(1000) - round(begins[0] * 1e9) == pytest.approx(60 * MS, abs=MS)


def test_rates_and_channels_may_change_midway() -> None:
    hand = Hand()
    source = patient(hand)
    for number, (rate, channels) in enumerate([(48_000, 2), (16_000, 1), (44_100, 1), (48_000, 1)]):
        hand.at((number + 1) * 0.5)
        block = tone(0.5, rate)
        source.put_audio(np.stack([block] * channels, axis=1), rate, channels)
    heard = sound_of_items(everything(source, 1))
    assert 4 * 8000 - 60 <= len(heard) <= 4 * 8000
    expected = np.tile(tone(0.5, 16_000), 4)
    assert np.sqrt(np.square(heard[200:7000] - expected[200:7000]).mean()) < 0.01


# Bounds, threads, ends


def test_what_is_not_read_in_time_makes_room_for_what_is_newer() -> None:
    hand = Hand()
    source = PushSource(16_000, clock=hand)
    for number in range(100):
        hand.at(number * 0.02)
        if number % 2 == 0:
            source.put_video(np.full((2, 2, 3), number, np.uint8), size=(2, 2))
        source.put_audio(np.full(320, number / 1000, np.float32), 16_000)
    assert source.dropped == (50 - 3) + (100 - 25)
    newest = source.tracks()
    assert int(next(newest[0]).video.max()) == 94  # type: ignore[union-attr]
    assert next(newest[1]).audio[0] == np.float32(0.075)  # type: ignore[index]


def test_a_picture_is_copied() -> None:
    picture = np.full((64, 64, 3), 7, np.uint8)
    source = patient(Hand(), max_side=64)
    source.put_video(picture)
    picture[:] = 9
    assert everything(source, 0)[0].video.max() == 7  # type: ignore[union-attr]


def test_many_threads_and_a_loop_push_at_once() -> None:
    source = PushSource(16_000, picture_ms=1e9, sound_ms=1e9, max_side=64)

    def push() -> None:
        for _ in range(50):
            source.put_video(SMOOTH)
            source.put_audio(np.zeros(160, np.int16), 16_000)

    async def push_too() -> None:
        await asyncio.gather(*(asyncio.to_thread(push) for _ in range(3)))
        push()

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run(push_too())
    for thread in threads:
        thread.join()
    assert source.dropped == 0
    assert len(everything(source, 0)) == 8 * 50


def test_after_its_end_nothing_is_taken_and_nobody_waits() -> None:
    source = PushSource(16_000)
    seen, heard = source.tracks()
    readers = [threading.Thread(target=list, args=(track,)) for track in (seen, heard)]
    for reader in readers:
        reader.start()
    source.close()
    source.close()
    source.put_video(SMOOTH)
    source.put_audio(np.zeros(10, np.int16), 16_000)
    source.set_camera(False)
    for reader in readers:
        reader.join(5)
        assert not reader.is_alive()
    assert source.dropped == 0


def test_a_second_session_is_refused_in_place_of_getting_nothing() -> None:
    source = PushSource(16_000)
    source.tracks()
    with pytest.raises(FeedError, match="feeds one session"):
        source.tracks()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sample_rate_hz": 16_001}, "16001 Hz is no multiple of 25"),
        ({"max_side": 8}, "max_side is 8"),
        ({"picture_ms": 0}, "picture_ms is 0"),
        ({"sound_ms": float("inf")}, "sound_ms is inf"),
        ({"video": False, "audio": False}, "is nobody"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options: dict[str, Any], told: str) -> None:
    given: dict[str, Any] = {"sample_rate_hz": 16_000} | options
    with pytest.raises(FeedError, match=told):
        PushSource(**given)


def test_what_was_said_not_to_come_is_refused() -> None:
    with pytest.raises(FeedError, match="video=False"):
        PushSource(16_000, video=False).put_video(SMOOTH)
    with pytest.raises(FeedError, match="video=False"):
        PushSource(16_000, video=False).set_camera(True)
    with pytest.raises(FeedError, match="audio=False"):
        PushSource(16_000, audio=False).put_audio(np.zeros(4, np.int16), 16_000)
    assert PushSource(16_000, audio=False).sample_rate_hz is None
    assert len(PushSource(16_000, audio=False).tracks()) == 1


# Sessions


def talk(source: PushSource, until: list[ListenerFrame], count: int, *, camera: bool) -> None:
    """Push 48 kHz stereo, and 30 pictures a second, until so many frames were shown."""
    begin, blocks = time.perf_counter(), 0
    while len(until) < count and time.perf_counter() - begin < 20:
        if camera and blocks % 5 in (0, 2, 4):
            source.put_video(SMOOTH, format="bgr")
        source.put_audio(np.full((960, 2), 900, np.int16), 48_000, channels=2)
        blocks += 1
        time.sleep(max(0.0, begin + blocks * 0.02 - time.perf_counter()))
    assert len(until) >= count


@pytest.mark.parametrize("told", [True, False])
def test_a_speaker_who_is_only_heard_gets_frames(told: bool) -> None:
    shown: list[ListenerFrame] = []
    listener = fake_listener(detector=Daylight(), lookahead=0)
    source = PushSource(listener.sample_rate_hz)
    if told:
        source.set_camera(False)
    with listener.live(source, shown.append) as session:
        talk(source, shown, 12, camera=False)
        assert session.error is None
    assert {frame.face for frame in shown} == {FaceState.LOST}
    steps = np.diff([frame.ledger.frame for frame in shown])
    assert steps.min() >= 1


def test_a_camera_that_is_switched_off_is_no_face_and_comes_back() -> None:
    shown: list[ListenerFrame] = []
    seen: list[int] = []

    class Watching(Daylight):
        def detect(self, frame_rgb: Any) -> list[Face]:
            seen.append(int(frame_rgb.max()))
            return super().detect(frame_rgb)

    listener = fake_listener(detector=Watching(), lookahead=0)
    source = PushSource(listener.sample_rate_hz)
    with listener.live(source, shown.append):
        talk(source, shown, 30, camera=True)
        assert [frame.face for frame in shown[-1:]] == [FaceState.LOCKED]
        source.set_camera(False)
        before = len(shown)
        talk(source, shown, before + 75, camera=True)  # pictures that still come are not looked at
        assert [frame.face for frame in shown[-1:]] == [FaceState.LOST]
        assert seen[-1] == 0
        source.set_camera(True)
        talk(source, shown, len(shown) + 30, camera=True)
        assert shown[-1].face in (FaceState.REACQUIRED, FaceState.LOCKED)
