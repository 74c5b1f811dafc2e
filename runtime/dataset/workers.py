"""Rows made by several processes on one machine, each with a listener of its own."""

from __future__ import annotations

import atexit
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from pflx.engines import PflxError
from pflx.engines.files.writer import clear_leftovers
from pflx.runtime.dataset.maker import Job, RowMaker, write_note
from pflx.runtime.dataset.rows import Row
from pflx.runtime.spawning import deaf_to

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

log = logging.getLogger(__name__)

_TRIES = 3
"""How often a row is begun whose worker dies, in all."""
_LOOK_EVERY_S = 0.2
"""How often it is looked whether to stop."""


class WorkerError(PflxError, RuntimeError):
    """A worker process cannot work."""


@dataclass(frozen=True)
class _Ready:
    """A worker's word that its listener is open."""


@dataclass(frozen=True)
class _Broken:
    """A worker's word that it cannot go on, and why."""

    error: str


@dataclass(frozen=True)
class _Made:
    """A worker's word on a row: why it could not be made, or None."""

    error: str | None


@dataclass
class _Worker:
    """A process, and the row that it makes."""

    process: SpawnProcess
    pipe: Connection
    is_ready: bool = False
    row: Row | None = None


@dataclass
class _Pool:
    job: Job
    waiting: deque[Row]
    begun: dict[str, int] = field(default_factory=dict)
    workers: list[_Worker] = field(default_factory=list)

    @property
    def n_running(self) -> int:
        return sum(worker.row is not None for worker in self.workers)

    def start(self) -> None:
        """Start one more process."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(self.job, theirs), name="pflx-worker", daemon=True)
        with deaf_to("SIGINT", "SIGTERM", "SIGHUP"):  # theirs is the row
            process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours))

    def hand_out(self) -> None:
        """Give every worker a row that has none."""
        for worker in self.workers:
            if worker.is_ready and worker.row is None and self.waiting:
                worker.row = self.waiting.popleft()
                self.begun[worker.row.id] = self.begun.get(worker.row.id, 0) + 1
                with suppress(OSError):  # a worker that is dead is noticed when it is listened to
                    worker.pipe.send(worker.row)

    def hear(self, worker: _Worker) -> tuple[Row, str | None] | None:
        """What a worker says; a row, if it is done with one."""
        try:
            word = worker.pipe.recv()
        except (EOFError, OSError):
            return self._bury(worker)
        if isinstance(word, _Ready):
            worker.is_ready = True
            return None
        if isinstance(word, _Broken):
            raise WorkerError(word.error)
        row, worker.row = worker.row, None
        assert row is not None
        return row, word.error

    def end(self, *, at_once: bool) -> None:
        """End all processes; unless at once, when each is done with its row."""
        for worker in self.workers:
            if at_once or not worker.is_ready:
                worker.process.kill()
            worker.pipe.close()
        for worker in self.workers:
            worker.process.join()
            if worker.row is not None:
                clear_leftovers(self.job.place(worker.row).parent)
        self.workers.clear()

    def _bury(self, worker: _Worker) -> tuple[Row, str | None] | None:
        """Take note of a dead worker, and put another in its place; its row is done with if it was begun too often."""
        self.workers.remove(worker)
        worker.pipe.close()
        worker.process.join()
        how = f"process ended with exit code {worker.process.exitcode}"
        if not worker.is_ready:
            raise WorkerError(f"A worker {how} while it opened the bundle. If memory ran out, take fewer workers.")
        row, done = worker.row, None
        if row is not None:
            clear_leftovers(self.job.place(row).parent)
            if self.begun[row.id] < _TRIES:
                log.warning("%s: its worker %s; it is begun again.", row.id, how)
                self.waiting.appendleft(row)
            else:
                said = f"Its worker {how} each of the {_TRIES} times that it was begun."
                write_note(self.job.note(row), said)
                done = row, said
        if self.waiting:
            self.start()
        return done


def made_by_workers(
    job: Job, rows: Sequence[Row], count: int, should_stop: Callable[[], bool]
) -> Iterator[tuple[Row, str | None]]:
    """Make rows on several processes.

    Args:
        job: what they are made with.
        rows: which.
        count: of processes.
        should_stop: asked now and then; once it says so, no further row is begun.

    Yields:
        Every row that was begun, in the order in which they are done, and why it could not be made, or None. A row
        whose worker dies is begun again, twice at most.

    Raises:
        WorkerError: a worker cannot open the listener, or cannot write.
    """
    pool = _Pool(job, deque(rows))
    at_once = True
    abandoned = partial(pool.end, at_once=True)
    atexit.register(abandoned)  # whoever leaves off without closing this would wait for the processes for ever
    try:
        for _ in range(min(count, len(rows))):
            pool.start()
        while pool.n_running or (pool.waiting and not should_stop()):
            if not should_stop():
                pool.hand_out()
            for pipe in wait([worker.pipe for worker in pool.workers], _LOOK_EVERY_S):
                worker = next(each for each in pool.workers if each.pipe is pipe)
                if (done := pool.hear(worker)) is not None:
                    yield done
        at_once = False
    finally:
        pool.end(at_once=at_once)
        atexit.unregister(abandoned)


def _work(job: Job, pipe: Connection) -> None:
    """What a worker does, until nobody has a row for it any more."""
    try:
        with RowMaker(job) as maker:
            pipe.send(_Ready())
            while True:
                row: Row = pipe.recv()
                pipe.send(_Made(maker.make(row)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # who wanted rows has no more, or is gone
    except PflxError as error:
        with suppress(OSError):
            pipe.send(_Broken(str(error)))
