from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.golden_arrays import golden

from pflx.engines import FeedError
from pflx.runtime.speaker.mfcc import MFCC_SIZE, MfccRows, mfcc

RATES = (16000, 44100, 48000)


def speech_like(samples: int, seed: int = 0) -> npt.NDArray[np.float32]:
    random = np.random.default_rng(seed)
    swell = np.sin(np.arange(samples) * 0.002) ** 2
    return np.asarray(0.2 * swell * random.standard_normal(samples), np.float32)


def rows_in_pieces(sound: npt.NDArray[np.float32], rate: int, cuts: list[int]) -> npt.NDArray[np.float32]:
    stream = MfccRows(rate)
    pieces = np.split(sound, sorted(cut % (len(sound) + 1) for cut in cuts))
    return np.concatenate([*(stream.push(piece) for piece in pieces), stream.flush()])


@pytest.mark.parametrize("rate", RATES)
def test_rows_equal_those_of_torchaudio(rate: int) -> None:
    case = golden(f"mfcc{rate}")
    rows = mfcc(case["waveform"], rate)
    assert rows.dtype == np.float32
    # Single precision there, double here. The fixtures themselves ask for 2e-4.
    np.testing.assert_allclose(rows, case["mfcc78"], rtol=0, atol=1e-4)


@given(st.lists(st.integers(0, 20_000), max_size=12), st.sampled_from([8000, 16000, 22050, 44100]))
def test_any_chunking_of_samples_gives_the_same_rows(cuts: list[int], rate: int) -> None:
    sound = speech_like(rate // 3 + 17)
    np.testing.assert_array_equal(rows_in_pieces(sound, rate, cuts), mfcc(sound, rate))


@given(st.integers(0, 40), st.integers(1, 20))
def test_a_run_of_whole_frames_gives_the_rows_of_the_whole_sound(first: int, count: int) -> None:
    sound = speech_like(640 * 60)
    part = sound[first * 640 : (first + count) * 640]
    np.testing.assert_array_equal(mfcc(part, 16000), mfcc(sound, 16000)[first : first + count])


def test_sound_longer_than_a_minute_is_one_run() -> None:
    sound = speech_like(8000 * 61 + 5)
    rows = mfcc(sound, 8000)
    assert len(rows) == 61 * 25 + 1
    np.testing.assert_array_equal(rows[1490:1510], mfcc(sound[1490 * 320 : 1510 * 320], 8000))


@pytest.mark.parametrize("rate", RATES)
def test_an_incomplete_last_frame_is_filled_with_silence(rate: int) -> None:
    samples = int(rate / 25)
    sound = speech_like(3 * samples + 100)
    assert mfcc(sound, rate).shape == (4, MFCC_SIZE)
    np.testing.assert_array_equal(mfcc(sound, rate), mfcc(np.pad(sound, (0, samples - 100)), rate))
    assert mfcc(sound[:0], rate).shape == (0, MFCC_SIZE)


def test_deltas_of_two_windows_are_duplicates_and_their_deltas_zero() -> None:
    values, delta, acceleration = np.split(mfcc(speech_like(6400), 16000), 3, axis=1)
    np.testing.assert_array_equal(delta[:, 0::2], delta[:, 1::2])
    np.testing.assert_allclose(delta[:, 0::2], 0.3 * (values[:, 1::2] - values[:, 0::2]), atol=1e-5)
    assert not acceleration.any()


def test_silence_gives_finite_rows_of_no_energy() -> None:
    rows = mfcc(np.zeros(6400), 16000)
    assert np.isfinite(rows).all()
    assert not rows[:, :2].any()


def test_a_flushed_stream_starts_anew() -> None:
    sound = speech_like(1000)
    stream = MfccRows(16000)
    stream.push(sound)
    assert len(stream.flush()) == 1
    assert len(stream.flush()) == 0
    np.testing.assert_array_equal(np.concatenate([stream.push(sound), stream.flush()]), mfcc(sound, 16000))


@pytest.mark.parametrize(
    ("sound", "rate", "message"),
    [
        (np.zeros((2, 640)), 16000, "one channel"),
        (np.full(640, np.nan), 16000, "finite"),
        (np.zeros(100), 2000, "at least 4000 Hz"),
    ],
)
def test_what_is_no_sound_is_refused(sound: npt.NDArray[np.float64], rate: int, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        mfcc(sound, rate)
