"""Many channels as one: as loud as the mean of those that play, whatever the format, the cut and the way they came."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.media.clips import read

from pflx.runtime.frames.arrays import Float32Array
from pflx.runtime.media import webcam
from pflx.runtime.media.clip import open_speaker
from pflx.runtime.media.sound import Downmix, MonoResampler, as_floats, channels_of, names_of
from pflx.runtime.media.video_writer import VideoWriter

RATE = 16_000
SCALES: dict[str, Any] = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}


def tone(amplitude: float, seconds: float = 1.0, hz: float = 440.0, rate: int = RATE) -> Float32Array:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def distortion(samples: Float32Array, hz: float = 440.0, rate: int = RATE) -> float:
    """Share of a tone's amplitude that lies elsewhere."""
    times = np.arange(len(samples)) / rate
    basis = np.stack([np.sin(2 * np.pi * hz * times), np.cos(2 * np.pi * hz * times)])
    found = (basis @ samples) @ basis * 2 / len(samples)
    return float(np.sqrt(np.square(samples - found).mean() / np.square(found).mean()))


def encoded(channels: Float32Array, name: str) -> np.ndarray:
    """As a sample format has it."""
    kind = np.dtype(SCALES[name.removesuffix("p")])
    if kind.kind == "f":
        return channels.astype(kind)
    half = 2.0 ** (8 * kind.itemsize - 1)
    levels = np.clip(np.round(channels.astype(np.float64) * half), -half, half - 1) + half * (kind.kind == "u")
    return np.asarray(levels, kind)


