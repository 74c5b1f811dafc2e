"""How many threads a graph may be given: as many as this process has cores, and never more than a few for each."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pflx.engines.graphs.protocol import EngineError, FeedError

PER_CORE = 4
"""Threads of one graph for each core, at most: more have nothing to run on, and each takes memory."""

_CGROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class ThreadsError(EngineError, FeedError):
    """Fewer than one thread, or more than a machine can use."""


def usable_cores(cgroups: Path = _CGROUPS, own: Path = _OWN) -> int:
    """Logical cores that this process may use: those of the machine, of its affinity, and of its container's quota.

    Args:
        cgroups: where the kernel tells the quota of each group of processes.
        own: where it tells which group this process is in.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([allowed, *_quotas(cgroups, own)])))


def library_threads(threads: int | None) -> int | None:
    """Threads to ask a library for: what was asked for, or, where it would count cores that are not ours, our own.

    Returns:
        None to leave it to the library, which takes one per physical core of the machine.
    """
    cores = usable_cores()
    return cores if threads is None and cores < (os.cpu_count() or 1) else threads


def calls_at_once(threads: int | None) -> int:
    """Calls of so many threads each that the cores bear at once; 1 where the library takes all of them for one."""
    return 1 if threads is None else max(1, usable_cores() // threads)


def most_threads() -> int:
    """The most threads that a graph may be given."""
    return PER_CORE * usable_cores()


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


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """Cores by the bandwidth of each group that this process is in. Source: Linux, cgroup-v2 `cpu.max`, and v1."""
    for folder in (cgroups, *_groups(cgroups, own)):
        for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
            with suppress(OSError, ValueError):  # there is no such file, or no bound: `max`, or -1
                spent, period = (int(word) for name in files for word in (folder / name).read_text().split())
                if spent > 0:
                    yield spent / period


def _groups(cgroups: Path, own: Path) -> Iterator[Path]:
    """The group of this process and those around it, where they are not hidden from it."""
    try:
        path = next(line for line in own.read_text().splitlines() if line.startswith("0::/"))
    except (OSError, StopIteration):
        return
    folder = cgroups / path.removeprefix("0::/")
    while folder.is_relative_to(cgroups) and folder != cgroups:
        yield folder
        folder = folder.parent
