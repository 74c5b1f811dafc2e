"""The user's cache folder, put into a folder of the test."""

from __future__ import annotations

from pathlib import Path

import pytest


def put_user_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs keep their caches in a folder from now on; where in it pflx keeps its own."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(folder))
    return folder / "pflx"
