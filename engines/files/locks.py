"""Locks on files and folders that a dead process cannot hold."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

from pflx.engines.graphs.protocol import PflxError

if sys.platform != "win32":
    import fcntl


log = logging.getLogger(__name__)

TELL_AFTER_S = 3.0
"""How long a lock is waited for in silence."""


class GoneError(PflxError, FileNotFoundError):
    """What was to be locked is no longer at its path."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} was removed meanwhile. Make it again.")


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of the file or folder at `path`; the system releases it when a process dies.

    Yields:
        Whether the lock is held: always with `wait`; without, not if another process holds it. Where nothing can be
        locked, as on some file systems, the same as if it were held by another.

    Raises:
        GoneError: nothing is there.
    """
    if sys.platform == "win32":
        yield wait  # no lock on folders: nobody else's folder counts as dead
        return
    while True:
        try:
            handle = _open(path)
        except FileNotFoundError as error:
            raise GoneError(path) from error
        except PermissionError:  # a folder that takes files and shows none
            yield wait
            return
        try:
            held = _flock(handle, path, wait)
            if not held or _is_at(handle, path):
                yield held
                return
        finally:
            os.close(handle)


def lock(handle: int, path: Path) -> bool:
    """Lock an open file for as long as it is open.

    Args:
        handle: of the file, open for writing.
        path: where it was opened.

    Returns:
        Whether it is still at its path: somebody may have taken it for a dead process's before it was locked.
    """
    if sys.platform == "win32":
        return True
    _flock(handle, path, wait=True)
    try:
        return _is_at(handle, path)
    except GoneError:
        return False


def _open(path: Path) -> int:
    if not path.is_dir():
        try:
            return os.open(path, os.O_RDWR)  # on NFS, a lock takes a file that is open for writing
        except PermissionError:
            pass
    return os.open(path, os.O_RDONLY)


def _flock(handle: int, path: Path, wait: bool) -> bool:
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                return False
            with _told_of_waiting(path):
                fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        return wait  # a file system without locks
    return True


@contextmanager
def _told_of_waiting(path: Path) -> Iterator[None]:
    teller = Timer(TELL_AFTER_S, log.warning, ("%s is locked by another process. Waiting until it is done.", path))
    teller.daemon = True
    teller.start()
    try:
        yield
    finally:
        teller.cancel()


def _is_at(handle: int, path: Path) -> bool:
    """Whether `path` still names the open file: it may have been replaced while the lock was awaited."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError as error:
        raise GoneError(path) from error
