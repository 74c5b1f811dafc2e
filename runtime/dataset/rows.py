"""What a data set is made of: one row for each reaction that is wanted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pflx.engines import FeedError, PflxError

_UNFIT = re.compile(r'[\x00-\x1f\\<>:"|?*]')


class RowError(PflxError, ValueError):
    """A row, or the list of rows, asks for what cannot be done."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One speaker to react to.

    Attributes:
        id: what its results are called: a relative path with `/`, without a suffix. No two rows share one.
        speaker: the clip.
        sound: a file whose sound is heard in place of the clip's.
        portrait: of its listener, a picture or a clip whose first frame is taken; None takes the data set's.
        seed: of its reactions; None makes one of the data set's seed and the id.
        coefficients: the speaker's, a file of [T, 58], for a generator that reads them.
        emotion: the speaker's, a file of [T, 25], likewise.
        listener: files of the true reaction, [T, 58] or [T, 25]; nothing is made of them, they are collected.
    """

    id: str
    speaker: Path
    sound: Path | None = None
    portrait: Path | None = None
    seed: int | None = None
    coefficients: Path | None = None
    emotion: Path | None = None
    listener: tuple[Path, ...] = ()

    def reaction_seed(self, seed: int) -> int:
        """Of its reactions, in a data set of a seed: the same whatever other rows there are."""
        if self.seed is not None:
            return self.seed
        return int.from_bytes(sha256(f"{seed}/{self.id}".encode(errors="surrogateescape")).digest()[:4], "little")

    def files(self) -> dict[str, Path]:
        """What a reaction is made of, by name."""
        roles = {
            "speaker": self.speaker,
            "sound": self.sound,
            "coefficients": self.coefficients,
            "emotion": self.emotion,
        }
        return {role: path for role, path in roles.items() if path is not None}


def check_rows(rows: Sequence[Row]) -> None:
    """Refuse ids that cannot name files, or that two rows share.

    Raises:
        RowError: there is such an id, or no row at all.
    """
    if not rows:
        raise RowError("There is no row to react to. Give clips, or a manifest that names some.")
    seen: dict[str, str] = {}
    for row in rows:
        if (fault := fault_of_id(row.id)) is not None:
            raise RowError(f"The id '{row.id}' {fault}")
        if (other := seen.setdefault(row.id.casefold(), row.id)) is not row.id:
            raise RowError(f"Two rows have the id '{other}'{_as(other, row.id)}. Give each one of its own.")


def fault_of_id(name: str) -> str | None:
    """Why an id cannot name files: the rest of a sentence that begins with it; None for one that can."""
    if found := _UNFIT.search(name):
        return f"has {found[0]!r} in it, which not every system takes in a file's name. Leave it out."
    if not name or any(not part or part.startswith(".") for part in name.split("/")):
        return "is no relative path without parts that are empty or begin with a dot. Give another."
    return None


def shard_of(rows: Sequence[Row], number: int, count: int) -> list[Row]:
    """Every `count`-th row from the `number`-th on, counted from 1: all shards together are all rows, none twice.

    Raises:
        FeedError: there is no such shard.
    """
    if not 1 <= number <= count:
        raise FeedError(f"Shard {number} of {count} is none. Give I/N with I from 1 to N, like 1/{max(count, 2)}.")
    return list(rows[number - 1 :: count])


def _as(one: str, other: str) -> str:
    return "" if one == other else f", as '{other}' is on systems that ignore case"
