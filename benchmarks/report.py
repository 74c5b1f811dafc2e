"""What every benchmark writes beside its numbers: the machine, the versions, and the numbers as JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("pflx", "torch", "onnx", "onnxruntime", "numpy", "opencv-python-headless", "av")


def bundle_arguments(description: str | None) -> argparse.Namespace:
    """What benchmarks of a bundle's graphs take: `bundle`, `--threads`, `--rounds`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    return parser.parse_args()


def interleaved(runs: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, taken in turns, so that a drift of the machine touches all alike; one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Least, median and largest, in ms, and how many."""
    return {
        "min_ms": round(1e3 * min(seconds), 2),
        "median_ms": round(1e3 * statistics.median(seconds), 2),
        "max_ms": round(1e3 * max(seconds), 2),
        "runs": len(seconds),
    }


def ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> dict[str, float]:
    """How long `name` takes per time of `base`: of the least times, and the median over rounds."""
    pairs = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
    return {
        "of_minima": round(min(seconds[name]) / min(seconds[base]), 3),
        "median_of_rounds": round(statistics.median(pairs), 3),
    }


def node_times(
    path: Path, feeds: Mapping[str, Any], sizes: Mapping[str, int], *, threads: int, calls: int
) -> dict[str, float]:
    """Least ms of every node of a graph, added up per operator, the dearest first; by ONNX Runtime's profile.

    Args:
        path: of the graph.
        feeds: of every call.
        sizes: of its named dimensions.
        threads: of a call.
        calls: how many to make.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling = threads, True
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/run"
        session = onnxruntime.InferenceSession(path, options)
        for _ in range(calls):
            session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text())
    least: dict[tuple[str, str], float] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = (event["args"]["op_name"], event["name"])
            least[key] = min(least.get(key, math.inf), event["dur"] / 1e3)
    by_operator: dict[str, float] = defaultdict(float)
    for (operator, _), milliseconds in least.items():
        by_operator[operator] += milliseconds
    return dict(sorted(by_operator.items(), key=lambda item: -item[1]))


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
    """Write `results/NAME.json` and print it."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(content, indent=2)
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
