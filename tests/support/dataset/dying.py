"""Tasks that make nothing, and whose workers die of some jobs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pflx.runtime.cluster.crew import Tell


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Dying:
    """A job called `deadly` kills its worker, one called `once` does so the first time.

    Attributes:
        folder: where it is noted what was begun.
    """

    folder: Path

    @contextmanager
    def opened(self) -> Iterator[Callable[[str, Tell], str]]:
        yield self.do

    def do(self, job: str, tell: Tell) -> str:
        begun = self.folder / f"{job}.begun"
        first = not begun.exists()
        with begun.open("a") as stream:
            stream.write("x")
        if job == "deadly" or (job == "once" and first):
            die()
        return job.upper()


@dataclass(frozen=True)
class Stillborn:
    """Its workers die before they are ready."""

    @contextmanager
    def opened(self) -> Iterator[Callable[[str, Tell], str]]:
        die()
        yield lambda job, tell: job
