"""Engines and listeners on a GPU made of Python (`fake_cuda`), from the functions of `fakes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from support.fakes import FUNCTIONS, INPUTS, ONE_FACE, OUTPUTS, Function, fake_manifest, portrait_of
from support.gpu.fake_cuda import FakeCuda
from support.grouped import grouped

from pflx.engines import TensorSpec
from pflx.engines.gpu.array import host_view
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import Arrays, DeviceEngine
from pflx.engines.gpu.streams import Stream
from pflx.runtime import Listener
from pflx.runtime.bundle_engines import stream_of


class FunctionContext:
    """An execution context that runs a Python function of arrays as its kernel.

    Attributes:
        enqueued: how often it was put on its stream.
    """

    def __init__(
        self,
        function: Function,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        device: Device,
        stream: Stream,
        name: str = "kernel",
    ) -> None:
        self.inputs, self.outputs = dict(inputs), dict(outputs)
        self.enqueued = 0
        self.is_closed = False
        self._function, self._stream, self._name = function, stream, name
        assert isinstance(device.cuda, FakeCuda)
        self._cuda = device.cuda

    def enqueue(self, feeds: Arrays, results: Arrays) -> None:
        self.enqueued += 1
        assert all(array.is_contiguous for array in (*feeds.values(), *results.values()))

        # A kernel keeps no array alive: their memory is taken back while it may not have run.
        inputs = {name: (feed.address, feed.shape, feed.dtype) for name, feed in feeds.items()}
        outputs = {name: (result.address, result.shape, result.dtype) for name, result in results.items()}

        def run() -> None:
            made = self._function({name: host_view(*place) for name, place in inputs.items()})
            for name, place in outputs.items():
                host_view(*place)[...] = made[name]

        reads = [(feed.address, feed.nbytes) for feed in feeds.values()]
        writes = [(result.address, result.nbytes) for result in results.values()]
        self._cuda.launch_kernel(run, reads, writes, self._stream.handle, self._name)

    def for_capture(self) -> FunctionContext:
        return self

    def require_capturable(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


def gpu_engines(device: Device, *, capture: bool = True, **functions: Function) -> dict[str, DeviceEngine]:
    """All five graphs on a GPU, each on the stream that a listener would put it on."""
    manifest = fake_manifest()
    engines = {}
    for graph in FUNCTIONS:
        stream = device.streams.named(stream_of(manifest, graph))
        function = functions.get(graph, FUNCTIONS[graph])
        context = FunctionContext(function, INPUTS[graph], OUTPUTS[graph], device, stream, graph)
        engines[graph] = DeviceEngine(graph, context, device, stream, capture=capture)
    return engines


def gpu_listener(device: Device | None = None, *, capture: bool = True, **options: Any) -> Listener:
    """A listener on a GPU made of Python."""
    device = device or Device(FakeCuda())
    engines = options.pop("engines", None) or gpu_engines(device, capture=capture)
    portrait = options.pop("portrait", portrait_of())
    given: dict[str, Any] = {"detector": ONE_FACE} | options
    manifest = given.pop("manifest", None) or fake_manifest()
    return Listener(manifest, engines, portrait, gpu=device, **grouped(given, "speaker", "chain"))
