"""A renderer of four convolutions, one of which INT8 spoils, and a bundle with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from support.calibration.drawn_graphs import F32, drawn, graph_of
from support.tiny_graphs import tiny_bundle

from pflx.engines import Bundle, write_manifest

SENSITIVE, HARMLESS = "node_planted", ["node_first", "node_second", "node_picture"]
LOUD = 5000


def painting() -> onnx.ModelProto:
    """A renderer of four convolutions; what the third one reads has a channel that is far louder than the others.

    One scale for a whole tensor then leaves nothing of the others.
    """
    loud = np.ones((1, 16, 1, 1), F32)
    loud[:, 15] = LOUD
    planted = drawn(16, 16, 3, 3, seed=3) / 12
    planted[:, 15] /= LOUD
    nodes = [
        helper.make_node("Conv", ["source", "w1"], ["first"], pads=[3] * 4),
        helper.make_node("LeakyRelu", ["first"], ["a1"], alpha=0.1),
        helper.make_node("Conv", ["a1", "w2", "bias"], ["second"], pads=[1] * 4),
        helper.make_node("LeakyRelu", ["second"], ["a2"], alpha=0.1),
        helper.make_node("Mul", ["a2", "loud"], ["shouted"]),
        helper.make_node("Conv", ["shouted", "w3"], ["planted"], pads=[1] * 4),
        helper.make_node("LeakyRelu", ["planted"], ["a3"], alpha=0.1),
        helper.make_node("Conv", ["a3", "w4"], ["picture"], pads=[3] * 4),
        helper.make_node("Gather", ["coefficients", "frames"], ["track"], axis=1),
        helper.make_node("ReduceMean", ["track", "columns"], ["glow"], keepdims=1),
        helper.make_node("Unsqueeze", ["glow", "sides"], ["light"]),
        helper.make_node("Unsqueeze", ["picture", "rows"], ["frame"]),
        helper.make_node("Add", ["frame", "light"], ["lit"]),
        helper.make_node("Sigmoid", ["lit"], ["share"]),
        helper.make_node("Mul", ["share", "white"], ["levels"]),
        helper.make_node("Transpose", ["levels"], ["turned"], perm=[0, 1, 3, 4, 2]),
        helper.make_node("Cast", ["turned"], ["image"], to=TensorProto.UINT8),
    ]
    features = {name: ["portraits", size, 64, 64] for name, size in (("warp_features", 32), ("edit_features", 64))}
    model = graph_of(
        nodes,
        {"source": ["portraits", 3, 64, 64], **features, "coefficients": ["portraits", "track", 58]},
        [],
        w1=drawn(16, 3, 7, 7, seed=1) / 12,
        w2=drawn(16, 16, 3, 3, seed=2) / 12,
        bias=drawn(16, seed=5),
        w3=planted,
        w4=drawn(3, 16, 7, 7, seed=4) / 28,
        loud=loud,
        columns=np.array([2]),
        sides=np.array([3, 4]),
        rows=np.array([1]),
        white=np.array(255, F32),
    )
    model.graph.input.append(helper.make_tensor_value_info("frames", TensorProto.INT64, ["frames"]))
    shape: list[Any] = ["portraits", "frames", 64, 64, 3]
    model.graph.output.append(helper.make_tensor_value_info("image", TensorProto.UINT8, shape))
    onnx.checker.check_model(model)
    return model


def painting_bundle(folder: Path) -> Bundle:
    """The bundle of small graphs, with that renderer."""
    bundle = tiny_bundle(folder)
    info = bundle.manifest.graphs["pirender_frame"]
    onnx.save_model(painting(), str(folder / info.files["fp32"]))
    write_manifest(folder, bundle.manifest)
    return Bundle.open(folder)
