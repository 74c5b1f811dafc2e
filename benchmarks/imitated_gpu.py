"""Live sessions on a GPU that is imitated: how many of them the runtime keeps where engines take as long as on an H200.

    python benchmarks/imitated_gpu.py [--sessions 14 16 18] [--seconds 30]

The graphs compute nothing. Each call takes the time that `gpu.py` has measured for it, one call after the other,
whatever stream it is on; all else is the runtime as it is: threads, turns, windows, crops, face detection, deadlines.
Each number of sessions is measured twice, side by side: as it is, and with all that looks at the speakers in the same
turn as the engines' work and the first picture of each segment always alone, as it was before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import report

from pflx.engines import GraphInfo, Manifest
from pflx.engines.gpu import dlpack
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import Arrays, DeviceEngine
from pflx.engines.gpu.streams import Stream
from pflx.runtime import BlazeFace, Listener, SystemClock, sharing
from pflx.runtime.bench.measure.drawing import draw_face
from pflx.runtime.bench.measure.plan import Plan
from pflx.runtime.bench.measure.sessions import measure_sessions
from pflx.runtime.bench.measure.stub_shapes import stub_manifest
from pflx.runtime.bundle_engines import stream_of
from pflx.runtime.speaker.settings import UNKNOWN, SpeakerSettings

CALL_MS: Mapping[str, float] = {
    "reactface_speaker": 2.28,
    "reactface_listener": 0.66,
    "posnet": 0.10,
    "pirender_portrait": 0.23,
}
FRAMES_MS: Mapping[int, float] = {1: 4.33, 2: 5.26, 4: 8.75, 7: 10.05, 8: 11.07}
"""Captured calls in FP16. Source: results/gpu_nvidia_h200.json, step `engines`."""


class ImitatedCuda:
    """Serves `pflx.engines.gpu.cuda.Cuda`: nothing is computed or copied, but calls take their time, one by one."""

    kind, ordinal = dlpack.CUDA, 0

    def __init__(self) -> None:
        self._last = 1 << 40
        self._pinned: list[np.ndarray] = []
        self._busy_until = 0.0
        self._ends: dict[int, float] = {}  # of the work on a stream so far
        self._events: dict[int, float] = {}
        self._graphs: dict[int, float] = {}
        self._captured: float | None = None

    def call(self, stream: int, milliseconds: float) -> None:
        """Put a call on a stream."""
        if self._captured is not None:
            self._captured += milliseconds
            return
        begin = max(time.perf_counter(), self._ends.get(stream, 0.0), self._busy_until)
        self._ends[stream] = self._busy_until = begin + milliseconds / 1e3

    def make_current(self) -> None:
        """There is only one."""

    def memory(self) -> tuple[int, int]:
        return 1 << 37, 1 << 37

    def malloc(self, size: int) -> int:
        return self._new(size)

    def malloc_host(self, size: int) -> int:
        self._pinned.append(np.zeros(size, np.uint8))
        return int(self._pinned[-1].ctypes.data)

    def create_stream(self) -> int:
        return self._new()

    def create_event(self) -> int:
        return self._new()

    def synchronize(self, stream: int) -> None:
        _sleep_until(self._ends.get(stream, 0.0))

    def record(self, event: int, stream: int) -> None:
        self._events[event] = self._ends.get(stream, 0.0)

    def wait(self, stream: int, event: int) -> None:
        self._ends[stream] = max(self._ends.get(stream, 0.0), self._events.get(event, 0.0))

    def is_done(self, event: int) -> bool:
        return self._events.get(event, 0.0) <= time.perf_counter()

    def wait_host(self, event: int) -> None:
        _sleep_until(self._events.get(event, 0.0))

    def begin_capture(self, stream: int) -> None:
        self._captured = 0.0

    def end_capture(self, stream: int) -> int:
        graph = self._new()
        self._graphs[graph], self._captured = self._captured or 0.0, None
        return graph

    def launch(self, graph: int, stream: int) -> None:
        self.call(stream, self._graphs[graph])

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        pass

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int, stream: int
    ) -> None:
        pass

    def free(self, address: int) -> None:
        pass

    def free_host(self, address: int) -> None:
        pass

    def destroy_stream(self, stream: int) -> None:
        pass

    def destroy_event(self, event: int) -> None:
        pass

    def destroy_graph(self, graph: int) -> None:
        pass

    def _new(self, size: int = 512) -> int:
        self._last += -(-size // 512) * 512
        return self._last


class ImitatedContext:
    """An execution context whose runs take their time."""

    def __init__(self, graph: str, info: GraphInfo, cuda: ImitatedCuda, stream: Stream) -> None:
        self.inputs, self.outputs = info.inputs, info.outputs
        self._graph, self._cuda, self._stream = graph, cuda, stream

    def enqueue(self, feeds: Arrays, results: Arrays) -> None:
        frames = feeds.get("frames")
        took = CALL_MS[self._graph] if frames is None else FRAMES_MS[frames.shape[0]]
        self._cuda.call(self._stream.handle, took)

    def for_capture(self) -> ImitatedContext:
        return self

    def require_capturable(self) -> None:
        pass

    def close(self) -> None:
        pass


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.perf_counter()))


def open_listener(manifest: Manifest, speaker: SpeakerSettings = UNKNOWN) -> Listener:
    cuda = ImitatedCuda()
    gpu, engines = Device(cuda), {}
    for graph, info in manifest.graphs.items():
        stream = gpu.streams.named(stream_of(manifest, graph))
        engines[graph] = DeviceEngine(graph, ImitatedContext(graph, info, cuda, stream), gpu, stream)
    return Listener(manifest, engines, draw_face(), gpu=gpu, speaker=speaker)


@contextmanager
def never_crowded() -> Iterator[None]:
    kept, sharing._CROWDED = sharing._CROWDED, float("inf")
    try:
        yield
    finally:
        sharing._CROWDED = kept


def measure(sessions: int, seconds: float) -> dict[str, Any]:
    manifest = stub_manifest("reactface")
    plan = Plan(stub=True, duration_s=seconds)
    with open_listener(manifest) as listener:
        now = measure_sessions(listener, plan, sessions, SystemClock())
    # A detector that was given is shared, and so is used in the turn of the engines.
    with never_crowded(), open_listener(manifest, SpeakerSettings(detector=BlazeFace())) as listener:
        before = measure_sessions(listener, plan, sessions, SystemClock())
    found = {name: {"dmr": round(row.dmr, 5), "kept": row.kept} for name, row in (("now", now), ("before", before))}
    print(sessions, found, flush=True)
    return {"sessions": sessions, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, nargs="+", default=[14, 16, 18])
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    machine = report.machine(0)
    counts = " ".join(map(str, options.sessions))
    content = {
        "command": f"python benchmarks/{Path(__file__).name} --sessions {counts} --seconds {options.seconds:g}",
        "machine": machine,
        "gpu": "imitated: no graph computes anything",
        "call_ms": {**CALL_MS, **{f"pirender_frame x{count}": took for count, took in FRAMES_MS.items()}},
        "rows": [measure(count, options.seconds) for count in options.sessions],
    }
    report.write("imitated_gpu", content)


if __name__ == "__main__":
    main()
