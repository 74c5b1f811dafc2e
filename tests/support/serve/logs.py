"""Logging as it was, after a test in which a server has made it its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def logging_kept() -> Iterator[None]:
    """Log nowhere at first; afterwards, as before."""
    root, events = logging.getLogger(), logging.getLogger("pflx.serve.events")
    before = root.handlers[:], root.level, events.level
    root.handlers[:] = []  # those of pytest are not to be closed
    try:
        yield
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        events.setLevel(before[2])
