"""Building engines on this machine, with or without a GPU, and what their passports are compared with."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.sample_bundle import sample_manifest

from pflx.engines import Bundle, BundleError, DeviceError, bundle_writer, write_manifest
from pflx.engines.building.build import build_bundle_engines, build_engine, default_ranges, profile_for
from pflx.engines.building.compiler import EngineBuildError
from pflx.engines.bundle.bundle import file_info
from pflx.engines.bundle.driver import find_gpus
from pflx.engines.bundle.engine_passport import Passport
from pflx.engines.files.writer import OutputError
from pflx.engines.graphs.protocol import TensorSpec, import_backend

F, F16, I64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
U8, BOOL = TensorProto.UINT8, TensorProto.BOOL
RNG = np.random.default_rng(0)


needs_rtx = pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")


class Graph:
    """Collects the nodes of a small graph, one line each."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.ranges = {"P": (1, 1, 4), "T": (1, 34, 42), "K": (1, 1, 8)}
        self.specs: dict[str, TensorSpec] = {}

    def take(self, name: str, kind: int, *shape: int | str) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        self.specs[name] = TensorSpec(shape, helper.tensor_dtype_to_np_dtype(kind))
        return name

    def weight(self, *values: Any, dtype: Any = np.int64) -> str:
        name = f"w{len(self.weights)}"
        data = values[0] if isinstance(values[0], np.ndarray) else list(values)
        self.weights.append(numpy_helper.from_array(np.array(data, dtype), name))
        return name

    def __call__(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def save(self, path: Path, result: str, kind: int, rank: int) -> Path:
        return self.save_as(path, result, helper.make_tensor_value_info("result", kind, [None] * rank))

    def save_as(self, path: Path, result: str, out: onnx.ValueInfoProto) -> Path:
        assert self.nodes[-1].output[0] == result
        self.nodes[-1].output[0] = out.name
        graph = helper.make_graph(self.nodes, path.stem, self.inputs, [out], self.weights)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        onnx.save(model, path)
        return path


def random(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return (RNG.standard_normal(shape) * 0.1).astype(dtype)


def bytes_in(g: Graph) -> tuple[str, int, int]:
    portrait = g("Cast", g.take("portrait", U8, "P", 16, 16, 3), to=F)
    scaled = g("Div", portrait, g.weight(127.5, dtype=np.float32))
    return g("Transpose", g("Sub", scaled, g.weight(1.0, dtype=np.float32)), perm=[0, 3, 1, 2]), F, 4


def bytes_out(g: Graph) -> tuple[str, int, int]:
    image = g("Mul", g.take("image", F, "P", 3, 16, 16), g.weight(127.5, dtype=np.float32))
    low, high = (g.weight(np.array(value), dtype=np.float32) for value in (0, 255))
    rounded = g("Round", g("Clip", image, low, high))
    return g("Cast", g("Transpose", rounded, perm=[0, 2, 3, 1]), to=U8), U8, 4


def first_step(g: Graph) -> tuple[str, int, int]:
    past = g.take("past", F, "P", 8, 58)
    nothing = g("Mul", past, g.weight(0.0, dtype=np.float32))
    return g("Where", g.take("first", BOOL, 1), nothing, past), F, 3


def window_gather(g: Graph) -> tuple[str, int, int]:
    motion, frames = g.take("motion", F, "P", "T", 58), g.take("frames", I64, "K")
    around = g("Add", g("Unsqueeze", frames, g.weight(1)), g.weight(*range(-13, 14)))
    last = g("Sub", g("Shape", motion, start=1, end=2), g.weight(1))
    return g("Gather", motion, g("Min", g("Max", around, g.weight(0)), last), axis=1), F, 4


def dynamic_instance_norm(g: Graph) -> tuple[str, int, int]:
    features = g.take("features", F, "P", 8, 16, 16)
    scale = g("Reshape", g.take("scale", F, "P", 8), g.weight(-1))
    bias = g("Reshape", g.take("bias", F, "P", 8), g.weight(-1))
    one = g("Reshape", features, g.weight(1, -1, 16, 16))
    normed = g("InstanceNormalization", one, scale, bias, epsilon=1e-5)
    return g("Reshape", normed, g("Shape", features)), F, 4


def warp(g: Graph) -> tuple[str, int, int]:
    flow = g("Transpose", g.take("flow", F, "P", 2, 8, 8), perm=[0, 1, 2, 3])
    larger = g("Resize", flow, "", g.weight(1, 1, 4, 4, dtype=np.float32), mode="linear")
    grid = g("Transpose", larger, perm=[0, 2, 3, 1])
    shape = g("Concat", g("Shape", grid, start=0, end=1), g.weight(3, 32, 32), axis=0)
    source = g("Expand", g.take("source", F, 1, 3, 32, 32), shape)
    return g("GridSample", source, grid, mode="linear", padding_mode="zeros", align_corners=0), F, 4


def convolutions(g: Graph, kind: int = F) -> tuple[str, int, int]:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    x = g.take("x", kind, "P", 8, 16, 16)
    x = g("Conv", x, g.weight(random(8, 8, 3, 3), dtype=dtype), pads=[1, 1, 1, 1])
    x = g("LeakyRelu", x, alpha=0.1)
    x = g("ConvTranspose", x, g.weight(random(8, 12, 4, 4), dtype=dtype), strides=[2, 2], pads=[1, 1, 1, 1])
    return g("DepthToSpace", x, blocksize=2, mode="CRD"), kind, 4


def half_convolutions(g: Graph) -> tuple[str, int, int]:
    return convolutions(g, F16)


def transformer_block(g: Graph) -> tuple[str, int, int]:
    x = g.take("x", F, "P", "T", 16)
    normed = g("LayerNormalization", x, g.weight(np.ones(16), dtype=np.float32), axis=-1)
    shape = g("Concat", g("Shape", x, start=0, end=2), g.weight(2, 8), axis=0)
    heads = g("Transpose", g("Reshape", normed, shape), perm=[0, 2, 1, 3])
    scores = g("Softmax", g("MatMul", heads, g("Transpose", heads, perm=[0, 1, 3, 2])), axis=-1)
    mixed = g("Transpose", g("MatMul", scores, heads), perm=[0, 2, 1, 3])
    flat = g("Reshape", mixed, g("Concat", g("Shape", x, start=0, end=2), g.weight(-1), axis=0))
    half = g("Mul", g("Erf", flat), g.weight(0.5, dtype=np.float32))
    return g("Add", g("Gelu", x), half), F, 3


GRAPHS: list[Callable[[Graph], tuple[str, int, int]]] = [
    bytes_in,
    bytes_out,
    first_step,
    window_gather,
    dynamic_instance_norm,
    warp,
    convolutions,
    half_convolutions,
    transformer_block,
]


def saved(make: Callable[[Graph], tuple[str, int, int]], folder: Path) -> tuple[Path, Graph]:
    graph = Graph()
    return graph.save(folder / f"{make.__name__}.onnx", *make(graph)), graph


def build(make: Callable[[Graph], tuple[str, int, int]], folder: Path, **options: Any) -> Passport:
    path, graph = saved(make, folder)
    profile = profile_for(graph.specs, graph.ranges)
    return build_engine(
        path, path.with_suffix(".plan"), backend="tensorrt-rtx", profile=profile, precision="fp32", **options
    )


@needs_rtx
@pytest.mark.parametrize("make", GRAPHS)
def test_what_the_networks_are_made_of_builds_for_rtx(
    tmp_path: Path, make: Callable[[Graph], tuple[str, int, int]]
) -> None:
    passport = build(make, tmp_path)
    onnx_path, plan = tmp_path / f"{make.__name__}.onnx", tmp_path / passport.file
    assert plan.stat().st_size > 10_000
    assert passport.graph == make.__name__
    assert passport.onnx_sha256 == file_info(onnx_path).sha256
    assert {"sm_86", "sm_89", "sm_120"} <= set(passport.compute_capabilities)
    assert sorted(tmp_path.iterdir()) == [onnx_path, plan]


@needs_rtx
def test_a_built_engine_is_well_formed_and_garbage_is_not(tmp_path: Path) -> None:
    passport = build(bytes_out, tmp_path)
    trt = import_backend("tensorrt_rtx", "")
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    malformed = int(trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE)
    assert not runtime.get_engine_validity((tmp_path / passport.file).read_bytes())[1] & malformed
    assert runtime.get_engine_validity(b"?" * 4096)[1] & malformed


@needs_rtx
def test_only_the_chosen_generations_are_built_for(tmp_path: Path) -> None:
    assert build(bytes_out, tmp_path, compute_capabilities=["sm_89"]).compute_capabilities == ["sm_89"]
    with pytest.raises(DeviceError, match=r"sm_90; it has sm_75, sm_80"):
        build(bytes_out, tmp_path, compute_capabilities=["sm_89", "sm_90"])


@needs_rtx
def test_progress_counts_the_steps_of_each_phase(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    build(bytes_out, tmp_path, progress=lambda *step: seen.append(step))
    phases = {phase for phase, _, _ in seen}
    assert all(0 <= done <= total for _, done, total in seen)
    for phase in phases:
        assert any(done == total for name, done, total in seen if name == phase)


@needs_rtx
@pytest.mark.parametrize("after", [0, 7])
def test_an_interrupt_during_a_build_stops_it_and_leaves_no_engine(tmp_path: Path, after: int) -> None:
    steps = iter(range(after))

    def stop(phase: str, step: int, total: int) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(bytes_out, tmp_path, progress=stop)
    assert list(tmp_path.iterdir()) == [tmp_path / "bytes_out.onnx"]


def unsupported(g: Graph) -> tuple[str, int, int]:
    return g("BiasGelu", g.take("x", F, "P", 4), g.weight(random(4)), domain="com.microsoft"), F, 2


def broken_types(g: Graph) -> tuple[str, int, int]:
    return g("Add", g.take("x", F, "P", 4), g.take("h", F16, "P", 4)), F, 2


@needs_rtx
@pytest.mark.parametrize("make", [unsupported, broken_types])
def test_a_rejected_graph_names_its_node_and_operator(
    tmp_path: Path, make: Callable[[Graph], tuple[str, int, int]]
) -> None:
    with pytest.raises(EngineBuildError, match=r"(BiasGelu|Add) node 'n0'") as caught:
        build(make, tmp_path)
    assert "\n" not in str(caught.value)


@needs_rtx
def test_a_file_that_is_no_graph_does_not_parse(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"garbage")
    with pytest.raises(EngineBuildError, match=r"x\.onnx does not parse"):
        build_engine(tmp_path / "x.onnx", tmp_path / "x.plan", backend="tensorrt-rtx", profile={}, precision="fp32")


@needs_rtx
@pytest.mark.parametrize(
    "profile", [{}, {"x": ((1, 4), (1, 5), (4, 4))}, {"x": ((0, 4), (1, 4), (4, 4))}, {"x": ((1,),) * 3}]
)
def test_a_profile_that_does_not_fit_is_refused(tmp_path: Path, profile: Any) -> None:
    graph = Graph()
    path = graph.save(tmp_path / "x.onnx", graph("Relu", graph.take("x", F, "P", 4)), F, 2)
    with pytest.raises(EngineBuildError, match=r"input 'x' has shape \[-1, 4\]"):
        build_engine(path, tmp_path / "x.plan", backend="tensorrt-rtx", profile=profile, precision="fp32")


@needs_rtx
def test_a_profile_whose_sizes_are_out_of_order_is_refused(tmp_path: Path) -> None:
    graph = Graph()
    path = graph.save(tmp_path / "x.onnx", graph("Relu", graph.take("x", F, "P", 4)), F, 2)
    with pytest.raises(EngineBuildError):
        build_engine(
            path,
            tmp_path / "x.plan",
            backend="tensorrt-rtx",
            profile={"x": ((4, 4), (2, 4), (1, 4))},
            precision="fp32",
        )


@pytest.mark.parametrize("place", ["absent/x.plan", "file/x.plan"])
def test_an_engine_that_cannot_be_written_is_known_before_it_is_built(tmp_path: Path, place: str) -> None:
    path, graph = saved(bytes_out, tmp_path)
    (tmp_path / "file").write_text("")
    profile = profile_for(graph.specs, graph.ranges)
    with pytest.raises(OutputError, match="is no folder"):
        build_engine(path, tmp_path / place, backend="tensorrt-rtx", profile=profile, precision="fp32")


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"x\.onnx: no such file"):
        build_engine(tmp_path / "x.onnx", tmp_path / "x.plan", backend="tensorrt-rtx", profile={}, precision="fp32")


@pytest.mark.skipif(bool(find_gpus()), reason="this machine has a GPU")
def test_full_tensorrt_without_a_gpu_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    path, graph = saved(bytes_out, tmp_path)
    profile = profile_for(graph.specs, graph.ranges)
    with pytest.raises(DeviceError, match="there is no NVIDIA driver or GPU here"):
        build_engine(path, tmp_path / "x.plan", backend="tensorrt", profile=profile, precision="fp32")
    assert "tensorrt" not in sys.modules


def write_bundle(target: Path) -> Path:
    """A bundle whose five graphs double their input, in two precisions."""
    with bundle_writer(target) as folder:
        manifest = sample_manifest(("fp32", "fp16"))
        (folder / "graphs").mkdir()
        for info in manifest.graphs.values():
            for file in info.files.values():
                graph = Graph()
                x = graph.take("x", F, "samples", 4)
                out = helper.make_tensor_value_info("y", F, ["samples", 4])
                graph.save_as(folder / file, graph("Add", x, x), out)
        write_manifest(folder, manifest)
    return target


@needs_rtx
def test_every_graph_of_a_bundle_gets_an_engine_and_a_passport(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "me.pflx")
    phases: set[str] = set()
    built = build_bundle_engines(
        path, "tensorrt-rtx", "fp16", progress=lambda phase, *_: phases.add(phase.partition(":")[0])
    )
    bundle = Bundle.open(path)
    assert bundle.manifest.engines == built
    assert [passport.graph for passport in built] == list(bundle.manifest.graphs)
    assert phases == set(bundle.manifest.graphs)
    for passport in built:
        assert passport.precision == "fp16"
        assert passport.onnx_sha256 == file_info(bundle.graph_path(passport.graph, "fp16")).sha256
        assert (path / passport.file).is_file()
    build_bundle_engines(path, "tensorrt-rtx", "fp16", compute_capabilities=["sm_89"])
    again = Bundle.open(path).manifest.engines
    assert [passport.compute_capabilities for passport in again] == [["sm_89"]] * 5
    assert len(list((path / "engines").iterdir())) == 5


@needs_rtx
def test_a_build_that_is_killed_half_way_leaves_a_valid_bundle(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "me.pflx")
    code = f"from pflx.engines.building.build import build_bundle_engines as b; b({str(path)!r}, 'tensorrt-rtx')"
    builder = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while builder.poll() is None and not (path / "engines").is_dir():
        time.sleep(0.002)
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    Bundle.open(path)
    assert len(build_bundle_engines(path, "tensorrt-rtx")) == 5
    assert Bundle.open(path).manifest.engines
    assert len(list((path / "engines").iterdir())) == 5


@needs_rtx
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_build_and_finished_engines_stay(tmp_path: Path, how: signal.Signals) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it, and its children do
    path = write_bundle(tmp_path / "me.pflx")
    command = [sys.executable, "-m", "pflx", "build", str(path)]
    builder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while builder.poll() is None and not Bundle.open(path, verify=False).manifest.engines:
        time.sleep(0.002)
    builder.send_signal(how)
    _, said = builder.communicate(timeout=60)
    assert (builder.returncode, said.splitlines()[-1]) == (128 + how, "pflx: Stopped. Nothing half-written was left.")
    engines = Bundle.open(path, verify=True).manifest.engines
    assert 1 <= len(engines) < 5
    assert {file.name for file in (path / "engines").iterdir()} == {Path(engine.file).name for engine in engines}


@needs_rtx
def test_what_is_raised_while_the_library_works_stops_it_and_is_raised(tmp_path: Path) -> None:
    path, graph = saved(bytes_out, tmp_path)
    profile = profile_for(graph.specs, graph.ranges)

    def stop(phase: str, done: int, total: int) -> None:
        raise LookupError(phase)

    with pytest.raises(LookupError):
        build_engine(
            path, tmp_path / "x.plan", backend="tensorrt-rtx", profile=profile, precision="fp32", progress=stop
        )
    assert not (tmp_path / "x.plan").exists()


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No graph may be compiled."""

    def compile_graph(*_: object, **__: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr("pflx.engines.building.build.compile_graph", compile_graph)


@needs_rtx
@pytest.mark.usefixtures("untouched")
def test_a_bundle_that_cannot_take_the_engines_is_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dir: Path) -> None:
        raise OSError(30, "Read-only file system")

    path = write_bundle(tmp_path / "me.pflx")
    with monkeypatch.context() as patch:
        patch.setattr("pflx.engines.building.build.TemporaryFile", refuse)
        with pytest.raises(OutputError, match=r"me\.pflx cannot be written to: Read-only file system\. Copy"):
            build_bundle_engines(path, "tensorrt-rtx")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(OutputError, match=r"its disk has 0 MB free"):
        build_bundle_engines(path, "tensorrt-rtx")


@needs_rtx
@pytest.mark.parametrize("gone", [True, False])
def test_a_bundle_that_is_replaced_meanwhile_gets_one_error_and_no_engine(tmp_path: Path, gone: bool) -> None:
    path = write_bundle(tmp_path / "me.pflx")

    def replace(phase: str, done: int, total: int) -> None:
        if path.exists() and not (tmp_path / "old.pflx").exists():
            path.rename(tmp_path / "old.pflx")
            if not gone:
                write_bundle(path)
                another = Graph()
                x = another.take("x", F, "samples", 4)
                made = Bundle.open(path)
                out = helper.make_tensor_value_info("y", F, ["samples", 4])
                another.save_as(made.graph_path("reactface_speaker", "fp32"), another("Mul", x, x), out)
                write_manifest(path, made.manifest)

    with pytest.raises(OutputError, match=r"me\.pflx was replaced or removed while its engines were built"):
        build_bundle_engines(path, "tensorrt-rtx", progress=replace)
    assert not list(tmp_path.glob("*.pflx/engines/*"))


def test_a_variant_that_the_bundle_lacks_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "me.pflx")
    with pytest.raises(BundleError, match="no int8 variant"):
        build_bundle_engines(path, "tensorrt-rtx", "int8")


def test_the_default_ranges_cover_the_graphs_of_a_bundle() -> None:
    ranges = default_ranges(sample_manifest())
    specs = {"coefficients": TensorSpec(("portraits", "track", 58), np.dtype(np.float32))}
    assert profile_for(specs, ranges) == {"coefficients": ((1, 1, 58), (1, 34, 58), (4, 42, 58))}
    with pytest.raises(EngineBuildError, match="Dimension 'Q' of input 'x' has no range"):
        profile_for({"x": TensorSpec(("Q",), np.dtype(np.float32))}, ranges)
