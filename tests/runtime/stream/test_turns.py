"""Whose turn it is, and cues: from the frame on that they were told with, however the input is cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import REGION, fake_listener, fake_manifest, frames_of, sound_of
from support.grouped import grouped
from support.sessions import content
from support.speaker.heads import turning_head
from support.speaker.sounds import RATE_HZ, dialogue

from pflx.engines import Array, FeedError, GeneratorInfo
from pflx.runtime import Listener, ListenerFrame, Recorded, Stream
from pflx.runtime.frames.turns import TURNS, Role
from pflx.runtime.speaker.landmarks import ARKIT_NAMES
from pflx.runtime.stream.turn_book import DEAF_FRAMES, Told, TurnBook
from pflx.runtime.stream.turn_taking import BLEND_FRAMES

FRAMES = 60
VIDEO, SOUND = frames_of(FRAMES), sound_of(FRAMES)
RULES = GeneratorInfo(name="backchannel", window=8, hop=8, needs=["audio", "coefficients"], graphs={})
BLINKS = [ARKIT_NAMES.index(f"eyeBlink{side}") for side in ("Left", "Right")]
MOUTH = [index for index, name in enumerate(ARKIT_NAMES) if name.startswith(("mouth", "jaw", "cheek"))]
DIALOGUE = np.concatenate([dialogue(), np.zeros(RATE_HZ, np.float32)])

Said = tuple[int, Callable[[Stream], None]]


def listener(kind: str = "rules", **options: Any) -> Listener:
    if kind == "network":
        return fake_listener(lookahead=3, **options)
    face = {"coefficients": Recorded(turning_head(2000))}
    return fake_listener(manifest=fake_manifest(generator=RULES), lookahead=0, extractors=face, **options)


def stream_of(kind: str, **options: Any) -> Stream:
    return listener(kind).stream(**grouped({"region": REGION, "seed": 5, **options}, "speaker"))


def turn(name: Any, **options: Any) -> Callable[[Stream], None]:
    return lambda stream: stream.set_turn(name, **options)


def reaction(
    kind: str, said: list[Said], *, video: Array = VIDEO, sound: Array = SOUND, **options: Any
) -> list[ListenerFrame]:
    """Everything in as few pieces as can be: one up to each thing that is said."""
    with stream_of(kind, **options) as stream:
        at = 0
        for position, say in sorted(said, key=lambda each: each[0]):
            stream.push(video=video[at:position], audio=sound[640 * at : 640 * position])
            at = position
            say(stream)
        stream.push(video=video[at:], audio=sound[640 * at : 640 * len(video)])
        stream.finish()
        return list(stream.pull())


def heard(sound: Array, said: list[Said], **options: Any) -> list[ListenerFrame]:
    """The rules' reaction to a longer sound, before a camera that shows one picture."""
    count = len(sound) // 640
    video = np.broadcast_to(VIDEO[:1], (count, *VIDEO.shape[1:]))
    return reaction("rules", said, video=video, sound=sound, **options)


def nods(frames: list[ListenerFrame]) -> list[float]:
    return [event.time_s for frame in frames for event in frame.events if event.kind == "nod"]


def told(frame: ListenerFrame) -> tuple[Any, ...]:
    return (*content(frame), frame.events)


SAYINGS = st.lists(
    st.tuples(
        st.integers(0, FRAMES),
        st.one_of(
            st.builds(turn, st.sampled_from(TURNS), hears=st.sampled_from([None, True, False]), shown=st.booleans()),
            st.just(lambda stream: stream.cue("nod")),
        ),
    ),
    max_size=4,
)


@given(
    said=SAYINGS,
    cuts=st.lists(st.integers(1, 17), min_size=1, max_size=12),
    pulls=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    kind=st.sampled_from(["rules", "network"]),
    samples=st.sampled_from([1, 2]),
)
@settings(max_examples=25, deadline=None)
def test_turns_and_cues_at_any_frame_give_the_same_frames_however_all_is_cut(
    said: list[Said], cuts: list[int], pulls: list[int], kind: str, samples: int
) -> None:
    waiting = sorted(said, key=lambda each: each[0])
    frames: list[ListenerFrame] = []
    with stream_of(kind, samples=samples) as stream:
        at = turns = 0
        while at < FRAMES:
            while waiting and waiting[0][0] == at:
                waiting.pop(0)[1](stream)
            end = min(at + cuts[turns % len(cuts)], waiting[0][0] if waiting else FRAMES, FRAMES)
            stream.push(audio=SOUND[640 * at : 640 * end])
            stream.push(video=VIDEO[at:end])
            frames += [frame for _, frame in zip(range(pulls[turns % len(pulls)]), stream.pull(), strict=False)]
            at, turns = end, turns + 1
        for _, say in waiting:
            say(stream)
        stream.finish()
        frames += stream.pull()
    assert [told(frame) for frame in frames] == [told(frame) for frame in reaction(kind, said, samples=samples)]


