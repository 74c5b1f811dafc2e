"""Workers that are processes of this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from pflx.engines import PflxError
from pflx.runtime.cluster.crew import Broken, Dead, Done, Ready, Task, Told, Word
from pflx.runtime.spawning import deaf_to

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

_TELL_EVERY_S = 0.1


@dataclass(eq=False)
class _Process:
    process: SpawnProcess
    pipe: Connection
    is_ready: bool = False

    def hand(self, job: Any) -> None:
        with suppress(OSError):
            self.pipe.send(job)

    def word(self) -> Word:
        try:
            found: Word = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return Dead(f"process ended with exit code {self.process.exitcode}")
        self.is_ready = True
        return found


class Processes:
    """A crew of processes.

    Args:
        task: what they do.
    """

    def __init__(self, task: Task[Any, Any]) -> None:
        self._task = task
        self._all: list[_Process] = []

    def hire(self) -> _Process:
        """See `Crew`."""
        context = get_context("spawn")  # libraries with threads do not survive a fork
        ours, theirs = context.Pipe()
        arguments = (self._task, theirs, logging.root.level)
        process = context.Process(target=work_on, args=arguments, name="pflx-worker", daemon=True)
        with deaf_to("SIGINT", "SIGTERM", "SIGHUP"):  # theirs is the job
            process.start()
        theirs.close()
        self._all.append(_Process(process, ours))
        return self._all[-1]

    def listen(self, timeout_s: float) -> Sequence[tuple[_Process, Word]]:
        """See `Crew`."""
        found = []
        for pipe in wait([each.pipe for each in self._all], timeout_s):
            speaker = next(each for each in self._all if each.pipe is pipe)
            word = speaker.word()
            if isinstance(word, Dead):
                speaker.pipe.close()
                self._all.remove(speaker)
            found.append((speaker, word))
        return found

    def end(self, *, at_once: bool) -> None:
        """See `Crew`."""
        for each in self._all:
            if at_once or not each.is_ready:
                each.process.kill()
            each.pipe.close()
        for each in self._all:
            each.process.join()
        self._all.clear()


def work_on(task: Task[Any, Any], pipe: Connection, log_level: int) -> None:
    """What a process does, until nobody has a job for it any more."""
    logging.basicConfig(level=log_level, format="pflx: %(message)s")  # notes of clips, as the first process has them
    Thread(target=_end_with_parent, daemon=True).start()
    told = 0.0

    def tell(share: float) -> None:
        nonlocal told
        if monotonic() - told >= _TELL_EVERY_S:
            told = monotonic()
            pipe.send(Told(min(share, 1.0)))

    try:
        with task.opened() as work:
            pipe.send(Ready())
            while True:
                pipe.send(Done(work(pipe.recv(), tell)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # who wanted jobs done has no more, or is gone
    except PflxError as error:
        with suppress(OSError):
            pipe.send(Broken(str(error)))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
