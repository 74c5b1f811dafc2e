"""The clocks: on the virtual one, every run is the same run, and time is arithmetic."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pflx.engines import PflxError
from pflx.runtime.live.clock import ClockError, LiveClock, Monitor, SystemClock, VirtualClock

MS = 1_000_000
HOUR = 3_600_000 * MS

CLOCKS = pytest.mark.parametrize("make_clock", [SystemClock, VirtualClock])
MakeClock = Callable[[], LiveClock]
Log = list[tuple[int, str]]


class Mailbox:
    """A queue as a session has them: one lock, one condition."""

    def __init__(self, clock: LiveClock) -> None:
        self.monitor: Monitor = clock.monitor()
        self.letters: list[str] = []

    def put(self, letter: str) -> None:
        with self.monitor:
            self.letters.append(letter)
            self.monitor.notify()

    def get(self) -> str:
        with self.monitor:
            while not self.letters:
                self.monitor.wait()
            return self.letters.pop(0)


def relay(clock: LiveClock, log: Log) -> None:
    """Two readers of different pace, one worker with a cost, one player with deadlines."""
    raw, done = Mailbox(clock), Mailbox(clock)

    def read(name: str, pace: int) -> None:
        for k in range(6):
            clock.sleep(pace)
            raw.put(f"{name}{k}")

    def work() -> None:
        for _ in range(12):
            letter = raw.get()
            clock.sleep(5)
            done.put(letter.upper())

    def play() -> None:
        for _ in range(12):
            log.append((clock(), done.get()))

    threads = [clock.start(partial(read, "a", 10), "a"), clock.start(partial(read, "b", 15), "b")]
    threads += [clock.start(work, "worker"), clock.start(play, "player")]
    assert all(thread.join() for thread in threads)
    log.append((clock(), "end"))


def test_a_program_of_several_threads_logs_the_same_in_every_run() -> None:
    logs: list[Log] = [[] for _ in range(20)]
    for log in logs:
        relay(VirtualClock(), log)
    assert all(log == logs[0] for log in logs)
    assert logs[0][-1] == (95, "end")
    assert [time for time, _ in logs[0]] == sorted(time for time, _ in logs[0])


@given(programs=st.lists(st.lists(st.integers(-3, 50), max_size=8), min_size=1, max_size=5), start=st.integers(0, HOUR))
@settings(max_examples=60, deadline=None)
def test_whoever_sleeps_wakes_when_arithmetic_says(programs: list[list[int]], start: int) -> None:
    clock = VirtualClock(start)
    seen: list[list[int]] = [[] for _ in programs]
    order: list[int] = []

    def run(k: int) -> None:
        for duration in programs[k]:
            clock.sleep(duration)
            seen[k].append(clock())
            order.append(clock())

    threads = [clock.start(partial(run, k), f"sleeper {k}") for k in range(len(programs))]
    assert all(thread.join() for thread in threads)
    for program, times in zip(programs, seen, strict=True):
        assert times == [start + sum(max(0, d) for d in program[: n + 1]) for n in range(len(program))]
    assert order == sorted(order)


def test_time_stands_still_while_a_thread_works() -> None:
    clock = VirtualClock(7)
    assert sum(range(100_000)) > 0
    assert clock() == 7


def test_a_virtual_hour_passes_without_waiting() -> None:
    clock = VirtualClock()
    ticks: list[int] = []

    def tick() -> None:
        while clock() < HOUR:
            clock.sleep(1000 * MS)
            ticks.append(clock())

    ticker = clock.start(tick, "ticker")
    clock.sleep(HOUR)
    assert ticker.join()
    assert clock() == HOUR == ticks[-1]
    assert len(ticks) == 3600


@CLOCKS
def test_threads_work_together_in_the_same_order_on_every_clock(make_clock: MakeClock) -> None:
    clock, log = make_clock(), list[str]()
    here, there = Mailbox(clock), Mailbox(clock)

    def answer() -> None:
        while (letter := there.get()) != "stop":
            clock.sleep(MS // 10)
            log.append(f"heard {letter}")
            here.put(letter[::-1])

    other = clock.start(answer, "answer")
    for letter in ("ab", "cd", "ef"):
        there.put(letter)
        log.append(f"got {here.get()}")
    assert not other.join(MS)
    there.put("stop")
    assert other.join()
    assert other.join(0)
    assert log == ["heard ab", "got ba", "heard cd", "got dc", "heard ef", "got fe"]


@CLOCKS
def test_a_wait_ends_by_its_time_and_not_before(make_clock: MakeClock) -> None:
    clock = make_clock()
    monitor = clock.monitor()
    until = clock() + 2 * MS
    with monitor:
        while clock() < until:
            monitor.wait(until)
        monitor.wait(until - MS)
        monitor.wait(clock())
    assert clock() >= until


@CLOCKS
def test_a_monitor_keeps_others_out_while_its_holder_sleeps(make_clock: MakeClock) -> None:
    clock, log = make_clock(), list[str]()
    monitor = clock.monitor()

    def enter() -> None:
        with monitor:
            log.append("other in")

    with monitor:
        other = clock.start(enter, "other")
        clock.sleep(MS)
        log.append("holder out")
    assert other.join()
    assert log == ["holder out", "other in"]


@CLOCKS
def test_wait_and_notify_ask_for_the_monitor(make_clock: MakeClock) -> None:
    monitor = make_clock().monitor()
    with pytest.raises(RuntimeError):
        monitor.notify()
    with pytest.raises(RuntimeError):
        monitor.wait(0)


@CLOCKS
def test_of_two_conditions_of_one_lock_each_wakes_its_own(make_clock: MakeClock) -> None:
    clock, log = make_clock(), list[str]()
    news = clock.monitor()
    conditions = {"news": news, "end": news.another()}
    told = dict.fromkeys(conditions, False)

    def wait(name: str) -> None:
        with conditions[name]:
            while not told[name]:
                conditions[name].wait()
                log.append(f"{name} woke")

    threads = {name: clock.start(partial(wait, name), name) for name in conditions}
    clock.sleep(20 * MS)
    for name in ("end", "news"):
        for _ in range(3):
            with conditions["news"]:  # the lock of both
                log.append(f"tell {name}")
                told[name] = True
                conditions[name].notify()
            clock.sleep(20 * MS)
        assert threads[name].join()
    told_only = ["tell end"] * 2, ["tell news"] * 2
    assert log == ["tell end", "end woke", *told_only[0], "tell news", "news woke", *told_only[1]]


@CLOCKS
def test_an_error_in_a_thread_is_reported_and_ends_only_that_thread(
    make_clock: MakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, reported = make_clock(), list[str]()
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(f"{args.thread.name}: {args.exc_value}"))

    def fail() -> None:
        clock.sleep(MS)
        raise ValueError("no picture")

    assert clock.start(fail, "reader").join()
    clock.sleep(MS)
    assert reported == ["reader: no picture"]


def test_notify_wakes_all_that_wait_in_the_order_of_their_waiting() -> None:
    clock, log = VirtualClock(), list[str]()
    monitor = clock.monitor()

    def wait(name: str, after: int) -> None:
        clock.sleep(after)
        with monitor:
            monitor.wait()
            log.append(name)

    delays = {"a": 3, "b": 1, "c": 2}
    threads = [clock.start(partial(wait, name, after), name) for name, after in delays.items()]
    clock.sleep(10)
    with monitor:
        monitor.notify()
        assert log == []
    assert all(thread.join() for thread in threads)
    assert log == ["b", "c", "a"]
    assert clock() == 10


def test_of_those_who_wake_at_one_time_the_one_that_waited_longest_goes_first() -> None:
    clock, log = VirtualClock(), list[str]()

    def wake(name: str, after: int) -> None:
        clock.sleep(after)
        clock.sleep(10 - after)
        log.append(name)

    threads = [clock.start(partial(wake, name, after), name) for name, after in [("a", 4), ("b", 2), ("c", 3)]]
    assert all(thread.join() for thread in threads)
    assert log == ["b", "c", "a"]


def test_a_notified_wait_does_not_wake_again_at_its_time() -> None:
    clock, times = VirtualClock(), list[int]()
    monitor = clock.monitor()

    def wait() -> None:
        with monitor:
            monitor.wait(100)
            times.append(clock())
            monitor.wait(300)
            times.append(clock())

    thread = clock.start(wait, "waiter")
    clock.sleep(40)
    with monitor:
        monitor.notify()
    assert thread.join()
    assert times == [40, 300]


def test_a_join_gives_up_at_its_time() -> None:
    clock = VirtualClock()
    thread = clock.start(lambda: clock.sleep(50), "sleeper")
    assert not thread.join(20)
    assert clock() == 20
    assert thread.join(100)
    assert clock() == 50


def test_when_all_wait_for_ever_the_last_one_is_told_who_waits_for_what() -> None:
    clock = VirtualClock()
    box, letters = Mailbox(clock), list[str]()
    thread = clock.start(lambda: letters.append(box.get()), "reader")
    clock.sleep(3)
    with pytest.raises(ClockError, match=r"'reader' for a notify, 'MainThread' for the end of 'reader'"):
        thread.join()
    box.put("late")
    assert thread.join()
    assert letters == ["late"]


def test_when_a_thread_ends_and_nobody_is_left_to_run_the_one_that_waits_is_told() -> None:
    clock = VirtualClock()
    monitor = clock.monitor()
    clock.start(lambda: clock.sleep(5), "sleeper")
    with monitor:
        with pytest.raises(ClockError, match="'MainThread' for a notify"):
            monitor.wait()
        monitor.notify()  # it holds the monitor again
    assert clock() == 5


def test_a_monitor_taken_twice_is_an_error() -> None:
    monitor = VirtualClock().monitor()
    with monitor, pytest.raises(ClockError, match="twice"), monitor:
        pass
    with monitor:
        monitor.notify()


def test_a_thread_that_the_clock_did_not_start_is_refused() -> None:
    clock, errors = VirtualClock(), list[BaseException]()
    monitor = clock.monitor()
    thread = clock.start(lambda: None, "known")

    def foreign() -> None:
        for call in (lambda: clock.sleep(1), monitor.__enter__, monitor.wait, monitor.notify, thread.join):
            try:
                call()
            except ClockError as error:
                errors.append(error)

    stranger = threading.Thread(target=foreign, name="stranger")
    stranger.start()
    stranger.join()
    assert len(errors) == 5
    assert all("'stranger'" in str(error) and isinstance(error, PflxError) for error in errors)


class Interrupted:
    """The lock of a waiting thread, struck by Ctrl-C once (a real signal can be too early to be felt)."""

    def __init__(self, clock: VirtualClock) -> None:
        self.seat = clock._baton.me()
        self.lock = self.seat.turn
        self.seat.turn = self  # type: ignore[assignment]
        self.release = self.lock.release

    def acquire(self, blocking: bool = True) -> bool:
        self.seat.turn = self.lock
        raise KeyboardInterrupt


def test_after_an_interrupted_wait_still_only_one_thread_runs() -> None:
    clock, stop = VirtualClock(), list[bool]()
    turns = 0

    def turn() -> None:
        nonlocal turns
        while not stop:
            turns += 1
            clock.sleep(0)

    other = clock.start(turn, "other")
    Interrupted(clock)
    with pytest.raises(KeyboardInterrupt):
        clock.sleep(100)
    before = turns
    assert sum(range(2_000_000)) > 0  # time enough for another thread, if one could run
    assert turns == before > 0
    stop.append(True)
    assert other.join()
    assert clock() == 0
    clock.sleep(3)
    assert clock() == 3


def test_an_interrupt_as_the_wait_ends_leaves_the_clock_in_order() -> None:
    clock, log = VirtualClock(), list[int]()
    Interrupted(clock)
    with pytest.raises(KeyboardInterrupt):
        clock.sleep(100)
    other = clock.start(lambda: log.append(clock()), "other")
    assert log == []
    clock.sleep(10)
    assert log == [100]
    assert other.join()
    assert clock() == 110


@given(
    programs=st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans()), max_size=6), min_size=1, max_size=4
    )
)
@settings(max_examples=60, deadline=None)
def test_a_monitor_has_one_holder_at_a_time_whatever_happens_within(
    programs: list[list[tuple[int, int, bool]]],
) -> None:
    clock, inside = VirtualClock(), list[int]()
    monitor = clock.monitor()

    def visit(k: int) -> None:
        for before, within, waits in programs[k]:
            clock.sleep(before)
            with monitor:
                assert not inside
                if waits:
                    monitor.wait(clock() + before)
                    assert not inside
                inside.append(k)
                clock.sleep(within)
                monitor.notify()
                assert inside.pop() == k
        done.append(k)

    done = list[int]()
    threads = [clock.start(partial(visit, k), f"visitor {k}") for k in range(len(programs))]
    assert all(thread.join() for thread in threads)
    assert sorted(done) == list(range(len(programs)))
