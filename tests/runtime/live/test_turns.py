"""Sessions that are told whose turn it is: from the slot on that the speaker is in, without waiting for anybody."""

from __future__ import annotations

from typing import Any

import pytest
from support.fakes import REGION, fake_listener
from support.live.live_sessions import (
    FRAME,
    START,
    Run,
    contents,
    costly,
    run,
    speaker,
    watchdog,  # noqa: F401
)

from pflx.engines import FeedError
from pflx.runtime import Event, Listener, ListenerFrame, LiveSession, LiveSettings, Rung, SpeakerSettings, Timed
from pflx.runtime.live.clock import VirtualClock

N = 60
ITEMS = speaker(N)


def offline(*said: dict[str, Any], cue: int | None = None) -> list[ListenerFrame]:
    """What a stream makes that is told the same."""
    with fake_listener(lookahead=3).stream(speaker=SpeakerSettings(region=REGION)) as stream:
        for each in said:
            stream.set_turn(**each)
        if cue is not None:
            stream.cue("nod", frame=cue)
        for item in ITEMS:
            assert item.video is not None
            stream.push(video=item.video[None], audio=item.audio)
        stream.finish()
        return list(stream.pull())


@pytest.mark.parametrize("shown", [8, 21])
def test_a_turn_counts_from_the_slot_on_that_the_speaker_is_in(shown: int) -> None:
    clock, slots = VirtualClock(START), list[int]()

    def say(session: LiveSession, frame: ListenerFrame) -> None:
        if frame.ledger.frame == shown:
            before = clock()
            slots.append((before - result_begin(before, frame)) // FRAME)
            session.set_turn("speaking")
            session.cue("nod")
            assert clock() == before

    def result_begin(now: int, frame: ListenerFrame) -> int:
        return (frame.ledger.scheduled or now) - FRAME * (frame.ledger.frame // 8 * 8 + 8)

    result = run(ITEMS, clock=clock, show=say, render=1, generate=5)
    (slot,) = slots
    assert slot > shown
    assert contents(result.frames) == contents(offline({"turn": "speaking", "frame": slot}, cue=slot))
    assert contents(result.frames) != contents(offline())


def test_a_moment_of_the_speaker_may_be_given_ahead() -> None:
    clock = VirtualClock(START)

    def say(session: LiveSession, frame: ListenerFrame) -> None:
        if frame.ledger.frame == 0:
            session.set_turn("speaking", at_s=1.2)
            session.set_turn("listening", at_s=1.8)

    result = run(ITEMS, clock=clock, show=say, render=1, generate=5)
    said = [{"turn": "speaking", "at_s": 1.2}, {"turn": "listening", "at_s": 1.8}]
    assert contents(result.frames) == contents(offline(*said))


def test_it_waits_for_nobody_while_the_engines_work() -> None:
    clock = VirtualClock(START)
    waited: list[int] = []

    def say(session: LiveSession, frame: ListenerFrame) -> None:
        before = clock()
        session.set_turn("speaking" if frame.ledger.frame % 2 else "listening")
        session.cue("nod")
        waited.append(clock() - before)

    run(ITEMS, clock=clock, show=say, render=90, generate=200)
    assert waited
    assert set(waited) == {0}


def test_what_was_said_is_in_the_next_snapshot() -> None:
    clock = VirtualClock(START)
    listener = fake_listener(lookahead=3)
    settings = LiveSettings(playout_ms=40)
    with listener.live(ITEMS, lambda frame: None, settings, clock=clock) as session:
        clock.sleep(20 * FRAME)
        session.set_turn("speaking")
        told = session.snapshot()["told"]
        session.wait()
    assert len(told) == 1


def test_while_it_is_not_to_be_seen_the_last_picture_is_held_and_nothing_is_rendered() -> None:
    clock = VirtualClock(START)

    def say(session: LiveSession, frame: ListenerFrame) -> None:
        if frame.ledger.frame == 8:
            session.set_turn("speaking", shown=False, at_s=1.0)
            session.set_turn("listening", at_s=1.6)

    result = run(ITEMS, clock=clock, show=say, render=1, generate=5)
    held = [frame for frame in result.frames if frame.degraded is Rung.HOLD]
    assert [frame.ledger.frame for frame in held] == list(range(25, 40))
    assert {frame.ledger.picture for frame in held} == {24}
    assert [frame.ledger.frame for frame in result.frames] == list(range(N))
    assert not any(frame.events for frame in held)


def cued(result: Run) -> list[tuple[int, Event]]:
    return [(frame.ledger.frame, event) for frame in result.frames for event in frame.events if event.because == "cue"]


@pytest.mark.parametrize("render", [1, 70])
def test_an_event_is_told_once_also_where_its_frame_is_not_shown(render: int) -> None:
    """At 70 ms a picture, every second frame and more is left out or held."""
    clock = VirtualClock(START)

    def say(session: LiveSession, frame: ListenerFrame) -> None:
        if frame.ledger.frame == 2:
            for at_s in (0.8, 2.2):
                session.cue("nod", at_s=at_s)

    listener = fake_listener(costly(clock, render=render), lookahead=3)
    told = cued(run(ITEMS, clock=clock, show=say, listener=listener))
    assert [event.frame for _, event in told] == [20, 55]
    for shown, event in told:
        assert event.frame <= shown <= event.frame + 4
        assert event.time_s == pytest.approx(event.frame / 25)


def test_a_turn_that_there_is_not_is_refused_at_once() -> None:
    clock = VirtualClock(START)
    listener: Listener = fake_listener()
    items: list[Timed] = ITEMS[:9]
    with listener.live(items, lambda frame: None, clock=clock) as session:
        with pytest.raises(FeedError, match="turn is 'asleep'"):
            session.set_turn("asleep")  # type: ignore[arg-type]
        with pytest.raises(FeedError, match="cue is 'bow'"):
            session.cue("bow")  # type: ignore[arg-type]
        session.wait()
