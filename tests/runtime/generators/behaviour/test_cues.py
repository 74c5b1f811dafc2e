"""Cues in a speaker's pitch that invite a nod."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from pflx.engines import Array
from pflx.runtime.generators.behaviour import cues
from pflx.runtime.speaker.hearing import Heard


def heard(pitch_hz: list[float], voice: float = 1.0) -> Heard:
    pitch = np.array(pitch_hz, np.float32)
    return Heard(np.full(len(pitch), voice, np.float32), pitch)


def invitations(given: Heard, state: Mapping[str, Array]) -> list[float]:
    """Moments at which low pitch invites."""
    return [moment for moment, cause in cues.find_cues(given, state)[0].invitations if cause == "low pitch"]


def known_speaker(voice: float = 1.0) -> dict[str, Array]:
    """The state after 3 s of a voice that goes up and down between 150 and 250 Hz, low last at their beginning."""
    return cues.find_cues(heard([*np.tile(np.linspace(250, 150, 50), 5), *[240.0] * 50], voice), cues.start())[1]


@pytest.mark.parametrize(("low_ticks", "n_cues"), [(10, 0), (11, 1), (40, 1)])
def test_low_pitch_invites_once_it_has_lasted_110_ms(low_ticks: int, n_cues: int) -> None:
    found = invitations(heard([155.0] * low_ticks + [240.0] * 10), known_speaker())
    assert len(found) == n_cues
    assert all(moment_s == pytest.approx(0.11 - (low_ticks + 10) / 100) for moment_s in found)


def test_the_same_region_invites_once_however_it_is_cut() -> None:
    state, found = known_speaker(), []
    for _ in range(8):
        piece = heard([155.0] * 4)
        found += invitations(piece, state)
        state = cues.find_cues(piece, state)[1]
    assert len(found) == 1


def test_a_pitch_that_is_usual_does_not_invite() -> None:
    assert invitations(heard([200.0] * 50), known_speaker()) == []


def test_low_pitch_too_early_in_a_turn_does_not_invite() -> None:
    silent = cues.find_cues(heard([0.0] * 40, voice=0.0), known_speaker())[1]
    assert invitations(heard([240.0] * 50 + [155.0] * 15), silent) == []
    assert len(invitations(heard([240.0] * 60 + [155.0] * 15), silent)) == 1


def test_nobody_whose_pitch_is_unknown_invites() -> None:
    assert invitations(heard([200.0] * 70 + [100.0] * 20), cues.start()) == []


def test_what_is_no_voice_does_not_invite() -> None:
    assert invitations(heard([155.0] * 40, voice=0.3), known_speaker()) == []


def test_a_speaker_of_lower_voice_is_known_after_a_while() -> None:
    state = known_speaker()
    lower = [*np.tile(np.linspace(140, 90, 50), 40)]
    state = cues.find_cues(heard(lower), state)[1]
    assert len(invitations(heard([130.0] * 40), state)) == 0
    assert len(invitations(heard([130.0] * 10 + [92.0] * 40), state)) == 1
