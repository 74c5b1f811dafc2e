"""What a pool knows of its workers, processes and actors alike: how one is taken on, gets a job, and is heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from pflx.engines import PflxError

Job = TypeVar("Job", contravariant=True)
Result = TypeVar("Result", covariant=True)

Tell: TypeAlias = Callable[[float], None]
"""Told how much of a job is done, 0..1."""


class WorkerError(PflxError, RuntimeError):
    """A worker cannot work."""


class Task(Protocol[Job, Result]):
    """What is to be done, in a form that can be sent to another process."""

    def opened(self) -> AbstractContextManager[Callable[[Job, Tell], Result]]:
        """What does one job after the other; opened once by each worker."""
        ...


@dataclass(frozen=True)
class Ready:
    """A worker's word that it can take a job."""


@dataclass(frozen=True)
class Broken:
    """A worker's word that it cannot go on, and why."""

    error: str


@dataclass(frozen=True)
class Told:
    """A worker's word on how much of its job is done, 0..1."""

    share: float


@dataclass(frozen=True)
class Done:
    """A worker's word that its job is done, and what came of it."""

    result: Any


@dataclass(frozen=True)
class Dead:
    """That a worker is no more, in words that follow "worker"."""

    how: str


Word: TypeAlias = Ready | Broken | Told | Done | Dead


class Worker(Protocol):
    """Has one job at a time."""

    def hand(self, job: Any) -> None:
        """Give it a job. One that is dead says so when it is listened to."""
        ...


class Crew(Protocol):
    """Workers of one kind."""

    def hire(self) -> Worker:
        """Take on one more; it begins, and says when it is ready."""
        ...

    def listen(self, timeout_s: float) -> Sequence[tuple[Worker, Word]]:
        """What workers say, as soon as one of them does; nothing after a while. A dead one is told once."""
        ...

    def end(self, *, at_once: bool) -> None:
        """Dismiss all, with whatever they have begun; unless at once, nobody has a job."""
        ...
