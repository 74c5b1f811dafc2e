"""Many look at one session: each has a queue of its own, and nobody's trouble is another's."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.fakes import fake_listener
from support.live.live_sessions import MS, START, BrokenError, Show, assert_over, endless, failing, speaker, still

from pflx.engines import FeedError
from pflx.runtime import (
    FileSource,
    IterableSource,
    Listener,
    ListenerFrame,
    LiveSession,
    LiveSettings,
    MediaError,
    SessionError,
    StopWatching,
    StreamError,
    VirtualClock,
)
from pflx.runtime.live.clock import SystemClock, Thread

N = 50


def stopping(at: int) -> Callable[[int], None]:
    def act(n: int) -> None:
        if n == at:
            raise StopWatching

    return act


def numbers(frames: list[ListenerFrame]) -> list[int]:
    return [frame.ledger.frame for frame in frames]


def watched(sinks: Any, clock: VirtualClock, **options: Any) -> LiveSession:
    """A whole session, until it has ended."""
    with fake_listener(lookahead=0).live(speaker(N), sinks, clock=clock, **options) as session:
        session.wait()
    return session


def test_a_slow_and_a_failing_sink_stop_no_other(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock(START)
    fine, bad = Show(), Show(failing(5, "sink"))
    slow = Show(lambda n: clock.sleep(300 * MS))
    session = watched([fine, bad, slow, lambda frame: None], clock)
    assert numbers(fine.frames) == list(range(N))
    assert [frame.ledger.emitted for frame in fine.frames] == [frame.due_ns for frame in fine.frames]
    assert len(bad.frames) == 5
    assert 5 <= len(slow.frames) < N // 2
    assert numbers(slow.frames) == sorted(set(numbers(slow.frames)))
    assert fine.closed == slow.closed == [None]
    assert [str(error) for error in bad.closed] == ["sink"]
    (error,) = session.sink_errors
    assert (error.stage, type(error.__cause__)) == ("sink", BrokenError)
    assert "The session's sink failed: sink. The other sinks go on." in caplog.messages
    assert session.error is None


def test_a_path_a_function_and_an_object_may_be_given_together(tmp_path: Any) -> None:
    clock, shown = VirtualClock(START), Show()
    counted: list[ListenerFrame] = []
    watched((tmp_path / "out.mp4", counted.append, shown), clock)
    assert len(counted) == len(shown.frames) == N
    (track,) = FileSource(tmp_path / "out.mp4").tracks()
    assert sum(item.video is not None for item in track) == N


def test_when_all_sinks_have_failed_the_session_has() -> None:
    clock = VirtualClock(START)
    first, second = Show(failing(3, "first")), Show(failing(6, "second"))
    with pytest.raises(SessionError, match="second") as caught:
        watched([first, second], clock)
    assert caught.value.stage == "sink"
    assert [str(error) for sink in (first, second) for error in sink.closed] == ["first", "second"]


def test_a_session_ends_well_when_the_last_sink_stops_watching() -> None:
    clock = VirtualClock(START)
    first, second = Show(stopping(3)), Show(stopping(9))
    listener = fake_listener(lookahead=0)
    session = listener.live(IterableSource(endless(clock), live=True), [first, second], clock=clock)
    with session:
        assert session.wait(10)
    assert (len(first.frames), len(second.frames)) == (3, 9)
    assert first.closed == second.closed == [None]
    assert session.sink_errors == []


def test_a_sink_that_cannot_be_finished_is_told_of() -> None:
    clock = VirtualClock(START)
    with pytest.raises(SessionError, match="disk full"):
        watched([Show(), Show(close=MediaError("disk full"))], clock)


def test_a_failing_source_ends_all_sinks_with_its_failure() -> None:
    clock = VirtualClock(START)
    sinks = [Show(), Show()]
    source = IterableSource(endless(clock, fail_at=30), live=True)
    with pytest.raises(SessionError, match="source"), fake_listener().live(source, sinks, clock=clock) as session:
        session.wait()
    assert [[type(error) for error in sink.closed] for sink in sinks] == [[SessionError], [SessionError]]
    assert_over(session, clock)


def read(frames: Any, into: list[ListenerFrame]) -> Callable[[], None]:
    return lambda: into.extend(frames)


@pytest.mark.parametrize("sink", [None, Show()])
def test_every_reader_gets_every_frame(sink: Show | None) -> None:
    clock = VirtualClock(START)
    found: list[list[ListenerFrame]] = [[], [], []]
    with fake_listener(lookahead=0).live(speaker(N), sink, clock=clock, samples=2) as session:
        readers = [session.frames(), session.frames(1), session.frames(None)]
        for reader, into in zip(readers, found, strict=True):
            clock.start(read(reader, into), "reader")
        session.wait()
        clock.sleep(MS)
    assert [numbers(frames) for frames in found[:2]] == [list(range(N))] * 2
    assert {frame.sample for frame in found[1]} == {1}
    assert [(frame.ledger.frame, frame.sample) for frame in found[2]] == [(k, m) for k in range(N) for m in range(2)]
    assert [reader.dropped for reader in readers] == [0, 0, 0]


def test_a_second_loop_over_a_session_gets_the_frames_too() -> None:
    clock = VirtualClock(START)
    found: list[list[ListenerFrame]] = [[], []]
    with fake_listener(lookahead=0).live(speaker(N), clock=clock) as session:
        for into in found:
            clock.start(read(session, into), "reader")
        clock.sleep(4 * 10**9)
    assert [numbers(frames) for frames in found] == [list(range(N))] * 2


def test_who_does_not_read_misses_frames_and_nobody_else_does() -> None:
    clock = VirtualClock(START)
    seen: list[int] = []
    with fake_listener(lookahead=0).live(speaker(N), clock=clock) as session:
        idle, newest = session.frames(), session.frames(latest=True)
        for frame in session:
            seen.append(frame.ledger.frame)
        assert seen == list(range(N))
        assert numbers(list(idle)) == list(range(N - 5, N))  # 200 ms
        assert numbers(list(newest)) == [N - 1]
        assert (idle.dropped, newest.dropped) == (N - 5, N - 1)
        assert list(session.frames()) == []  # it is over


def test_a_reader_of_a_failed_session_is_told() -> None:
    clock = VirtualClock(START)
    source = IterableSource(endless(clock, fail_at=30), live=True)
    session = fake_listener().live(source, clock=clock)
    reader = session.frames()
    clock.sleep(4 * 10**9)
    for each in (reader, session.frames()):
        with pytest.raises(SessionError, match="source"):
            list(each)
    session.close()


def test_what_cannot_be_read_is_refused() -> None:
    clock = VirtualClock(START)
    with fake_listener().live(speaker(9), Show(), clock=clock, samples=2) as session:
        with pytest.raises(FeedError, match="sample is 2; this session has 0 to 1"):
            session.frames(2)
        with pytest.raises(StreamError, match=r"session\.frames\(\)"):
            iter(session)


# Threads that cannot be started


class Poor(SystemClock):
    """A machine with room for so many threads."""

    def __init__(self, threads: int) -> None:
        self._left = threads

    def start(self, work: Callable[[], None], name: str) -> Thread:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("can't start new thread")
        return super().start(work, name)


class Closing(IterableSource):
    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("threads", [0, 1, 2])
def test_a_session_whose_threads_cannot_start_is_taken_down_whole(threads: int, several: bool) -> None:
    clock, sinks = Poor(threads), [Show(), Show()]
    source, listener = Closing(speaker(N)), fake_listener()
    with pytest.raises(SessionError, match="can't start new thread") as caught:
        listener.live(source, sinks if several else sinks[0], clock=clock)
    assert caught.value.stage == "start"
    assert source.closed
    assert all(sink.closed for sink in (sinks if several else sinks[:1]))
    assert not still(5)
    assert listener.load == 0
    clock._left = 99
    with listener.live(speaker(2), Show()) as session:  # the listener is as it was
        assert session.wait(10)


# Event loops


def test_a_session_opens_shows_and_closes_beside_an_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    main = threading.get_ident()
    worked: list[bool] = []

    def open_fake(*given: Any, **options: Any) -> Listener:
        worked.append(threading.get_ident() != main)
        return fake_listener(**options)

    monkeypatch.setattr(Listener, "open", open_fake)

    async def act() -> tuple[list[int], list[int], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.005)

        beside = asyncio.create_task(tick())
        listener = await Listener.aopen("me.pflx", "me.png")
        assert worked == [True]
        async with listener.alive(speaker(12), settings=LiveSettings(playout_ms=40)) as session:
            one, two = session.frames(), session.frames()

            async def gather(frames: Any) -> list[int]:
                return [frame.ledger.frame async for frame in frames]

            found = await asyncio.gather(gather(one), gather(two))
        beside.cancel()
        return found[0], found[1], ticks

    first, second, ticks = asyncio.run(act())
    assert first == second
    assert first
    assert ticks > 10
    assert not still(5)


def test_a_failed_session_is_told_at_the_end_of_its_block() -> None:
    async def act() -> None:
        source = IterableSource(_broken())
        async with fake_listener().alive(source, Show()) as session:
            while session.error is None:
                await asyncio.sleep(0.01)

    with pytest.raises(SessionError, match="source"):
        asyncio.run(act())
    assert not still(5)


def _broken() -> Iterator[Any]:
    yield from speaker(2)
    raise BrokenError("source")


def test_a_session_that_nobody_waits_for_any_more_is_closed() -> None:
    listener = fake_listener()
    begun, real = threading.Event(), listener.live

    def slow(*given: Any, **options: Any) -> LiveSession:
        begun.set()
        time.sleep(0.1)
        return real(*given, **options)

    listener.live = slow  # type: ignore[method-assign]

    async def act() -> None:
        async def watch() -> None:
            async with listener.alive(IterableSource(endless(SystemClock()), live=True)):
                await asyncio.sleep(60)

        task = asyncio.create_task(watch())
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(act())
    assert not still(5)
    assert np.isfinite(listener.load)