@pytest.mark.parametrize("kind", ["rules", "network"])
def test_a_snapshot_in_the_middle_of_a_blend_goes_on_bit_for_bit(kind: str) -> None:
    said = [(18, turn("speaking")), (30, lambda stream: stream.cue("nod")), (37, turn("listening"))]
    expected = [told(frame) for frame in reaction(kind, said, samples=2)]
    for at in (19, 22, 26, 33, 40, 43):
        frames: list[ListenerFrame] = []
        source = listener(kind)
        stream = source.stream(**grouped({"region": REGION, "seed": 5, "samples": 2}, "speaker"))
        for position in range(FRAMES):
            for begins, say in said:
                if begins == position:
                    say(stream)
            stream.push(video=VIDEO[position : position + 1], audio=SOUND[640 * position : 640 * (position + 1)])
            frames += stream.pull()
            if position == at:
                stream = listener(kind).resume(stream.snapshot())
        stream.finish()
        frames += stream.pull()
        assert [told(frame) for frame in frames] == expected


def test_what_is_said_for_later_is_part_of_a_snapshot_too() -> None:
    stream = stream_of("rules")
    stream.set_turn("speaking", at_s=1.0)
    stream = listener().resume(stream.snapshot())
    stream.push(video=VIDEO, audio=SOUND)
    stream.finish()
    assert [told(frame) for frame in stream.pull()] == [told(f) for f in reaction("rules", [(25, turn("speaking"))])]


@pytest.mark.parametrize("kind", ["rules", "network"])
def test_a_moment_to_come_is_as_good_as_saying_it_then_and_one_that_is_over_is_now(kind: str) -> None:
    then = reaction(kind, [(20, turn("speaking"))], start_s=7.0)
    before = reaction(kind, [(3, turn("speaking", at_s=7.8))], start_s=7.0)
    by_number = reaction(kind, [(0, turn("speaking", frame=20))], start_s=7.0)
    late = reaction(kind, [(20, turn("speaking", at_s=7.1))], start_s=7.0)
    expected = [told(frame) for frame in then]
    for frames in (before, by_number, late):
        assert [told(frame) for frame in frames] == expected


def test_said_again_it_changes_nothing() -> None:
    once = reaction("rules", [(16, turn("speaking")), (40, turn("listening"))])
    often = reaction(
        "rules", [(at, turn("speaking")) for at in range(16, 40, 3)] + [(at, turn("listening")) for at in (40, 42, 50)]
    )
    assert [told(frame) for frame in once] == [told(frame) for frame in often]


@pytest.mark.parametrize("kind", ["rules", "network"])
@pytest.mark.parametrize("name", ["speaking", "idle"])
def test_who_speaks_or_is_idle_sways_and_blinks_and_moves_no_mouth(kind: str, name: str) -> None:
    frames = heard_by(kind, [(16, turn(name))])
    resting = np.stack([frame.coefficients for frame in frames[16 + 8 + BLEND_FRAMES :]]) - offset(kind)
    assert np.abs(resting[:, MOUTH]).max() == 0
    assert resting[:, BLINKS].max() > 0.9, "no blink in 10 s"
    angles = np.degrees(resting[:, 52:55])
    assert 0.1 < np.abs(angles).max() < 5 or kind == "network", "PosNet moves the head of the network"
    reacting = np.stack([frame.coefficients for frame in frames[:16]]) - offset(kind)
    assert np.abs(reacting[:, MOUTH]).max() > 0 or kind == "rules"


def offset(kind: str) -> Array:
    return np.array(listener(kind).manifest.mean_face.values, np.float32)


def heard_by(kind: str, said: list[Said], seconds: int = 12) -> list[ListenerFrame]:
    count = 25 * seconds
    return reaction(kind, said, video=frames_of(count), sound=sound_of(count))


def test_it_passes_from_one_motion_to_the_other_within_400_ms_and_without_a_jump() -> None:
    said = [(80, turn("speaking")), (160, turn("listening"))]
    plain, told_to = (np.stack([f.coefficients for f in heard(DIALOGUE, each)]) for each in ([], said))
    np.testing.assert_array_equal(told_to[:88], plain[:88])
    assert np.abs(told_to[:, :52] - plain[:, :52])[88 + BLEND_FRAMES : 168].max() > 0.05
    largest = np.abs(np.diff(plain[:, 52:], axis=0)).max()
    assert np.abs(np.diff(told_to[:, 52:], axis=0)).max() <= 1.6 * largest


def test_who_thinks_begins_no_nod_and_goes_on_looking() -> None:
    frames = heard(DIALOGUE, [(0, turn("thinking"))])
    assert nods(heard(DIALOGUE, []))
    assert not nods(frames)
    brows = ARKIT_NAMES.index("browInnerUp")
    assert max(frame.coefficients[brows] for frame in frames) > 0.1


