"""Jobs in turn, or in several processes side by side, with what is done of them told as they go."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, Protocol, TypeAlias, TypeVar

from pflx.runtime.dataset.crop import CropError
from pflx.runtime.spawning import deaf_to

Job = TypeVar("Job", contravariant=True)
Result = TypeVar("Result", covariant=True)
J = TypeVar("J")
R = TypeVar("R")

Progress: TypeAlias = Callable[[str, float, float | None], None]
"""What is being done, jobs done and what is done of those that are under way, jobs in all."""
Tell: TypeAlias = Callable[[float], None]
"""Told how much of a job is done, 0..1."""

_LOOK_S = 0.25
"""How often progress is told, and how long a wish to stop may wait."""


class Task(Protocol[Job, Result]):
    """What is to be done, in a form that can be sent to another process."""

    def opened(self) -> Callable[[Job, Tell], Result]:
        """What does one job after the other; called once in each process."""
        ...


def in_turn(task: Task[J, R], jobs: Sequence[J], progress: Progress) -> list[R]:
    """Do all jobs in this process."""
    work, results = task.opened(), []
    for done, job in enumerate(jobs):

        def tell(share: float, done: int = done) -> None:
            progress("cropping", done + min(share, 1.0), len(jobs))

        tell(0.0)
        results.append(work(job, tell))
    return results


def side_by_side(task: Task[J, R], jobs: Sequence[J], workers: int, progress: Progress) -> list[R]:
    """Do all jobs in processes of their own; their results in the order of the jobs.

    An exception here, Ctrl-C included, ends them within a moment, with whatever they have open closed.

    Raises:
        CropError: a process was killed.
    """
    context = get_context("spawn")  # libraries with threads do not survive a fork
    done, stop = context.Value("d", 0.0), context.Event()
    with ProcessPoolExecutor(workers, context, _begin, (task, done, stop, logging.root.level)) as pool:
        try:
            with deaf_to("SIGINT", "SIGHUP"):
                results: list[Future[R]] = [pool.submit(_do, job) for job in jobs]
            waiting: set[Future[R]] = {*results}
            while waiting:
                ended, waiting = wait(waiting, _LOOK_S, FIRST_COMPLETED)
                progress("cropping", round(done.value, 6), len(jobs))
                for each in ended:
                    each.result()
        except BrokenProcessPool as error:
            raise CropError(
                "A worker process was killed; memory may have run out. What is done is kept: go on with the same "
                "command and fewer --workers."
            ) from error
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [each.result() for each in results]


_own: dict[str, Any] = {}
"""Of this process, if it is a worker: the task, what does a job of it, and what it shares with the others."""


def _begin(task: Task[Any, Any], done: Any, stop: Any, log_level: int) -> None:
    import cv2

    logging.basicConfig(level=log_level, format="pflx: %(message)s")  # notes of clips, as the first process has them
    Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    _own.update(task=task, done=done, stop=stop)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(job: Any) -> Any:
    told = 0.0

    def tell(share: float) -> None:
        nonlocal told
        if _own["stop"].is_set():
            raise KeyboardInterrupt
        with _own["done"].get_lock():
            _own["done"].value += min(share, 1.0) - told
        told = min(share, 1.0)

    tell(0.0)
    if "work" not in _own:
        _own["work"] = _own["task"].opened()  # here and not before, so that what it raises is told
    result = _own["work"](job, tell)
    tell(1.0)
    return result
