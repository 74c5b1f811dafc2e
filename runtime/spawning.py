"""Starting processes that work for this one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def deaf_to(*names: str) -> Iterator[None]:
    """Processes that begin in this block never get some signals, which a terminal sends to all.

    This one decides for them, and gets the signals itself at the block's end.

    Args:
        names: of the signals, such as "SIGINT".
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # else it is started with the first process, and lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [getattr(signal, name) for name in names])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
