"""When the backchannel listener does what: nods, blinks, smiles, attention, and what it tells of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from support.speaker.listeners import BLINK, TURNS, eventful, run, starts
from support.speaker.sounds import RATE_HZ, dialogue, podium, white_noise

from pflx.engines import Array
from pflx.runtime.generators.behaviour import gestures, liveliness, mirroring
from pflx.runtime.generators.behaviour.habits import habit
from pflx.runtime.speaker.hearing import Heard
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

SPEAKERS: dict[str, tuple[Callable[[], Array], float, tuple[float, ...]]] = {
    "dialogue": (dialogue, 18.3, (11.44,)),
    "podium": (podium, 5.7, (3.68, 5.35, 7.45)),
}
"""What is heard, seconds of speech in it, and where a pause of 0.3 s or more begins, by the level of the sound."""


def test_about_half_of_the_pauses_are_answered_within_a_second_and_a_half() -> None:
    answered = []
    for sound, _, pauses in SPEAKERS.values():
        found = eventful(sound(), samples=40)
        for sample in range(40):
            nods = starts(found, "nod", sample)
            answered += [any(0 < nod - pause <= 1.5 for nod in nods) for pause in pauses]
    assert 0.4 <= np.mean(answered) <= 0.8


@pytest.mark.parametrize("name", SPEAKERS)
def test_a_minute_of_speech_gets_ten_to_twenty_nods_of_more_than_one_kind(name: str) -> None:
    sound, speech_s, _ = SPEAKERS[name]
    nods = [event for _, event in eventful(sound(), samples=40) if event.kind == "nod"]
    assert 10 <= len(nods) / 40 * 60 / speech_s <= 20
    assert {event.because for event in nods} == {"low pitch", "pause", "long turn"}
    sizes = np.array([event.size for event in nods])
    assert sizes.max() > 3 * sizes.min()


def test_who_tries_it_for_seven_seconds_gets_a_nod_whatever_the_seed() -> None:
    begins = dialogue()[: 7 * RATE_HZ]
    for sound in (begins, podium()[: 8 * RATE_HZ]):
        found = eventful(sound, samples=60)
        assert all(min(starts(found, "nod", sample), default=99) < len(sound) / RATE_HZ for sample in range(60))


def test_long_turns_are_acknowledged_by_small_nods_while_somebody_speaks() -> None:
    nods = [event for _, event in eventful(dialogue(), samples=20) if event.because == "long turn"]
    others = [event for _, event in eventful(dialogue(), samples=20) if event.because == "low pitch"]
    assert max(event.size for event in nods) < np.mean([event.size for event in others])
    assert all(any(begin <= event.time_s <= end + 1 for begin, end in TURNS) for event in nods)


TONE = (0.3 * np.sin(2 * np.pi * 120 * np.arange(20 * RATE_HZ) / RATE_HZ)).astype(np.float32)


@pytest.mark.parametrize(
    ("sound", "kinds"),
    [
        (np.zeros(20 * RATE_HZ, np.float32), {"blink"}),
        (white_noise(20, 0.1), {"blink"}),
        (TONE, {"blink", "attention"}),  # it looks up as the tone begins
    ],
    ids=["silence", "noise", "tone"],
)
def test_where_nobody_speaks_there_are_no_nods_and_no_smiles(sound: Array, kinds: set[str]) -> None:
    assert {event.kind for _, event in eventful(sound, samples=8)} == kinds


def test_it_visibly_attends_when_somebody_begins_to_speak() -> None:
    silent = np.zeros(2 * RATE_HZ, np.float32)
    sound = np.concatenate([silent, dialogue()[: 4 * RATE_HZ], silent, dialogue()[4 * RATE_HZ : 8 * RATE_HZ]])
    attends = starts(eventful(sound, samples=1), "attention", 0)
    assert len(attends) == 2
    for time_s, voice_s in zip(attends, (2.16, 8.0), strict=True):
        assert 0 < time_s - voice_s < 0.7
    coefficients = run(sound, samples=1).coefficients[0]
    brows = coefficients[:, ARKIT_NAMES.index("browOuterUpLeft")]
    first = round(attends[0] * 25)
    assert brows[:first].max() == 0
    assert brows[first : first + 15].max() > 0.9 * habit("beginning_brow")
    assert brows[first + 60 : first + 100].max() < 0.02
    assert coefficients[first + 60, 57] > 0.2


def test_blinks_differ_from_seed_to_seed_from_the_first_one_on() -> None:
    sound = np.zeros(16 * RATE_HZ, np.float32)
    firsts = [starts(eventful(sound, samples=1, seed=seed), "blink", 0)[0] for seed in range(16)]
    assert len(set(firsts)) > 10
    assert np.std(firsts) > 1
    again = eventful(sound, samples=1, seed=3)
    assert again == eventful(sound, samples=1, seed=3)


def test_what_is_told_of_nods_and_blinks_is_what_they_do() -> None:
    listeners, found = run(dialogue()), eventful(dialogue(), samples=4)
    for sample in range(4):
        closed = listeners.coefficients[sample, :, BLINK]
        for time_s in starts(found, "blink", sample):
            frame = round(time_s * 25)
            if frame + 8 < len(closed):
                assert closed[frame] < 0.5 < closed[frame : frame + 5].max() == 1
        told = [time_s for time_s in starts(found, "nod", sample) if time_s < len(closed) / 25]
        planned = [time_s for whose, time_s in listeners.nods if whose == sample and time_s < len(closed) / 25]
        np.testing.assert_allclose(told, np.floor(np.array(planned) * 25 + 1e-6) / 25, atol=1e-6)


def test_a_lid_falls_faster_than_it_rises_and_one_frame_at_least_is_shut() -> None:
    for begins in np.linspace(0, 0.04, 9):
        state = np.array([[60.0, 0.2 + begins]])
        closed, _ = gestures.blink(state, np.arange(20) * 0.04, 0.8, np.zeros((1, 2)))
        lid = closed[0]
        shut = np.flatnonzero(lid >= 1 - 1e-9)
        assert len(shut) >= 1
        falling = shut[0] - np.flatnonzero(lid > 0)[0]
        rising = np.flatnonzero(lid > 0)[-1] - shut[-1]
        assert falling < rising
        assert (np.diff(lid[shut[-1] :]) <= 0).all()


@pytest.mark.parametrize(("excursion_st", "smiles"), [(1.0, False), (8.0, True)])
def test_a_lively_voice_is_smiled_at_and_an_even_one_is_not(excursion_st: float, smiles: bool) -> None:
    ticks = np.arange(800)
    pitch = (180 * 2 ** (excursion_st / 12 * np.sin(ticks / 15))).astype(np.float32)
    state, told = liveliness.start(), 0.0
    for piece in np.split(pitch, 25):
        told, state = liveliness.liveliness(Heard(np.ones(len(piece), np.float32), piece), state)
    assert bool(told > 0.5) is smiles
    silent, _ = liveliness.liveliness(Heard(np.zeros(32, np.float32), np.zeros(32, np.float32)), state)
    assert silent == told
    weights, _ = mirroring.smile_at(habit("lively_smile") * told, np.zeros(100), {"smile": np.zeros(3)}, 0.04)
    assert bool(weights[-1] > habit("smile_seen")) is smiles
    events = list(mirroring.begun_smile(weights, np.zeros(100), 0.0, 2))
    assert len(events) == (2 if smiles else 0)
