"""Graphs in ONNX's text format, and those whose features are the mean levels of red, green and blue."""

from __future__ import annotations

from pathlib import Path

import onnx

MEAN_COLOURS = {
    "uint8 [N, H, W, 3]": """(uint8[N,H,W,3] pixels) => (float[N,3] features)
        <int64[2] sides = {1, 2}> {
          wide = Cast <to = 1> (pixels)
          features = ReduceMean <keepdims = 0> (wide, sides)
        }""",
    "float [N, 3, H, W]": """(float[N,3,H,W] pixels) => (float[N,3,1,1] features)
        <int64[2] sides = {2, 3}, float white = {255}> {
          wide = Mul (pixels, white)
          features = ReduceMean <keepdims = 1> (wide, sides)
        }""",
    "float16 [4, 3, 16, 24]": """(float16[4,3,16,24] pixels) => (float[4,3] features)
        <int64[2] sides = {2, 3}, float white = {255}> {
          exact = Cast <to = 1> (pixels)
          wide = Mul (exact, white)
          features = ReduceMean <keepdims = 0> (wide, sides)
        }""",
}
"""By what they take."""


def write_graph(path: Path, text: str) -> Path:
    """A graph from its text, without a name."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]>\ng {text}')
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
