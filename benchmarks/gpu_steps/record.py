"""What the steps of `gpu.py` share: their setting, their record on the disk, and the figures of timed calls."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pflx.engines import BackendMissingError
from pflx.engines.bundle.driver import Gpu, find_gpus
from pflx.engines.gpu.cuda import parse_device
from pflx.engines.graphs.protocol import DeviceLostError

_SETTLING_S = 0.2  # a GPU that was idle raises its clock first
_QUEUED_S, _QUEUED_CALLS = 0.1, (5, 200)


@dataclass(frozen=True)
class Setting:
    """What all steps are given.

    Attributes:
        work: folder of their files.
        bundle: that is measured.
        device: like `cuda:0`.
        seconds: of one measurement.
        begun: when the command began, as `time.time` tells it.
    """

    work: Path
    bundle: Path
    device: str = "cuda:0"
    seconds: float = 1.5
    begun: float = 0.0

    @property
    def perfrdiff_bundle(self) -> Path:
        """Where the step `export_perfrdiff` puts the bundle of PerFRDiff."""
        return self.work / "perfrdiff.pflx"

    @property
    def gpu(self) -> Gpu | None:
        """The GPU; None if it is not there."""
        gpus, ordinal = find_gpus(), parse_device(self.device)
        return None if ordinal is None or ordinal >= len(gpus) else gpus[ordinal]

    @property
    def gpu_name(self) -> str | None:
        """Its name; None likewise."""
        gpu = self.gpu
        return gpu.name if gpu else None


class Record:
    """The result of one step, on the disk after every part, so that a crash loses nothing before it.

    Args:
        step: its name.
        setting: of all steps.
    """

    def __init__(self, step: str, setting: Setting) -> None:
        self.found: dict[str, Any] = {}
        self._step, self._setting = step, setting
        self._gpu = setting.gpu_name

    def put(self, name: str, value: Any) -> None:
        """Keep a part of the result."""
        self.found[name] = value
        self.write(complete=False)

    def attempt(self, name: str, measure: Callable[[], Any]) -> Any:
        """Keep what `measure` returns; where it fails, why. None then, except for a GPU that is lost: nothing follows.

        Raises:
            DeviceLostError: the GPU is of no more use to this process.
        """
        try:
            value = measure()
        except DeviceLostError:
            raise
        except Exception as error:
            self.put(name, unmeasured(error))
            self.say(f"{name}: {next(iter(self.found[name].values()))}")
            return None
        self.put(name, value)
        return value

    def say(self, text: str) -> None:
        """Print a line of progress."""
        say(f"{self._step}: {text}", self._setting.begun)

    def write(self, *, complete: bool) -> None:
        """Put it on the disk, whole or not at all."""
        write_step(self._setting.work, self._step, self.found, complete=complete, gpu=self._gpu)


def unmeasured(error: Exception) -> dict[str, str]:
    """How a part that could not be measured is recorded: not run for want of a package, or failed."""
    if isinstance(error, BackendMissingError):
        return {"not_run": str(error)}
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("pflx"):
        return {"not_run": f"{error.name} is not installed"}
    said = str(error).strip().split("\n", 1)[0][:500]
    return {"failed": f"{type(error).__name__}: {said}"}


def write_step(work: Path, step: str, result: Mapping[str, Any], *, complete: bool, gpu: str | None) -> None:
    """Write `STEP.json`."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"step": step, "complete": complete, "gpu": gpu, "created": created, "result": result}
    path = work / f"{step}.json"
    half = path.with_suffix(".half")
    half.write_text(json.dumps(content, indent=1, allow_nan=False, default=str) + "\n")
    half.replace(path)


def read_step(work: Path, step: str) -> dict[str, Any]:
    """What `write_step` wrote; empty if there is nothing to read."""
    with suppress(OSError, ValueError):
        content: dict[str, Any] = json.loads((work / f"{step}.json").read_text())
        return content
    return {}


def say(text: str, begun: float) -> None:
    """Print a line with the seconds since the command began."""
    print(f"[{time.time() - begun:6.1f} s] {text}", flush=True)


def figures(spans_s: Sequence[float]) -> dict[str, float]:
    """Of times in seconds: median, least and high percentiles in ms, by nearest rank, and how many there are."""
    ordered = sorted(1e3 * span for span in spans_s)
    ranks = {f"p{percent}_ms": ordered[math.ceil(percent / 100 * len(ordered)) - 1] for percent in (95, 99)}
    found = {"median_ms": statistics.median(ordered), "min_ms": ordered[0], **ranks, "max_ms": ordered[-1]}
    return {**{name: rounded(value) for name, value in found.items()}, "count": len(ordered)}


def rounded(value: float, digits: int = 4) -> float:
    """To so many significant digits."""
    return float(f"{value:.{digits}g}")


def timed(call: Callable[[], object], wait: Callable[[], None], seconds: float, *, least: int = 30) -> dict[str, float]:
    """Make the same call again and again, each waited for before the next.

    Args:
        call: puts work on a GPU.
        wait: until it is done.
        seconds: how long to go on.
        least: calls to make, however long they take.

    Returns:
        `figures` of whole calls; `submit_ms`, the median of the time until a call returns; `queued_ms`, what a call
        takes where many are submitted before the last is waited for.
    """
    settle(call, wait)
    whole: list[float] = []
    submit: list[float] = []
    until = time.perf_counter() + seconds
    while len(whole) < least or time.perf_counter() < until:
        begun = time.perf_counter()
        call()
        submit.append(time.perf_counter() - begun)
        wait()
        whole.append(time.perf_counter() - begun)
    queued = _queued(call, wait, statistics.median(whole))
    found = {"submit_ms": rounded(1e3 * statistics.median(submit)), "queued_ms": rounded(1e3 * queued)}
    return {**figures(whole), **found}


def settle(call: Callable[[], object], wait: Callable[[], None]) -> None:
    """Calls to begin with: the first ones load kernels and capture."""
    begun, calls = time.perf_counter(), 0
    while calls < 3 or time.perf_counter() - begun < _SETTLING_S:
        call()
        wait()
        calls += 1


def _queued(call: Callable[[], object], wait: Callable[[], None], usual_s: float) -> float:
    fewest, most = _QUEUED_CALLS
    count = min(most, max(fewest, round(_QUEUED_S / usual_s)))
    best = math.inf
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(count):
            call()
        wait()
        best = min(best, (time.perf_counter() - begun) / count)
    return best
