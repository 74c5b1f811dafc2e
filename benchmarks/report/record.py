"""What is written beside numbers: the machine, the versions, and the numbers as JSON; and what is asked for before."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pflx.runtime.bench.measure.environment import commit_of

RESULTS = Path(__file__).parents[1] / "results"
_PACKAGES = ("pflx", "torch", "onnx", "onnxruntime", "numpy", "opencv-python-headless", "av")


def bundle_arguments(description: str | None) -> argparse.Namespace:
    """What benchmarks of a bundle's graphs take: `bundle`, `--threads`, `--rounds`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    return parser.parse_args()


def of_checkout(checkout: Path) -> dict[str, str]:
    """Environment of a process that imports pflx from a checkout."""
    paths = os.pathsep.join([str(checkout / "typings"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": paths}


def machine(threads: int) -> dict[str, Any]:
    """The environment of a run."""
    return {
        "cpu": _cpu_name(),
        "logical_cpus": os.cpu_count(),
        "threads": threads,
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "gpu": None,
    }


def write(name: str, content: Mapping[str, Any]) -> None:
    """Write `results/NAME.json`, with when it was and of which commit, and print it."""
    RESULTS.mkdir(exist_ok=True)
    when = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit_of(RESULTS.parents[1])}
    text = json.dumps({**when, **content}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
