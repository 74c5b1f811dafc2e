"""Files and iterables as sources of timed pictures and sound."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.media.timed_items import bgr, pictures, sound
from support.places import MEDIA

from pflx.engines import FeedError
from pflx.runtime import MediaError, open_speaker
from pflx.runtime.media.sources import FileSource, IterableSource, Source, Timed, as_source
from pflx.runtime.media.webcam import WebcamSource

CLIP = MEDIA / "podium_speech_8s.mp4"
SILENT = MEDIA / "webcam_cap12_12s.mp4"


def test_a_file_gives_each_picture_and_then_its_sound_on_one_clock() -> None:
    (track,) = FileSource(CLIP).tracks()
    items = list(track)
    whole = list(open_speaker(CLIP).chunks(50))
    np.testing.assert_array_equal(np.stack(pictures(items)), np.concatenate([chunk.video for chunk in whole]))
    np.testing.assert_array_equal(sound(items), np.concatenate([chunk.audio for chunk in whole]))
    assert [item.time_s for item in items] == [index // 2 / 25 for index in range(len(items))]
    assert [item.video is not None for item in items[:4]] == [True, False, True, False]
    assert {len(item.audio) for item in items if item.audio is not None} == {640}


def test_a_file_gives_its_sound_at_the_rate_it_is_asked_for() -> None:
    for source in (FileSource(CLIP, sample_rate_hz=44_100), FileSource(open_speaker(CLIP, 44_100))):
        assert source.sample_rate_hz == 44_100
        items = list(islice(source.tracks()[0], 10))
        assert {len(item.audio) for item in items if item.audio is not None} == {1764}


def test_a_file_without_sound_gives_silence() -> None:
    (track,) = FileSource(open_speaker(SILENT).limited(0.4)).tracks()
    items = list(track)
    assert len(items) == 20
    assert not sound(items).any()


def test_time_goes_on_when_a_file_begins_again() -> None:
    clip = open_speaker(CLIP).limited(0.2)
    (track,) = FileSource(clip, loop=True).tracks()
    items = list(islice(track, 24))
    assert [item.time_s for item in items[::2]] == [index / 25 for index in range(12)]
    np.testing.assert_array_equal(pictures(items)[0], pictures(items)[5])
    np.testing.assert_array_equal(sound(items)[: 5 * 640], sound(items)[5 * 640 : 10 * 640])


def test_a_file_can_be_read_again_from_its_start() -> None:
    source = FileSource(open_speaker(CLIP).limited(0.2))
    first, second = (list(source.tracks()[0]) for _ in range(2))
    np.testing.assert_array_equal(sound(first), sound(second))


@pytest.mark.parametrize("source", [FileSource(CLIP, loop=True), IterableSource(Timed(i / 25, bgr()) for i in count())])
def test_closing_a_source_ends_its_reads(source: Source) -> None:
    (track,) = source.tracks()
    next(track)
    source.close()
    source.close()
    assert list(track) == []


def test_a_path_a_clip_an_iterable_and_a_source_are_all_sources() -> None:
    items = [Timed(0.0, bgr()), Timed(0.0, audio=np.zeros(640, np.float32))]
    for given in (CLIP, str(CLIP), open_speaker(CLIP)):
        assert isinstance(as_source(given), FileSource)
    source = as_source(items)
    assert not source.live
    assert list(source.tracks()[0]) == items
    assert as_source(source) is source
    assert IterableSource(items, live=True).live


def test_clips_and_items_are_taken_at_the_listeners_rate() -> None:
    for given in (CLIP, open_speaker(CLIP), [Timed(0.0, bgr())]):
        assert as_source(given, 44_100).sample_rate_hz == 44_100
        assert as_source(given).sample_rate_hz == 16_000


def test_a_source_with_another_rate_than_the_listeners_is_refused_and_the_fix_told() -> None:
    for source, wanted in ((FileSource(CLIP), 44_100), (IterableSource([], sample_rate_hz=48_000), 16_000)):
        have, name = source.sample_rate_hz, type(source).__name__
        with pytest.raises(FeedError, match=rf"{name} gives sound at {have} Hz.* {wanted} Hz.*sample_rate_hz={wanted}"):
            as_source(source, wanted)


def test_items_of_another_rate_are_to_be_resampled_or_pushed_for_their_source_leaves_them_as_they_are() -> None:
    with pytest.raises(FeedError, match=r"Resample its sound to 16000 Hz.* Or push it: PushSource takes any rate"):
        as_source(IterableSource([], sample_rate_hz=48_000), 16_000)


MAKE: list[Callable[[int], Source]] = [
    lambda rate: FileSource(CLIP, sample_rate_hz=rate),
    lambda rate: IterableSource([], sample_rate_hz=rate),
    lambda rate: WebcamSource(sample_rate_hz=rate),
]


@pytest.mark.parametrize("make", MAKE)
def test_a_source_of_a_rate_that_does_not_divide_into_frames_is_refused(make: Callable[[int], Source]) -> None:
    with pytest.raises(FeedError, match="22051 Hz is no multiple of 25"):
        make(22_051)


@pytest.mark.parametrize("given", [7, object(), WebcamSource])
def test_what_is_no_source_is_refused_in_one_line(given: Any) -> None:
    with pytest.raises(FeedError, match="is no source") as caught:
        as_source(given)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_no_clip_is_found_at_once(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="does not exist"):
        as_source(tmp_path / "none.mp4")


def test_an_iterable_of_something_else_is_named() -> None:
    (track,) = as_source([Timed(0.0, bgr()), bgr()]).tracks()  # type: ignore[list-item]
    next(track)
    with pytest.raises(FeedError, match="yielded ndarray"):
        next(track)


@pytest.mark.parametrize(("has", "stated"), [(48_000, 16_000), (16_000, 48_000), (44_100, 48_000), (8000, 16_000)])
def test_sound_whose_stamps_tell_of_another_rate_is_refused(has: int, stated: int) -> None:
    items = [Timed(k / 50, audio=np.zeros(has // 50, np.float32)) for k in range(60)]
    read = IterableSource(items, sample_rate_hz=stated).tracks()[0]
    with pytest.raises(FeedError, match=rf"the sound has {has} Hz, and {stated} Hz was stated\..*PushSource"):
        list(read)


def test_pauses_jitter_and_drift_are_no_other_rate() -> None:
    random = np.random.default_rng(0)
    pauses = [Timed(k / 50 + k // 7, audio=np.zeros(320, np.float32)) for k in range(100)]
    jitter = [Timed(k / 50 + random.uniform(0, 0.008), audio=np.zeros(320, np.float32)) for k in range(100)]
    drift = [Timed(k / 50 * 1.004, audio=np.zeros(320, np.float32)) for k in range(100)]
    for items in (pauses, jitter, drift):
        assert len(list(IterableSource(items).tracks()[0])) == 100
