"""A Ray as tests have it: its actors, and where it keeps things."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest


def actors() -> list[psutil.Process]:
    """Processes of this one's Ray in which rows are made."""
    return [each for each in psutil.Process().children(recursive=True) if _words(each).startswith("ray::Workplace")]


def daemons() -> list[psutil.Process]:
    """What else this one's Ray consists of."""
    found = psutil.Process().children(recursive=True)
    return [each for each in found if "raylet" in _words(each) or "gcs_server" in _words(each)]


@contextmanager
def two_nodes() -> Iterator[str]:
    """A cluster of two nodes of one CPU each on this machine, begun by somebody else; its address."""
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        options = {"num_cpus": 1, "object_store_memory": 100 << 20}
        cluster: Any = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
        cluster.add_node(**options)
        try:
            yield cluster.address
        finally:
            cluster.shutdown()


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
