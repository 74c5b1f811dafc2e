"""Writing bundles so that a reader only ever sees a whole one, whenever the writer is stopped."""

from __future__ import annotations

import errno
import hashlib
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from pflx.engines.bundle.bundle import Bundle, file_info, is_leftover, list_files
from pflx.engines.bundle.engine_passport import Passport
from pflx.engines.bundle.manifest import (
    MANIFEST,
    BundleCorruptError,
    FileInfo,
    Manifest,
    check_references,
    decode_manifest,
    encode_manifest,
)
from pflx.engines.files.folders import place_folder, repair_folder
from pflx.engines.files.locks import GoneError, locked
from pflx.engines.files.writer import (
    OutputError,
    OutputExistsError,
    clear_leftovers,
    followed,
    new_partial,
    sync_tree,
    write_whole,
)
from pflx.engines.hub.cache import cached_name


@contextmanager
def bundle_writer(target: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Write a bundle in a hidden folder beside `target`, and rename it into place at the end.

    The block fills the folder and ends with `write_manifest`. Any exception, Ctrl-C included, removes
    the folder and leaves `target` as it was. What a killed process left is removed by the next writer
    in the same folder: a living writer holds a lock on what it makes, a dead one does not. Where `target` is a link,
    what it points at is written.

    Args:
        target: where the bundle is to be; its name ends in `.pflx`.
        overwrite: replace the bundle that is there.

    Yields:
        The folder to fill.

    Raises:
        OutputExistsError: something is at `target`, and `overwrite` is not set or it is no bundle.
        OutputError: the name or the parent folder is wrong, not writable, or the disk is full.
        BundleCorruptError: the block left no valid bundle.
    """
    place = followed(target)
    repair_folder(place)
    check_target(Path(target), overwrite)
    clear_leftovers(place.parent)
    with ExitStack() as stack:
        folder = _new_folder(place, stack)
        try:
            yield folder
            Bundle.open(folder, verify=False)
            sync_tree(folder)
            place_folder(folder, place, partial(_check_replaceable, place, True) if overwrite else None)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutputError(f"No space left to write {place}. Free some and try again.") from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # gone already after a commit


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Hash every file in `folder` and write the manifest that lists them.

    Returns:
        The manifest as written, with `files` filled.

    Raises:
        BundleCorruptError: the manifest refers to a graph or file that is not there.
    """
    files = {relative: file_info(folder / relative) for relative in sorted(list_files(folder))}
    sealed = msgspec.structs.replace(manifest, files=files)
    check_references(sealed, folder.name)
    write_whole(folder / MANIFEST, encode_manifest(sealed))
    return sealed


def install_engine(root: Path, passport: Passport, engine: bytes | memoryview) -> Passport:
    """Put a built engine into a bundle, in place of the one it replaces.

    The engine is written first and listed after, under a name made of its hash: stopped at any point,
    the bundle is valid with the old engines or with the new one.

    Args:
        root: the bundle.
        passport: of the engine; `file` is set here.
        engine: the serialised engine.

    Returns:
        The passport as written.

    Raises:
        OutputError: not enough space, or the bundle is in the hub's cache.
        BundleCorruptError: the graph has changed since the engine was built from it.
    """
    require_own(root)
    require_space(root, len(engine))
    digest = hashlib.sha256(engine).hexdigest()
    file = f"engines/{passport.graph}.{passport.precision}.{passport.backend}.{digest[:12]}.plan"
    placed = msgspec.structs.replace(passport, file=file)
    with locked(root / MANIFEST):
        old = decode_manifest((root / MANIFEST).read_bytes(), root.name)
        _remove_leftovers(root, old)
        _require_source(old, passport, root.name)
        new = _with_engine(old, placed, FileInfo(bytes=len(engine), sha256=digest))
        check_references(new, root.name)
        (root / "engines").mkdir(exist_ok=True)
        try:
            write_whole(root / file, engine)
            write_whole(root / MANIFEST, encode_manifest(new))
        finally:  # the engine it replaces; or, stopped before it was listed, this one
            _remove_leftovers(root, decode_manifest((root / MANIFEST).read_bytes(), root.name))
    return placed


def check_target(target: Path, overwrite: bool = False) -> None:
    """Check that a bundle can be written, before a long piece of work starts.

    Raises:
        OutputError, OutputExistsError: as `bundle_writer`.
    """
    require_own(target)
    if target.suffix != ".pflx" or not target.stem:
        raise OutputError(f"A bundle's name ends in .pflx, '{target.name}' does not. Try {target.name}.pflx.")
    place = followed(target)
    parent = place.parent if target.is_symlink() else target.parent
    if not parent.is_dir():
        raise OutputError(f"{parent} is no folder. Make it, or write {target.name} elsewhere.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{parent} is not writable. Write {target.name} elsewhere.")
    if os.path.lexists(place):
        _check_replaceable(target, overwrite)


def require_own(root: Path) -> None:
    """Check that a bundle is not in the hub's cache, which all programs share: its files are links to sealed ones.

    Raises:
        OutputError: it is.
    """
    if cached_name(root) is not None or (root / MANIFEST).is_symlink():
        raise OutputError(
            f"{root} is in the hub's cache, or is made of links, and is not changed. Copy it, and take the copy: "
            f"cp -rL {shlex.quote(str(root))} me.pflx"
        )


def require_space(folder: Path, n_bytes: int) -> None:
    """Check that the disk of `folder` has room before a long piece of work starts.

    Raises:
        OutputError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise OutputError(f"{folder} needs {n_bytes / 1e6:.0f} MB, its disk has {free / 1e6:.0f} MB free. Free some.")


def _require_source(manifest: Manifest, passport: Passport, name: str) -> None:
    graph = manifest.graphs.get(passport.graph)
    source = manifest.files.get(graph.files.get(passport.precision, "")) if graph else None
    if source is None or source.sha256 != passport.onnx_sha256:
        raise BundleCorruptError(
            f"{name}: graph '{passport.graph}' has changed since an engine was built from it. Build again."
        )


def _with_engine(manifest: Manifest, passport: Passport, info: FileInfo) -> Manifest:
    key = (passport.graph, passport.precision, passport.backend)
    replaced = [p for p in manifest.engines if (p.graph, p.precision, p.backend) == key]
    kept = [p for p in manifest.engines if p not in replaced]
    gone = {p.file for p in replaced}
    files = {path: known for path, known in manifest.files.items() if path not in gone}
    return msgspec.structs.replace(manifest, engines=[*kept, passport], files=files | {passport.file: info})


def _remove_leftovers(root: Path, manifest: Manifest) -> None:
    """Remove what an interrupted build left; only under the lock, where no other build is writing."""
    for path in list_files(root) - manifest.files.keys():
        if is_leftover(path):
            (root / path).unlink(missing_ok=True)


def _check_replaceable(target: Path, overwrite: bool) -> None:
    if not overwrite:
        raise OutputExistsError(f"{target} exists. Give another name, or replace it with --overwrite.")
    if not (target / MANIFEST).is_file():
        raise OutputExistsError(f"{target} is no bundle, and is not replaced. Remove it, or give another name.")


def _new_folder(target: Path, stack: ExitStack) -> Path:
    """Make a folder beside the target, locked until the stack is left."""
    while True:
        folder = new_partial(target.parent)
        try:
            folder.mkdir()
            stack.enter_context(locked(folder))
        except GoneError:
            continue  # another writer took it for a dead one's before the lock was held
        except OSError as error:
            raise OutputError(f"{target.parent} cannot be written: {error.strerror}.") from error
        return folder
