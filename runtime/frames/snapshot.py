"""Groups of named arrays as one flat group, as a snapshot holds them."""

from __future__ import annotations

from collections.abc import Mapping

from pflx.engines import Array


def prefixed(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The same arrays, `name` as `prefix.name`."""
    return {f"{prefix}.{name}": value for name, value in arrays.items()}


def unprefixed(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What `prefixed` made of one group, out of several."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
