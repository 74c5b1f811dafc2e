"""What INT8 is for: engines, and which operators of which graphs they compute in it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

from pflx.calibration.precision.quantise import Scheme
from pflx.engines import Manifest
from pflx.engines.bundle.manifest import without_persons

EngineName = Literal["openvino", "onnxruntime", "tensorrt"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


@dataclass(frozen=True)
class Target:
    """What the INT8 is for.

    Attributes:
        precision: name of the variant in a bundle.
        libraries: that may run it.
        scheme: how it wants its INT8.
        renderer: operators that are quantised in the graph that draws frames.
        generator: the same in the graphs that make coefficients: the matrix products of their transformers.
    """

    precision: str
    libraries: tuple[str, ...]
    scheme: Scheme
    renderer: tuple[str, ...] = ("Conv",)
    generator: tuple[str, ...] = ("MatMul", "Gemm")


TARGETS: dict[EngineName, Target] = {
    "openvino": Target("int8", ("openvino",), Scheme()),
    "onnxruntime": Target("int8", ("onnxruntime",), Scheme(outputs=True), generator=()),
    "tensorrt": Target("int8-trt", ("tensorrt", "tensorrt-rtx"), Scheme(symmetric=True)),
}
"""TensorRT's graphs are judged by ONNX Runtime, in float32 arithmetic on the values that INT8 has."""


def default_engine() -> EngineName:
    """The faster one of those that are installed for the CPU."""
    return "openvino" if find_spec("openvino") else "onnxruntime"


def quantisable(manifest: Manifest, target: Target) -> list[str]:
    """The graphs of a bundle that are quantised for a target."""
    return [name for name in manifest.graphs if operators_of(manifest, target, name)]


def operators_of(manifest: Manifest, target: Target, graph: str) -> tuple[str, ...]:
    """What is quantised in a graph; nothing in one that has neither pictures nor coefficients."""
    if graph == manifest.renderer.graphs["frame"]:
        return target.renderer
    return target.generator if graph in without_persons(manifest).generator.graphs.values() else ()
