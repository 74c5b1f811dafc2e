"""Files of float32 tensors with a few lines of text about them, in the format of safetensors.

Read and written here in few lines: the runtime needs no other package for them, and what is read is checked as a whole
before any of it is believed.

Source: the safetensors format: the header's length (uint64, little-endian), the header (JSON), all tensors in a row.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
import numpy as np

from pflx.engines.files.read_errors import UnfitError, told_of
from pflx.engines.files.writer import write_whole
from pflx.engines.graphs.protocol import Array, PflxError

LARGEST = 1 << 26
"""Bytes of a file that is read at all."""
_LARGEST_HEADER = 1 << 16
_LENGTH = 8
_TEXTS = "__metadata__"
_FLOAT = np.dtype("<f4")


class _Place(msgspec.Struct, forbid_unknown_fields=True):
    """What the header says of a tensor."""

    dtype: Literal["F32"]
    shape: list[int]
    data_offsets: tuple[int, int]


def write_tensors(path: str | Path, tensors: Mapping[str, Array], texts: Mapping[str, str]) -> None:
    """Write a file, whole or not at all. The same content gives the same bytes.

    Args:
        path: where to.
        tensors: float32, by name.
        texts: what else there is to say.

    Raises:
        OutputError: it cannot be written.
    """
    header: dict[str, Any] = {_TEXTS: dict(sorted(texts.items()))}
    at = 0
    for name, tensor in sorted(tensors.items()):
        assert tensor.dtype == np.float32, "float32 alone is written"
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % _LENGTH)
    content = [np.ascontiguousarray(tensor, _FLOAT).tobytes() for _, tensor in sorted(tensors.items())]
    write_whole(path, b"".join([len(text).to_bytes(_LENGTH, "little"), text, *content]))


def read_tensors(
    path: str | Path, error: type[PflxError], missing: type[PflxError] | None = None
) -> tuple[dict[str, Array], dict[str, str]]:
    """The tensors and texts of a file, whatever its bytes are.

    Args:
        path: of the file.
        error: what to raise.
        missing: the same for a file that is not there; None for `error`.

    Returns:
        Tensors by name, float32, read-only; and the texts.

    Raises:
        error: the file is not there, is of another kind, larger than 64 MiB, or damaged.
    """
    place = Path(path)
    with told_of(place, error, missing), place.open("rb") as stream:
        return _read(stream, os.fstat(stream.fileno()).st_size)


def _read(stream: IO[bytes], size: int) -> tuple[dict[str, Array], dict[str, str]]:
    length = int.from_bytes(stream.read(_LENGTH), "little")
    if size > LARGEST:
        raise UnfitError(f"has {size:,} bytes, more than the {LARGEST:,} that are read. Check the path")
    if not 2 <= length <= min(_LARGEST_HEADER, size - _LENGTH):
        raise UnfitError("is no such file, or cut off: it begins with no header. Make or copy it again")
    try:
        header = msgspec.json.decode(stream.read(length), type=dict[str, msgspec.Raw])
        texts = msgspec.json.decode(header.pop(_TEXTS, msgspec.Raw(b"{}")), type=dict[str, str])
        places = {name: msgspec.json.decode(raw, type=_Place) for name, raw in header.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as failure:
        raise UnfitError(f"has a header that is none ({str(failure).rstrip('.')}). Make or copy it again") from failure
    _require_exact(places, size - _LENGTH - length)
    content = stream.read(size)
    return {name: _tensor(content, place) for name, place in places.items()}, texts


def _require_exact(places: Mapping[str, _Place], held: int) -> None:
    """Check that the tensors lie in a row, and that nothing else is there."""
    at = 0
    for name, place in sorted(places.items(), key=lambda pair: pair[1].data_offsets):
        start, stop = place.data_offsets
        if min(place.shape, default=0) < 0 or start != at or stop - start != math.prod(place.shape) * _FLOAT.itemsize:
            raise UnfitError(f"says {place.shape} of {name[:80]!r} at bytes {start} to {stop}. Make or copy it again")
        at = stop
    if at != held:
        raise UnfitError(f"says {at:,} bytes of tensors, and holds {held:,}. Make or copy it again")


def _tensor(content: bytes, place: _Place) -> Array:
    start, stop = place.data_offsets
    flat = np.frombuffer(content, _FLOAT, (stop - start) // _FLOAT.itemsize, start)
    return flat.astype(np.float32, copy=False).reshape(place.shape)
