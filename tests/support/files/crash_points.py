"""Processes that die before each thing they do to files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_EVENTS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.scandir", "os.listdir"}
"""Of Python's audit: raised before the thing is done. Besides: `open` below the folder, locks, and what is synced."""

STOPPED = 9


def crashes(folder: Path, act: Callable[[], object]) -> Iterator[int]:
    """Do it in one process after the other, each of which dies one file event later; the last one comes through.

    Args:
        folder: all below it counts.
        act: what is done.

    Yields:
        How many events each had come through, after its death.
    """
    done = 0
    while _dies(folder, act, done):
        yield done
        done += 1


def _dies(folder: Path, act: Callable[[], object], after: int) -> bool:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _die(folder, after)
            act()
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, STOPPED), f"it failed by itself after {after} events"
    return code == STOPPED


def _die(folder: Path, after: int) -> None:
    left, fsync = after, os.fsync

    def count() -> None:
        nonlocal left
        if left == 0:
            os._exit(STOPPED)
        left -= 1

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        below = event == "open" and str(arguments[0]).startswith(str(folder))
        if below or event in _EVENTS or event == "fcntl.flock":
            count()

    def counted(handle: int) -> None:
        count()
        fsync(handle)

    sys.addaudithook(hook)
    system: Any = os
    system.fsync = counted
