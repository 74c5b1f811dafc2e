"""Times of calls: taken in turns, as figures and ratios, and node by node."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


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