def test_nods_that_have_not_begun_are_dropped() -> None:
    first = nods(heard(DIALOGUE, []))[0]
    before = math.floor(first * 25) // 8 * 8 - 8
    assert first not in nods(heard(DIALOGUE, [(before - 1, turn("thinking"))]))
    assert first in nods(heard(DIALOGUE, [(math.ceil(first * 25) + 1, turn("thinking"))]))


@pytest.mark.parametrize("level_db", [0, -20, -30])
def test_its_own_voice_makes_it_nod_only_when_nobody_said_that_it_speaks(level_db: int) -> None:
    sound = (DIALOGUE * 10 ** (level_db / 20)).astype(np.float32)
    assert nods(heard(sound, [], seed=1)) or level_db < 0
    for seed in range(4):
        assert not nods(heard(sound, [(0, turn("speaking"))], seed=seed))


def test_after_its_turn_it_nods_again() -> None:
    twice = np.concatenate([DIALOGUE, DIALOGUE])
    spoken = len(DIALOGUE) // 640
    found = nods(heard(twice, [(0, turn("speaking")), (spoken, turn("listening"))]))
    assert found
    assert min(found) > spoken / 25
    assert len(found) >= 3


def test_what_it_learnt_of_a_voice_is_kept_over_its_turn() -> None:
    twice = np.concatenate([DIALOGUE, DIALOGUE])
    at = len(DIALOGUE) // 640
    stream = stream_of("rules")
    video = np.broadcast_to(VIDEO[:1], (len(twice) // 640, *VIDEO.shape[1:]))
    stream.push(video=video[:at], audio=twice[: 640 * at])
    stream.set_turn("speaking")
    list(stream.pull())
    stream.push(video=video[at:], audio=twice[640 * at : 640 * len(video)])
    list(stream.pull())
    assert stream.snapshot()["generator.pitches"].sum() > 100


def test_it_is_deaf_for_200_ms_after_it_has_spoken() -> None:
    book = TurnBook([Told(Role("speaking", hears=False), position=4), Told(Role("listening"), position=12)])
    hears = [bool(book._hears(position, 1)[0]) for position in range(24)]
    assert hears == [True] * 4 + [False] * (8 + DEAF_FRAMES) + [True] * (12 - DEAF_FRAMES)
    assert [bool(hears) for hears in book._hears(2, 20)] == hears[2:22]
    open_ears = TurnBook([Told(Role("speaking", hears=True), position=4), Told(Role("listening"), position=12)])
    assert open_ears._hears(0, 24).all()


@pytest.mark.parametrize("kind", ["rules", "network"])
@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("at", [24, 29])
def test_a_cue_is_nodded_to_within_a_hop_in_any_turn(kind: str, name: str, at: int) -> None:
    silence = np.zeros_like(SOUND)
    said: list[Said] = [(0, turn(name))]
    without = reaction(kind, said, sound=silence)
    frames = reaction(kind, [*said, (at, lambda stream: stream.cue("nod"))], sound=silence)
    (event,) = (event for frame in frames for event in frame.events if event.kind == "nod")
    assert (event.because, event.frame) == ("cue", round(event.time_s * 25))
    assert at <= event.frame <= at + 8
    pitch = np.array([a.generated_pose[0] - b.generated_pose[0] for a, b in zip(frames, without, strict=True)])
    assert np.abs(pitch[: event.frame + 1]).max() < 1e-6
    dip = np.degrees(pitch[event.frame : event.frame + 14].max())
    assert dip == pytest.approx(event.size, rel=0.1)
    assert np.degrees(np.abs(pitch[-1])) < 1e-3 or event.duration_s > 1


def test_frames_that_are_not_to_be_seen_are_not_rendered() -> None:
    def rendered(said: list[Said]) -> list[int]:
        return [frame.ledger.frame for frame in reaction("network", said)]

    assert rendered([]) == list(range(FRAMES))
    hidden = rendered([(10, turn("speaking", shown=False)), (30, turn("listening"))])
    assert hidden == [*range(10), *range(30, FRAMES)]


@pytest.mark.parametrize(
    ("say", "fault"),
    [
        (turn("silent"), "turn is 'silent'; give one of idle, listening, thinking, speaking"),
        (lambda stream: stream.cue("wink"), "cue is 'wink'; give one of nod"),
    ],
)
def test_what_there_is_not_is_refused(say: Callable[[Any], None], fault: str) -> None:
    with stream_of("rules") as stream, pytest.raises(FeedError, match=fault):
        say(stream)


def test_a_listener_to_whom_nothing_is_said_is_the_one_it_was() -> None:
    plain = [told(frame) for frame in reaction("network", [])]
    assert plain == [told(frame) for frame in reaction("network", [(12, turn("listening")), (40, turn("thinking"))])]
