"""The number that a file of pflx's carries: which version of its description it follows, and so who can read it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class _SchemaOnly(msgspec.Struct):
    schema: int


def read_schema(data: bytes) -> int:
    """The number alone, whatever else the JSON holds, so that another version is told from a broken file.

    Raises:
        MsgspecError: not JSON, or without a number.
    """
    return msgspec.json.decode(data, type=_SchemaOnly).schema


def check_schema(data: bytes, known: int, name: str, renew: str, error: Callable[[str], Exception]) -> None:
    """Refuse a file that an older or newer pflx has written.

    Args:
        data: JSON.
        known: the number that this pflx reads.
        name: what messages call the file.
        renew: what makes an old one anew.
        error: makes what is raised of the message.

    Raises:
        MsgspecError: see `read_schema`.
    """
    schema = read_schema(data)
    if schema == known:
        return
    age, fix = ("a newer", "Upgrade pflx") if schema > known else ("an older", renew)
    raise error(f"{name} was written by {age} pflx: its schema is {schema}, this one reads {known}. {fix}.")
