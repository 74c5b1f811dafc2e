"""Which picture is shown when."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.media.clips import PictureTrack, SoundTrack, click_train, greys, read, shown, write_clip, write_tracks

from pflx.runtime.media.clip import open_speaker


def _slot(time_ms: float) -> int:
    """The frame nearest to a time; of two the earlier one."""
    return math.ceil((time_ms - 20) / 40)


@settings(max_examples=25, deadline=None)
@given(gaps_ms=st.lists(st.integers(5, 400), min_size=1, max_size=20))
def test_each_frame_shows_the_nearest_picture_or_else_the_latest(
    tmp_path_factory: pytest.TempPathFactory, gaps_ms: list[int]
) -> None:
    times = [0, *np.cumsum(gaps_ms).tolist()]
    clip = write_clip(tmp_path_factory.mktemp("vfr") / "vfr.mkv", [time / 1000 for time in times])
    video = read(open_speaker(clip)).video
    expected: list[set[int]] = []
    for frame in range(len(video)):
        own = [index for index, time in enumerate(times) if _slot(time) == frame]
        before = [index for index, time in enumerate(times) if _slot(time) < frame]
        least = min((abs(times[index] - 40 * frame) for index in own), default=0)
        nearest = [index for index in own if abs(times[index] - 40 * frame) == least]  # of two as near, either
        expected.append({index % 24 for index in nearest or before[-1:]})
    assert all(picture in allowed for picture, allowed in zip(shown(video), expected, strict=True))
    assert max(1, _slot(times[-1] + 5)) <= len(video) <= _slot(times[-1] + 400) + 1


@pytest.mark.parametrize("late_ms", [0, 1, 17, 20])
@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_pictures_a_little_later_than_the_sound_come_once_each(tmp_path: Path, late_ms: int, suffix: str) -> None:
    times = [late_ms / 1000 + index / 25 for index in range(50)]
    clip = write_clip(tmp_path / f"late{suffix}", times, sound=click_train(2.0, 16_000))
    assert shown(read(open_speaker(clip)).video) == [index % 24 for index in range(50)]


@pytest.mark.parametrize("rate", [Fraction(30_000, 1001), Fraction(24_000, 1001), Fraction(60), Fraction(15)])
def test_no_frame_is_more_than_half_a_frame_ahead_or_a_picture_behind(tmp_path: Path, rate: Fraction) -> None:
    count = 4 * round(rate)
    clip = write_tracks(tmp_path / "clip.mp4", PictureTrack(greys(count), rate, options={"crf": "1"}))
    speaker = open_speaker(clip)
    video = read(speaker).video
    assert len(video) == speaker.frames == round(count / rate * 25)
    pictures = np.unwrap(shown(video), period=24)
    errors_s = pictures / float(rate) - np.arange(len(video)) / 25
    assert errors_s.max() <= 0.0201
    assert errors_s.min() >= min(-0.0201, 0.0199 - 1 / float(rate))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("h264.avi", "libx264", {"bf": "3", "b_strategy": "0", "crf": "1"}),
        ("mpeg4.avi", "mpeg4", {"bf": "2"}),
        ("mpeg2.avi", "mpeg2video", {"bf": "2"}),
        ("raw.h264", "libx264", {"bf": "3", "b_strategy": "0", "crf": "1"}),
        ("stamped.mp4", "libx264", {"bf": "3", "b_strategy": "0", "crf": "1"}),
    ],
)
def test_pictures_come_once_and_in_order_where_only_decoding_has_its_times(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    pictures = PictureTrack(greys(60), codec=codec, options=options, facts={"bit_rate": 2_000_000})
    clip = write_tracks(tmp_path / name, pictures)
    speaker = open_speaker(clip)
    assert shown(read(speaker).video) == [index % 24 for index in range(60)]
    assert speaker.video is not None
    assert speaker.video.by_decode_time == ("264" in name)  # FFmpeg puts the others in order by itself


def test_sound_of_a_clip_with_decode_times_stays_with_its_pictures(tmp_path: Path) -> None:
    pictures = PictureTrack(greys(50), options={"bf": "3", "b_strategy": "0", "crf": "1"})
    sound = SoundTrack(click_train(2.0, 16_000), codec="pcm_s16le")
    speaker = open_speaker(write_tracks(tmp_path / "b.avi", pictures, sound))
    whole = read(speaker)
    assert shown(whole.video) == [index % 24 for index in range(50)]
    assert speaker.origin_s == 0
