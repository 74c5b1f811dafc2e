"""Networks that cost next to nothing, in the shapes of real ones: what is measured with them is the runtime itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pflx.engines import (
    Array,
    FakeEngine,
    GeneratorInfo,
    GraphInfo,
    Manifest,
    MeanFace,
    PflInfo,
    RendererInfo,
    SmootherInfo,
    TensorSpec,
)
from pflx.runtime.clock import LiveClock
from pflx.runtime.faces import Face
from pflx.runtime.media import UInt8Array

_DENSE = 8192  # values of an input that are all looked at; of a larger one so many, evenly spread
_SPARSE = 64
_MARKS = 64  # values of an output that change from call to call, evenly spread
_F32, _U8, _I64, _BOOL = (np.dtype(kind) for kind in (np.float32, np.uint8, np.int64, np.bool_))


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


def stub_manifest(*, window: int = 8, size: int = 256) -> Manifest:
    """ReactFace, PosNet and PIRender by their shapes, without any file.

    Args:
        window: frames per segment.
        size: side of a picture in pixels.
    """
    return Manifest(
        created="1970-01-01T00:00:00+00:00",
        pflx="0",
        generator=GeneratorInfo(
            name="reactface",
            window=window,
            hop=window,
            needs=["video", "audio"],
            graphs={"speaker": "reactface_speaker", "listener": "reactface_listener"},
        ),
        smoother=SmootherInfo(name="posnet", slide=window, graphs={"smooth": "posnet"}),
        renderer=RendererInfo(
            name="pirender", size=size, graphs={"portrait": "pirender_portrait", "frame": "pirender_frame"}
        ),
        pfl=PflInfo(mode="release", window=256, padding=20),
        mean_face=MeanFace(source="zero", values=[0.0] * 58),
        graphs={
            name: GraphInfo(inputs=inputs, outputs=outputs, parameters=0, opset=20, files={})
            for name, (inputs, outputs) in _shapes(window, size).items()
        },
        untrained=None,
        precision="stub",
        provenance=[],
    )


_Function = Callable[[Mapping[str, Array]], Mapping[str, Array]]
_Specs = dict[str, TensorSpec]


def _shapes(window: int, size: int) -> dict[str, tuple[_Specs, _Specs]]:
    features = {
        "source": _f32("portraits", 3, size, size),
        "warp_features": _f32("portraits", 32, size, size),
        "edit_features": _f32("portraits", 64, size, size),
    }
    sides = {"speaker_motion": window, "speaker_audio": 2 * window}
    return {
        "reactface_speaker": (
            {
                "video": TensorSpec(("speakers", window, 224, 224, 3), _U8),
                "audio": _f32("speakers", 640 * window),
            },
            {name: _f32("speakers", length, 128) for name, length in sides.items()},
        ),
        "reactface_listener": (
            {
                **{name: _f32(1, length, 128) for name, length in sides.items()},
                "past_reaction": _f32("samples", window, 58),
                "past_motion": _f32("samples", 128),
                "eps": _f32("samples", 128),
                "first": TensorSpec((1,), _BOOL),
            },
            {"reaction": _f32("samples", window, 58), "motion": _f32("samples", 128)},
        ),
        "posnet": (
            {"segment": _f32("samples", window, 58), "last_pose": _f32("samples", 6)},
            {"smoothed": _f32("samples", window, 58), "pose": _f32("samples", 6)},
        ),
        "pirender_portrait": ({"portrait": TensorSpec(("portraits", size, size, 3), _U8)}, features),
        "pirender_frame": (
            {
                **features,
                "coefficients": _f32("portraits", "track", 58),
                "frames": TensorSpec(("frames",), _I64),
            },
            {"image": TensorSpec(("portraits", "frames", size, size, 3), _U8)},
        ),
    }


def _f32(*shape: int | str) -> TensorSpec:
    return TensorSpec(shape, _F32)


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
