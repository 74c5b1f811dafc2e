"""What an ONNX file takes and gives, and whether a manifest says the same."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.commands import refusal
from support.places import ROOT

from pflx.engines import Bundle, BundleCorruptError, GraphInfo, OrtEngine, TensorSpec, bundle_writer, write_manifest
from pflx.engines.graphs.onnx_interface import OnnxTensor, first_difference, read_interface
from pflx.runtime import Listener
from pflx.runtime.builtin import builtin_bundle, builtin_path
from pflx.runtime.bundle_engines import EngineSettings, open_engine

PORTRAIT = ROOT / "tests/media/portrait_astronaut_256.png"
LIBRARIES = ["onnxruntime", *(["openvino"] if find_spec("openvino") else [])]
F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
Specs = Mapping[str, TensorSpec]


def model(
    inputs: Mapping[str, tuple[int, list[int | str | None] | None]],
    outputs: Mapping[str, tuple[int, list[int | str | None] | None]],
    initializers: list[TensorProto] | None = None,
) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Identity", [next(iter(inputs))], [next(iter(outputs))])],
        "g",
        [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
        [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
        initializers or [],
    )
    content: bytes = helper.make_model(graph).SerializeToString()
    return content


PLAIN = model({"x": (TensorProto.FLOAT, ["samples", 4])}, {"y": (TensorProto.FLOAT, ["samples", 4])})
SAID = {"x": TensorSpec(("samples", 4), F32)}, {"y": TensorSpec(("samples", 4), F32)}


def test_inputs_and_outputs_are_those_that_the_library_finds() -> None:
    bundle = builtin_bundle()
    for name, graph in bundle.manifest.graphs.items():
        for precision in graph.files:
            engine = OrtEngine(bundle.graph_path(name, precision))
            for found, known in zip(
                read_interface(bundle.read_graph(name, precision)), (engine.inputs, engine.outputs), strict=True
            ):
                assert {key: str(tensor) for key, tensor in found.items()} == {
                    key: str(spec) for key, spec in known.items()
                }
            engine.close()


@pytest.mark.parametrize(
    ("element", "dtype"),
    [(getattr(TensorProto, name), name.lower()) for name in ("UINT8", "INT8", "INT32", "INT64", "BOOL", "FLOAT16")]
    + [(TensorProto.DOUBLE, "float64"), (TensorProto.BFLOAT16, "bfloat16"), (TensorProto.FLOAT8E5M2, "type 19")],
)
def test_elements_have_numpys_names(element: int, dtype: str) -> None:
    content = model({"x": (element, [1])}, {"y": (element, [1])})
    assert read_interface(content) == ({"x": OnnxTensor(dtype, (1,))}, {"y": OnnxTensor(dtype, (1,))})


def test_dimensions_may_be_known_named_or_neither() -> None:
    content = model({"x": (TensorProto.FLOAT, [2, "n", None])}, {"y": (TensorProto.FLOAT, None), "z": (1, [])})
    inputs, outputs = read_interface(content)
    assert inputs == {"x": OnnxTensor("float32", (2, "n", None))}
    assert outputs == {"y": OnnxTensor("float32", None), "z": OnnxTensor("float32", ())}
    assert [str(tensor) for tensor in (*inputs.values(), *outputs.values())] == [
        "float32 [2, n, ?]",
        "float32 of any shape",
        "float32 []",
    ]


def test_an_input_with_a_default_need_not_be_given() -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1], [0.5])
    content = model({"x": (1, [1]), "w": (1, [1])}, {"y": (1, [1])}, [weights])
    assert read_interface(content)[0].keys() == {"x"}


def said(inputs: Specs | None = None, outputs: Specs | None = None) -> str | None:
    return first_difference(PLAIN, SAID[0] if inputs is None else inputs, SAID[1] if outputs is None else outputs)


@pytest.mark.parametrize("shape", [("samples", 4), ("anything", 4), (3, 4)])
def test_a_dynamic_dimension_has_any_name_and_serves_for_a_size(shape: tuple[int | str, ...]) -> None:
    assert said({"x": TensorSpec(shape, F32)}) is None
    assert said(outputs={"y": TensorSpec(shape, F32)}) is None


@pytest.mark.parametrize(
    ("inputs", "difference"),
    [
        ({"x": TensorSpec(("samples", 5), F32)}, "as float32 [samples, 4]; its manifest says float32 [samples, 5]"),
        ({"x": TensorSpec(("samples", "n"), F32)}, "as float32 [samples, 4]; its manifest says float32 [samples, n]"),
        ({"x": TensorSpec((4,), F32)}, "as float32 [samples, 4]; its manifest says float32 [4]"),
        ({"x": TensorSpec(("samples", 4), I64)}, "as float32 [samples, 4]; its manifest says int64 [samples, 4]"),
    ],
)
def test_another_shape_or_dtype_is_a_difference(inputs: Specs, difference: str) -> None:
    assert said(inputs) == f"takes 'x' {difference}"
    assert said(outputs={"y": inputs["x"]}) == f"gives 'y' {difference}"


def test_tensors_that_are_not_there_or_not_said_are_a_difference() -> None:
    spec = SAID[0]["x"]
    assert said({"a": spec}) == "takes no 'a', which its manifest says is float32 [samples, 4]; it takes x"
    assert said({"x": spec, "b": spec}) == "takes no 'b', which its manifest says is float32 [samples, 4]; it takes x"
    assert said({}) == "takes 'x', float32 [samples, 4], of which its manifest says nothing"
    assert said(outputs={}) == "gives 'y', float32 [samples, 4], of which its manifest says nothing"


def test_no_bytes_raise_anything_but_that_they_are_none() -> None:
    whole, draw = builtin_bundle().read_graph("posnet")[:4000] + PLAIN, random.Random(0)
    for _ in range(2000):
        content = bytearray(draw.choice((PLAIN, whole, draw.randbytes(draw.randrange(200)))))
        for _ in range(draw.randrange(4)):
            if content:
                content[draw.randrange(len(content))] = draw.randrange(256)
        try:
            read_interface(bytes(content[: draw.randrange(len(content) + 1)]))
        except ValueError:
            continue


def resealed(target: Path, change: Callable[[dict[str, GraphInfo]], object]) -> Path:
    """The listener that comes with pflx, its manifest telling something else of its graphs."""
    manifest = builtin_bundle().manifest
    graphs = dict(manifest.graphs)
    change(graphs)
    with bundle_writer(target) as folder:
        shutil.copytree(builtin_path(), folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        write_manifest(folder, msgspec.structs.replace(manifest, graphs=graphs))
    return target


def other_inputs(graphs: dict[str, GraphInfo]) -> None:
    """As with a hop of 9."""
    posnet = graphs["posnet"]
    inputs = {**posnet.inputs, "segment": TensorSpec(("samples", 9, 58), F32)}
    graphs["posnet"] = msgspec.structs.replace(posnet, inputs=inputs)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_graph_that_is_not_as_its_manifest_says_is_refused_at_opening(tmp_path: Path, library: str) -> None:
    path = resealed(tmp_path / "me.pflx", other_inputs)
    expected = (
        f"{path}: graph 'posnet' (graphs/posnet.fp32.onnx) takes 'segment' as float32 [samples, 8, 58]; its manifest "
        "says float32 [samples, 9, 58]. Export it again."
    )
    settings = EngineSettings(library)  # type: ignore[arg-type]
    with pytest.raises(BundleCorruptError) as caught:
        open_engine(Bundle.open(path), "posnet", None, settings)
    assert str(caught.value) == expected
    with pytest.raises(BundleCorruptError) as caught:
        Listener.open(path, PORTRAIT, engines=settings)
    assert str(caught.value) == expected


def test_commands_that_open_no_graph_say_the_same(tmp_path: Path) -> None:
    path = resealed(tmp_path / "me.pflx", other_inputs)
    for verb in ("inspect", "build"):
        assert "graph 'posnet' (graphs/posnet.fp32.onnx) takes 'segment' as float32" in refusal(verb, path)


def test_a_variant_is_compared_too(tmp_path: Path) -> None:
    path = resealed(tmp_path / "me.pflx", lambda graphs: None)
    wide = onnx.load(path / "graphs/posnet.fp16.onnx")
    wide.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    manifest = Bundle.open(path).manifest
    onnx.save(wide, path / "graphs/posnet.fp16.onnx")
    (path / "manifest.json").unlink()
    write_manifest(path, manifest)
    Bundle.open(path).check_graphs("fp32")
    with pytest.raises(BundleCorruptError, match=r"\(graphs/posnet\.fp16\.onnx\) gives 'smoothed' as float16"):
        Bundle.open(path).check_graphs()
