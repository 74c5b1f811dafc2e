"""The clocks that a live session runs on: the machine's, and a virtual one on which nothing really waits.

A clock tells the time and owns what depends on it: threads, sleeping, waiting for one another. What uses only these
runs unchanged on both clocks; on the virtual one a run is repeatable and takes as long as its arithmetic.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Protocol

from pflx.engines import PflxError
from pflx.runtime.frames.timing import NS_PER_S


class ClockError(PflxError, RuntimeError):
    """A virtual clock cannot go on, or is used from a thread that it does not know."""


class Thread(Protocol):
    """A thread that a clock started."""

    def join(self, timeout_ns: int | None = None) -> bool:
        """Wait for its end, at most so long; True when it has ended."""
        ...

    @property
    def is_current(self) -> bool:
        """Whether it is the thread that asks."""
        ...


class Monitor(Protocol):
    """A lock with a condition, taken by `with`. Like a plain lock it cannot be taken twice by one thread."""

    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...

    def wait(self, until: int | None = None) -> None:
        """Give the monitor back, wait for `notify` or for the time, and take it again.

        It may return early: ask again for what is waited for.

        Args:
            until: when to return at the latest, ns on the clock; None waits for `notify` alone, the past not at all.

        Raises:
            RuntimeError: the monitor is not held.
        """
        ...

    def notify(self) -> None:
        """Wake all that wait; RuntimeError when the monitor is not held."""
        ...

    def another(self) -> Monitor:
        """Another condition of the same lock: whoever waits on one is not woken by `notify` on the other."""
        ...


class LiveClock(Protocol):
    """The time, and all that passes it."""

    def __call__(self) -> int:
        """Now, ns, monotonic; the zero means nothing."""
        ...

    def monitor(self) -> Monitor:
        """A new monitor, whose waits end by this clock."""
        ...

    def start(self, work: Callable[[], None], name: str) -> Thread:
        """Run `work` in a new daemon thread. What escapes it goes to `threading.excepthook`."""
        ...

    def sleep(self, duration_ns: int) -> None:
        """Let so much time pass; a duration below zero counts as zero."""
        ...


class SystemClock(LiveClock):
    """The machine's clock, `time.perf_counter_ns`, with ordinary threads."""

    def __call__(self) -> int:
        """Now, ns."""
        return time.perf_counter_ns()

    def monitor(self) -> Monitor:
        """A new monitor."""
        return _SystemMonitor()

    def start(self, work: Callable[[], None], name: str) -> Thread:
        """Run `work` in a new daemon thread."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return _SystemThread(thread)

    def sleep(self, duration_ns: int) -> None:
        """Let so much time pass."""
        time.sleep(max(0, duration_ns) / NS_PER_S)


class _SystemMonitor(Monitor):
    def __init__(self, lock: threading.Lock | None = None) -> None:
        self._lock = lock or threading.Lock()
        self._condition = threading.Condition(self._lock)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def wait(self, until: int | None = None) -> None:
        self._condition.wait(None if until is None else max(0, until - time.perf_counter_ns()) / NS_PER_S)

    def notify(self) -> None:
        self._condition.notify_all()

    def another(self) -> Monitor:
        return _SystemMonitor(self._lock)


class _SystemThread(Thread):
    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread

    def join(self, timeout_ns: int | None = None) -> bool:
        self._thread.join(None if timeout_ns is None else max(0, timeout_ns) / NS_PER_S)
        return not self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        return self._thread is threading.current_thread()


def join_all(threads: Iterable[Thread], clock: LiveClock, within_ns: int) -> bool:
    """Wait for the end of all threads but the one that asks, at most so long; True when they have ended."""
    until = clock() + within_ns
    ended = [thread.is_current or thread.join(max(0, until - clock())) for thread in threads]
    return all(ended)


class Turn:
    """A lock that is held while engines work: so many sessions of a listener use them at once, the others in turn.

    First come, first served: a session that always has work left does not keep the others out.

    Args:
        clock: of the sessions.
        places: how many may hold it at once.
    """

    def __init__(self, clock: LiveClock, places: int = 1) -> None:
        self.clock = clock
        self._monitor = clock.monitor()
        self._free = places
        self._line: deque[_Waiting] = deque()

    def __enter__(self) -> None:
        with self._monitor:
            if self._free:
                self._free -= 1
                return
            me = _Waiting(self.clock.monitor())
            self._line.append(me)
        try:
            with me.monitor:
                while not me.called:
                    me.monitor.wait()
        except BaseException:
            self._give_up(me)
            raise

    def __exit__(self, *exc: object) -> None:
        with self._monitor:
            following = self._line.popleft() if self._line else None
            self._free += following is None
        if following is not None:
            with following.monitor:
                following.called = True
                following.monitor.notify()

    def _give_up(self, me: _Waiting) -> None:
        with self._monitor:
            waits = me in self._line
            if waits:
                self._line.remove(me)
        if not waits:  # it was called meanwhile
            self.__exit__()


class _Waiting:
    """Who waits for a turn; each by itself, so that nobody is woken for another."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor, self.called = monitor, False


