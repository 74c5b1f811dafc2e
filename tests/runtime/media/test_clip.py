from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.media.clips import click_train, onsets, read, shown, write_clip
from support.places import MEDIA

from pflx.engines import FeedError
from pflx.runtime.media.clip import open_speaker
from pflx.runtime.media.decoder import stamp_s


def test_a_real_clip_of_odd_rate_becomes_25_fps_and_16_khz() -> None:
    speaker = open_speaker(MEDIA / "podium_speech_8s.mp4")
    assert (speaker.width, speaker.height, speaker.has_audio) == (320, 240, True)
    assert speaker.source_fps == pytest.approx(11.936, abs=0.001)
    whole = read(speaker)
    assert speaker.frames is not None
    assert abs(len(whole.video) - speaker.frames) <= 1
    assert whole.video.shape[1:] == (240, 320, 3)
    assert 0.01 < np.abs(whole.audio).mean() < 0.5
    assert whole.skipped == 0


def test_a_clip_without_sound_gives_silence() -> None:
    speaker = open_speaker(MEDIA / "webcam_cap12_12s.mp4")
    assert not speaker.has_audio
    chunk = next(speaker.chunks(50))
    assert chunk.video.shape == (50, 300, 400, 3)
    assert chunk.audio.shape == (32_000,)
    assert not chunk.audio.any()


def test_chunks_are_the_same_clip_whatever_their_size_and_however_often() -> None:
    speaker = open_speaker(MEDIA / "podium_speech_8s.mp4")
    first, second = read(speaker, 1), read(speaker, 64)
    np.testing.assert_array_equal(first.video, second.video)
    np.testing.assert_array_equal(first.audio, second.audio)
    starts = [chunk.start_s for chunk in speaker.chunks(64)]
    assert starts == [0.0, 2.56, 5.12, 7.68]


@pytest.mark.parametrize("fps", [10, 24, 25, 30, 60])
def test_any_frame_rate_keeps_its_length(tmp_path: Path, fps: int) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [i / fps for i in range(3 * fps)])
    speaker = open_speaker(clip)
    video = read(speaker).video
    assert abs(len(video) - 75) <= 1
    assert speaker.frames is not None
    assert abs(speaker.frames - 75) <= 2


@pytest.mark.parametrize("wanted", [16_000, 44_100, 48_000])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16_000, 1), (44_100, 2), (48_000, 6)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_any_sound_becomes_mono_of_the_wanted_rate_without_a_shift(
    tmp_path: Path, rate: int, channels: int, suffix: str, wanted: int
) -> None:
    if suffix == ".mp4" and rate == 8000:
        rate = 22_050
    clip = write_clip(
        tmp_path / f"clip{suffix}",
        [i / 25 for i in range(75)],
        sound=click_train(3.0, rate, channels),
        rate=rate,
    )
    audio = read(open_speaker(clip, wanted)).audio
    np.testing.assert_allclose(onsets(audio, wanted), [0.5, 1.0, 1.5, 2.0, 2.5], atol=0.004)


def test_a_clip_gives_the_band_above_8_khz_at_the_rate_that_has_it(tmp_path: Path) -> None:
    hiss = (0.5 * np.sin(2 * np.pi * 12_000 * np.arange(44_100) / 44_100)).astype(np.float32)[None]
    clip = write_clip(tmp_path / "hiss.mkv", [i / 25 for i in range(25)], sound=hiss, rate=44_100)
    narrow = open_speaker(clip)
    wide = narrow.at_rate(44_100)
    assert (narrow.sample_rate_hz, wide.sample_rate_hz) == (16_000, 44_100)
    assert wide == open_speaker(clip, 44_100)
    assert wide.limited(0.4).sample_rate_hz == 44_100
    assert np.abs(read(wide).audio).max() == pytest.approx(0.5, abs=0.02)
    assert np.abs(read(narrow).audio[100:-100]).max() < 0.01


@pytest.mark.parametrize("rate", [0, -16_000, 11_024, 22_051])
def test_a_rate_that_does_not_divide_into_frames_is_refused(rate: int) -> None:
    with pytest.raises(FeedError, match=rf"{rate} Hz is no multiple of 25"):
        open_speaker(MEDIA / "podium_speech_8s.mp4", rate)
    with pytest.raises(FeedError, match=rf"{rate} Hz is no multiple of 25"):
        open_speaker(MEDIA / "podium_speech_8s.mp4").at_rate(rate)


def test_sound_that_starts_late_stays_late(tmp_path: Path) -> None:
    clip = write_clip(
        tmp_path / "late.mkv", [i / 25 for i in range(50)], sound=click_train(1.0, 16_000), sound_start_s=0.3
    )
    audio = read(open_speaker(clip)).audio
    np.testing.assert_allclose(onsets(audio), [0.3, 0.8], atol=0.004)
    assert not audio[: int(0.29 * 16_000)].any()


def test_pictures_that_start_late_begin_with_the_first_one(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "late.mkv", [0.4 + i / 25 for i in range(20)], sound=click_train(1.2, 16_000))
    whole = read(open_speaker(clip))
    assert shown(whole.video) == [0] * 10 + list(range(20))
    np.testing.assert_allclose(onsets(whole.audio)[-1], 1.0, atol=0.004)


def test_a_clip_that_does_not_start_at_zero_does_here(tmp_path: Path) -> None:
    times = [7.0 + i / 25 for i in range(20)]
    clip = write_clip(tmp_path / "cut.mkv", times, sound=click_train(1.0, 16_000), sound_start_s=7.0)
    whole = read(open_speaker(clip))
    assert shown(whole.video) == list(range(20))
    np.testing.assert_allclose(onsets(whole.audio), [0.5], atol=0.004)


