"""What a place on the hub is called: `hf://ORG/NAME`, with a revision and a folder if they are meant."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from pflx.engines.graphs.protocol import PflxError

_BEGIN = re.compile(r"hf:/")  # a path made of an address has lost one of its two slashes
_ADDRESS = re.compile(
    r"hf:/{1,2}(?:models/(?=[^/]+/))?(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/@]+))?(?:/(?P<folder>[^@]+?))?/*",
    re.ASCII,
)
"""As `huggingface_hub` writes them. Source: its reference, "HF URIs"."""


class HubError(PflxError, OSError):
    """Something on the hub cannot be read or written."""


@dataclass(frozen=True)
class HubAddress:
    """A place on the hub.

    Attributes:
        repo: `ORG/NAME`.
        revision: a branch, a tag or the hash of a commit; None is the main branch.
        folder: below the repository's top, with `/`; empty for the top.
    """

    repo: str
    revision: str | None = None
    folder: str = ""

    def __str__(self) -> str:
        """Write `hf://ORG/NAME@REVISION/FOLDER`."""
        revision = "" if self.revision is None else f"@{quote(self.revision, safe='')}"
        return f"hf://{self.repo}{revision}{self.folder and '/'}{self.folder}"

    def within(self, file: str) -> str:
        """The path in the repository of a file in the folder."""
        return f"{self.folder}/{file}" if self.folder else file


def is_address(place: str | Path) -> bool:
    """Whether a place is on the hub, rather than on the disk."""
    return _BEGIN.match(str(place)) is not None


def parse_address(place: str | Path) -> HubAddress:
    """Read an address.

    Raises:
        HubError: it is none.
    """
    found = _ADDRESS.fullmatch(str(place))
    folder = found["folder"] or "" if found else ".."
    if found is None or {"", ".", ".."} & set(folder.split("/") if folder else ()):
        raise HubError(
            f"{place} is no address of a bundle. Write hf://ORG/NAME, hf://ORG/NAME@REVISION or hf://ORG/NAME/FOLDER.pflx."
        )
    return HubAddress(found["repo"], found["revision"] and unquote(found["revision"]), folder)