class VirtualClock(LiveClock):
    """A clock that stands still while anybody works, and jumps when everybody waits. Nothing really sleeps.

    Its threads are real, but only one runs at a time: the one that made the clock, until it sleeps, waits, joins or
    finds a monitor taken. Then the next one runs: of those that were started or notified, the first; if there is
    none, of those with a time to wake at, the earliest (of several, the one that has waited longest), and the clock
    jumps to that time. So a program whose threads meet only through the clock does the same in every run. Work that
    takes time is work that sleeps.

    When nobody can ever run again, the thread that was last to wait gets a `ClockError` that names all waits.

    Args:
        start_ns: what it shows at first.

    Raises:
        ClockError: from every method but `__call__`, when called by a thread that neither made the clock nor was
            started by it.
    """

    def __init__(self, start_ns: int = 0) -> None:
        self._baton = _Baton(start_ns)

    def __call__(self) -> int:
        """Now, ns."""
        return self._baton.now

    def monitor(self) -> Monitor:
        """A new monitor."""
        return _VirtualMonitor(self._baton)

    def start(self, work: Callable[[], None], name: str) -> Thread:
        """Let `work` run in a thread of its own, as soon as this one waits."""
        return _VirtualThread(self._baton, self._baton.enlist(work, name))

    def sleep(self, duration_ns: int) -> None:
        """Let so much time pass; zero lets those go first that can run now."""
        baton = self._baton
        baton.park("for a time", baton.now + duration_ns)


