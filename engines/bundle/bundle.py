"""The bundle: a folder of graphs and engines, described and sealed by one manifest.

```
me.pflx/
  manifest.json     what is inside, and the size and sha256 of every other file
  graphs/*.onnx     the graphs, one file per precision
  engines/*.plan    compiled graphs, each with a passport in the manifest
  report.json       parity of the export
  policy.fp16.json  which nodes stay in FP32 in FP16 graphs, where a policy decided
```

Three kinds of file may stand in a bundle without being listed, and are never read: hidden ones, `engines/*.plan`,
which an interrupted build can leave behind, and at its top what hubs of models put there (`README.md`, `LICENSE`); in
a hub's cache, where nothing is to be removed, any. A file may be a link to anywhere, as those in such a cache are: its
size and hash say whether it is the one.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pflx.engines.bundle.engine_passport import Passport, Source
from pflx.engines.bundle.manifest import (
    MANIFEST,
    BundleCorruptError,
    BundleError,
    BundleMissingError,
    FileInfo,
    Manifest,
    decode_manifest,
)
from pflx.engines.files.folders import moved_aside, repair_folder
from pflx.engines.graphs.onnx_interface import first_difference
from pflx.engines.graphs.threads import usable_cores
from pflx.engines.hub.cache import cached_name
from pflx.engines.hub.fetch import local_folder

_AGAIN = "Copy the bundle again, or export it again."
_LARGEST_MANIFEST = 1 << 26
_POINTER = b"version https://git-lfs.github.com/spec/v1"
_POINTS = "is a pointer of Git LFS, not the file itself. Run `git lfs pull` in the clone."
_CARDS = ("README", "LICENSE", "NOTICE", "CITATION", "USE_POLICY")
"""What hubs of models put beside a bundle's files, with any ending."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: its folder.
        manifest: what it holds.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, verify: bool = True) -> Bundle:
        """Open a bundle, checking first its schema, then the sizes and the hashes of its files.

        One that is replaced meanwhile is opened anew, once; one that a writer moved aside before it died is put back.

        Args:
            path: the folder, or an address on the hub, `hf://ORG/NAME`, from where it is fetched; see `local_folder`.
            verify: False leaves out the hashes; schema, names and sizes are always checked.

        Raises:
            BundleMissingError: no folder, or no manifest in it.
            BundleVersionError: written to another schema.
            BundleCorruptError: the manifest is malformed, or a file is missing, changed or not listed.
            HubError, BackendMissingError: see `local_folder`.
        """
        root = local_folder(path)
        before = _identity(root)
        try:
            return cls._open(root, verify)
        except (BundleMissingError, BundleCorruptError):
            repair_folder(root)
            if _identity(root) in (None, before):
                raise
        return cls._open(root, verify)

    @classmethod
    def _open(cls, root: Path, verify: bool) -> Bundle:
        try:
            if not (root / MANIFEST).is_file():
                raise BundleMissingError(_missing(root))
            if (n_bytes := (root / MANIFEST).stat().st_size) > _LARGEST_MANIFEST:
                raise BundleCorruptError(f"{root}/{MANIFEST} has {n_bytes} bytes, more than any manifest. {_AGAIN}")
            data = (root / MANIFEST).read_bytes()
            if data.startswith(_POINTER):
                raise BundleCorruptError(f"{root}: '{MANIFEST}' {_POINTS}")
            manifest = decode_manifest(data, root.name)
            _check_files(root, manifest, verify)
        except BundleError:
            raise
        except OSError as error:
            raise BundleMissingError(
                f"{error.filename or root} cannot be opened: {error.strerror}. Check the path, and who may read it."
            ) from error
        return cls(root, manifest)

    @property
    def name(self) -> str:
        """What reports call it: its folder, or of one on the hub `ORG/NAME@0123abcd`."""
        return cached_name(self.path) or self.path.name

    def graph_path(self, name: str, precision: str | None = None) -> Path:
        """Path of the ONNX file of a graph.

        Args:
            name: the graph.
            precision: which variant; None takes the bundle's own.

        Raises:
            BundleError: no such graph, or not in this precision.
        """
        graph = self.manifest.graphs.get(name)
        if graph is None:
            raise BundleError(f"{self.path} has no graph '{name}'; it has {', '.join(self.manifest.graphs)}.")
        wanted = precision or self.manifest.precision
        if wanted not in graph.files:
            raise BundleError(
                f"Graph '{name}' of {self.path} has no {wanted} variant; it has {', '.join(graph.files)}. "
                "Ask for one of these, or export the bundle in another precision."
            )
        return self.path / graph.files[wanted]

    def read_graph(self, name: str, precision: str | None = None) -> bytes:
        """Content of the ONNX file of a graph, its hash checked: what is run is what was sealed.

        Raises:
            BundleError: see `graph_path`.
            BundleCorruptError: the file is gone, or another one; or its tensors are not those of the manifest.
        """
        relative = self.graph_path(name, precision).relative_to(self.path).as_posix()
        content, graph = self._read(relative), self.manifest.graphs[name]
        if (difference := first_difference(content, graph.inputs, graph.outputs)) is not None:
            raise BundleCorruptError(f"{self.path}: graph '{name}' ({relative}) {difference}. Export it again.")
        return content

    def check_graphs(self, precision: str | None = None) -> None:
        """Read every graph, as `read_graph` does.

        Args:
            precision: the variant; None reads all there are.

        Raises:
            BundleError: see `read_graph`.
        """
        for name, graph in self.manifest.graphs.items():
            for each in graph.files if precision is None else (precision,):
                self.read_graph(name, each)

    def read_engine(self, passport: Passport) -> bytes:
        """Content of the file of a compiled graph, likewise.

        Raises:
            BundleCorruptError: the file is gone, or another one.
        """
        return self._read(passport.file)

    def _read(self, relative: str) -> bytes:
        try:
            content = (self.path / relative).read_bytes()
        except OSError as error:
            raise BundleCorruptError(f"{self.path}: '{relative}' cannot be read: {error.strerror}. {_AGAIN}") from error
        if hashlib.sha256(content).hexdigest() != self.manifest.files[relative].sha256:
            raise _changed(self.path, relative)
        return content

    def source(self, graph: str, precision: str | None = None) -> Source:
        """What an engine of a graph has to be built from; of a graph that `graph_path` finds."""
        wanted = precision or self.manifest.precision
        info = self.manifest.graphs[graph]
        return Source(
            onnx_sha256=self.manifest.files[info.files[wanted]].sha256, policy_sha256=info.policies.get(wanted)
        )

    def passport(self, graph: str, backend: str, precision: str | None = None) -> Passport | None:
        """Passport of the engine of a graph; None where it was not built."""
        key = (graph, backend, precision or self.manifest.precision)
        return next((p for p in self.manifest.engines if (p.graph, p.backend, p.precision) == key), None)


