from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.media.frames import frame

from pflx.engines import FeedError
from pflx.runtime import FileSource, ListenerFrame, MediaError, open_speaker
from pflx.runtime.media.sinks import CallbackSink, NullSink, Sink, VideoFileSink, as_sink, as_sinks
from pflx.runtime.media.video_writer import VideoWriter

UInt8Array = npt.NDArray[np.uint8]


def levels(path: Path) -> list[int]:
    """The brightness of each picture of a file, as a multiple of 10."""
    video = np.concatenate([chunk.video for chunk in open_speaker(path).chunks()])
    return [round(level / 10) * 10 for level in video.mean(axis=(1, 2, 3)).tolist()]


def test_what_a_sink_can_be_given_as(tmp_path: Path) -> None:
    seen: list[ListenerFrame] = []
    shown = frame(0)
    called = as_sink(seen.append)
    assert isinstance(called, CallbackSink)
    called.show(shown)
    called.close(None)
    assert seen == [shown]
    null = NullSink()
    null.show(shown)
    null.close(RuntimeError())
    assert as_sink(null) is null
    assert as_sink(None) is None
    assert isinstance(as_sink(tmp_path / "a.mp4"), VideoFileSink)
    assert isinstance(as_sink(str(tmp_path / "a.mp4")), VideoFileSink)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [7, NullSink, [print]])
def test_what_is_no_sink_is_refused_in_one_line(given: Any) -> None:
    with pytest.raises(FeedError, match="is no sink") as caught:
        as_sink(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sink", [NullSink(), CallbackSink(print)])
def test_a_sink_may_be_closed_twice(sink: Sink) -> None:
    sink.close(None)
    sink.close(RuntimeError())


def test_a_file_shows_the_frames_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = VideoFileSink(path)
    for number in range(20):
        sink.show(frame(number, 10 * number))
    assert not path.exists()
    sink.close(None)
    sink.close(None)
    assert levels(path) == [10 * number for number in range(20)]
    assert open_speaker(path).source_fps == 25
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=10, deadline=None)
@given(first=st.integers(0, 10**6), gaps=st.lists(st.integers(1, 9), max_size=12))
def test_a_gap_repeats_the_picture_before_it(
    tmp_path_factory: pytest.TempPathFactory, first: int, gaps: list[int]
) -> None:
    path = tmp_path_factory.mktemp("gaps") / "out.mp4"
    sink = VideoFileSink(path)
    numbers = [first + step for step in np.concatenate([[0], np.cumsum(gaps)]).astype(int).tolist()]
    for index, number in enumerate(numbers):
        sink.show(frame(number, 20 * index))
    sink.close(None)
    expected = [20 * index for index, gap in enumerate(gaps) for _ in range(gap)] + [20 * len(gaps)]
    assert levels(path) == expected


def test_a_leap_of_the_clock_is_not_filled(tmp_path: Path) -> None:
    sink = VideoFileSink(tmp_path / "out.mp4")
    for number, level in ((0, 0), (10**9, 50), (10**9 + 1, 100), (3, 150), (4, 200)):
        sink.show(frame(number, level))
    sink.close(None)
    assert levels(tmp_path / "out.mp4") == [0, 50, 100, 150, 200]


def test_a_file_holds_one_of_several_reactions(tmp_path: Path) -> None:
    sink = VideoFileSink(tmp_path / "out.mp4", sample=1)
    for number in range(5):
        for sample in range(3):
            sink.show(frame(number, 100 * sample, sample))
    sink.close(None)
    assert levels(tmp_path / "out.mp4") == [100] * 5


def test_a_session_that_fails_leaves_no_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    sink = VideoFileSink(path)
    sink.show(frame(0))
    sink.close(RuntimeError("an engine failed"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(MediaError, match="is finished"):
        sink.show(frame(1))


def test_a_session_without_frames_says_that_there_is_no_file(tmp_path: Path) -> None:
    sink = VideoFileSink(tmp_path / "out.mp4")
    with pytest.raises(MediaError, match="no frame"):
        sink.close(None)
    VideoFileSink(tmp_path / "out.mp4").close(RuntimeError())
    assert list(tmp_path.iterdir()) == []


def test_a_bad_place_is_found_before_the_session_begins(tmp_path: Path) -> None:
    for name, reason in (("missing/out.mp4", "no folder"), ("out.avi", "suffix"), ("/proc/out.mp4", "Cannot write")):
        with pytest.raises(MediaError, match=reason):
            as_sink(tmp_path / name)


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    sink = VideoFileSink(tmp_path / "out.mp4")
    sink.show(frame(0))
    with pytest.raises(MediaError, match="48, 64"):
        sink.show(frame(1, size=(32, 32)))
    sink.close(RuntimeError())


@pytest.mark.parametrize("given", [str, Path, VideoFileSink, lambda path: [print, path]])
def test_a_session_does_not_write_over_the_clip_that_it_reads(given: Any, tmp_path: Path) -> None:
    clip = tmp_path / "speaker.mp4"
    with VideoWriter(clip, size=(64, 48)) as writer:
        writer.write(np.zeros((5, 48, 64, 3), np.uint8))
    (tmp_path / "link.mp4").hardlink_to(clip)
    before = clip.read_bytes()
    for source in (open_speaker(clip), FileSource(clip)):
        for path in (clip, tmp_path / "link.mp4"):
            with pytest.raises(FeedError, match=f"The sink {path} is {clip}, the clip that the session reads"):
                as_sinks(given(path), source)
    assert clip.read_bytes() == before
    assert len(as_sinks(given(tmp_path / "other.mp4"), open_speaker(clip))) in (1, 2)
