"""A worker that makes nothing, and dies of some rows."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection

from pflx.runtime.dataset.maker import Job
from pflx.runtime.dataset.rows import Row
from pflx.runtime.dataset.workers import _Made, _Ready


def dying(job: Job, pipe: Connection) -> None:
    """In the place of a worker: a row called `deadly` kills it, one called `once` does so the first time."""
    pipe.send(_Ready())
    with suppress(EOFError):
        while True:
            row: Row = pipe.recv()
            begun = job.folder / f"{row.id}.begun"
            first = not begun.exists()
            begun.touch()
            if row.id == "deadly" or (row.id == "once" and first):
                os.kill(os.getpid(), signal.SIGKILL)
            pipe.send(_Made(None))


def stillborn(job: Job, pipe: Connection) -> None:
    """In the place of a worker: it dies before it is ready."""
    os.kill(os.getpid(), signal.SIGKILL)
