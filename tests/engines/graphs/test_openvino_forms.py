"""What OpenVINO is given in place of what stands in a file: the same numbers, by operators that it is quick with."""

from __future__ import annotations

from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from support.calibration.drawn_graphs import F32, drawn, graph_of
from torch import Tensor, nn

from pflx.calibration.precision.quantise import Scheme, layers_of, measure_ranges, prune, quantised
from pflx.engines import Array, Bundle, OpenVinoEngine, OrtEngine, TensorSpec
from pflx.engines.graphs.openvino import import_openvino
from pflx.engines.graphs.openvino_forms import take_fast_forms
from pflx.export.models.pirender import LayerNorm2d
from pflx.export.models.pirender_deploy import UpsampledConv, _layer_norm_act
from pflx.runtime.bundle_engines import CALL_SIZES

if find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

FOUND = {"phases": 1, "broadcasts": 3, "layer_norms": 2}


class Small(nn.Module):
    """The renderer's three forms, once or twice each, on few channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.given, self.first = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.up = UpsampledConv(nn.Conv2d(8, 4, 3, padding=1))
        self.norms = nn.ModuleList([LayerNorm2d(8), LayerNorm2d(4)])
        for norm in self.norms:
            for parameter in norm.parameters():
                nn.init.normal_(parameter, 1.0)

    def forward(self, features: Tensor, scale: Tensor, frames: Tensor) -> Tensor:
        """Features [P, 6, H, W], scaled [P, K, 6], beside frames [P, K, 3, H, W], drawn twice as large."""
        portraits, channels, height, width = features.shape
        spread = features[:, None] * scale[:, :, :, None, None] + scale.flip(2)[:, :, :, None, None]
        given = self.given(frames.flatten(0, 1)).view(portraits, -1, channels, height, width) + features[:, None]
        low = self.first(spread.flatten(0, 1) + given.flatten(0, 1))
        low = _layer_norm_act(low, self.norms[0])  # type: ignore[arg-type]
        return _layer_norm_act(self.up(low), self.norms[1], self.up.bias)  # type: ignore[arg-type]


SPECS = {"features": ("P", 6, 8, 12), "scale": ("P", "K", 6), "frames": ("P", "K", 3, 8, 12)}
INPUTS = {name: TensorSpec(shape, np.dtype(F32)) for name, shape in SPECS.items()}
OUTPUTS = {"image": TensorSpec(("N", 4, 16, 24), np.dtype(F32))}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forms") / "small.onnx"
    frames, portraits = torch.export.Dim("K"), torch.export.Dim("P")
    example = (torch.zeros(2, 6, 8, 12), torch.zeros(2, 3, 6), torch.zeros(2, 3, 3, 8, 12))
    dims = ({0: portraits}, {0: portraits, 1: frames}, {0: portraits, 1: frames})
    program = torch.onnx.export(
        Small().eval(), example, input_names=list(INPUTS), output_names=["image"], dynamic_shapes=dims,
        dynamo=True, opset_version=20, verbose=False,
    )  # fmt: skip
    assert program is not None
    onnx.save_model(program.model_proto, str(path))
    return path


def feeds(portraits: int, frames: int) -> dict[str, Array]:
    many = (portraits, frames)
    return {"features": drawn(portraits, 6, 8, 12), "scale": drawn(*many, 6), "frames": drawn(*many, 3, 8, 12)}


def forms_of(path: Path, shapes: dict[str, list[int]]) -> dict[str, int]:
    openvino = import_openvino()
    model = openvino.Core().read_model(path)
    model.reshape({name: openvino.PartialShape(shape) for name, shape in shapes.items()})
    return take_fast_forms(openvino, model)


def test_every_form_is_found(small: Path) -> None:
    given = {name: list(value.shape) for name, value in feeds(1, 1).items()}
    assert forms_of(small, given) == FOUND


@pytest.mark.parametrize(("portraits", "frames"), [(1, 1), (1, 4), (3, 1), (2, 2)])
def test_the_numbers_stay(small: Path, portraits: int, frames: int) -> None:
    given, sizes = feeds(portraits, frames), {"P": portraits, "K": frames, "N": portraits * frames}
    with closing(OrtEngine(small)) as exact, closing(OpenVinoEngine(small, INPUTS, OUTPUTS, sizes=sizes)) as fast:
        np.testing.assert_allclose(fast.run(given)["image"], exact.run(given)["image"], rtol=1e-5, atol=1e-5)


def test_what_is_not_known_before_a_call_is_left_as_it_is_written(small: Path) -> None:
    given = feeds(2, 3)
    with closing(OrtEngine(small)) as exact, closing(OpenVinoEngine(small, INPUTS, OUTPUTS)) as fast:
        np.testing.assert_allclose(fast.run(given)["image"], exact.run(given)["image"], rtol=1e-5, atol=1e-5)


def test_means_that_are_no_layer_norm_stay(tmp_path: Path) -> None:
    """Its two moments are of different features: rewritten, it would be another graph."""
    axes, channel = np.array([2, 3]), np.array([1])
    moments = [
        helper.make_node("ReduceMean", ["x", "axes"], ["m1"]),
        helper.make_node("ReduceMean", ["m1", "channel"], ["mean"]),
        helper.make_node("Mul", ["z", "z"], ["square"]),
        helper.make_node("ReduceMean", ["square", "axes"], ["p1"]),
        helper.make_node("ReduceMean", ["p1", "channel"], ["power"]),
        helper.make_node("Mul", ["mean", "mean"], ["mean2"]),
        helper.make_node("Sub", ["power", "mean2"], ["variance"]),
        helper.make_node("Add", ["variance", "epsilon"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["root"]),
        helper.make_node("Reciprocal", ["root"], ["inverse"]),
        helper.make_node("Mul", ["gain", "inverse"], ["scale"]),
        helper.make_node("Sub", ["zero", "mean"], ["centre"]),
        helper.make_node("Mul", ["centre", "scale"], ["moved"]),
        helper.make_node("Add", ["bias", "moved"], ["shift"]),
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["y"]),
    ]
    constants: dict[str, Any] = {
        "axes": axes,
        "channel": channel,
        "epsilon": np.array(1e-5, F32),
        "zero": np.zeros((1, 1, 1, 1), F32),
        "gain": drawn(4, 1, 1),
        "bias": drawn(4, 1, 1),
    }
    shape = [1, 4, 6, 6]
    counts = []
    for other in ("x", "z"):
        moments[2].input[:] = [other, other]
        model = graph_of(moments, {"x": shape, "z": shape}, ["y"], **constants)
        onnx.save_model(model, str(tmp_path / f"{other}.onnx"))
        counts.append(forms_of(tmp_path / f"{other}.onnx", {})["layer_norms"])
    assert counts == [1, 0]


def every_layer_in_int8(path: Path, given: dict[str, Array], folder: Path) -> Path:
    model = onnx.load(str(path))
    layers = layers_of(model, ("Conv",))
    ranges = measure_ranges(model, ("Conv",), [given], "minmax")
    quantise = quantised(model, layers, [layer.node for layer in layers], ranges, Scheme())
    onnx.save_model(prune(quantise), str(folder / "int8.onnx"))
    return folder / "int8.onnx"


@pytest.mark.parametrize("in_int8", [False, True])
def test_the_renderer_has_them_and_its_pictures_stay(exported: Path, tmp_path: Path, in_int8: bool) -> None:
    bundle = Bundle.open(exported, verify=False)
    info, path = bundle.manifest.graphs["pirender_frame"], bundle.graph_path("pirender_frame", "fp32")
    rng = np.random.default_rng(0)
    features: dict[str, Array] = {
        name: rng.standard_normal([1, *map(int, spec.shape[1:])], F32)
        for name, spec in bundle.manifest.graphs["pirender_portrait"].outputs.items()
    }
    given = {**features, "coefficients": drawn(1, 27, 58), "frames": np.array([13])}
    if in_int8:
        path = every_layer_in_int8(path, given, tmp_path)
    shapes = {name: list(value.shape) for name, value in given.items()}
    assert forms_of(path, shapes) == {"phases": 3, "broadcasts": 3, "layer_norms": 11}
    images = []
    for as_written in (True, False):
        engine = OpenVinoEngine(path, info.inputs, info.outputs, sizes=CALL_SIZES, as_written=as_written)
        with closing(engine):
            images.append(engine.run(given)["image"].astype(int))
    error = np.square(images[0] - images[1])
    if in_int8:  # a value beside a step may take the next one, in every layer
        assert error.mean() < 255**2 / 10**4
    else:
        assert error.max() <= 1
        assert error.mean() < 0.01
