"""How many threads a graph may be given: a small multiple of the cores, past which a machine only comes to a halt."""

from __future__ import annotations

import os

from pflx.engines.graphs.protocol import EngineError, FeedError

PER_CORE = 4
"""Threads of one graph for each logical core, at most: more have nothing to run on, and each takes memory."""


class ThreadsError(EngineError, FeedError):
    """Fewer than one thread, or more than a machine can use."""


def most_threads() -> int:
    """The most threads that a graph may be given on this machine."""
    return PER_CORE * (os.cpu_count() or 1)


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that cannot be meant; None leaves it to the library.

    Raises:
        ThreadsError: it is below 1 or above `most_threads()`.
    """
    most = most_threads()
    if threads is not None and not 1 <= threads <= most:
        raise ThreadsError(
            f"threads is {threads}; give 1 to {most} ({PER_CORE} a core), or None to leave it to the library."
        )
