"""What a session goes on from, on the same server or on another one, and who keeps it meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from pflx.engines import Array, Manifest
from pflx.engines.bundle.manifest import encode_manifest

KEEP_S = 1.0
"""Between two snapshots of a session. Each is taken at a hop's end, and has tens of kB."""


@dataclass(frozen=True)
class Kept:
    """What is known of a session besides the connection.

    Attributes:
        wish: what the visitor has chosen, as plain numbers by name; see `Wish`.
        portrait: what they see: the number of one of the server's; a PNG file for one of their own.
        bundle: what the snapshot was made with; see `identity`.
        snapshot: of the session at the end of a hop; None before the first.
    """

    wish: Mapping[str, Any] | None = None
    portrait: int | bytes | None = None
    bundle: str = ""
    snapshot: Mapping[str, Array] | None = None


@dataclass(frozen=True)
class Claim:
    """A session that is gone on with.

    Attributes:
        epoch: who has the latest one serves the session, and nobody else.
        kept: what there is to go on from; None if nothing is known of it.
    """

    epoch: int
    kept: Kept | None


class Keeper(Protocol):
    """Keeps sessions beyond the server that they run on."""

    async def claim(self, id: str) -> Claim:
        """Take a session over: whoever had it before cannot keep anything of it any more."""
        ...

    async def keep(self, id: str, epoch: int, parts: Mapping[str, Any]) -> bool:
        """Keep some fields of `Kept` in place of the old ones; False if another server has taken the session over."""
        ...

    async def forget(self, id: str, epoch: int) -> None:
        """The visitor has ended it."""
        ...


def identity(manifest: Manifest) -> str:
    """Tells bundles apart: SHA-256 of the manifest, which has those of all files, in hex."""
    return sha256(encode_manifest(manifest)).hexdigest()
