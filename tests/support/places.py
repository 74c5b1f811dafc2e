"""Where things lie that tests read."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
MEDIA, GOLDEN = TESTS / "media", TESTS / "golden"


def python_blocks(document: Path) -> list[str]:
    """The fenced blocks of Python in a document, in their order."""
    return re.findall(r"^```python\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