def _identity(root: Path) -> tuple[int, int, int] | None:
    """What tells a manifest from the one that takes its place."""
    try:
        found = (root / MANIFEST).stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _missing(root: Path) -> str:
    """Why there is no bundle at a path, with what would help there."""
    if (old := moved_aside(root)) is not None:
        return (
            f"{root} was being replaced when that was stopped. Put it back: {shlex.join(('mv', str(old), str(root)))}"
        )
    if root.is_symlink() and not root.exists():
        return f"{root} is a link that leads nowhere. Check where it should lead."
    if root.is_dir():
        return f"{root} is no bundle: it has no {MANIFEST}. {_make(root)}"
    if root.exists():
        return f"{root} is a file; a bundle is a folder. {_make(root)}"
    return f"{root} does not exist. {_make(root)}"


def _make(root: Path) -> str:
    """The bundle that was meant, or the command that makes one."""
    place = root if root.suffix == ".pflx" else root.with_suffix(".pflx") if root.name.strip(".") else root / "me.pflx"
    if (place / MANIFEST).is_file():
        return f"Did you mean {place}?"
    if place.exists() or not place.parent.is_dir():  # nothing can be exported there
        return "Check the path."
    return f"Make one: pflx export -o {shlex.quote(str(place))}"


def list_files(root: Path) -> set[str]:
    """Paths, relative and with `/`, of all files of a bundle but its manifest and hidden files.

    Raises:
        OSError: a folder cannot be read.
    """
    found: set[str] = set()
    for folder, folders, files in os.walk(root, onerror=_fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        place = Path(folder).relative_to(root)
        found |= {(place / name).as_posix() for name in files if not name.startswith(".")}
    return found - {MANIFEST}


def _fail(error: OSError) -> None:
    raise error


def file_info(path: Path) -> FileInfo:
    """Size and sha256 of a file, read in pieces."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileInfo(bytes=path.stat().st_size, sha256=digest)


def is_leftover(relative: str) -> bool:
    """Whether an unlisted file is what an interrupted build leaves behind."""
    path = PurePosixPath(relative)
    return path.parts[0] == "engines" and path.suffix == ".plan"


def is_card(relative: str) -> bool:
    """Whether an unlisted file tells people of the bundle."""
    return "/" not in relative and PurePosixPath(relative).stem.upper() in _CARDS


def _check_files(root: Path, manifest: Manifest, verify: bool) -> None:
    found = list_files(root)
    for relative in sorted(manifest.files.keys() - found):
        raise BundleCorruptError(f"{root}: file '{relative}' is missing. {_AGAIN}")
    for relative in sorted(found - manifest.files.keys()):
        if not is_leftover(relative) and not is_card(relative) and cached_name(root) is None:
            raise BundleCorruptError(f"{root}: file '{relative}' is not in the manifest. Remove it.")
    for relative, info in manifest.files.items():
        _check_size(root, relative, info)
    if not verify:
        return
    with ThreadPoolExecutor(usable_cores()) as pool:  # hashing leaves other threads alone
        found_infos = pool.map(file_info, (root / relative for relative in manifest.files))
        for (relative, info), found_info in zip(manifest.files.items(), found_infos, strict=True):
            if found_info.sha256 != info.sha256:
                raise _changed(root, relative)


def _changed(root: Path, relative: str) -> BundleCorruptError:
    return BundleCorruptError(f"{root}: the content of '{relative}' has changed. {_AGAIN}")


def _check_size(root: Path, relative: str, info: FileInfo) -> None:
    path = root / relative
    if not path.is_file():
        what = "is a link that leads nowhere" if path.is_symlink() else "is no regular file"
        raise BundleCorruptError(f"{root}: '{relative}' {what}. {_AGAIN}")
    size = path.stat().st_size
    if size != info.bytes:
        raise BundleCorruptError(f"{root}: '{relative}' {_why_other(path, size, info)}")


def _why_other(path: Path, size: int, info: FileInfo) -> str:
    """What became of a file that has another size, and what helps."""
    with path.open("rb") as stream:
        begin = stream.read(len(_POINTER))
        if begin == _POINTER:
            return _POINTS
        if size < 1 << 24 and begin[:1] == b"{":
            text = (begin + stream.read()).replace(b"\r\n", b"\n")
            if hashlib.sha256(text).hexdigest() == info.sha256:
                return (
                    "has the line ends of Windows, which git put in. Add `* -text` to .gitattributes, and check it out "
                    "again."
                )
    return f"has {size} bytes, not {info.bytes}. {_AGAIN}"
