"""Makes the links of typings/pflx, through which type checkers see the rooms as `pflx.…`, where they are missing.

A clone brings them; an sdist does not, for a build packs what a link leads to.

    python tools/link_typings.py
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = ("__init__.py", "__main__.py", "py.typed")


def links(root: Path) -> Mapping[str, Path]:
    """What each link in typings/pflx leads to, by its name."""
    folders = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    rooms = {folder: root / folder for folder in folders.values() if folder != "pflx"}
    return rooms | {name: root / "pflx" / name for name in FILES}


def make_links(root: Path) -> None:
    """Make each link that is not there."""
    place = root / "typings/pflx"
    place.mkdir(parents=True, exist_ok=True)
    for name, target in links(root).items():
        if not (place / name).is_symlink():
            (place / name).symlink_to(os.path.relpath(target, place))


if __name__ == "__main__":
    make_links(ROOT)
