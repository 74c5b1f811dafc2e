"""A whole bundle of real ONNX graphs that take milliseconds, with the names and shapes of `fakes`.

The renderer can be planted with a step that leaves the range of FP16: the root mean square of a picture that was
scaled up, as a norm takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import onnx
from support.fakes import HOP, SIZE, fake_manifest

from pflx.engines import Bundle, write_manifest
from pflx.export.mixed import convert

SCALE = 4096
"""The picture is at most 1; its square, so scaled, is 256 times the largest FP16 number."""
OVERFLOWING = ["node_square", "node_power", "node_root"]

_SPEAKER = """(uint8[speakers,8,224,224,3] video, float[speakers,5120] audio)
=> (float[speakers,8,128] speaker_motion, float[speakers,16,128] speaker_audio)
<int64[3] pixels = {2, 3, 4}, int64[3] rows = {-1, 16, 320}, int64[1] last = {2}, int64[1] end = {-1},
 float low = {0.5}, float step = {0.02}, int64 zero = {0}, int64 count = {128}, int64 one = {1}, float bright = {0.03}>
{
  seen = Cast <to = 1> (video)
  mean = ReduceMean <keepdims = 0> (seen, pixels)
  column = Unsqueeze (mean, end)
  range = Range (zero, count, one)
  numbers = Cast <to = 1> (range)
  steps = Mul (numbers, step)
  waves = Add (steps, low)
  dark = Mul (column, bright)
  phases = Mul (dark, waves)
  speaker_motion = Sin (phases)
  sound = Reshape (audio, rows)
  loud = Abs (sound)
  loudness = ReduceMean <keepdims = 1> (loud, last)
  tones = Mul (loudness, waves)
  speaker_audio = Cos (tones)
}"""

_LISTENER = """(float[1,8,128] speaker_motion, float[1,16,128] speaker_audio, float[samples,8,58] past_reaction,
 float[samples,128] past_motion, float[samples,128] eps, bool[1] first)
=> (float[samples,8,58] reaction, float[samples,128] motion)
<int64[2] begin = {0, 0}, int64[2] end = {16, 58}, int64[2] axes = {1, 2}, int64[2] steps = {2, 1},
 int64[1] one = {1}, float part = {0.3}, float half = {0.5}, int64[1] rows = {7}, int64[1] rows_end = {8},
 float[1,1,1] zero = {0}, int64[1] left = {0}, int64[1] columns = {58}>
{
  chosen = Slice (speaker_audio, begin, end, axes, steps)
  heard = Mul (chosen, part)
  last = Slice (past_reaction, rows, rows_end, one)
  known = Where (first, zero, last)
  past = Mul (known, half)
  fading = Mul (past_motion, half)
  motion = Add (fading, eps)
  few = Slice (motion, left, columns, one)
  noise = Unsqueeze (few, one)
  quiet = Mul (noise, part)
  steady = Add (past, heard)
  reaction = Add (steady, quiet)
}"""

_POSNET = """(float[samples,8,58] segment, float[samples,6] last_pose)
=> (float[samples,8,58] smoothed, float[samples,6] pose)
<int64[1] zero = {0}, int64[1] split = {52}, int64[1] size = {58}, int64[1] rows = {1}, int64[1] columns = {2},
 int64 last = {7}, int64 begin = {0}, float[1,8,1] fade = {1, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0}>
{
  face = Slice (segment, zero, split, columns)
  head = Slice (segment, split, size, columns)
  start = Gather <axis = 1> (head, begin)
  jump = Sub (last_pose, start)
  wide = Unsqueeze (jump, rows)
  shift = Mul (wide, fade)
  moved = Add (head, shift)
  smoothed = Concat <axis = 2> (face, moved)
  pose = Gather <axis = 1> (moved, last)
}"""

_PORTRAIT = """(uint8[portraits,SIZE,SIZE,3] portrait)
=> (float[portraits,3,SIZE,SIZE] source, float[portraits,32,SIZE,SIZE] warp_features,
 float[portraits,64,SIZE,SIZE] edit_features)
