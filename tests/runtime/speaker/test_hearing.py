"""What is heard of a speaker: voice and pitch."""

from __future__ import annotations

import numpy as np
import pytest
from support.speaker.sounds import RATE_HZ, dialogue, white_noise

from pflx.runtime.speaker.hearing import Hearing


@pytest.mark.parametrize("hz", [65.0, 110.0, 220.0, 390.0])
def test_the_pitch_of_a_voice_like_tone_is_found(hz: float) -> None:
    time_s = np.arange(RATE_HZ) / RATE_HZ
    tone = sum(np.sin(2 * np.pi * hz * part * time_s) / part for part in range(1, 6))
    told, _ = Hearing().step(np.asarray(0.1 * tone, np.float32)[: 6 * 2560], Hearing().start())
    np.testing.assert_allclose(told.pitch_hz[10:], hz, rtol=0.01)


def test_noise_and_silence_have_no_pitch() -> None:
    for sound in (white_noise(1.6), np.zeros(10 * 2560, np.float32)):
        told, _ = Hearing().step(sound[: 10 * 2560], Hearing().start())
        assert (told.pitch_hz == 0).all()
        assert told.voice.max() < 0.2


def test_what_is_heard_does_not_depend_on_the_pieces() -> None:
    sound, hearing = dialogue()[: 24 * 2560], Hearing()
    whole, end = hearing.step(sound, hearing.start())
    state, voice, pitch = hearing.start(), [], []
    for piece in np.split(sound, [2560, 4 * 2560, 5 * 2560, 13 * 2560]):
        told, state = hearing.step(piece, state)
        voice.append(told.voice)
        pitch.append(told.pitch_hz)
    np.testing.assert_array_equal(np.concatenate(pitch), whole.pitch_hz)
    np.testing.assert_allclose(np.concatenate(voice), whole.voice, atol=1e-6)
    for name in end:
        np.testing.assert_allclose(state[name], end[name], atol=1e-5)


def test_nothing_is_heard_before_it_is_there() -> None:
    sound = dialogue()[: 16 * 2560].copy()
    before, _ = Hearing().step(sound, Hearing().start())
    sound[8 * 2560 :] = 0
    after, _ = Hearing().step(sound, Hearing().start())
    np.testing.assert_array_equal(before.pitch_hz[: 8 * 16], after.pitch_hz[: 8 * 16])
    np.testing.assert_array_equal(before.voice[: 8 * 16], after.voice[: 8 * 16])


def test_voices_are_told_from_what_is_none() -> None:
    told, _ = Hearing().step(dialogue()[: 118 * 2560], Hearing().start())
    assert (told.voice > 0.5).mean() > 0.9
