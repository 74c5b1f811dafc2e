"""Arrays from files of numbers that anybody may have made: bounds are looked at before memory is taken."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pflx.engines.files.read_errors import UnfitError, told_of
from pflx.engines.graphs.protocol import PflxError

LARGEST_UNPACKED = 1 << 30
"""Bytes that the compressed arrays of one file may come to; what is not compressed cannot exceed the file."""
_LARGEST_TABLE = 1 << 28
_ARRAY, _ARCHIVE = b"\x93NUMPY", b"PK"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""Version 3 differs in names of fields, which plain numbers have not."""


def read_arrays(
    path: str | Path, error: type[PflxError], missing: type[PflxError] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file of numbers, whatever its bytes are.

    Args:
        path: of an `.npy`, `.npz` or `.csv` file, with or without a line of names; known by its content, but for CSV.
        error: what to raise.
        missing: the same for a file that is not there; None for `error`.

    Returns:
        Arrays by name, of any dtype without objects and fields; the only one of an `.npy` or `.csv` is called "".

    Raises:
        error: the file is not there, holds something else, is damaged, or would take more memory than it should.
    """
    place = Path(path)
    with told_of(place, error, missing), place.open("rb") as stream:
        try:
            return _arrays(stream, is_table=place.suffix.lower() == ".csv")
        except (UnfitError, OSError):
            raise
        except MemoryError as failure:
            raise UnfitError("does not fit into memory. Give it in parts, or as float32") from failure
        except Exception as failure:  # what readers raise at damaged bytes is of many kinds
            reason = str(failure).strip().partition("\n")[0].rstrip(".") or type(failure).__name__
            raise UnfitError(f"is damaged, or no file of numbers ({reason}). Write it again") from failure


def _arrays(stream: IO[bytes], *, is_table: bool) -> dict[str, npt.NDArray[Any]]:
    begin = stream.read(len(_ARRAY))
    stream.seek(0)
    size = os.fstat(stream.fileno()).st_size
    if begin == _ARRAY:
        return {"": _array(stream, size)}
    if begin.startswith(_ARCHIVE):
        return _archive(stream)
    if is_table:
        return {"": _table(stream, size)}
    raise UnfitError("is no .npy, .npz or .csv of numbers. Save it with numpy.save or numpy.savez")


def _array(stream: IO[bytes], size: int) -> npt.NDArray[Any]:
    """One array, checked against the bytes that are there before it is read."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise UnfitError(f"is of format {version[0]}.{version[1]}, which plain numbers are not. Save float32")
    shape, _, dtype = _HEADERS[version](stream)
    if dtype.hasobject or dtype.fields is not None:
        raise UnfitError(f"holds {dtype}, no numbers. Save float32")
    wanted, there = math.prod(map(int, shape)) * dtype.itemsize, size - stream.tell()
    if wanted > there or min(shape, default=0) < 0:
        raise UnfitError(f"says {list(shape)} of {dtype}, {wanted:,} bytes, and holds {there:,}. Write it again")
    stream.seek(0)
    return np.asarray(np.load(stream, allow_pickle=False))


def _archive(stream: IO[bytes]) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        names = [member.filename.removesuffix(".npy") for member in members]
        if len({*names}) < len(names):
            raise UnfitError("holds two arrays of one name. Write it again")
        unpacked = sum(member.file_size for member in members if member.compress_type != zipfile.ZIP_STORED)
        if unpacked > LARGEST_UNPACKED:
            raise UnfitError(
                f"unpacks to {unpacked:,} bytes, more than {LARGEST_UNPACKED:,}. Save it with numpy.savez, uncompressed"
            )
        arrays = {}
        for name, member in zip(names, members, strict=True):
            with archive.open(member) as part:
                arrays[name] = _array(part, member.file_size)
        return arrays


def _table(stream: IO[bytes], size: int) -> npt.NDArray[np.float64]:
    """Rows of numbers; a first line that is none is one of names."""
    if size > _LARGEST_TABLE:
        raise UnfitError(f"has {size:,} bytes, more than a table should. Save it with numpy.save")
    lines = [line for line in stream.read().decode("utf-8-sig").splitlines() if line.strip()]
    named = bool(lines) and not all(map(_is_number, lines[0].split(",")))
    rows = [[*map(_number, line.split(","))] for line in lines[named:]]
    if len({*map(len, rows)}) > 1:
        raise UnfitError(f"has rows of {min(map(len, rows))} to {max(map(len, rows))} numbers. Give all as many")
    return np.array(rows, np.float64)


def _number(cell: str) -> float:
    if not _is_number(cell):
        raise UnfitError(f"has {cell.strip()[:30]!r} among its numbers. Write numbers only, parted by commas")
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
