"""What one call of a graph takes on a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from pflx.engines import Array, GraphInfo
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import DeviceEngine
from pflx.engines.gpu.ort_cuda import OrtContext

WARM_UP = 5
CALLS = 30


def call_ms(path: Path, info: GraphInfo, feeds: Mapping[str, Array], gpu: Device) -> float:
    """Median of calls that are waited for one by one, on ONNX Runtime's CUDA provider; feeds lie on the GPU already.

    Args:
        path: the graph.
        info: what it takes and gives.
        feeds: of every call.
        gpu: runs it.

    Raises:
        BackendMissingError, DeviceError: ONNX Runtime has no CUDA provider.
        EngineError: the graph does not run.
    """
    stream = gpu.streams.named("calibrate")
    context = OrtContext(path, info.inputs, info.outputs, gpu, stream)
    with closing(DeviceEngine(path.stem, context, gpu, stream)) as engine:
        placed = {name: gpu.upload(value) for name, value in feeds.items()}
        times = []
        for _ in range(WARM_UP + CALLS):
            begin = time.perf_counter()
            engine.run(placed)
            stream.synchronize()
            times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times[WARM_UP:])
