"""Files of weights, known by what is in them and never by their names; nothing in them is run."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pflx.export.errors import CheckpointError

AGAIN = "copy or download it again"
_UNPACK = "unpack it and pass the file of weights in it"
_SIGN_IN = "where it came from, sign in or accept the licence, and download the file again"
_SAVE_WEIGHTS = "save the weights alone with torch.save(model.state_dict(), path) and pass that file"

_SAVE_AGAIN = "where it fits into memory, write it again with torch.save(torch.load(path), path)"
Tell = Callable[[str, int, int], None]
"""Called with what is being done, how far it is, and how far it goes."""


def silent(_: str, __: int, ___: int) -> None:
    """Tell nothing."""


_POINTER = b"version https://git-lfs.github.com/spec"
_OTHERS = (
    (b"\x1f\x8b", f"is compressed with gzip; {_UNPACK}"),
    (b"BZh", f"is compressed with bzip2; {_UNPACK}"),
    (b"\xfd7zXZ\x00", f"is compressed with xz; {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"is compressed with zstd; {_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"is a 7z archive; {_UNPACK}"),
    (b"Rar!", f"is a RAR archive; {_UNPACK}"),
    (b"\x89HDF", "is an HDF5 file, as Keras writes it; pass the PyTorch checkpoint"),
    (b"GGUF", "is a GGUF file; pass the PyTorch checkpoint"),
    (b"\x93NUMPY", "is one NumPy array; pass the PyTorch checkpoint"),
)
"""How files of other kinds begin, and what to do with them."""
_SHOWN = 3
_HEAD = 1024
_BLOCK = 4 << 20
_LARGEST_INDEX = 64 << 20
_LARGEST_HEADER = 100_000_000
"""Of safetensors, by its definition."""
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")


@dataclass(frozen=True)
class Content:
    """What a file held.

    Attributes:
        value: whatever it is; nothing of it was run.
        sha256: of the whole file, in hexadecimal; of several shards, of their hashes in order.
        notes: for the record.
    """

    value: object
    sha256: str
    notes: tuple[str, ...] = ()


def read_file(path: Path, tell: Tell = silent, *, in_parts: bool = False) -> Content:
    """Read a file of weights; a shard or an index of shards stands for all of them.

    Args:
        path: the file.
        tell: told how far it is.
        in_parts: refuse a file that cannot be mapped, and so would be in memory as a whole.

    Raises:
        CheckpointError: it is missing, damaged, of another kind, or needs arbitrary pickle to be read.
    """
    shards, index = _shards(path)
    if shards == [path]:
        return _read_one(path, tell, in_parts)
    whole: dict[object, object] = {}
    digests = []
    for shard in shards:
        part = _read_one(shard, tell, in_parts)
        whole |= _state_dict(shard, part.value)
        digests.append(part.sha256)
    if missing := [key for key in index if key not in whole]:
        raise CheckpointError(path, f"names {missing[0]}, which is not in {index[missing[0]]}; {AGAIN}")
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    return Content(whole, digest, (f"read whole, {len(shards)} shards",))


def map_again(path: Path) -> object:
    """What `read_file` found in a file that can be mapped, through a map of its own and without a look at a number.

    Raises:
        CheckpointError: the file is not what it was.
    """
    shards, _ = _shards(path)
    if shards == [path]:
        return _value(path, silent, in_parts=True, is_known=True)
    parts = ((shard, _value(shard, silent, in_parts=True, is_known=True)) for shard in shards)
    return {key: value for shard, part in parts for key, value in _state_dict(shard, part).items()}


def _state_dict(shard: Path, value: object) -> Mapping[object, object]:
    if not isinstance(value, Mapping):
        raise CheckpointError(shard, f"holds a {type(value).__name__}, not a part of a state dict")
    return value


def _read_one(path: Path, tell: Tell, in_parts: bool) -> Content:
    value = _value(path, tell, in_parts=in_parts)
    return Content(value, _sha256(path, tell))


def _value(path: Path, tell: Tell, *, in_parts: bool, is_known: bool = False) -> object:
    head = _head(path)
    if _is_safetensors(head):
        return _read_safetensors(path, head)
    _refuse_others(path, head)
    return _read_torch(path, head, tell, in_parts=in_parts, is_known=is_known)


def _head(path: Path) -> bytes:
    """The first bytes of a file that is there.

    Raises:
        CheckpointError: it is not, or cannot be read.
    """
    try:
        if not path.exists():
            raise CheckpointError(path, "does not exist")
        if path.is_dir():
            raise CheckpointError(path, "is a directory; pass the checkpoint file in it")
        if not path.is_file():
            raise CheckpointError(path, "is no regular file; pass a checkpoint file")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})") from error
    if not head:
        raise CheckpointError(path, f"is empty; {AGAIN}")
    return head


def _sha256(path: Path, tell: Tell) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                _tell(tell, f"hashing {path.name}", file.tell(), size)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def _tell(tell: Tell, doing: str, done: int, size: int) -> None:
    """In megabytes."""
    tell(f"{doing} (MB)", done // 10**6, size // 10**6)


# Files that are something else


def _refuse_others(path: Path, head: bytes) -> None:
    """Raise for files that are known to hold no weights, with what they are."""
    if head.startswith(_POINTER):
        raise CheckpointError(path, "is a pointer of Git LFS, not the file itself; in its clone, run: git lfs pull")
    for magic, what in _OTHERS:
        if head.startswith(magic):
            raise CheckpointError(path, what)
    if head.startswith(b"\x08") and any(maker in head[:64].lower() for maker in (b"pytorch", b"onnx")):
        raise CheckpointError(path, "is an ONNX graph; pass the PyTorch checkpoint that it was exported from")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")) or (text.startswith(b"<") and b"<html" in text):
        raise CheckpointError(path, f"is a web page (HTML), not weights; {_SIGN_IN}")
    if text.startswith((b"<?xml", b"<!doctype", b"<")):
        raise CheckpointError(path, f"is an XML page, as servers answer with, not weights; {_SIGN_IN}")
    if text.startswith((b"{", b"[")):
        raise CheckpointError(path, f"is JSON, a setting or a server's answer, not weights; {_SIGN_IN}")
    if head.startswith(b"PK"):
        _refuse_archive(path)
    elif b"ustar" in head[257:265]:
        raise CheckpointError(path, f"is a tar archive{_with(_tar_names(path))}; {_UNPACK}")


def _refuse_archive(path: Path) -> None:
    """PyTorch's files are zip archives too: raise for those that are not such a file."""
    # A zip archive has its directory at the end: a truncated one does not count as one here.
    if not zipfile.is_zipfile(path):
        raise CheckpointError(path, f"is damaged: a zip archive that is truncated; {AGAIN}")
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(path, f"is damaged, or no PyTorch checkpoint; {AGAIN}") from error
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise CheckpointError(
            path,
            "is a TorchScript archive, which holds code, so it was not loaded; where you trust it, pass what "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pth') writes",
        )
    if "data.pkl" in inner:
        return
    if "archive_format" in inner or any(name.startswith("models/") for name in inner):
        raise CheckpointError(path, f"is a torch.export archive, which holds a program; {_SAVE_WEIGHTS}")
    raise CheckpointError(path, f"is a zip archive{_with(iter(names))}; {_UNPACK}")


