"""A bundle that takes persons and runs in milliseconds: PerFRDiff's graphs by name, over the warp renderer's own.

A denoising step predicts half of what the speaker did and a tenth of its noise, plus a number for each coefficient: the
sums of the rows of a head, times the mean of two products. Nobody's head is ones.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from support.tiny_graphs import parsed

from pflx.engines import Bundle, GraphInfo, Provenance, SmootherInfo, TensorSpec, write_manifest
from pflx.runtime.builtin import builtin_path
from pflx.runtime.frames.arrays import Float32Array
from pflx.runtime.persons import Person

DENOISER = "0d" * 32
SHAPES = {
    "to_3dmm_expr.weight": (52, 4),
    "to_3dmm_pos.weight": (6, 4),
    "decoder.layers.6.linear1.weight": (3, 2),
    "decoder.layers.6.linear2.weight": (2, 3),
}
_CONDITION = """(float[1,50,58] coefficients, float[1,50,78] mfcc) => (float[1,50,58] keys, float[1,50,1] values)
<float half = {0.5}, int64[1] last = {2}>
{
  keys = Mul (coefficients, half)
  values = ReduceMean <keepdims = 1> (mfcc, last)
}"""
_INPUTS = """float[samples,50,58] x, float[samples,50,58] previous, int64[1] step, float[3] update, float[1,50,58] keys,
 float[1,50,1] values"""
_STEP = """
  few = Mul (x, tenth)
  heard = Mul (values, tenth)
  seen = Add (keys, heard)
  about = Add (seen, own)
  clean = Add (about, few)
  fresh = Gather (update, zero)
  kept = Gather (update, one)
  before = Gather (update, two)
  a = Mul (clean, fresh)
  b = Mul (x, kept)
  c = Mul (previous, before)
  ab = Add (a, b)
  next = Add (ab, c)
}"""
_NUMBERS = "float tenth = {0.1}, int64 zero = {0}, int64 one = {1}, int64 two = {2}"
_OUTPUTS = "=> (float[samples,50,58] next, float[samples,50,58] clean)"
_DENOISE = f"({_INPUTS}) {_OUTPUTS} <{_NUMBERS}, float own = {{0.04}}> {{{_STEP}"
_PERSONAL = f"""({_INPUTS}, float[52,4] w0, float[6,4] w1, float[3,2] w2, float[2,3] w3) {_OUTPUTS}
<{_NUMBERS}, int64[1] columns = {{1}}, float part = {{0.01}}> {{
  head = Concat <axis = 0> (w0, w1)
  sums = ReduceSum <keepdims = 0> (head, columns)
  product = MatMul (w2, w3)
  middle = ReduceMean <keepdims = 0> (product)
  scaled = Mul (sums, middle)
  own = Mul (scaled, part){_STEP}"""
_EMPTY_POSNET = """(float[samples,25,58] segment, float[samples,6] last_pose)
=> (float[samples,25,58] smoothed, float[samples,6] pose)
<int64[1] split = {52}, int64[1] size = {58}, int64[1] columns = {2}, int64 last = {24}>
{
  smoothed = Identity (segment)
  head = Slice (segment, split, size, columns)
  pose = Gather <axis = 1> (head, last)
}"""


def made_up_person(seed: int, name: str = "", **changed: Any) -> Person:
    """A person of the bundle below; the parts of its predictions that are its own are about 0.1."""
    rng = np.random.default_rng(seed)
    head, ones = dict(list(SHAPES.items())[:2]), dict(list(SHAPES.items())[2:])
    weights = {each: rng.uniform(-5, 5, shape).astype(np.float32) for each, shape in head.items()}
    weights |= {each: np.ones(shape, np.float32) for each, shape in ones.items()}
    facts: dict[str, Any] = {"denoiser": DENOISER, "encoder": "e" * 64, "hypernetwork": "f" * 64, "mode": "shift"}
    facts |= {"frames": 750, "source": "clip.npy", "created": "2026-07-01T12:00:00Z"}
    facts |= {"style": rng.standard_normal(512, np.float32), "weights": weights}
    return Person(name=name or f"person {seed}", **{**facts, **changed})


def own_part(person: Person | None) -> Float32Array:
    """float32 [58], the part of a person in every prediction; of nobody for None."""
    if person is None:
        return np.full(58, 0.04, np.float32)
    head, pose, first, second = (person.weights[name] for name in SHAPES)
    return np.asarray(np.concatenate((head, pose)).sum(axis=1) * (first @ second).mean() * 0.01, np.float32)


def personal_bundle(folder: Path, *, persons: bool = True) -> Bundle:
    """Make the bundle.

    Args:
        folder: that it becomes.
        persons: False leaves out the graph for persons, as bundles were before.
    """
    shutil.copytree(builtin_path(), folder, copy_function=shutil.copy)
    manifest = Bundle.open(folder, verify=False).manifest
    (folder / "graphs/posnet.fp32.onnx").unlink(missing_ok=True)
    texts = {"perfrdiff_condition": _CONDITION, "perfrdiff_denoise": _DENOISE, "posnet": _EMPTY_POSNET}
    if persons:
        texts["perfrdiff_personal"] = _PERSONAL
    gone = {*manifest.generator.graphs.values(), *manifest.smoother.graphs.values()}
    graphs = {name: info for name, info in manifest.graphs.items() if name not in gone}
    for name in gone:
        for file in manifest.graphs[name].files.values():
            (folder / file).unlink(missing_ok=True)
    for name, text in texts.items():
        graphs[name] = _written(folder, name, text, manifest.precision)
    roles = [name.removeprefix("perfrdiff_") for name in texts if name != "posnet"]
    generator = msgspec.structs.replace(
        manifest.generator,
        name="perfrdiff",
        window=50,
        hop=25,
        needs=["coefficients", "mfcc"],
        graphs={role: f"perfrdiff_{role}" for role in roles},
        settings={"mfcc_min": -110.0, "mfcc_max": 85.0},
    )
    provenance = [each for each in manifest.provenance if each.slot != "generator"]
    write_manifest(
        folder,
        msgspec.structs.replace(
            manifest,
            sample_rate_hz=44_100,
            generator=generator,
            smoother=SmootherInfo(name="posnet", slide=25, graphs={"smooth": "posnet"}),
            graphs=graphs,
            provenance=[*provenance, Provenance(slot="generator", source="tiny.pth", sha256=DENOISER, keys=4)],
        ),
    )
    return Bundle.open(folder)


def _written(folder: Path, name: str, text: str, precision: str) -> GraphInfo:
    model = parsed(name, text)
    called = {f"w{place}": tensor for place, tensor in enumerate(SHAPES)}
    for value in model.graph.input:
        value.name = called.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [called.get(each, each) for each in node.input]
    file = f"graphs/{name}.{precision}.onnx"
    onnx.save_model(model, str(folder / file))
    inputs, outputs = (dict(map(_spec, values)) for values in (model.graph.input, model.graph.output))
    return GraphInfo(inputs=inputs, outputs=outputs, parameters=0, opset=20, files={precision: file})


def _spec(value: onnx.ValueInfoProto) -> tuple[str, TensorSpec]:
    kind = value.type.tensor_type
    shape = tuple(axis.dim_param or axis.dim_value for axis in kind.shape.dim)
    return value.name, TensorSpec(shape, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)))
