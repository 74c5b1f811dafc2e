"""Jobs handed out to workers, one to each; a job whose worker dies is begun again, by another."""

from __future__ import annotations

import atexit
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Generic, TypeVar

from pflx.runtime.cluster.crew import Broken, Crew, Dead, Ready, Task, Told, Word, Worker, WorkerError

J = TypeVar("J")
R = TypeVar("R")

log = logging.getLogger(__name__)

_TRIES = 3
"""How often a job is begun whose worker dies, in all; and how many may die before they are ready while none is."""
_LATER_S, _LATEST_S = 0.5, 30.0
"""After how long another is taken on for one that died so, twice as long each time: a lost node still takes actors."""
_LOOK_EVERY_S = 0.2
"""How often it is looked whether to stop."""


@dataclass(frozen=True)
class Lost:
    """In the place of a result: every worker that began the job died."""

    why: str


@dataclass(eq=False)
class _Place(Generic[J]):
    """A worker, and what it has."""

    worker: Worker
    is_ready: bool = False
    job: J | None = None
    share: float = 0.0


class _Pool(Generic[J]):
    def __init__(self, crew: Crew, jobs: Sequence[J], clear: Callable[[J], None], name: Callable[[J], str]) -> None:
        self._crew, self._clear, self._name = crew, clear, name
        self.waiting = deque(jobs)
        self._begun: dict[str, int] = {}
        self._places: list[_Place[J]] = []
        self._n_done = self._n_stillborn = 0
        self._due: list[float] = []

    @property
    def running(self) -> list[J]:
        return [place.job for place in self._places if place.job is not None]

    @property
    def done(self) -> float:
        """Jobs that are done, and what is done of others."""
        return round(self._n_done + sum(place.share for place in self._places), 6)

    def hire(self) -> None:
        self._places.append(_Place(self._crew.hire()))

    def hire_due(self) -> None:
        """Take on who was put off."""
        now = monotonic()
        for _ in [due for due in self._due if due <= now and self.waiting]:
            self.hire()
        self._due = [due for due in self._due if due > now]

    def hand_out(self) -> None:
        """Give every worker a job that has none."""
        for place in self._places:
            if place.is_ready and place.job is None and self.waiting:
                place.job = self.waiting.popleft()
                name = self._name(place.job)
                self._begun[name] = self._begun.get(name, 0) + 1
                place.worker.hand(place.job)

    def hear(self, worker: Worker, word: Word) -> tuple[J, Any] | None:
        """Take note of what a worker says; a job, if it is done with one."""
        place = next(each for each in self._places if each.worker is worker)
        if isinstance(word, Broken):
            raise WorkerError(word.error)
        if isinstance(word, Dead):
            return self._bury(place, word.how)
        if isinstance(word, Ready):
            place.is_ready, self._n_stillborn = True, 0
            return None
        if isinstance(word, Told):
            place.share = word.share
            return None
        job, place.job, place.share = place.job, None, 0.0
        assert job is not None
        self._n_done += 1
        return job, word.result

    def _bury(self, place: _Place[J], how: str) -> tuple[J, Lost] | None:
        """Put another in the place of a dead worker; its job is done with if it was begun too often."""
        self._places.remove(place)
        if not place.is_ready:
            self._put_off(how)
            return None
        job, done = place.job, None
        if job is not None:
            self._clear(job)
            name = self._name(job)
            if self._begun[name] < _TRIES:
                log.warning("%s: its worker %s; it is begun again.", name, how)
                self.waiting.appendleft(job)
            else:
                self._n_done += 1
                done = job, Lost(f"Its worker {how} each of the {_TRIES} times that it was begun.")
        if self.waiting:
            self.hire()
        return done

    def _put_off(self, how: str) -> None:
        """Try once more, later, in the place of a worker that died before it was ready."""
        self._n_stillborn += 1
        if self._n_stillborn >= _TRIES and not any(each.is_ready for each in self._places):
            raise WorkerError(f"A worker {how} while it began. If memory ran out, take fewer workers.")
        log.info("A worker %s while it began; another will.", how)
        self._due.append(monotonic() + min(_LATER_S * 2 ** (self._n_stillborn - 1), _LATEST_S))


def shared_out(
    crew: Crew,
    jobs: Sequence[J],
    count: int,
    *,
    name: Callable[[J], str],
    clear: Callable[[J], None],
    should_stop: Callable[[], bool] = lambda: False,
    tell: Callable[[float], object] = lambda done: None,
) -> Generator[tuple[J, Any], None, None]:
    """Have jobs done by several workers, each at least once.

    Args:
        crew: takes the workers on. It is dismissed in the end, at once if this is closed before all is done.
        jobs: what is to be done.
        count: of workers; none of them is taken on for nothing.
        name: of a job, told where its worker dies; no two share one.
        clear: removes what a worker that died left of a job.
        should_stop: asked now and then; once it says so, no further job is begun.
        tell: told how many jobs are done, with parts of those that are under way.

    Yields:
        Every job that was begun, in the order in which they are done, and its result; `Lost`, if three of its workers
        died.

    Raises:
        WorkerError: a worker cannot begin, or says that it cannot go on.
    """
    pool = _Pool(crew, jobs, clear, name)
    at_once = True
    abandoned = partial(crew.end, at_once=True)
    atexit.register(abandoned)  # whoever leaves off without closing this would wait for the workers for ever
    try:
        for _ in range(min(count, len(jobs))):
            pool.hire()
        while pool.running or (pool.waiting and not should_stop()):
            if not should_stop():
                pool.hire_due()
                pool.hand_out()
            for worker, word in crew.listen(_LOOK_EVERY_S):
                if (done := pool.hear(worker, word)) is not None:
                    yield done
            tell(pool.done)
        at_once = False
    finally:
        crew.end(at_once=at_once)
        for job in pool.running:
            clear(job)
        atexit.unregister(abandoned)


def in_turn(
    task: Task[J, R],
    jobs: Sequence[J],
    *,
    should_stop: Callable[[], bool] = lambda: False,
    tell: Callable[[float], object] = lambda done: None,
) -> Iterator[tuple[J, R]]:
    """Do jobs in this process, one after the other; for the rest, see `shared_out`."""
    with task.opened() as work:
        for done, job in enumerate(jobs):
            if should_stop():
                return
            tell(done)
            yield job, work(job, partial(_tell_more, tell, done))
        tell(len(jobs))


def _tell_more(tell: Callable[[float], object], done: int, share: float) -> None:
    tell(done + min(share, 1.0))