<float white = {255}, int64[1] zero = {0}, int64[1] one = {1}, int64[4] few = {1, 32, 1, 1},
 int64[4] many = {1, 64, 1, 1}>
{
  pixels = Cast <to = 1> (portrait)
  planes = Transpose <perm = [0, 3, 1, 2]> (pixels)
  source = Div (planes, white)
  red = Slice (source, zero, one, one)
  warp_features = Tile (red, few)
  edit_features = Tile (red, many)
}"""

_FRAME = """(float[portraits,3,SIZE,SIZE] source, float[portraits,32,SIZE,SIZE] warp_features,
 float[portraits,64,SIZE,SIZE] edit_features, float[portraits,track,58] coefficients, int64[frames] frames)
=> (uint8[portraits,frames,SIZE,SIZE,3] image)
<int64[1] column = {2}, int64[3] planes = {2, 3, 4}, int64[1] rows = {1}, int64[2] sides = {3, 4},
 float scale = {SCALE}, float half = {0.5}, float grey = {90}, float black = {0}, float white = {255}>
{
  track = Gather <axis = 1> (coefficients, frames)
  mean = ReduceMean <keepdims = 1> (track, column)
  glow = Unsqueeze (mean, sides)
  picture = Unsqueeze (source, rows)
  soft = Mul (picture, half)
  lit = Add (soft, glow)
  bounded = Sigmoid (lit)
  large = Mul (bounded, scale)
  square = Mul (large, large)
  power = ReduceMean <keepdims = 1> (square, planes)
  root = Sqrt (power)
  normal = Div (large, root)
  bright = Mul (normal, grey)
  levels = Clip (bright, black, white)
  turned = Transpose <perm = [0, 1, 3, 4, 2]> (levels)
  image = Cast <to = 2> (turned)
}"""

_TEXTS = {
    "reactface_speaker": _SPEAKER,
    "reactface_listener": _LISTENER,
    "posnet": _POSNET,
    "pirender_portrait": _PORTRAIT,
    "pirender_frame": _FRAME,
}

GRAPHS = ("reactface_speaker", "reactface_listener", "posnet", "pirender_portrait", "pirender_frame")
NEIGHBOURS = """(float[n,4] x, float[n,4] y) => (float[n,4] sum, float[n,8] both)
<float[4,4] weight = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}, float scale = {1000}, int64[1] axes = {1}>
{
  large = Mul (x, scale)
  larger = Mul (large, scale)
  flat = ReduceMean <keepdims = 1> (larger, axes)
  small = Div (larger, flat)
  product = MatMul (small, weight)
  sum = Add (product, y)
  both = Concat <axis = 1> (sum, larger)
}"""


def parsed(name: str, text: str) -> onnx.ModelProto:
    """A graph from ONNX's text form; each node is named after its first output."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]>\n{name} {text}')
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"
    onnx.checker.check_model(model, full_check=True)
    return model


def tiny_graph(name: str, *, scale: float = SCALE) -> onnx.ModelProto:
    """One of the five graphs."""
    return parsed(name, _TEXTS[name].replace("SIZE", str(SIZE)).replace("SCALE", str(scale)))


def tiny_bundle(folder: Path, *, scale: float = SCALE, islands: Mapping[str, list[str]] | None = None) -> Bundle:
    """A bundle of all five.

    Args:
        folder: to make.
        scale: with 1, nothing leaves the range of FP16.
        islands: graph to the nodes in FP32 of FP16 graphs; None for a bundle without them.
    """
    assert HOP == 8, "the graphs say so"
    (folder / "graphs").mkdir(parents=True)
    manifest = fake_manifest()
    graphs = dict(manifest.graphs)
    for name, info in manifest.graphs.items():
        path = folder / info.files["fp32"]
        onnx.save_model(tiny_graph(name, scale=scale), str(path))
        if islands is not None:
            kept, file = islands.get(name, []), f"graphs/{name}.fp16.onnx"
            convert(path, kept, folder / file)
            graphs[name] = msgspec.structs.replace(info, files={**info.files, "fp16": file}, fp32_nodes={"fp16": kept})
    (folder / "report.json").write_text('{"graphs": {}, "end_to_end": {}}')
    write_manifest(folder, msgspec.structs.replace(manifest, graphs=graphs))
    return Bundle.open(folder)


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / f"{model.graph.name}.fp32.onnx"
    onnx.save_model(model, str(path))
    return path
