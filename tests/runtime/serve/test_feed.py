"""What a visitor's media passes through: bounded, stamped, and never older than it has to be."""

from __future__ import annotations

import asyncio
from fractions import Fraction

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError
from support.fakes import SIZE, frames_of
from support.live.live_sessions import run, speaker
from support.live.pushing import BEGIN, Hand, everything, patient

from pflx.runtime import Ledger, ListenerFrame, PushSource, Rung, Timed
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.latency.percentiles import figures
from pflx.runtime.serve.feed import PeerFeed
from pflx.runtime.serve.panel import SPAN_S, Panel, panel_figures
from pflx.runtime.serve.screen import ListenerTrack, TrackSink

MS = 1_000_000


def sound(number: int, *, rate_hz: int = 48_000) -> av.AudioFrame:
    """20 ms of a stereo tone of 440 Hz, the number-th in a row."""
    count = rate_hz // 50
    times = (np.arange(count) + number * count) / rate_hz
    tone = (8000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(np.repeat(tone, 2)[None], format="s16", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, number * count, Fraction(1, rate_hz)
    return frame


def picture(number: int, fps: int = 25) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(frames_of(1, size=(64, 48), seed=number)[0], format="rgb24")
    frame.pts, frame.time_base = number * 90_000 // fps, Fraction(1, 90_000)
    return frame


def as_encoded(image: UInt8Array) -> UInt8Array:
    """The planes that an encoder is given of RGB."""
    return np.asarray(av.VideoFrame.from_ndarray(image, format="rgb24").to_ndarray(format="yuv420p"), np.uint8)


def fed(*, pictures: int = 0, blocks: int = 0, delay_ms: list[int] | None = None) -> list[Timed]:
    """What a session reads of media that arrives with such delays, one after the other."""
    delays, feed = delay_ms or [0], PeerFeed(lambda: 0)
    hand = Hand()
    feed.source = patient(hand)
    for number in range(pictures or blocks):
        step = 40 if pictures else 20
        hand.now = (1000 + step * (number + (not pictures)) + delays[number % len(delays)]) * MS
        feed.take(picture(number) if pictures else sound(number), hand.now)
    return everything(feed.source, 0 if pictures else 1)


def test_a_session_that_reads_too_slowly_misses_input_and_nothing_piles_up() -> None:
    feed = PeerFeed(lambda: 0)
    hand = Hand()
    feed.source = PushSource(16_000, clock=hand)
    for number in range(100):
        hand.now = number * 40 * MS
        feed.take(picture(number), hand.now)
        feed.take(sound(number), hand.now)
    assert feed.source.dropped == (100 - 3) + (100 - 25)


def test_pictures_are_stamped_on_the_servers_clock_whatever_the_network_delays() -> None:
    made = fed(pictures=50, delay_ms=[0, 15, 30, 5])
    times = np.array([item.time_s for item in made])
    np.testing.assert_allclose(np.diff(times), 0.04, atol=3e-4)
    assert times[0] == pytest.approx(1.0)
    assert made[3].video is not None
    assert made[3].video.shape == (640, 640, 3)


def test_a_session_sees_what_the_camera_saw() -> None:
    shades = np.asarray(np.linspace(60, 190, 64 * 48 * 3).reshape(48, 64, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(shades, format="rgb24").reformat(format="yuv420p")
    frame.pts, frame.time_base = 0, Fraction(1, 90_000)
    for given in (frame, frame.reformat(format="nv12")):
        feed = PeerFeed(lambda: 0)
        feed.source = patient(Hand(), max_side=64)
        given.pts, given.time_base = 0, Fraction(1, 90_000)
        feed.take(given, BEGIN)
        (seen,) = everything(feed.source, 0)
        assert seen.video is not None
        np.testing.assert_allclose(seen.video[8:56].astype(int), shades, atol=4)


def test_sound_becomes_mono_at_the_listeners_rate_without_gaps() -> None:
    made = fed(blocks=50, delay_ms=[0, 12, 40])
    parts = [item.audio for item in made if item.audio is not None]
    heard = np.concatenate(parts)
    assert 50 * 320 - 64 <= len(heard) <= 50 * 320
    spectrum = np.abs(np.fft.rfft(heard[: 16_000 // 2] * np.hanning(8_000)))
    assert np.argmax(spectrum) * 2 == 440
    assert np.abs(heard).max() == pytest.approx(8000 / 32768, rel=0.05)
    begins = np.array([item.time_s for item in made])
    np.testing.assert_allclose(np.diff(begins)[1:], 0.02, atol=3e-4)


def test_what_comes_while_there_is_no_session_is_taken_and_dropped() -> None:
    class Track:
        left = 5

        async def recv(self) -> av.VideoFrame:
            if not self.left:
                raise MediaStreamError
            self.left -= 1
            return picture(self.left)

    feed = PeerFeed(lambda: 7)
    asyncio.run(feed.pump(Track()))  # type: ignore[arg-type]
    assert feed.heard_of == 7


def test_only_the_newest_picture_waits_for_the_encoder() -> None:
    async def watch() -> None:
        track = ListenerTrack(asyncio.get_running_loop())
        pictures = frames_of(5)
        for number in range(5):
            track.offer(pictures[number], (10 + number) * 40 * MS)
        assert track.dropped == 4
        shown = await track.recv()
        np.testing.assert_array_equal(shown.to_ndarray(), as_encoded(pictures[4]))
        assert track.sent == 1

    asyncio.run(watch())


def test_pictures_are_stamped_with_their_deadlines_and_stamps_only_grow() -> None:
    async def watch() -> list[int]:
        track, stamps = ListenerTrack(asyncio.get_running_loop()), list[int]()
        for deadline_ms in (1000, 1040, 1040, 1030, 1120):
            track.offer(frames_of(1)[0], deadline_ms * MS)
            stamps.append((await track.recv()).pts or 0)
        return stamps

    assert asyncio.run(watch()) == [0, 3600, 3601, 3602, 10_800]


def test_a_stopped_track_tells_whoever_waits() -> None:
    async def watch() -> None:
        track = ListenerTrack(asyncio.get_running_loop())
        waiting = asyncio.create_task(track.recv())
        await asyncio.sleep(0)
        track.stop()
        with pytest.raises(MediaStreamError):
            await asyncio.wait_for(waiting, 5)

    asyncio.run(watch())


def test_samples_of_one_moment_are_shown_together_side_by_side() -> None:
    frames: list[ListenerFrame] = run(speaker(45), samples=3).frames

    async def watch() -> None:
        track = ListenerTrack(asyncio.get_running_loop())
        sink = TrackSink(track, 3)
        for frame in frames[:6]:
            sink.show(frame)
        shown = await track.recv()
        assert (shown.width, shown.height) == (3 * SIZE, SIZE)
        expected = np.concatenate([frame.image for frame in frames[3:6]], axis=1)
        np.testing.assert_array_equal(shown.to_ndarray(), as_encoded(expected))
        assert track.dropped == 1

    asyncio.run(watch())


@pytest.mark.parametrize("samples", [1, 3])
def test_a_panel_says_what_bench_latency_would(samples: int) -> None:
    ledgers = run(speaker(300), render=9, generate=30, samples=samples).ledgers
    given = {"hop": 8, "samples": samples, "algorithmic_ms": 440.0, "playout_ms": 100.0}
    told = panel_figures(ledgers, hears=True, **given)  # type: ignore[arg-type]
    expected = figures(ledgers, **given)  # type: ignore[arg-type]
    assert expected.age is not None
    assert expected.age.p50 is not None
    assert (told.age_ms, told.missed, told.frames) == (expected.age.p50.value, expected.missed, expected.frames)
    assert (told.rungs, told.fps) == (expected.rungs, expected.fps_shown)
    assert told.reaction_ms is not None
    assert 40 + 100 <= told.reaction_ms <= 440 + 100


def test_a_panel_remembers_ten_seconds_and_no_more() -> None:
    panel = Panel(2)
    for number in range(2000):
        for sample in range(2):
            panel.record(Ledger(number, sample, None, None, Rung.HOLD, number / 25))
    ledgers = panel.ledgers()
    assert len(ledgers) == SPAN_S * 25 * 2
    assert ledgers[0].frame == 2000 - SPAN_S * 25
