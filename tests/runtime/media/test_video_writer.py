"""Videos that are written: what is in them, and what is left after a failure."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from support.media.clips import click_train, grey_level, onsets, read, shown

from pflx.runtime.frames.arrays import Float64Array, UInt8Array
from pflx.runtime.media.clip import open_speaker
from pflx.runtime.media.errors import MediaError
from pflx.runtime.media.video_writer import VideoWriter


def pictures(count: int, size: tuple[int, int]) -> UInt8Array:
    frames = np.zeros((count, size[1], size[0], 3), np.uint8)
    frames[:] = np.array([grey_level(i) for i in range(count)], np.uint8)[:, None, None, None]
    return frames


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_what_was_written_is_read_back_in_time(tmp_path: Path, rate: int) -> None:
    path, frames, sound = tmp_path / "out.mp4", pictures(75, (64, 48)), click_train(3.0, rate)[0]
    with VideoWriter(path, (64, 48), audio=True, sample_rate_hz=rate) as writer:
        for start in range(0, 75, 20):
            writer.write(frames[start : start + 20])
            writer.write_audio(sound[rate // 25 * start : rate // 25 * (start + 20)])
        assert not path.exists()
    speaker = open_speaker(path, rate)
    assert (speaker.width, speaker.height, speaker.source_fps) == (64, 48, 25.0)
    whole = read(speaker)
    assert shown(whole.video) == [i % 24 for i in range(75)]
    np.testing.assert_allclose(onsets(whole.audio, rate), [0.5, 1.0, 1.5, 2.0, 2.5], atol=0.004)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.audio[0].codec_context.name == "aac"
        assert container.streams.audio[0].rate == rate
    assert path.read_bytes().find(b"moov") < path.read_bytes().find(b"mdat")
    assert list(tmp_path.iterdir()) == [path]


def as_players_show_it(path: Path) -> Float64Array:
    """The first picture of a video in levels [H, W, 3], by BT.709 in limited range. Source: ITU-R BT.709-6, item 3."""
    with av.open(str(path)) as container:
        luma, blue, red = (np.asarray(plane, np.float64) for plane in planes(next(container.decode(video=0))))
    y, cb, cr = (luma - 16) / 219, (blue - 128) / 224, (red - 128) / 224
    rgb = np.stack([y + 1.5748 * cr, y - 0.1873 * cb - 0.4681 * cr, y + 1.8556 * cb], axis=-1)
    return np.asarray(np.clip(255 * rgb, 0, 255), np.float64)


def planes(frame: av.VideoFrame) -> list[UInt8Array]:
    """Luma, and both chromas, which have half its size, in its size."""
    assert frame.format.name == "yuv420p"
    raw = [np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size) for plane in frame.planes]
    luma, *chroma = (values[:, : plane.width] for values, plane in zip(raw, frame.planes, strict=True))
    return [luma, *(cv2.resize(values, luma.shape[::-1]).astype(np.uint8) for values in chroma)]


def test_players_show_the_colours_that_were_written(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    coarse = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
    written = np.clip(cv2.resize(coarse, (256, 256), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
    with VideoWriter(path, (256, 256)) as writer:
        writer.write(np.repeat(written[None], 5, axis=0))
    with av.open(str(path)) as container:
        colours = container.streams.video[0].codec_context
        bt709, limited = 1, 1
        assert (colours.color_primaries, colours.color_trc, colours.colorspace) == (bt709, bt709, bt709)
        assert colours.color_range == limited
    error = as_players_show_it(path) - written
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.5
    assert np.abs(error).mean() < 2


def test_sound_that_ends_early_is_followed_by_silence(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, (64, 48), audio=True) as writer:
        writer.write(pictures(50, (64, 48)))
        writer.write_audio(click_train(0.6, 16_000)[0])
    with av.open(str(path)) as container:
        audio = container.streams.audio[0]
        assert float(audio.duration * audio.time_base) == pytest.approx(2.0, abs=0.07)  # type: ignore[operator]


def test_an_odd_size_is_filled_up(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    with VideoWriter(path, (63, 47)) as writer:
        writer.write(pictures(5, (63, 47)))
    speaker = open_speaker(path)
    assert (speaker.width, speaker.height) == (64, 48)
    assert shown(read(speaker).video) == list(range(5))


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_no_file_and_keeps_the_old_one(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    frames = pictures(30, (64, 48))

    def fail_halfway() -> None:
        with VideoWriter(path, (64, 48)) as writer:
            writer.write(frames)
            raise failure

    with pytest.raises(failure):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_without_frames_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no frame"), VideoWriter(tmp_path / "out.mp4", (64, 48), audio=True):
        pass
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    for name, reason in (
        ("missing/out.mp4", "no folder"),
        ("out.avi", r"'\.avi'"),
        ("folder.mp4", "is a folder"),
    ):
        with pytest.raises(MediaError, match=reason):
            VideoWriter(tmp_path / name, (64, 48))
    with pytest.raises(MediaError, match="Cannot write"):
        VideoWriter("/proc/out.mp4", (64, 48))


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(MediaError, match=r"\[T, 48, 64, 3\]"),
        VideoWriter(tmp_path / "out.mp4", (64, 48)) as writer,
    ):
        writer.write(pictures(1, (48, 64)))


@pytest.mark.parametrize("size", [(16_388, 64), (64, 16_388)])
def test_pictures_that_no_encoder_takes_are_refused_with_their_size(size: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(
        MediaError, match=f"would have pictures of {size[0]} x {size[1]} pixels, and 16384 is the longest"
    ):
        VideoWriter(tmp_path / "out.mp4", size)
    assert [*tmp_path.iterdir()] == []
