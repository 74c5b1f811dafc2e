"""Workers that are actors of a Ray cluster, wherever it has room for them."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pflx.engines import PflxError
from pflx.engines.graphs.protocol import first_line
from pflx.runtime.cluster.crew import Broken, Dead, Done, Ready, Task, Word
from pflx.runtime.cluster.ray_session import Needs, RaySession

log = logging.getLogger(__name__)

_GONE_S = 5.0
"""How long it is waited for an actor that was killed to be gone."""
_PATIENCE_S = 60.0
"""After what time without any worker it is said what they wait for."""


@dataclass(eq=False)
class _Actor:
    """An actor as the pool has it."""

    ray: Any
    actor: Any
    answer: Any
    node: str = ""

    def hand(self, job: Any) -> None:
        self.answer = self.actor.do.remote(job)

    def word(self) -> Word:
        """What it answered."""
        try:
            found, self.node = self.ray.get(self.answer)
        except Exception as error:  # of Ray, that the actor died; or whatever the task raised
            log.info("A worker on %s: %s", self.node or "a node", error)
            with suppress(Exception):
                self.ray.kill(self.actor)
            why = type(error).__name__ if isinstance(error, self.ray.exceptions.RayActorError) else first_line(error)
            return Dead(f"actor{f' on {self.node}' * bool(self.node)} died ({why})")
        self.answer = None
        word: Word = found
        return word


class RayActors:
    """A crew of actors.

    Args:
        task: what they do.
        session: the Ray that they work on; it is closed with the crew.
        needs: of each.
    """

    def __init__(self, task: Task[Any, Any], session: RaySession, needs: Needs) -> None:
        self._session, self._ray, self._needs = session, session.ray, needs
        self._task, self._remote = task, session.ray.remote(Workplace)
        self._all: list[_Actor] = []
        self._since: float | None = time.monotonic()

    def hire(self) -> _Actor:
        """See `Crew`."""
        options: Mapping[str, Any] = {
            "num_cpus": self._needs.get("CPU", 0),
            "num_gpus": self._needs.get("GPU", 0),
            "max_restarts": 0,  # the pool takes on another, and counts
        }
        actor = self._remote.options(**options).remote(self._task, str(Path.cwd()))
        self._all.append(_Actor(self._ray, actor, actor.begin.remote()))
        return self._all[-1]

    def listen(self, timeout_s: float) -> Sequence[tuple[_Actor, Word]]:
        """See `Crew`."""
        busy = {each.answer: each for each in self._all if each.answer is not None}
        if not busy:
            time.sleep(timeout_s)
            return []
        answered, _ = self._ray.wait([*busy], num_returns=1, timeout=timeout_s)
        found = []
        for speaker in (busy[answer] for answer in answered):
            word = speaker.word()
            if isinstance(word, Dead):
                self._all.remove(speaker)
            found.append((speaker, word))
        self._tell_if_nobody_comes(bool(found))
        return found

    def end(self, *, at_once: bool) -> None:
        """See `Crew`."""
        answers = [each.answer for each in self._all if each.answer is not None]
        with suppress(Exception):  # where the cluster is gone, they are, too
            for each in self._all:
                self._ray.kill(each.actor)
            if at_once and answers:
                self._ray.wait(answers, num_returns=len(answers), timeout=_GONE_S)
        self._all.clear()
        self._session.close()

    def _tell_if_nobody_comes(self, did_one: bool) -> None:
        if did_one:
            self._since = None
        if self._since is not None and time.monotonic() - self._since > _PATIENCE_S:
            self._since, has = None, self._session.resources()
            wanted = " and ".join(f"{amount:g} {name}" for name, amount in self._needs.items())
            there = ", ".join(f"{has.get(name, 0):g} {name}" for name in self._needs)
            log.warning("No worker could begin yet: each needs %s, the cluster has %s in all.", wanted, there)


class Workplace:
    """What an actor is, on its node.

    Args:
        task: what it does.
        folder: that the command was begun in, where its relative paths begin; on a node without it, nothing lies there.
    """

    def __init__(self, task: Task[Any, Any], folder: str) -> None:
        self._task, self._open, self._node = task, ExitStack(), platform.node()
        with suppress(OSError):
            os.chdir(folder)

    def begin(self) -> tuple[Word, str]:
        """Open what does the jobs; the answer, and the node."""
        try:
            self._work = self._open.enter_context(self._task.opened())
        except PflxError as error:
            return self._broken(error), self._node
        return Ready(), self._node

    def do(self, job: Any) -> tuple[Word, str]:
        """Do a job; the answer, and the node."""
        try:
            return Done(self._work(job, lambda share: None)), self._node
        except PflxError as error:
            return self._broken(error), self._node

    def _broken(self, error: PflxError) -> Broken:
        return Broken(f"On node {self._node}: {error}")