def test_a_limited_clip_is_the_start_of_the_whole_one() -> None:
    speaker = open_speaker(MEDIA / "podium_speech_8s.mp4")
    start, whole = read(speaker.limited(1.5)), read(speaker)
    assert speaker.limited(1.5).frames == len(start.video) == 38
    np.testing.assert_array_equal(start.video, whole.video[:38])
    np.testing.assert_array_equal(start.audio, whole.audio[: 38 * 640])
    assert speaker.limited(60).frames == speaker.frames
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(FeedError, match="above 0"):
            speaker.limited(seconds)


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_the_pictures_decide_the_length(tmp_path: Path, seconds: float) -> None:
    clip = write_clip(tmp_path / "clip.mkv", [i / 25 for i in range(40)], sound=0.5 + 0 * click_train(seconds, 16_000))
    whole = read(open_speaker(clip))
    assert len(whole.video) == 40
    assert np.abs(whole.audio[round(min(seconds, 1.6) * 16_000) + 100 :]).sum() == 0


def test_a_gap_in_the_sound_is_silence_and_what_follows_keeps_its_time(tmp_path: Path) -> None:
    clip = write_clip(
        tmp_path / "gap.mkv",
        [i / 25 for i in range(75)],
        sound=click_train(3.0, 16_000),
        sound_gap=(0.9, 1.7),
    )
    audio = read(open_speaker(clip)).audio
    np.testing.assert_allclose(onsets(audio), [0.5, 2.0, 2.5], atol=0.004)
    assert not audio[15_900:26_000].any()


def test_time_stamps_that_leap_do_not_stretch_the_clip(tmp_path: Path) -> None:
    leap = [i / 25 for i in range(10)] + [5000 + i / 25 for i in range(10)]
    video = read(open_speaker(write_clip(tmp_path / "leap.mkv", leap))).video
    assert shown(video) == list(range(20))


def test_a_clock_that_starts_anew_in_the_middle_goes_on(tmp_path: Path) -> None:
    times = [i / 25 for i in range(25)]
    once = write_clip(tmp_path / "once.ts", times, sound=click_train(1.0, 16_000), codec="libx264")
    twice = tmp_path / "twice.ts"
    twice.write_bytes(once.read_bytes() * 2)
    whole = read(open_speaker(twice))
    assert abs(len(whole.video) - 50) <= 2
    assert shown(whole.video)[30:49] == [(index - 27) % 24 for index in range(30, 49)]
    assert len(onsets(whole.audio)) == 4


def test_a_rotated_clip_is_turned_upright(tmp_path: Path) -> None:
    plain = read(open_speaker(write_clip(tmp_path / "plain.mp4", [0, 0.04, 0.08]))).video
    for degrees in (90, 180, -90):
        speaker = open_speaker(write_clip(tmp_path / "turned.mp4", [0, 0.04, 0.08], rotation=degrees))
        turned = read(speaker).video
        assert (speaker.width, speaker.height) == turned.shape[2:0:-1]
        assert speaker.rotation % 360 == degrees % 360
        np.testing.assert_array_equal(turned, np.rot90(plain, degrees // 90, axes=(1, 2)))


def test_odd_sizes_are_read_as_they_are(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "odd.avi", [i / 25 for i in range(5)], size=(63, 47), codec="ffv1")
    assert read(open_speaker(clip)).video.shape[1:] == (47, 63, 3)


def test_damaged_packets_are_left_out_counted_and_warned_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = write_clip(tmp_path / "whole.mkv", [i / 25 for i in range(60)], codec="mjpeg", size=(160, 120))
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in packets[20:25]:
        assert position is not None
        data[position + 8 : position + size] = bytes(size - 8)
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        result = read(open_speaker(damaged))
    assert result.skipped == 5
    assert len(result.video) == 60
    assert shown(result.video)[18:27] == [18, 19, 19, 19, 19, 19, 19, 1, 2]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_clip_that_breaks_off_is_read_up_to_there(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mkv", [i / 25 for i in range(60)], size=(160, 120), codec="mjpeg")
    half = tmp_path / "half.mkv"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert 20 < len(read(open_speaker(half)).video) < 40


def test_tags_that_are_not_utf_8_do_not_keep_a_clip_from_being_read(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "tagged.mkv", [i / 25 for i in range(10)], codec="mjpeg", title="of the clip")
    data = clip.read_bytes()
    assert data.count(b"of the clip") == 1
    clip.write_bytes(data.replace(b"of the clip", b"\xe9\xff the clip"))
    assert shown(read(open_speaker(clip)).video) == list(range(10))


def test_a_stamp_without_a_unit_is_none() -> None:
    frame = av.VideoFrame(2, 2, "rgb24")
    frame.pts = 5
    assert stamp_s(frame) is None
    frame.time_base = Fraction(1, 10)
    assert stamp_s(frame) == 0.5


def test_pictures_and_sound_stored_far_apart_are_read_together(tmp_path: Path) -> None:
    # write_clip stores all pictures before all sound.
    clip = write_clip(tmp_path / "apart.avi", [i / 25 for i in range(250)], sound=click_train(10, 16_000))
    chunk = next(open_speaker(clip).chunks(25))
    np.testing.assert_allclose(onsets(chunk.audio), [0.5], atol=0.004)
