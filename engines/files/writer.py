"""The one way in which pflx writes: a file is made beside its place, brought to the disk, and renamed into place.

Whenever a process is stopped, kill -9 and a power cut included, what was at the place is there whole, or the new file
is. What a dead process left is removed by the next one that writes to that folder.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pflx.engines.files.locks import GoneError, lock, locked
from pflx.engines.graphs.protocol import PflxError

_PARTIAL = re.compile(r"\.pflx-[0-9a-f]{16}\.part")
_UNSYNCED = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}
"""What file systems say that cannot bring a folder to the disk, or may not open it."""


class OutputError(PflxError, OSError):
    """An output cannot be written where it was asked for."""


class OutputExistsError(OutputError, FileExistsError):
    """Something is already at the output path."""


class Replacement:
    """A file in the making.

        with Replacement(path) as new:
            fill(new.partial)

    The block's end puts it in place; an exception, Ctrl-C included, removes it, and leaves `path` as it was. A link at
    `path` stays, and what it points at is replaced. The new file has the permissions of the one that it replaces, or
    those of any new file.

    Args:
        path: where the file is to be.

    Attributes:
        partial: the empty file to fill, in the same folder; its name is short, whatever that of `path`.

    Raises:
        OSError: the folder does not take a new file, or at `path` is something that is no file.
    """

    def __init__(self, path: str | Path) -> None:
        self._place = followed(path)
        self._replaced = _replaceable(self._place)
        clear_leftovers(self._place.parent)
        self.partial, self._handle = self._new_file()

    def commit(self) -> None:
        """Bring it to the disk and put it in place.

        Raises:
            OSError: no space, or the folder is gone.
        """
        self._inherit()
        os.fsync(self._handle)
        if sys.platform == "win32":
            self._close()  # nothing that is open can be renamed there
        self.partial.replace(self._place)
        self._close()
        sync_folder(self._place.parent)

    def discard(self) -> None:
        """Remove it, if it was not put in place."""
        if self._handle < 0:
            return
        if sys.platform == "win32":
            self._close()
        with suppress(OSError):
            self.partial.unlink(missing_ok=True)
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.discard()

    def _new_file(self) -> tuple[Path, int]:
        """An empty file that nobody else has, and its handle, which holds its lock."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        mode = 0o666 if self._replaced is None else 0o600  # not readable by more than the file that it replaces
        while True:
            partial = new_partial(self._place.parent)
            handle = os.open(partial, flags, mode)
            if lock(handle, partial):
                return partial, handle
            os.close(handle)

    def _inherit(self) -> None:
        """Take over permissions and, where it may be given, the owner."""
        if self._replaced is None:
            return
        if sys.platform != "win32" and os.geteuid() == 0:
            with suppress(OSError):
                os.chown(self.partial, self._replaced.st_uid, self._replaced.st_gid)
        with suppress(OSError):  # some file systems have none
            self.partial.chmod(stat.S_IMODE(self._replaced.st_mode) & 0o777)

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


def write_whole(path: str | Path, data: bytes | memoryview) -> None:
    """Write a file so that it appears at its path complete and on the disk, or not at all; see `Replacement`.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        with Replacement(path) as new, new.partial.open("r+b") as stream:
            stream.write(data)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {_reason(error)}.") from error


def followed(path: str | Path) -> Path:
    """The absolute path of what is written: where a link points, which may be a place where nothing is yet."""
    whole = os.path.abspath(path)  # noqa: PTH100 - `..` behind a folder that is a link stays what it was typed as
    return Path(os.path.realpath(whole)) if os.path.islink(whole) else Path(whole)  # noqa: PTH114


def new_partial(folder: Path) -> Path:
    """A name for something in the making, which nothing has."""
    return folder / f".pflx-{secrets.token_hex(8)}.part"


def clear_leftovers(folder: Path) -> None:
    """Remove what dead processes left in a folder: the living hold locks on what they make."""
    try:
        with os.scandir(folder) as entries:
            left = [entry for entry in entries if _PARTIAL.fullmatch(entry.name) and not entry.is_symlink()]
    except OSError:
        return  # a folder that cannot be read; whether it can be written shows next
    for entry in left:
        path = Path(entry.path)
        with suppress(GoneError, OSError), locked(path, wait=False) as mine:
            if mine and entry.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif mine and entry.is_file():
                path.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Bring all files of a folder to the disk, and the folders with their names."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    if sys.platform == "win32":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            raise


def _replaceable(place: Path) -> os.stat_result | None:
    """The file at a place; None if there is none."""
    try:
        found = place.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder. Choose another name")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a device, a pipe, or a link to itself, and no file. Choose another name")
    return found


def _reason(error: OSError) -> str:
    """Why nothing can be written, and what to do where it is known."""
    text = error.strerror or str(error)
    return f"{text}. Free some" if error.errno in (errno.ENOSPC, errno.EDQUOT) else text
