"""Makes runtime/rendering/data/silhouette.onnx from MediaPipe's selfie segmentation.

    pip download --no-deps mediapipe==0.10.21 && unzip -j mediapipe-0.10.21-*.whl '*/selfie_segmentation.tflite'
    pip install tflite==2.18.0
    python tools/make_silhouette.py selfie_segmentation.tflite

The network is Google's (Apache-2.0); the SHA-256 of the file is checked. Weights stay float16 in the file and are
float32 once it is loaded; uint8 comes in, as it does for the other networks here.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tflite  # pyright: ignore[reportMissingImports]
from make_landmarks import Conversion, _options
from onnx import TensorProto, helper, numpy_helper

SOURCE_SHA256 = "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c"
SIDE = 256
OPSET = 18


class Segmentation(Conversion):
    """The nodes that this network has besides."""

    def _relu(self, operator: Any, sources: list[int], target: str) -> None:
        self._kept("Relu", sources, target)

    def _hard_swish(self, operator: Any, sources: list[int], target: str) -> None:
        self._kept("HardSwish", sources, target)

    def _kept(self, kind: str, sources: list[int], target: str) -> None:
        """One value in, one out, however they lie."""
        lies = self._lies_nchw(sources[0])
        name = self._nchw(sources[0]) if lies else self._name(sources[0])
        self._node(kind, [name], f"{target}.nchw" if lies else target)

    def _average_pool_2d(self, operator: Any, sources: list[int], target: str) -> None:
        options = _options(tflite.Pool2DOptions, operator)
        _, height, width, _ = self._graph.Tensors(sources[0]).ShapeAsNumpy()
        assert (options.FilterHeight(), options.FilterWidth()) == (height, width), "all of the picture"
        self._node("GlobalAveragePool", [self._nchw(sources[0])], f"{target}.nchw")

    def _resize_bilinear(self, operator: Any, sources: list[int], target: str) -> None:
        options = _options(tflite.ResizeBilinearOptions, operator)
        assert options.HalfPixelCenters()
        assert not options.AlignCorners()
        _, height, width, _ = self._graph.Tensors(sources[0]).ShapeAsNumpy()
        rows, columns = self._ints(sources[1])
        scales = np.array([1, 1, rows / height, columns / width], np.float32)
        inputs = [self._nchw(sources[0]), "", self._stored(f"{target}.scales", scales)]
        self._node("Resize", inputs, f"{target}.nchw", mode="linear", coordinate_transformation_mode="half_pixel")

    def _custom(self, operator: Any, sources: list[int], target: str) -> None:
        """Convolution2DTransposeBias, the last one: twice as large, without overlap."""
        weight = self._weight(sources[1], lambda value: np.ascontiguousarray(value.transpose(3, 0, 1, 2)))
        inputs = [self._nchw(sources[0]), weight, self._weight(sources[2])]
        self._node("ConvTranspose", inputs, f"{target}.nchw", strides=[2, 2])


def build(raw: bytes) -> onnx.ModelProto:
    """One graph; its input and output are told in pflx.runtime.rendering.silhouette."""
    network = Segmentation(raw, "segmentation")
    (pixels,), (shares,) = network.inputs(), network.outputs()
    node = helper.make_node
    constants: dict[str, npt.NDArray[Any]] = {
        "per_level": np.array(1 / 255, np.float32),
        "shape": np.array([1, SIDE, SIDE], np.int64),
    }
    nodes = [
        node("Cast", ["picture"], ["levels"], to=TensorProto.FLOAT),
        node("Mul", ["levels", "per_level"], [pixels]),
        *network.nodes,
        node("Reshape", [shares, "shape"], ["person"]),
    ]
    graph = helper.make_graph(
        nodes,
        "silhouette",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, [1, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("person", TensorProto.FLOAT, [1, SIDE, SIDE])],
        [numpy_helper.from_array(value, name) for name, value in {**network.weights, **constants}.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    helper.set_model_props(model, {"licence": "Apache-2.0", "source": "MediaPipe selfie_segmentation.tflite"})
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Convert and write; the source's hash is checked first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("runtime/rendering/data/silhouette.onnx"))
    arguments = parser.parse_args()
    raw = arguments.source.read_bytes()
    if hashlib.sha256(raw).hexdigest() != SOURCE_SHA256:
        parser.error(f"{arguments.source} is not the file this script was written for.")
    data = build(raw).SerializeToString()
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_bytes(data)
    print(f"{arguments.output}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
