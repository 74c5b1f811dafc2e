"""Places to write to: what cannot be written, or must not be, is refused before any work is done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import permutations
from pathlib import Path
from unicodedata import normalize

from pflx.engines import OutputError
from pflx.engines.bundle.manifest import MANIFEST
from pflx.engines.files.writer import Replacement, followed


def check_output(path: Path | None, suffix: str) -> None:
    """Refuse a place that nothing can be written to; None is no output.

    Args:
        path: of a file that may be there already.
        suffix: what its name must end in, large or small.

    Raises:
        OutputError: another suffix, no such folder, a folder of that name, or no permission.
    """
    if path is None:
        return
    if path.suffix.lower() != suffix:
        raise OutputError(f"{path} does not end in {suffix}. Try {path.with_suffix(suffix)}.")
    parent = followed(path).parent if path.is_symlink() else path.parent
    if not parent.is_dir():
        raise OutputError(f"There is no folder {parent}. Make it, or choose another place.")
    if path.is_dir():
        raise OutputError(f"{path} is a folder. Choose another name.")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is a device or a pipe. Choose another name.")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"The folder {parent} cannot be written to. Choose another place.")


Given = Path | str | Iterable[Path | str] | None
"""What an option names: nothing, a path, or several."""


def check_apart(*, reads: Mapping[str, Given], writes: Mapping[str, Given]) -> None:
    """Refuse to write what is read, or one file twice, whichever options name it, before any work is done.

    Files are compared, not names: links, hard links and folders that ignore case are seen through. Nothing is written
    into a folder that is read, or that is written as a whole; nor is a bundle replaced from within which is read.

    Args:
        reads: option to what it reads.
        writes: option to what it writes.

    Raises:
        OutputError: two options name one place.
    """
    inputs, outputs = list(_each(reads)), list(_each(writes))
    for option, path in outputs:
        for other, read in inputs:
            if _same(path, read):
                raise OutputError(f"{option} {path} is {other} {read}, which would be replaced. {_another(option)}")
            if _lies_in(path, read):
                raise OutputError(f"{option} {path} lies in {other} {read}, which would be changed. {_another(option)}")
            if path.suffix == ".pflx" and _lies_in(read, path):
                raise OutputError(f"{other} {read} lies in {option} {path}, which is replaced. {_another(option)}")
    for (option, path), (other, second) in permutations(outputs, 2):
        if _same(path, second):
            raise OutputError(f"{option} {path} and {other} {second} are one file. {_another(option)}")
        if _lies_in(path, second):
            raise OutputError(f"{option} {path} lies in {other} {second}. {_another(option)}")


def _each(given: Mapping[str, Given]) -> Iterator[tuple[str, Path]]:
    for option, paths in given.items():
        for path in [paths] if isinstance(paths, Path | str) else paths or ():
            yield option, Path(path)


def _another(option: str) -> str:
    return f"Choose another place for {option}."


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, which need not be there yet."""
    try:
        return one.samefile(other)
    except OSError:
        return _same_name(followed(one), followed(other))


def _same_name(one: Path, other: Path) -> bool:
    if _folded(one) != _folded(other) or not _same_folder(one.parent, other.parent):
        return False
    return one.name == other.name or (not one.exists() and not other.exists() and _ignores_case(one.parent))


def _same_folder(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one == other


def _folded(path: Path) -> str:
    return normalize("NFD", path.name).casefold()


def _ignores_case(folder: Path) -> bool:
    """Whether a folder takes two names for one that differ in case; a file is made there for a moment."""
    try:
        probe = Replacement(folder / "probe")
    except OSError:
        return False
    try:
        return probe.partial.with_name(probe.partial.name.upper()).exists()
    finally:
        probe.discard()


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path lies in a bundle or a folder of feeds."""
    if not any((folder / index).is_file() for index in (MANIFEST, "feeds.json")):
        return False
    return any(_same_folder(parent, folder) for parent in followed(path).parents)
