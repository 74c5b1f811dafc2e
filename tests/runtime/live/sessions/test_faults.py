"""Live sessions that something happens to: failures at every place, ends at every moment, sources gone wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fakes import Failing, fake_engine, fake_engines, fake_listener, frames_of
from support.live.live_sessions import (
    CLOCKS,
    FRAME,
    GRAPHS,
    MS,
    NAMES,
    PATIENCE_S,
    STAGES,
    START,
    BrokenError,
    Show,
    assert_bounded,
    assert_over,
    broken,
    captured,
    contents,
    declared,
    each_clock,  # noqa: F401
    endless,
    failing,
    iterate,
    offline,
    run,
    speaker,
    still,
    watch,
)

from pflx.engines import EngineError, FeedError
from pflx.runtime import (
    IterableSource,
    ListenerFrame,
    LiveSession,
    LiveSettings,
    Policy,
    SessionError,
    StopWatching,
    SystemClock,
    Timed,
    VideoFileSink,
)
from pflx.runtime.live.clock import LiveClock, VirtualClock


def assert_told(error: SessionError, stage: str) -> None:
    assert error.stage == NAMES[stage]
    assert isinstance(error.__cause__, EngineError if stage in GRAPHS else BrokenError)
    assert str(error) == f"The session's {NAMES[stage]} failed: {error.__cause__}"


@pytest.mark.parametrize(
    ("stage", "on"),
    [(stage, "virtual") for stage in STAGES] + [(stage, "real") for stage in ("pirender_frame", "source", "show")],
)
def test_a_failure_reaches_whoever_waits(stage: str, on: str) -> None:
    clock = CLOCKS[on]()
    session = broken(stage, clock, sink=True)
    with pytest.raises(SessionError) as caught:
        assert session.wait(PATIENCE_S)
    assert_told(caught.value, stage)
    assert session.error is caught.value
    assert_over(session, clock)
    with pytest.raises(SessionError):
        session.wait()


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "show"])
@pytest.mark.parametrize("policy", Policy)
def test_a_failure_reaches_whoever_iterates(stage: str, policy: Policy) -> None:
    clock = VirtualClock(START)
    session = broken(stage, clock, sink=False, policy=policy)
    with pytest.raises(SessionError) as caught:
        list(session)
    assert_told(caught.value, stage)
    assert_over(session, clock)


@pytest.mark.parametrize("stage", ["pirender_frame", "source"])
def test_a_failure_reaches_whoever_iterates_in_an_event_loop(stage: str, clock: LiveClock) -> None:
    session = broken(stage, clock, sink=False)
    with pytest.raises(SessionError) as caught:
        asyncio.run(iterate(session, clock, lambda frame: None))
    assert_told(caught.value, stage)
    assert_over(session, clock)


@pytest.mark.parametrize("stage", STAGES)
def test_a_failure_reaches_whoever_leaves_the_with_block(stage: str) -> None:
    clock = VirtualClock(START)
    session = broken(stage, clock, sink=True)

    def leave() -> None:
        with session:
            clock.sleep(3000 * MS)
            assert session.error is not None

    with pytest.raises(SessionError) as caught:
        leave()
    assert_told(caught.value, stage)
    assert_over(session, clock)


def test_an_exception_of_the_callers_own_is_not_masked(clock: LiveClock, caplog: pytest.LogCaptureFixture) -> None:
    def leave(session: LiveSession, error: BaseException) -> None:
        with session:
            with suppress(SessionError):
                session.wait(0.8)
            raise error

    with pytest.raises(BrokenError, match="mine"):
        leave(broken("source", clock, sink=True), BrokenError("mine"))
    assert "The session's source failed: source" in caplog.text
    session = broken("none", clock, sink=True)
    with pytest.raises(KeyboardInterrupt):
        leave(session, KeyboardInterrupt())
    assert_over(session, clock)


@pytest.mark.parametrize("stage", ["pirender_frame", "source"])
def test_a_failure_while_all_queues_are_full_and_nobody_takes_anything(stage: str, clock: LiveClock) -> None:
    session = broken(stage, clock, sink=False, policy=Policy.BLOCK, block_ms=60_000, queue_ms=40)
    if isinstance(clock, SystemClock):
        until = time.monotonic() + PATIENCE_S
        while session.error is None and time.monotonic() < until:
            time.sleep(0.01)
    else:
        clock.sleep(5000 * MS)
    with pytest.raises(SessionError) as caught:
        session.wait(PATIENCE_S)
    assert_told(caught.value, stage)
    assert_over(session, clock)


def test_a_failure_is_told_at_once_though_the_sink_is_blocked(clock: LiveClock) -> None:
    listener = fake_listener(fake_engines(pirender_frame=Failing(fake_engine("pirender_frame"), at=12).run))
    sink = Show(lambda n: clock.sleep(700 * MS))
    source = IterableSource(endless(clock), live=True)
    session = listener.live(source, sink, settings=LiveSettings(playout_ms=40), clock=clock)
    with pytest.raises(SessionError, match="chain failed: once"):
        session.wait(PATIENCE_S)
    assert sink.closed == []
    assert_over(session, clock)
    assert sink.closed == [session.error]


def test_the_first_failure_is_the_one_that_is_told(clock: LiveClock) -> None:
    sink = Show(failing(3, "show"), close=BrokenError("close"))
    source = IterableSource(endless(clock), live=True)
    with pytest.raises(SessionError, match="sink failed: show") as caught:
        watch(fake_listener().live(source, sink, settings=LiveSettings(playout_ms=40), clock=clock))
    assert sink.closed == [caught.value]


def test_a_sink_that_cannot_be_closed_is_a_failure(clock: LiveClock) -> None:
    sink = Show(close=BrokenError("close"))
    with pytest.raises(SessionError, match="sink failed: close"):
        watch(fake_listener().live(speaker(8), sink, settings=LiveSettings(playout_ms=40), clock=clock))
    assert sink.closed == [None]


def test_a_failure_without_words_is_named_by_its_class(clock: LiveClock) -> None:
    class SilentError(Exception):
        pass

    def source() -> Iterator[Timed]:
        yield speaker(1)[0]
        raise SilentError

    with pytest.raises(SessionError, match="The session's source failed: SilentError"):
        watch(fake_listener().live(source(), print, clock=clock))


def test_stop_watching_ends_a_session_well(clock: LiveClock, tmp_path: Path) -> None:
    class Window(VideoFileSink):
        shown = 0

        def show(self, frame: ListenerFrame) -> None:
            super().show(frame)
            self.shown += 1
            if self.shown == 5:
                raise StopWatching

    sink = Window(tmp_path / "listener.mp4")
    source = IterableSource(endless(clock), live=True)
    with fake_listener().live(source, sink, settings=LiveSettings(playout_ms=40), clock=clock) as session:
        assert session.wait(PATIENCE_S)
        assert session.error is None
    assert_over(session, clock)
    assert sink.shown == 5
    assert (tmp_path / "listener.mp4").stat().st_size > 0


def test_what_fails_before_the_session_starts_is_raised_and_lets_everything_go() -> None:
    class Camera(IterableSource):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    sink, camera = Show(), Camera([], live=True)
    listener = fake_listener(fake_engines(reactface_speaker=Failing(fake_engine("reactface_speaker"), at=1).run))
    with pytest.raises(EngineError, match="once") as caught:
        listener.live(camera, sink, clock=VirtualClock(START))
    assert camera.closed
    assert sink.closed == [caught.value]
    assert not still(PATIENCE_S)


# Sources gone wrong


def test_a_source_that_yields_nothing_ends_well(clock: LiveClock) -> None:
    sink = Show()
    with fake_listener().live([], sink, clock=clock) as session:
        assert session.wait(PATIENCE_S)
    assert (sink.frames, sink.closed) == ([], [None])
    with fake_listener().live([], clock=clock) as session:
        assert list(session) == []


def test_a_source_without_tracks_ends_well(clock: LiveClock) -> None:
    class Nothing(IterableSource):
        def tracks(self) -> Sequence[Iterator[Timed]]:
            return []

    with fake_listener().live(Nothing([]), print, clock=clock) as session:
        assert session.wait(PATIENCE_S)


@pytest.mark.parametrize("where", ["tracks", "first item"])
def test_a_source_that_fails_at_once(where: str, clock: LiveClock) -> None:
    class Dead(IterableSource):
        def tracks(self) -> Sequence[Iterator[Timed]]:
            if where == "tracks":
                raise BrokenError("at once")
            return super().tracks()

    def items() -> Iterator[Timed]:
        raise BrokenError("at once")
        yield

    with pytest.raises((BrokenError, SessionError), match="at once"):
        watch(fake_listener().live(Dead(items()), print, clock=clock))
    assert not still(PATIENCE_S)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (Timed(float("nan"), frames_of(1)[0]), "time stamp nan"),
        (Timed(0.2), "neither a picture nor sound"),
        (Timed(0.2, np.zeros((8, 8), np.uint8)), "uint8 \\[H, W, 3\\]"),
        (Timed(0.2, audio=np.zeros(8, np.float32)[:, None]), "float32 \\[N\\]"),
        ("frame", "must yield Timed"),
    ],
)
def test_an_item_that_is_none_stops_the_session(item: Any, says: str) -> None:
    with pytest.raises(SessionError, match=says) as caught:
        run([*speaker(4), item])
    assert caught.value.stage == "source"
    assert isinstance(caught.value.__cause__, FeedError)


def test_a_source_that_ends_anywhere_is_shown_to_its_end() -> None:
    for n in (1, 7, 8, 9, 13, 24):
        assert contents(run(speaker(n), render=1, generate=5).frames) == contents(offline(speaker(n)))


def test_while_a_source_stalls_the_listener_goes_on_and_after_it_trails_as_before() -> None:
    clock = VirtualClock(START)

    def stalling() -> Iterator[Timed]:
        for item in captured(clock, 150):
            if not 2 <= item.time_s < 4:
                yield item

    result = run(IterableSource(stalling(), live=True), clock=clock, render=1, generate=5)
    assert_bounded(result.stats)
    assert len(result.frames) == 150
    assert [frame.ledger.emitted for frame in result.frames] == [
        result.begin + declared(3) + k * FRAME for k in range(150)
    ]
    assert result.last.missed == 0


def test_after_a_source_that_was_held_up_frames_are_no_older_than_the_cap() -> None:
    clock = VirtualClock(START)

    def held_up() -> Iterator[Timed]:
        for item in captured(clock, 150):
            if item.time_s == 2:
                clock.sleep(3000 * MS)
            yield item
            if item.time_s >= 2:
                clock.sleep(FRAME)

    result = run(IterableSource(held_up(), live=True), clock=clock, render=1, generate=5)
    assert_bounded(result.stats)
    assert result.last.reanchored == 1
    emitted = [ledger.emitted or 0 for ledger in result.shown()]
    assert max(np.diff(emitted)) <= 3 * FRAME  # where the clock starts anew
    assert result.last.age_ms == pytest.approx(declared(3) / MS - 40, abs=1)


def test_pictures_of_another_size_are_shown_in_the_first_ones_place() -> None:
    sizes = [(48, 40), (64, 32), (20, 20)]
    items = [Timed(k / 25, frames_of(1, size=sizes[k // 10 % 3], seed=k)[0]) for k in range(40)]
    result = run(items, render=1, generate=5)
    assert len(result.frames) == 40
    assert result.last.missed == 0


def test_sound_that_stops_and_comes_back_is_silence_meanwhile() -> None:
    items = [Timed(item.time_s, item.video, None if 20 <= k < 50 else item.audio) for k, item in enumerate(speaker(80))]
    silence = np.zeros(640, np.float32)
    filled = [Timed(item.time_s, item.video, silence if item.audio is None else item.audio) for item in items]
    result = run(items, render=1, generate=5)
    assert contents(result.frames) == contents(offline(filled))


def test_sound_without_any_picture_is_reacted_to_after_a_second_and_does_not_gather() -> None:
    clock, numbers = VirtualClock(START), list[int]()
    items = [Timed(float(k), audio=np.zeros(16_000, np.float32)) for k in range(8)]
    with fake_listener(lookahead=0).live(items, clock=clock) as session:
        numbers += [frame.ledger.frame for frame in session]
        session.wait()
        waiting = session._timeline._sound._samples  # there is no other way to see it
    assert numbers == list(range(len(numbers)))
    assert 7 * 25 <= len(numbers) <= 7 * 25 + 3
    assert len(waiting) <= 2 * 16_000
