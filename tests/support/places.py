"""Where things lie that tests read."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
MEDIA, GOLDEN = TESTS / "media", TESTS / "golden"