def _tar_names(path: Path) -> Iterator[str]:
    try:
        with tarfile.open(path, "r:") as archive:
            for _, member in zip(range(_SHOWN), archive, strict=False):
                yield member.name
    except (tarfile.TarError, OSError, ValueError):
        return


def _with(names: Iterator[str]) -> str:
    shown = [name for _, name in zip(range(_SHOWN), names, strict=False)]
    return f" with {', '.join(shown)} in it" if shown else ""


# safetensors


def _is_safetensors(head: bytes) -> bool:
    """Whether a file begins with the length of a JSON header and its first key; the length may look like anything."""
    length = int.from_bytes(head[:8], "little")
    return length <= _LARGEST_HEADER and head[8:9] == b"{" and head[9:].lstrip()[:1] in (b'"', b"}")


def _read_safetensors(path: Path, head: bytes) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        missing = _missing_bytes(path, int.from_bytes(head[:8], "little"))
        if missing > 0:
            raise CheckpointError(path, f"is damaged: truncated, {missing} bytes are missing; {AGAIN}") from error
        raise CheckpointError(path, f"is damaged, or no safetensors file ({_first_line(error)}); {AGAIN}") from error


def _missing_bytes(path: Path, header: int) -> int:
    """How many bytes a safetensors file lacks of what its header tells; 0 where that cannot be read."""
    size = path.stat().st_size
    if 8 + header > size:
        return 8 + header - size
    try:
        with path.open("rb") as file:
            file.seek(8)
            entries = json.loads(file.read(header))
        ends = [int(entry["data_offsets"][1]) for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return 0
    return max(0, 8 + header + max(ends, default=0) - size)


# PyTorch


def _read_torch(path: Path, head: bytes, tell: Tell, *, in_parts: bool, is_known: bool) -> object:
    is_zip = head.startswith(b"PK")
    if in_parts and not is_zip:
        raise CheckpointError(path, f"is in PyTorch's old format, which is read as a whole; {_SAVE_AGAIN}")
    if in_parts and path.suffix == ".safetensors":
        raise CheckpointError(path, "is a PyTorch file, which is read as a whole under this name; let it end in .pth")
    try:
        if is_zip and not is_known:
            _check_archive(path, tell)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on pickle protocols, before it is refused
            with torch.serialization.safe_globals(_arrays()):
                return _load(path, mapped=is_zip)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        if is_zip or head.startswith(pickle.PROTO):
            raise CheckpointError(path, _needs_pickle(error)) from error
        raise CheckpointError(path, f"is no PyTorch checkpoint; {AGAIN}") from error
    except Exception as error:  # damaged files fail in PyTorch in more ways than can be listed
        raise CheckpointError(path, f"is damaged, or no PyTorch checkpoint; {AGAIN}") from error


def _load(path: Path, *, mapped: bool) -> object:
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    with path.open("rb") as file:  # of a path, PyTorch believes the suffix
        return torch.load(file, map_location="cpu", weights_only=True)


def _arrays() -> list[Any]:
    """What numpy arrays are pickled with, under their names in numpy 1 and 2: data, and no code."""
    rebuild = np.zeros(0).__reduce__()[0]
    places = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
    kinds = [type(np.dtype(code)) for code in ("f4", "f8", "i8")]
    return [*((rebuild, place) for place in places), np.ndarray, np.dtype, *kinds]


def _check_archive(path: Path, tell: Tell) -> None:
    """Compare the checksums that torch.load does not look at; without them a flipped bit becomes a weight."""
    done, size = 0, path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            try:
                with archive.open(entry) as file:
                    while block := file.read(_BLOCK):
                        done += len(block)
                        _tell(tell, f"checking {path.name}", done, size)
            except zipfile.BadZipFile as error:
                raise CheckpointError(path, f"is damaged (wrong checksum in {entry.filename}); {AGAIN}") from error


def _needs_pickle(error: pickle.UnpicklingError) -> str:
    named = re.search(r"GLOBAL (\S+)", str(error))
    what = f"pickled objects of {named[1]}" if named else "a pickle"
    return f"holds {what}, which could run any code, so it was not loaded; where you trust it, {_SAVE_WEIGHTS}"


# Shards


def _index(path: Path, head: bytes) -> Mapping[str, str] | None:
    """Key to the file that holds it, of an index of shards; None of other files."""
    if not head.lstrip().startswith(b"{") or path.stat().st_size > _LARGEST_INDEX:
        return None
    try:
        found = json.loads(path.read_bytes())["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(found, dict) or not found:
        raise CheckpointError(path, f"is an index of shards that names none; {AGAIN}")
    for name in found.values():
        if not isinstance(name, str) or not name or Path(name).name != name:
            raise CheckpointError(path, f"is an index of shards that names {name!r}, which is no file beside it")
    return found


def _shards(path: Path) -> tuple[list[Path], Mapping[str, str]]:
    """The files that hold the weights, itself where it is whole, and what an index says of them."""
    index = _index(path, _head(path))
    if index is None:
        return _siblings(path) or [path], {}
    shards = [path.parent / name for name in dict.fromkeys(index.values())]
    _require_all(path, shards)
    return shards, index


def _siblings(path: Path) -> list[Path]:
    """All shards of which the file is one; none where it is whole."""
    match = _SHARD.fullmatch(path.name)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]) <= 1000:
        return []
    names = [f"{match['stem']}-{n:05}-of-{match['count']}{match['suffix']}" for n in range(1, int(match["count"]) + 1)]
    shards = [path.parent / name for name in names]
    _require_all(path, shards)
    return shards


def _require_all(path: Path, shards: list[Path]) -> None:
    if missing := [shard.name for shard in shards if not shard.exists()]:
        raise CheckpointError(
            path, f"stands for {len(shards)} shards; {len(missing)} are not beside it, such as {missing[0]}"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
