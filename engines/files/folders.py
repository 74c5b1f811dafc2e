"""A folder that takes the place of another: at its path is the old one or the new one, whole, whenever a process dies.

Where the system exchanges two paths in one step, that is all. Elsewhere the old folder is moved aside first, and the
next who comes, a reader too, puts it back if the process that moved it has died. Whoever replaces or repairs holds the
lock of the folder around, for that moment: writers wait for one another, and nobody repairs what is being replaced.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pflx.engines.files.locks import locked
from pflx.engines.files.writer import OutputExistsError, followed, sync_folder

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Source: Linux, fcntl.h and linux/fs.h."""


def place_folder(folder: Path, target: Path, may_replace: Callable[[], object] | None = None) -> None:
    """Put a folder in place, on the disk.

    Args:
        folder: beside the target. If it replaces another one, that may be left there, for the caller to remove.
        target: its place.
        may_replace: raises if what is at the target must not be replaced; None replaces nothing.

    Raises:
        OutputExistsError: something is at the target, and `may_replace` is None.
    """
    with locked(target.parent):
        _put_back(target)
        if may_replace and os.path.lexists(target):
            may_replace()
            with suppress(OSError):  # some file systems have no permissions
                folder.chmod(target.stat().st_mode & 0o777)
            if not _exchange(folder, target):
                _replace_in_steps(folder, target)
        else:
            _rename(folder, target)
        sync_folder(target.parent)


def repair_folder(path: Path) -> None:
    """Put back a folder that a dead process moved aside and did not replace; wait for a living one to be done.

    Where this process may not do it, nothing is changed.
    """
    target = followed(path)
    with suppress(OSError):
        if _moved_aside(target):
            with locked(target.parent):
                _put_back(target)


def moved_aside(path: Path) -> Path | None:
    """Where a dead process left what was at a path, if nothing is there now and it could not be put back."""
    target = followed(path)
    with suppress(OSError):
        if not os.path.lexists(target):
            return next(iter(_moved_aside(target)), None)
    return None


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)  # not in every C library
    if renameat2 is None:
        return False
    paths = [ctypes.c_char_p(os.fsencode(path)) for path in (one, other)]
    return bool(renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0)


def _replace_in_steps(folder: Path, target: Path) -> None:
    old = target.with_name(f"{_aside(target)}{secrets.token_hex(4)}.old")
    target.rename(old)
    try:
        _rename(folder, target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _put_back(target: Path) -> None:
    """Put back what was moved aside and not replaced, and remove what was; only under the lock."""
    for old in _moved_aside(target):
        if os.path.lexists(target):
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)
            sync_folder(target.parent)


def _moved_aside(target: Path) -> list[Path]:
    return sorted(target.parent.glob(f"{_aside(target)}*.old"))


def _aside(target: Path) -> str:
    """How the names of what was moved aside begin: short, for a name may be as long as the file system takes."""
    return f".pflx-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"


def _rename(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise OutputExistsError(f"{target} was made meanwhile. Give another name.") from error
        raise