def frame_of(channels: Float32Array, name: str, layout: str, rate: int = RATE) -> av.AudioFrame:
    stored = encoded(channels, name)
    stored = stored if name.endswith("p") else np.ascontiguousarray(stored.T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(stored, format=name, layout=layout)
    frame.sample_rate = rate
    return frame


def planar(frame: av.AudioFrame) -> av.AudioFrame:
    """The same frame with a plane for each channel; PyAV itself cannot make one of eight channels."""
    (same,) = av.AudioResampler(format=f"{frame.format.name}p", layout=frame.layout.name).resample(frame)
    return same


def mixed(*frames: av.AudioFrame) -> Float32Array:
    downmix = Downmix(lambda: None)
    return np.concatenate([downmix.mix(channels_of(frame), names_of(frame)) for frame in frames])


@pytest.mark.parametrize("layout", ["mono", "stereo", "quad", "5.1", "7.1"])
@pytest.mark.parametrize("name", SCALES)
def test_equal_channels_are_as_loud_as_one_in_every_format(name: str, layout: str) -> None:
    one = tone(0.99, 0.2)
    frame = frame_of(np.tile(one, (av.AudioLayout(layout).nb_channels, 1)), name, layout)
    for heard in (mixed(frame), mixed(planar(frame))):
        np.testing.assert_allclose(heard, one, atol=1 / 128 if name == "u8" else 1 / 32_768)
        assert np.abs(heard).max() <= 1.0


def test_integers_of_any_width_reach_from_minus_one_to_one() -> None:
    for kind in (np.uint8, np.int16, np.int32, np.int64):
        info = np.iinfo(kind)
        lowest, middle, highest = as_floats(np.array([info.min, int(info.max) // 2 + (info.min == 0), info.max], kind))
        assert lowest == -1.0
        assert middle == pytest.approx(0.0 if info.min == 0 else 0.5, abs=0.01)
        assert highest == pytest.approx(1.0, abs=0.01)


SOUNDS = st.integers(1, 8).flatmap(
    lambda channels: st.lists(st.floats(0, 1), min_size=channels, max_size=channels).map(np.array)
)


@given(SOUNDS, st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3000), max_size=6))
def test_the_mix_is_never_above_the_loudest_channel_and_any_cut_gives_the_same(
    levels: np.ndarray, seed: int, cuts: list[int]
) -> None:
    random = np.random.default_rng(seed)
    channels = (levels[:, None] * random.uniform(-1, 1, (len(levels), 3000))).astype(np.float32)
    for row, start in zip(channels, random.integers(0, 3000, len(levels)), strict=True):
        row[:start] = 0  # they begin to play at different times
    names = [f"channel {index}" for index in range(len(levels))]
    whole = Downmix(lambda: None).mix(channels, names)
    assert (np.abs(whole) <= np.abs(channels).max(axis=0) * (1 + 1e-6)).all()
    piecewise = Downmix(lambda: None)
    parts = [piecewise.mix(channels[:, start:stop], names) for start, stop in pairwise(sorted([0, *cuts, 3000]))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@given(st.sampled_from([8000, 16_000, 44_100, 48_000]), st.lists(st.integers(0, 9600), max_size=8))
def test_any_cut_is_resampled_to_the_same(rate: int, cuts: list[int]) -> None:
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, 9600).astype(np.float32)
    whole, piecewise = MonoResampler(rate, RATE), MonoResampler(rate, RATE)
    expected = np.concatenate([whole.push(samples), whole.push(None)])
    parts = [piecewise.push(samples[start:stop]) for start, stop in pairwise(sorted([0, *cuts, 9600]))]
    np.testing.assert_array_equal(np.concatenate([*parts, piecewise.push(None)]), expected)


@pytest.mark.parametrize(("layout", "place"), [("stereo", 0), ("stereo", 1), ("5.1", 2), ("7.1", 7)])
def test_a_voice_on_one_channel_keeps_its_level(layout: str, place: int) -> None:
    channels = np.zeros((av.AudioLayout(layout).nb_channels, RATE), np.float32)
    channels[place] = tone(0.5)
    np.testing.assert_allclose(mixed(frame_of(channels, "flt", layout)), channels[place], atol=1e-6)


def test_a_channel_that_only_hisses_does_not_halve_the_other() -> None:
    hiss = np.random.default_rng(0).uniform(-9e-5, 9e-5, RATE).astype(np.float32)
    voice = tone(0.5)
    np.testing.assert_allclose(mixed(frame_of(np.stack([voice, hiss]), "fltp", "stereo")), voice, atol=1e-4)


def test_a_channel_that_begins_later_comes_in_without_a_step() -> None:
    left, right = np.full(4000, 0.8, np.float32), np.zeros(4000, np.float32)
    right[2000:] = 0.4
    heard = mixed(frame_of(np.stack([left, right]), "fltp", "stereo"))
    np.testing.assert_array_equal(heard[:2001], left[:2001])
    np.testing.assert_allclose(heard[2480:], 0.6, atol=1e-6)
    assert np.abs(np.diff(heard)).max() < 0.001


def test_a_subwoofer_is_left_out() -> None:
    channels = np.zeros((6, RATE), np.float32)
    channels[0], channels[3] = tone(0.5), tone(0.9, hz=50)
    np.testing.assert_allclose(mixed(frame_of(channels, "s16", "5.1")), channels[0], atol=1 / 32_768)


def test_different_channels_are_averaged() -> None:
    left, right = tone(0.8), tone(0.6, hz=700)
    heard = mixed(frame_of(np.stack([left, right]), "dbl", "stereo"))
    np.testing.assert_allclose(heard[480:], ((left + right) / 2)[480:], atol=1e-6)


@pytest.mark.parametrize(("right", "told"), [(-1.0, 1), (-0.9, 1), (1.0, 0), (0.0, 0), (-0.3, 0)])
def test_channels_that_cancel_are_told_of_once(right: float, told: int) -> None:
    notes: list[str] = []
    downmix = Downmix(lambda: notes.append("cancelled"))
    voice = tone(0.5, 3.0)
    for start in range(0, len(voice), 320):
        block = voice[start : start + 320]
        downmix.mix(np.stack([block, np.float32(right) * block]), ["FL", "FR"])
    assert len(notes) == told


def written(path: Path, channels: Float32Array, codec: str, layout: str, rate: int = 48_000) -> Path:
    """A clip of so many channels of sound, and dark pictures."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio: Any = container.add_stream(codec, rate=rate, layout=layout)
        for _ in range(channels.shape[1] * 25 // rate):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(video.encode(None))
        for start in range(0, channels.shape[1], 1024):
            block = frame_of(channels[:, start : start + 1024], "fltp", layout, rate)
            block.pts = start
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize("layout", ["mono", "stereo", "quad", "5.1"])
@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_clips_of_all_formats_are_equally_loud(tmp_path: Path, codec: str, layout: str) -> None:
    one = tone(0.99, 1.0, rate=48_000)
    clip = written(tmp_path / "loud.mkv", np.tile(one, (av.AudioLayout(layout).nb_channels, 1)), codec, layout)
    heard = read(open_speaker(clip)).audio[2000:14_000]
    assert np.abs(heard).max() == pytest.approx(0.99, abs=0.01)
    assert distortion(heard) < (0.01 if codec == "pcm_u8" else 0.001)


def test_a_written_video_has_the_loud_sound_of_a_stereo_clip_undistorted(tmp_path: Path) -> None:
    clip = written(tmp_path / "loud.mkv", np.tile(tone(0.97, 2.0, rate=48_000), (2, 1)), "pcm_s16le", "stereo")
    with VideoWriter(tmp_path / "out.mp4", size=(64, 48), audio=True, sample_rate_hz=RATE) as writer:
        for chunk in open_speaker(clip).chunks():
            writer.write(chunk.video)
            writer.write_audio(chunk.audio)
    heard = read(open_speaker(tmp_path / "out.mp4")).audio[4000:28_000]
    assert distortion(heard) < 0.01  # AAC's own; clipped it was 0.116
    assert np.abs(heard).max() < 1.0


def test_a_clip_whose_channels_cancel_says_so_once_however_often_it_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    voice = tone(0.5, 2.0, rate=48_000)
    clip = open_speaker(written(tmp_path / "phase.mkv", np.stack([voice, -voice]), "pcm_s16le", "stereo"))
    for _ in range(2):
        assert np.abs(read(clip).audio).max() < 1e-3
    (said,) = [line for line in caplog.messages if "opposite phase" in line]
    assert "phase.mkv" in said
    assert "record in mono" in said


@pytest.mark.parametrize("channels", [1, 2])
def test_a_microphone_is_as_loud_as_one_of_its_equal_channels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, channels: int
) -> None:
    with wave.open(str(tmp_path / "voice.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(encoded(np.tile(tone(0.99, 1.0, rate=48_000), (channels, 1)), "s16").T.tobytes())
    monkeypatch.setattr(webcam, "_microphone_address", lambda name, platform: (str(tmp_path / "voice.wav"), "wav"))
    microphone = webcam._Microphone("default", RATE, lambda: 0)
    blocks: Sequence[Float32Array] = [microphone._block() for _ in range(8)]
    heard = np.concatenate(blocks)[1000:]
    assert np.abs(heard).max() == pytest.approx(0.99, abs=0.01)
    assert distortion(heard) < 0.001
