"""What is asked of live sessions in mid-stream, and how they end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import numpy as np
import pytest
from support.fakes import FUNCTIONS, REGION, fake_engines, fake_listener, frames_of, portrait_of, sound_of
from support.live.live_sessions import (
    FRAME,
    MS,
    PATIENCE_S,
    START,
    Show,
    assert_over,
    broken,
    contents,
    declared,
    each_clock,  # noqa: F401
    endless,
    offline,
    run,
    speaker,
    still,
)

from pflx.engines import Array, FeedError
from pflx.runtime import (
    IterableSource,
    ListenerFrame,
    LiveSession,
    LiveSettings,
    PortraitError,
    Rung,
    SessionError,
    SpeakerSettings,
    Timed,
)
from pflx.runtime.live.clock import LiveClock, VirtualClock

# Commands in mid-stream


def test_a_new_portrait_is_in_the_next_picture_that_is_rendered(clock: LiveClock) -> None:
    after: list[int] = []

    def act(n: int) -> None:
        if n == 8:
            session.set_portrait(portrait_of(1))
            after.append(clock())

    sink = Show(act)
    listener = fake_listener(lookahead=3)
    source = speaker(24)
    with listener.live(
        source, sink, settings=LiveSettings(playout_ms=40), speaker=SpeakerSettings(region=REGION), clock=clock
    ) as session:
        session.wait(PATIENCE_S)
    old = offline(source)
    with fake_listener(lookahead=3, portrait=portrait_of(1)).stream(speaker=SpeakerSettings(region=REGION)) as stream:
        stream.push(video=frames_of(24), audio=sound_of(24))
        stream.finish()
        new = list(stream.pull())
    for frame in sink.frames:
        rendered = frame.ledger.render_start
        if rendered is None or frame.degraded is not Rung.FULL:
            continue
        expected = new if rendered >= after[0] else old
        np.testing.assert_array_equal(frame.image, expected[frame.ledger.frame].image)
    if isinstance(clock, VirtualClock):
        assert len(sink.frames) == 24
        assert {frame.degraded for frame in sink.frames} == {Rung.FULL}


def test_a_portrait_that_cannot_be_read_is_told_to_the_caller_and_the_session_goes_on(clock: LiveClock) -> None:
    sink = Show()
    with fake_listener().live(speaker(16), sink, settings=LiveSettings(playout_ms=40), clock=clock) as session:
        with pytest.raises(PortraitError):
            session.set_portrait("nowhere.png")
        with pytest.raises(FeedError, match="sample"):
            session.set_portrait(portrait_of(1), sample=3)
        assert session.wait(PATIENCE_S)
    assert len(sink.frames) > 8


def test_a_flush_drops_what_waits_and_the_output_goes_on() -> None:
    clock = VirtualClock(START)
    ages: list[float] = []
    flushed: list[int] = []

    def show(session: LiveSession, frame: ListenerFrame) -> None:
        ages.append(session.stats.age_ms)
        if frame.ledger.frame == 50:
            session.flush()
            flushed.append(clock())

    result = run(speaker(120), clock=clock, render=1, generate=5, show=show)
    emitted = [ledger.emitted or 0 for ledger in result.shown()]
    assert emitted == [result.begin + declared(3) + k * FRAME for k in range(120)]
    held = [frame.ledger.frame for frame in result.frames if frame.degraded is Rung.HOLD]
    assert held == list(range(51, held[-1] + 1))
    assert 3 <= len(held) <= 16
    fresh = result.frames[held[-1] + 1].ledger
    assert fresh.closed is not None
    assert fresh.closed >= flushed[0]
    assert min(ages[held[-1] + 1 :]) == min(ages[:50])
    assert result.frames[-1].ledger.segment == 120 // 8 - 1  # what was generated counts, though it was not shown


def test_coefficients_that_are_not_finite_are_held_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def sick(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        nonlocal calls
        calls += 1
        results = dict(FUNCTIONS["reactface_listener"](feeds))
        if calls == 5:
            results["reaction"] = np.full_like(results["reaction"], np.nan)
        return results

    listener = fake_listener(fake_engines(reactface_listener=sick), lookahead=3)
    with caplog.at_level(logging.WARNING):
        result = run(speaker(64), listener=listener, clock=VirtualClock(START))
    assert result.last.repaired == 8
    assert len(result.frames) == 64
    assert all(np.isfinite(frame.coefficients).all() for frame in result.frames)
    assert caplog.text.count("not finite") == 1


def test_a_snapshot_between_hops_holds_no_picture_and_goes_on_identically() -> None:
    """Asked for at any moment of a hop, and gone on from with the input that is not in it: the frames of the whole."""
    clock = VirtualClock(START)
    taken: list[tuple[Mapping[str, Array], Mapping[str, Array]]] = []
    source = speaker(64)
    listener = fake_listener(lookahead=3)
    with listener.live(
        source,
        Show(),
        settings=LiveSettings(playout_ms=40),
        speaker=SpeakerSettings(region=REGION),
        clock=clock,
        seed=5,
    ) as session:

        def ask() -> None:
            for n in (1, 3, 5, 2, 7):
                clock.sleep(n * FRAME)
                within, asked = session.snapshot(), clock()
                taken.append((within, session.snapshot(at_boundary=True)))
                assert clock() - asked <= 8 * FRAME

        asking = clock.start(ask, "asks")
        assert session.wait(PATIENCE_S)
        assert asking.join(5000 * MS)
    assert sum(len(within["inbox.video"]) > 0 for within, _ in taken) >= 3
    expected = contents(offline(source, seed=5))
    for _, snapshot in taken:
        assert len(snapshot["inbox.video"]) == 0
        n_taken, n_closed, n_emitted, n_speaker = snapshot["counts"].tolist()
        assert (n_taken, n_speaker) == (8 * n_closed, -1)
        stream = fake_listener(lookahead=3).resume(snapshot, speaker=SpeakerSettings(region=REGION))
        stream.push(video=frames_of(64)[n_taken:], audio=sound_of(64)[640 * n_taken :])
        stream.finish()
        assert contents(stream.pull()) == expected[n_emitted:]
    assert len(taken) == 5


def test_who_waits_for_a_boundary_that_never_comes_is_answered_at_the_end(clock: LiveClock) -> None:
    with fake_listener().live(speaker(11), print_nothing, clock=clock) as session:
        assert session.wait(PATIENCE_S)
        assert session.snapshot(at_boundary=True)["counts"].tolist()[3] == 11


# Ends


def test_a_session_may_be_closed_twice_and_before_its_first_frame(clock: LiveClock) -> None:
    sink = Show()
    session = fake_listener().live(IterableSource(endless(clock), live=True), sink, clock=clock)
    session.close()
    session.close()
    assert session.wait(0)
    assert (sink.frames, sink.closed) == ([], [None])
    assert_over(session, clock)


def test_a_session_may_be_closed_from_another_thread(clock: LiveClock) -> None:
    sink = Show()
    with fake_listener().live(
        IterableSource(endless(clock), live=True), sink, settings=LiveSettings(playout_ms=40), clock=clock
    ) as session:

        def close() -> None:
            clock.sleep(500 * MS)
            session.close()

        other = clock.start(close, "other")
        assert session.wait(PATIENCE_S)
        assert other.join(1000 * MS)
        shown = len(sink.frames)
        assert 0 < shown < 14
    assert_over(session, clock)
    assert len(sink.frames) == shown


@pytest.mark.parametrize("samples", [1, 3])
def test_a_session_may_be_closed_by_its_own_sink(samples: int, clock: LiveClock) -> None:
    sink = Show(lambda n: session.close() if n == 4 else None)
    source = IterableSource(endless(clock), live=True)
    with fake_listener().live(
        source, sink, samples=samples, settings=LiveSettings(playout_ms=40), clock=clock
    ) as session:
        assert session.wait(PATIENCE_S)
    assert len(sink.frames) == 4
    assert sink.closed == [None]
    assert_over(session, clock)


def test_a_loop_may_be_left_and_the_session_closed_from_within(clock: LiveClock) -> None:
    source = IterableSource(endless(clock), live=True)
    with fake_listener().live(source, settings=LiveSettings(playout_ms=40), clock=clock) as session:
        for frame in islice(session, 3):
            assert frame.image.shape == (64, 64, 3)
    assert_over(session, clock)
    source = IterableSource(endless(clock), live=True)
    with fake_listener().live(source, settings=LiveSettings(playout_ms=40), clock=clock) as session:
        for _ in session:
            session.close()
    assert_over(session, clock)


def test_a_wait_gives_up_when_it_is_told_to(clock: LiveClock) -> None:
    with fake_listener().live(IterableSource(endless(clock), live=True), print_nothing, clock=clock) as session:
        before = clock()
        assert not session.wait(0.05)
        assert clock() - before >= 50 * MS


def print_nothing(frame: ListenerFrame) -> None:
    pass


def test_after_its_end_a_session_still_answers(clock: LiveClock) -> None:
    session = broken("source", clock, sink=True)
    with pytest.raises(SessionError):
        session.wait(PATIENCE_S)
    session.close()
    session.flush()
    session.set_portrait(portrait_of(2))
    assert "counts" in session.snapshot()
    assert session.stats.queues[0].waiting_ms == 0
    session.close()


def test_commands_from_many_threads_while_the_session_ends_all_return(clock: LiveClock) -> None:
    with fake_listener().live(IterableSource(endless(clock), live=True), print_nothing, clock=clock) as session:
        acts: list[Callable[[], object]] = [
            session.flush,
            session.snapshot,
            lambda: session.snapshot(at_boundary=True),
            lambda: session.set_portrait(portrait_of(1)),
            lambda: session.stats,
        ]
        done: list[int] = []

        def ask(index: int) -> None:
            for _ in range(20):
                acts[index % len(acts)]()
                clock.sleep(MS)
            done.append(index)

        others = [clock.start(lambda index=index: ask(index), f"asks-{index}") for index in range(8)]  # type: ignore[misc]
        clock.sleep(10 * MS)
        session.close()
        assert all(other.join(5000 * MS) for other in others)
    assert sorted(done) == list(range(8))
    assert_over(session, clock)


def test_a_source_that_never_returns_does_not_keep_the_session_from_closing(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    def stuck() -> Iterator[Timed]:
        yield speaker(1)[0]
        release.wait(30)

    with fake_listener().live(stuck(), print_nothing) as session:
        time.sleep(0.05)
        before = time.monotonic()
        session.close()
        assert time.monotonic() - before < PATIENCE_S
    assert "still in its source" in caplog.text
    release.set()
    assert not still(PATIENCE_S)
