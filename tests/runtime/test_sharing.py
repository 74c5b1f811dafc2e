"""Sessions of one listener side by side: how many use its engines at once, in which order, and who may come in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import HOP, ONE_FACE, fake_listener
from support.live.live_sessions import (
    MS,
    START,
    Show,
    captured,
    contents,
    costly,
    run,
    speaker,
    watchdog,  # noqa: F401
)

from pflx.engines import Array
from pflx.engines.graphs import threads as threads_module
from pflx.runtime import IterableSource, ListenerFullError, LiveSession, LiveSettings
from pflx.runtime.bundle_engines import EngineSettings, sessions_at_once, threads_of
from pflx.runtime.live.clock import Turn, VirtualClock
from pflx.runtime.live.scheduler import Cost, Share
from pflx.runtime.speaker.faces import Face
from pflx.runtime.speaker.one_at_a_time import safe_detector, safe_extractor


class Inside:
    """Counts who is in a turn, and notes who came when."""

    def __init__(self, clock: VirtualClock, turn: Turn) -> None:
        self._clock, self._turn = clock, turn
        self.now = self.most = 0
        self.came: list[str] = []

    def visit(self, name: str, ms: float) -> None:
        with self._turn:
            self.now += 1
            self.most = max(self.most, self.now)
            self.came.append(name)
            self._clock.sleep(round(ms * MS))
            self.now -= 1


@pytest.mark.parametrize("places", [1, 2, 3])
def test_as_many_have_a_turn_at_once_as_there_are_places_and_all_in_the_order_they_came(places: int) -> None:
    clock = VirtualClock(START)
    inside = Inside(clock, Turn(clock, places))
    names = [f"n{i}" for i in range(7)]
    visitors = [clock.start(lambda name=name: inside.visit(name, 10), name) for name in names]  # type: ignore[misc]
    for visitor in visitors:
        visitor.join()
    assert inside.most == places
    assert inside.came == names
    assert clock() - START == -(-7 // places) * 10 * MS


def test_a_place_that_is_given_back_by_an_error_is_there_for_the_next() -> None:
    clock = VirtualClock(START)
    turn = Turn(clock, 2)
    for _ in range(5):
        with pytest.raises(RuntimeError), turn:
            raise RuntimeError
    inside = Inside(clock, turn)
    inside.visit("last", 1)
    assert inside.came == ["last"]


class _InterruptedError(Exception):
    """In the place of Ctrl-C."""


def test_who_gives_up_waiting_leaves_the_line_to_the_others() -> None:
    clock = VirtualClock(START)
    turn = Turn(clock)
    inside, left = Inside(clock, turn), list[str]()

    def give_up() -> None:
        monitor = clock.monitor()
        broken = type(monitor).wait

        def wait(self: Any, until: int | None = None) -> None:
            raise _InterruptedError

        type(monitor).wait = wait  # type: ignore[method-assign]
        try:
            with turn:
                inside.came.append("never")
        except _InterruptedError:
            left.append("gone")
        finally:
            type(monitor).wait = broken  # type: ignore[method-assign]

    visitors = [
        clock.start(lambda: inside.visit("first", 10), "first"),
        clock.start(give_up, "gone"),
        clock.start(lambda: inside.visit("last", 10), "last"),
    ]
    for visitor in visitors:
        visitor.join()
    assert (inside.came, left) == (["first", "last"], ["gone"])


# What they show


def _reactions(at_once: int, sessions: int) -> list[Any]:
    """Contents of the frames of sessions that run at once, each with a seed of its own."""
    clock = VirtualClock(START)
    listener = fake_listener(costly(clock, render=3, generate=10), at_once=at_once)
    shown = [Show() for _ in range(sessions)]
    live = [
        listener.live(IterableSource(speaker(40)), show, LiveSettings(playout_ms=400), seed=seed, clock=clock)
        for seed, show in enumerate(shown)
    ]
    for session in live:
        session.wait()
        session.close()
    return [contents(show.frames) for show in shown]


def test_sessions_show_the_same_however_many_use_the_engines_at_once() -> None:
    alone = _reactions(1, 3)
    assert len(alone[0]) == 40
    assert len({str(frames) for frames in alone}) == 3
    assert _reactions(2, 3) == alone
    assert _reactions(3, 3) == alone


def test_two_sessions_that_each_need_most_of_a_core_are_both_in_time_on_two() -> None:
    """27 ms of 40 for each: one core keeps one of them, two cores both."""

    def missed(at_once: int) -> list[int]:
        clock = VirtualClock(START)
        listener = fake_listener(costly(clock, render=25, generate=16), at_once=at_once)
        shown = [Show(), Show()]
        live = [listener.live(IterableSource(captured(clock, 100), live=True), show, clock=clock) for show in shown]
        for session in live:
            session.wait()
            session.close()
        return [sum(frame.ledger.picture != frame.ledger.frame for frame in show.frames) for show in shown]

    assert missed(2) == [0, 0]
    assert min(missed(1)) > 10


# What looks at speakers


class Alone:
    """An extractor and detector that notices when two threads are in it at once."""

    size = 58

    def __init__(self) -> None:
        self._clock: VirtualClock | None = None
        self._inside = 0
        self.worst = 0

    def on(self, clock: VirtualClock) -> Alone:
        self._clock = clock
        return self

    def _look(self) -> None:
        assert self._clock is not None
        self._inside += 1
        self.worst = max(self.worst, self._inside)
        self._clock.sleep(2 * MS)
        self._inside -= 1

    def extract(self, picture: Array, frame: int) -> Array | None:
        self._look()
        return None

    def detect(self, frame_rgb: Array) -> list[Face]:
        self._look()
        return ONE_FACE.detect(frame_rgb)


def test_a_detector_of_ones_own_is_used_by_one_session_at_a_time() -> None:
    clock = VirtualClock(START)
    detector = Alone().on(clock)
    listener = fake_listener(costly(clock), detector=detector, at_once=3)
    live = [listener.live(IterableSource(speaker(30)), Show(), clock=clock) for _ in range(3)]
    for session in live:
        session.wait()
        session.close()
    assert detector.worst == 1


@pytest.mark.parametrize("makes", ["extractor", "detector"])
def test_what_bears_threads_is_left_as_it_is_and_what_does_not_is_locked(makes: str) -> None:
    make: Callable[[Any, Any], Any] = safe_extractor if makes == "extractor" else safe_detector
    given, lock = Alone(), threading.Lock()
    assert make(given, lock) is not given
    given.any_thread = True  # type: ignore[attr-defined]
    assert make(given, lock) is given


# Load


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=60))
def test_the_share_is_what_was_held_of_the_last_four_seconds(spells: list[tuple[int, int]]) -> None:
    share, now, held = Share(), 0, np.zeros(60 * 600)
    for pause, length in spells:
        now += pause
        moments = iter((now * MS, (now + length) * MS))
        with share.during(lambda moments=moments: next(moments)):  # type: ignore[misc]
            pass
        held[now : now + length] = 1
        now += length
    begun = spells[0][0] if spells else 0
    expected = held[now - 4000 : now].mean() if spells and now - begun >= 4000 else 0.0
    assert share.at(now * MS) == pytest.approx(expected)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=80), st.integers(1, 40))
def test_many_calls_are_not_predicted_to_be_slow_all_together(calls: list[int], count: int) -> None:
    cost = Cost()
    for call in calls:
        cost.add(call)
    assert cost.of(1) == pytest.approx(cost.predicted, abs=1)
    assert cost.of(count) <= max(count * cost.predicted, count * cost.mean) + count
    last = calls[-64:]
    if len(set(last)) == 1:
        assert cost.of(count) == count * last[0]


def test_a_session_counts_for_what_it_holds_of_a_place() -> None:
    """Pictures of 10 ms and segments of 80: 160 of 320 ms, on one place a half, on two a quarter."""
    for places, expected in ((1, 0.5), (2, 0.25)):
        clock = VirtualClock(START)
        listener = fake_listener(costly(clock, render=10, generate=80), at_once=places)
        assert HOP == 8
        loads: list[float] = []
        run(
            IterableSource(captured(clock, 200), live=True),
            listener=listener,
            clock=clock,
            show=lambda session, frame: loads.append(listener.load),  # noqa: B023
        )
        assert loads[-1] == pytest.approx(expected, rel=0.1)


def test_as_many_are_let_in_as_there_are_places_for() -> None:
    for places, room in ((1, 1), (2, 3)):
        clock = VirtualClock(START)
        listener = fake_listener(costly(clock, render=20, generate=16), at_once=places)  # 0.55 of a place each
        settings = LiveSettings(max_load=1.0)

        def begin() -> LiveSession:
            source = IterableSource(captured(clock, 10_000), live=True)  # noqa: B023
            return listener.live(source, Show(), settings, clock=clock)  # noqa: B023

        live = [begin() for _ in range(room)]
        with pytest.raises(ListenerFullError):
            begin()
        for session in live:
            session.close()


# Threads


@pytest.mark.parametrize(
    ("cores", "threads", "expected"), [(2, None, 2), (8, None, 8), (8, 2, 4), (2, 2, 1), (3, 2, 1), (1, None, 1)]
)
def test_a_bundle_without_networks_serves_one_session_a_core(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int | None, expected: int
) -> None:
    monkeypatch.setattr(threads_module, "usable_cores", lambda: cores)
    from pflx.runtime.builtin import builtin_bundle

    bundle, settings = builtin_bundle(), EngineSettings(threads=threads)
    assert {threads_of(bundle, graph, settings) for graph in bundle.manifest.graphs} == {threads or 1}
    assert sessions_at_once(bundle, None, settings) == expected


@pytest.mark.parametrize(("chosen", "then"), [(None, 1), (3, 3)])
def test_opencv_keeps_to_one_thread_unless_the_application_chose_a_number(chosen: int | None, then: int) -> None:
    """A session that has its frames made in several threads takes the cores from the others."""
    import cv2

    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(cv2.getNumberOfCPUs() if chosen is None else chosen)
        with fake_listener() as listener, listener.live(speaker(8), clock=VirtualClock(START)) as session:
            for _ in session:
                pass
        assert cv2.getNumThreads() == then
    finally:
        cv2.setNumThreads(before)
