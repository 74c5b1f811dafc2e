"""A machine to open bundles on: ONNX Runtime on the CPU, and GPUs and libraries made of Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from support.fakes import FUNCTIONS, fake_engine
from support.gpu.fake_cuda import FakeCuda
from support.gpu.fake_gpu import FunctionContext
from support.gpu.fake_trt import FakeTrt

from pflx.engines import Bundle, FakeEngine
from pflx.engines.building.build import default_ranges, profile_for
from pflx.engines.bundle.driver import Gpu
from pflx.engines.bundle.engine_passport import Passport, operating_system
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.streams import Stream

GPU = Gpu("NVIDIA L4", "sm_89", "13.0")


@dataclass
class Machine:
    """What a bundle of fake graphs is opened on: ONNX Runtime on the CPU, and libraries and GPUs made of Python.

    Attributes:
        cudas: GPUs that were opened, by number.
        on_cpu: engines that were opened on the CPU, by graph.
        on_gpu: contexts of ONNX Runtime, by graph.
        streams: names of the streams that they were put on.
        fail: graph to what is raised in the place of its engine.
        trt: the TensorRT that is installed.
    """

    cudas: dict[int, FakeCuda] = field(default_factory=dict)
    on_cpu: dict[str, FakeEngine] = field(default_factory=dict)
    on_gpu: dict[str, FunctionContext] = field(default_factory=dict)
    streams: dict[str, str] = field(default_factory=dict)
    fail: dict[str, BaseException] = field(default_factory=dict)
    trt: FakeTrt | None = None

    @property
    def cuda(self) -> FakeCuda:
        return self.cudas[0]

    def open_cuda(self, ordinal: int) -> FakeCuda:
        return self.cudas.setdefault(ordinal, FakeCuda(ordinal=ordinal))

    def open_cpu(self, path: Path, **_: object) -> FakeEngine:
        graph = path.name.split(".")[0]
        self._fail(graph)
        self.on_cpu[graph] = fake_engine(graph)
        return self.on_cpu[graph]

    def open_gpu(
        self,
        path: Path,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        device: Device,
        stream: Stream,
        _: object,
    ) -> FunctionContext:
        graph = path.name.split(".")[0]
        self._fail(graph)
        made = FunctionContext(FUNCTIONS[graph], inputs, outputs, device, stream, graph)
        made.weights = device.upload(np.zeros(1000, np.uint8))  # type: ignore[attr-defined]
        self.on_gpu[graph], self.streams[graph] = made, stream.name
        return made

    def assert_gpu_is_given_back(self) -> None:
        for cuda in self.cudas.values():
            assert (cuda.live, cuda.live_host, cuda.graphs) == ({}, {}, 0)
            assert cuda.calls["create_stream"] == cuda.calls["destroy_stream"]
            assert cuda.calls["create_event"] == cuda.calls["destroy_event"]

    def _fail(self, graph: str) -> None:
        if graph in self.fail:
            raise self.fail[graph]


def plan_of(graph: str) -> bytes:
    """The engine file of a graph."""
    return b"plan of " + graph.encode()


def passport_of(bundle: Path, graph: str, library: Any, version: str) -> Passport:
    """The passport of an engine of a library, built for this GPU from the graph that lies in the bundle."""
    manifest = Bundle.open(bundle).manifest
    info = manifest.graphs[graph]
    return Passport(
        file="",
        graph=graph,
        precision="fp32",
        backend=library,
        backend_version=version,
        onnx_sha256=manifest.files[info.files["fp32"]].sha256,
        compute_capabilities=[GPU.compute_capability],
        profile=profile_for(info.inputs, default_ranges(manifest)),
        driver=None,
        os=operating_system(),
        created="2026-01-02T03:04:05+00:00",
    )
