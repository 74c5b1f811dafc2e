"""The one field that pyproject.toml cannot state: the README as it reads outside the repository."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
PICTURES = (".png", ".webp", ".svg", ".gif", ".jpg", ".mp4")
_TARGET = re.compile(r"""(?P<before>\]\(|\b(?:src|href|srcset)=")(?P<path>(?![a-z]+:|/|#)[^)"\s]+)""")


def absolute_links(markdown: str, repository: str, revision: str) -> str:
    """The text with every relative link and picture at its address in the repository.

    Args:
        markdown: with links as they work inside the repository; those with a scheme, `/` or `#` stay.
        repository: its address, without a slash at the end.
        revision: branch or tag that is linked to.
    """

    def absolute(found: re.Match[str]) -> str:
        view = "raw" if found["path"].endswith(PICTURES) else "blob"
        return f"{found['before']}{repository}/{view}/{revision}/{found['path']}"

    return _TARGET.sub(absolute, markdown)


def _readme() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = re.search(r'^__version__ = "(.+)"$', (ROOT / "pflx/__init__.py").read_text(), re.MULTILINE)
    assert version, "pflx/__init__.py states no version"
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return absolute_links(text, project["urls"]["Repository"], f"v{version[1]}")


if __name__ == "__main__":
    setup(long_description=_readme(), long_description_content_type="text/markdown")
