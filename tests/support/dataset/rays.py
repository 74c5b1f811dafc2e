"""A Ray as tests have it: its actors, and where it keeps things."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


def actors() -> list[psutil.Process]:
    """Processes of this one's Ray in which rows are made."""
    return [each for each in psutil.Process().children(recursive=True) if _words(each).startswith("ray::Workplace")]


def daemons() -> list[psutil.Process]:
    """What else this one's Ray consists of."""
    found = psutil.Process().children(recursive=True)
    return [each for each in found if "raylet" in _words(each) or "gcs_server" in _words(each)]


def folders() -> set[Path]:
    """Where a Ray that pflx began keeps what it needs."""
    return {*Path(tempfile.gettempdir()).glob("pflx-ray-*"), *Path("/tmp").glob("pflx-ray-*")}


@contextmanager
def ray_head(port: int, cpus: int) -> Iterator[str]:
    """A cluster of one node, begun as its owner does it; its address."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        words = ["start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}", f"--temp-dir={folder}"]
        options = ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=100000000"]
        command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *words, *options]
        head = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert head.stdout is not None
        said = ""
        while "Ray runtime started" not in said:
            line = head.stdout.readline()
            assert line, said
            said += line
        try:
            yield f"127.0.0.1:{port}"
        finally:
            family = psutil.Process(head.pid).children(recursive=True)
            head.terminate()
            head.communicate()
            psutil.wait_procs(family, timeout=60)


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