class _Seat:
    """A thread on a virtual clock."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.turn = threading.Lock()  # locked but for the moment in which the baton is handed over
        self.turn.acquire()
        self.ticket: int | None = None  # of its present wait; None when it can run
        self.waits = ""
        self.error: ClockError | None = None
        self.ended = False
        self.joiners: dict[_Seat, None] = {}


class _Baton:
    """Who runs, who could, and who waits until when.

    All of it is changed by the thread that runs; the lock is for one that was interrupted (Ctrl-C) while it waited.
    """

    def __init__(self, now: int) -> None:
        self.now = now
        self._lock = threading.Lock()
        self._here = threading.local()
        self._here.seat = self._running = _Seat(threading.current_thread().name)
        self._seats = {self._running: None}
        self._ready: deque[_Seat] = deque()
        self._times: list[tuple[int, int, _Seat]] = []  # heap; an entry whose ticket is over is void
        self._tickets = count()

    def me(self) -> _Seat:
        """The seat of the calling thread."""
        seat: _Seat | None = getattr(self._here, "seat", None)
        if seat is None:
            name = threading.current_thread().name
            raise ClockError(f"Thread '{name}' is not on this virtual clock: start it with clock.start().")
        return seat

    def enlist(self, work: Callable[[], None], name: str) -> _Seat:
        """Start a thread that waits for its first turn."""
        self.me()
        seat = _Seat(name)
        threading.Thread(target=self._run, args=(seat, work), name=name, daemon=True).start()
        with self._lock:
            self._seats[seat] = None
            self._ready.append(seat)
        return seat

    def park(self, waits: str, until: int | None = None) -> None:
        """Let others run until somebody wakes this thread, or until the time."""
        me = self.me()
        try:
            with self._lock:
                me.waits, me.ticket = waits, next(self._tickets)
                if until is not None:
                    heapq.heappush(self._times, (max(until, self.now), me.ticket, me))
                self._hand_on()
            me.turn.acquire()
        except BaseException:
            self._take_back(me)
            raise
        error, me.error = me.error, None
        if error is not None:
            raise error

    def wake(self, seats: Iterable[_Seat]) -> None:
        """Let them run, in this order, as soon as this thread waits."""
        with self._lock:
            self._wake(seats)

    def _wake(self, seats: Iterable[_Seat]) -> None:
        for seat in seats:
            if seat.ticket is not None:
                seat.ticket = None
                self._ready.append(seat)

    def _run(self, seat: _Seat, work: Callable[[], None]) -> None:
        self._here.seat = seat
        seat.turn.acquire()
        try:
            work()
        except BaseException as error:  # reported here, while nobody else runs, so that a report has its place too
            report = (type(error), error, error.__traceback__, threading.current_thread())
            threading.excepthook(threading.ExceptHookArgs(report))
        finally:
            with self._lock:
                seat.ended = True
                del self._seats[seat]
                self._wake(seat.joiners)
                self._hand_on()

    def _hand_on(self) -> None:
        if not self._ready:
            self._wake([self._first_in_time() or self._hopeless()])
        self._running = self._ready.popleft()
        self._running.turn.release()

    def _first_in_time(self) -> _Seat | None:
        while self._times:
            until, ticket, seat = heapq.heappop(self._times)
            if seat.ticket == ticket:
                self.now = until
                return seat
        return None

    def _hopeless(self) -> _Seat:
        """The seat that gets the error: the last to wait, of a clock on which nobody can run again."""
        waiting = sorted(self._seats, key=lambda seat: seat.ticket or 0)
        waits = ", ".join(f"'{seat.name}' {seat.waits}" for seat in waiting)
        waiting[-1].error = ClockError(f"All threads wait, and none until a time: {waits}; notify one of them.")
        return waiting[-1]

    def _take_back(self, me: _Seat) -> None:
        """Have the baton again after an interrupted wait: two threads must not run at once."""
        with self._lock:
            runs = self._running is me
            if runs:
                me.ticket = None
            self._wake([me])
        me.turn.acquire(blocking=not runs)


class _VirtualLock:
    def __init__(self, baton: _Baton) -> None:
        self._baton = baton
        self.holder: _Seat | None = None
        self._entering: dict[_Seat, None] = {}  # in order of coming

    def take(self) -> None:
        me = self._baton.me()
        if self.holder is me:
            raise ClockError(f"Thread '{me.name}' holds this monitor already: it cannot be taken twice.")
        while self.holder is not None:
            self._entering[me] = None
            try:
                self._baton.park(f"for a monitor that '{self.holder.name}' holds")
            finally:
                self._entering.pop(me, None)
        self.holder = me

    def give_back(self) -> None:
        self.holder = None
        self._baton.wake(self._entering)


class _VirtualMonitor(Monitor):
    def __init__(self, baton: _Baton, lock: _VirtualLock | None = None) -> None:
        self._baton, self._lock = baton, lock or _VirtualLock(baton)
        self._waiting: dict[_Seat, None] = {}

    def __enter__(self) -> None:
        self._lock.take()

    def __exit__(self, *exc: object) -> None:
        # A wait that broke off while it took the monitor again leaves it with another thread.
        if self._lock.holder is self._baton.me():
            self._lock.give_back()

    def wait(self, until: int | None = None) -> None:
        me = self._require_held("wait")
        self._lock.give_back()
        self._waiting[me] = None
        try:
            self._baton.park("for a notify", until)
        finally:
            self._waiting.pop(me, None)
            self._lock.take()

    def notify(self) -> None:
        self._require_held("notify")
        self._baton.wake(self._waiting)
        self._waiting.clear()

    def another(self) -> Monitor:
        return _VirtualMonitor(self._baton, self._lock)

    def _require_held(self, what: str) -> _Seat:
        me = self._baton.me()
        if self._lock.holder is not me:
            raise ClockError(f"Thread '{me.name}' calls {what}() without the monitor: take it by 'with' first.")
        return me


class _VirtualThread(Thread):
    def __init__(self, baton: _Baton, seat: _Seat) -> None:
        self._baton = baton
        self._seat = seat

    def join(self, timeout_ns: int | None = None) -> bool:
        me = self._baton.me()
        if not self._seat.ended:
            self._seat.joiners[me] = None
            until = None if timeout_ns is None else self._baton.now + timeout_ns
            try:
                self._baton.park(f"for the end of '{self._seat.name}'", until)
            finally:
                self._seat.joiners.pop(me, None)
        return self._seat.ended

    @property
    def is_current(self) -> bool:
        return self._seat is self._baton.me()
