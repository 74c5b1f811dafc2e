"""Snapshots as groups of named arrays: put together, sealed, and opened again whoever had them meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pflx.engines import Array
from pflx.engines.files.array_file import LARGEST_UNPACKED

SCHEMA = 4
"""Version of what a snapshot holds; another one is refused."""


def prefixed(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The same arrays, `name` as `prefix.name`."""
    return {f"{prefix}.{name}": value for name, value in arrays.items()}


def unprefixed(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What `prefixed` made of one group, out of several."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}


def sealed(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Copies of the arrays, with the schema number and the checksum of all."""
    whole = {**{name: np.array(value) for name, value in arrays.items()}, "schema": np.array([SCHEMA])}
    return {**whole, "checksum": _checksum(whole)}


def unsealed(snapshot: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays that were sealed.

    Raises:
        ValueError: there is something else than arrays of numbers, or other than was sealed.
    """
    arrays = dict(_members(snapshot))
    for name, value in arrays.items():
        if not isinstance(name, str) or type(value) is not np.ndarray or value.dtype.kind not in "fiub":
            raise ValueError(f"{name!r} is no array of numbers")
    checksum, schema = (arrays.pop(name, None) for name in ("checksum", "schema"))
    if checksum is None or schema is None:
        raise ValueError("it has no schema number and checksum")
    if schema.tolist() != [SCHEMA]:
        raise ValueError(f"it is of schema {schema.tolist()}, this pflx reads {SCHEMA}")
    if checksum.tolist() != _checksum({**arrays, "schema": schema}).tolist():
        raise ValueError("its checksum is of something else: it was changed or damaged since")
    return arrays


def _members(snapshot: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(snapshot, np.lib.npyio.NpzFile) and snapshot.zip:
        unpacked = sum(int(member.file_size) for member in snapshot.zip.infolist() if member.compress_type)
        if unpacked > LARGEST_UNPACKED:
            raise ValueError(f"it unpacks to {unpacked:,} bytes, more than {LARGEST_UNPACKED:,}; do not compress it")
    for name in snapshot:
        try:
            yield name, snapshot[name]
        except Exception as error:  # what numpy raises at damaged bytes is of many kinds
            raise ValueError(f"'{name}' is damaged") from error


def _checksum(arrays: Mapping[str, Array]) -> Array:
    """uint8 [32], SHA-256 of names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name]
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).data)
    return np.frombuffer(digest.digest(), np.uint8)
