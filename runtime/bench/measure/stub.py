"""Networks that cost next to nothing, in the shapes of real ones: what is measured with them is the runtime itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from pflx.engines import Array, FakeEngine, GraphInfo, Manifest, TensorSpec
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.live.clock import LiveClock
from pflx.runtime.speaker.faces import Face

_DENSE = 8192  # values of an input that are all looked at; of a larger one so many, evenly spread
_SPARSE = 64
_MARKS = 64  # values of an output that change from call to call, evenly spread


class StubExtractor:
    """Numbers that are a function of the picture and tell nothing, at next to no cost.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def extract(self, picture: UInt8Array, frame: int) -> Float32Array:
        """float32 [size] in -0.5…0.5: colours of pixels spread over the picture."""
        side = math.isqrt(self.size) + 1
        rows, columns = (np.arange(side) * length // side for length in picture.shape[:2])
        colours = picture[np.ix_(rows, columns)].reshape(-1)
        return np.asarray(colours[np.arange(self.size) * colours.size // self.size] / 255 - 0.5, np.float32)


class StubDetector:
    """Sees one face in the middle of every picture."""

    def detect(self, frame_rgb: UInt8Array) -> list[Face]:
        """The face: a square of half the shorter side."""
        height, width = frame_rgb.shape[:2]
        side = min(height, width) / 2
        return [Face(((width - side) / 2, (height - side) / 2, side, side), 1.0)]


def stub_engines(
    manifest: Manifest, *, clock: LiveClock | None = None, costs: Mapping[str, int] | None = None
) -> dict[str, FakeEngine]:
    """A stub for every graph of a bundle.

    A stub returns the same buffers from every call, with a few values that are a function of what it was fed: a change
    at the speaker's side reaches the coefficients and the picture. Equal feeds give equal results.

    Args:
        manifest: whose graphs to stand in for.
        clock: what a call takes its time on; needed for costs only.
        costs: graph to the ns that its calls take.
    """
    given = costs or {}
    engines = {}
    for name, graph in manifest.graphs.items():
        function = _stub(graph)
        if given.get(name):
            assert clock is not None, "costs need a clock"
            function = _slowed(function, clock, given[name])
        engines[name] = FakeEngine(function, graph.inputs, graph.outputs)
    return engines


_Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def _slowed(function: _Function, clock: LiveClock, cost: int) -> _Function:
    def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        clock.sleep(cost)
        return function(feeds)

    return run


def _stub(graph: GraphInfo) -> _Function:
    axes = {
        axis: (name, place)
        for name, spec in graph.inputs.items()
        for place, axis in enumerate(spec.shape)
        if isinstance(axis, str)
    }
    buffers: dict[tuple[str, tuple[int, ...]], Array] = {}

    def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        sizes = {axis: feeds[name].shape[place] for axis, (name, place) in axes.items()}
        mark = _mark(feeds)
        return {name: _marked(buffers, name, spec, sizes, mark) for name, spec in graph.outputs.items()}

    return run


def _mark(feeds: Mapping[str, Array]) -> float:
    """A number in -1…1 that depends on every input."""
    total = 0.0
    for feed in feeds.values():
        flat = feed.reshape(-1)
        if flat.size > _DENSE:
            flat = flat[:: flat.size // _SPARSE]
        weights = np.arange(1, flat.size + 1, dtype=np.float64)
        total = 0.5 * total + float(weights @ flat) / flat.size
    return float(np.sin(total))


def _marked(
    buffers: dict[tuple[str, tuple[int, ...]], Array],
    name: str,
    spec: TensorSpec,
    sizes: Mapping[str, int],
    mark: float,
) -> Array:
    shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape)
    if (name, shape) not in buffers:
        buffers[name, shape] = np.zeros(shape, spec.dtype)
    buffer = buffers[name, shape]
    value = round(127 * (mark + 1)) if spec.dtype.kind in "ui" else mark
    buffer.reshape(-1)[:: max(1, buffer.size // _MARKS)] = value
    return buffer
