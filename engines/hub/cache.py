"""What was fetched lies in the hub's cache, which all programs of a user share: it is read, and never written to."""

from __future__ import annotations

import os
from pathlib import Path

_KIND, _LINK = "models--", "--"
"""Source: huggingface_hub, "Understand caching": models--ORG--NAME/snapshots/COMMIT/…"""


def cached_name(folder: Path) -> str | None:
    """What a folder in the cache holds, like `ORG/NAME@0123abcd`, a folder of it behind that; None elsewhere."""
    whole = Path(os.path.realpath(folder))  # raises nothing, where links lead in a circle
    for commit in (whole, *whole.parents):
        place = commit.parent.parent
        if commit.parent.name == "snapshots" and place.name.startswith(_KIND):
            repo = place.name.removeprefix(_KIND).replace(_LINK, "/")
            return "/".join((f"{repo}@{commit.name[:8]}", *whole.relative_to(commit).parts))
    return None
