"""Feed checks, and what every engine promises: on the CPU, on a GPU made of Python, and on a real one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support.gpu.fake_cuda import FakeCuda
from support.gpu.fake_gpu import FunctionContext
from support.gpu.real_gpu import GPUS, needs_onnxruntime, needs_tensorrt, needs_tensorrt_rtx

from pflx.engines import (
    BackendMissingError,
    Engine,
    EngineError,
    FakeEngine,
    FeedError,
    OpenVinoEngine,
    OrtEngine,
    ShapeError,
    TensorSpec,
    check_feeds,
)
from pflx.engines.building.build import build_engine, profile_for
from pflx.engines.bundle.engine_passport import Passport
from pflx.engines.bundle.tensorrt_library import Backend
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import DeviceEngine, ExecutionContext
from pflx.engines.gpu.ort_cuda import OrtContext
from pflx.engines.gpu.streams import Stream
from pflx.engines.gpu.trt import TrtContext
from pflx.engines.graphs.protocol import BackendBrokenError, import_backend
from pflx.engines.graphs.threads import ThreadsError, most_threads

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)


def pick_graph(path: Path) -> Path:
    """`picked[p, k] = motion[p, frames[k]] * 2`: motion [P, T, 3], frames [K]."""
    nodes = [
        helper.make_node("Gather", ["motion", "frames"], ["rows"], axis=1),
        helper.make_node("Add", ["rows", "rows"], ["picked"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pick",
        [
            helper.make_tensor_value_info("motion", TensorProto.FLOAT, ["P", "T", 3]),
            helper.make_tensor_value_info("frames", TensorProto.INT64, ["K"]),
        ],
        [helper.make_tensor_value_info("picked", TensorProto.FLOAT, ["P", "K", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def pick(feeds: Mapping[str, Any]) -> dict[str, Any]:
    return {"picked": feeds["motion"][:, feeds["frames"]] * np.float32(2)}


PICK_INPUTS = {"motion": TensorSpec(("P", "T", 3), F32), "frames": TensorSpec(("K",), I64)}
PICK_OUTPUTS = {"picked": TensorSpec(("P", "K", 3), F32)}


def open_on(device: Device, made: ExitStack, context: Callable[[Device, Stream], ExecutionContext]) -> DeviceEngine:
    made.callback(device.close)
    stream = device.streams.named("generate")
    return DeviceEngine("pick", context(device, stream), device, stream)


def open_fake_gpu(folder: Path, made: ExitStack) -> Engine:
    return open_on(
        Device(FakeCuda()),
        made,
        lambda device, stream: FunctionContext(pick, PICK_INPUTS, PICK_OUTPUTS, device, stream),
    )


def open_onnxruntime(folder: Path, made: ExitStack) -> Engine:
    path = pick_graph(folder / "pick.onnx")
    return open_on(
        Device.open("cuda"), made, lambda device, stream: OrtContext(path, PICK_INPUTS, PICK_OUTPUTS, device, stream)
    )


BUILT: dict[Backend, tuple[bytes, Passport]] = {}
"""Engines of the graph, which take seconds to build."""


def open_tensorrt(backend: Backend, folder: Path, made: ExitStack) -> Engine:
    plan = folder / "pick.plan"
    if backend not in BUILT:
        passport = build_engine(
            pick_graph(folder / "pick.onnx"),
            plan,
            backend=backend,
            profile=profile_for(PICK_INPUTS, {"P": (1, 2, 4), "T": (1, 5, 8), "K": (1, 2, 4)}),
            precision="fp32",
            compute_capabilities=[GPUS[0].compute_capability] if backend == "tensorrt-rtx" else None,
        )
        BUILT[backend] = plan.read_bytes(), passport
    content, passport = BUILT[backend]
    plan.write_bytes(content)
    return open_on(
        Device.open("cuda"),
        made,
        lambda device, stream: TrtContext(plan, passport, PICK_INPUTS, PICK_OUTPUTS, device, stream),
    )


OPENERS: dict[str, Callable[[Path, ExitStack], Engine]] = {
    "fake": lambda folder, made: FakeEngine(pick, PICK_INPUTS, PICK_OUTPUTS),
    "ort": lambda folder, made: OrtEngine(pick_graph(folder / "pick.onnx"), threads=1),
    "openvino": lambda folder, made: OpenVinoEngine(
        pick_graph(folder / "pick.onnx"), PICK_INPUTS, PICK_OUTPUTS, threads=1
    ),
    "fake gpu": open_fake_gpu,
    "onnxruntime on a gpu": open_onnxruntime,
    "tensorrt": partial(open_tensorrt, "tensorrt"),
    "tensorrt-rtx": partial(open_tensorrt, "tensorrt-rtx"),
}


@pytest.fixture(
    params=[
        "fake",
        "ort",
        pytest.param("openvino", marks=needs_openvino),
        "fake gpu",
        pytest.param("onnxruntime on a gpu", marks=needs_onnxruntime),
        pytest.param("tensorrt", marks=needs_tensorrt),
        pytest.param("tensorrt-rtx", marks=needs_tensorrt_rtx),
    ]
)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with ExitStack() as made:
        yield made.enter_context(closing(OPENERS[request.param](tmp_path, made)))


def pick_feeds(samples: int = 2, frames: int = 5) -> dict[str, Any]:
    motion = np.random.default_rng(0).standard_normal((samples, frames, 3), np.float32)
    return {"motion": motion, "frames": np.array([0, frames - 1], np.int64)}


def test_an_engine_describes_its_inputs_and_outputs(engine: Engine) -> None:
    assert engine.inputs == PICK_INPUTS
    assert engine.outputs == PICK_OUTPUTS


@pytest.mark.parametrize("samples", [1, 3])
def test_an_engine_returns_named_arrays(engine: Engine, samples: int) -> None:
    feeds = pick_feeds(samples)
    for _ in range(3):  # on a GPU: new, captured, replayed
        results = engine.run(feeds)
        assert list(results) == ["picked"]
        assert (results["picked"].dtype, results["picked"].shape) == (F32, (samples, 2, 3))
        np.testing.assert_array_equal(np.asarray(results["picked"]), pick(feeds)["picked"])


def test_calls_of_several_sizes_in_turn_are_all_right(engine: Engine) -> None:
    for _ in range(3):
        for samples, frames in [(1, 5), (3, 2), (2, 8)]:
            feeds = pick_feeds(samples, frames)
            np.testing.assert_array_equal(np.asarray(engine.run(feeds)["picked"]), pick(feeds)["picked"])


def test_feeds_are_read_in_the_call_alone(engine: Engine) -> None:
    for _ in range(3):
        feeds = pick_feeds()
        expected = pick(feeds)["picked"]
        picked = engine.run(feeds)["picked"]
        feeds["motion"][:] = -1
        np.testing.assert_array_equal(np.asarray(picked), expected)


def test_equal_feeds_give_equal_bytes(engine: Engine) -> None:
    feeds = pick_feeds()
    made = [np.asarray(engine.run(feeds)["picked"]).tobytes() for _ in range(3)]
    assert made[0] == made[1] == made[2]


def test_a_strided_feed_gives_what_its_copy_gives(engine: Engine) -> None:
    feeds = pick_feeds(4)
    feeds["motion"] = feeds["motion"][::2, ::-1]
    strided = np.array(engine.run(feeds)["picked"])
    feeds["motion"] = feeds["motion"].copy()
    np.testing.assert_array_equal(strided, np.asarray(engine.run(feeds)["picked"]))


def test_a_closed_engine_says_so_and_closes_twice(engine: Engine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(pick_feeds())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": None}, r"missing frames.*takes motion, frames"),
        ({"frames": None, "frame": np.zeros(1)}, "missing frames; unknown frame"),
        ({"frames": [0, 1]}, r"'frames' takes an array, int64 \[K\], got list"),
        ({"frames": np.zeros(2, np.int32)}, r"'frames' takes int64 \[K\], got int32 \[2\]"),
        ({"motion": np.zeros((2, 5), np.float32)}, r"takes float32 \[P, T, 3\], got float32 \[2, 5\]"),
        ({"motion": np.zeros((2, 5, 4), np.float32)}, "axis 2 must be 3"),
        ({"motion": np.zeros((2, 5, 3), ">f4")}, "takes float32"),
        ({"frames": np.zeros(0, np.int64)}, "K must be at least 1"),
    ],
)
def test_every_engine_refuses_wrong_feeds_in_the_same_words(
    engine: Engine, change: dict[str, Any], message: str
) -> None:
    feeds = {name: array for name, array in (pick_feeds() | change).items() if array is not None}
    with pytest.raises(FeedError, match=message) as caught:
        engine.run(feeds)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_named_dimension_has_one_size_in_all_inputs() -> None:
    inputs = {"past": TensorSpec(("M", 6), F32), "eps": TensorSpec(("M", 128), F32)}
    feeds = {"past": np.zeros((2, 6), F32), "eps": np.zeros((3, 128), F32)}
    with pytest.raises(ShapeError, match="M is 2 in another input"):
        check_feeds(inputs, feeds)


dimensions = st.one_of(st.integers(1, 4), st.sampled_from(["B", "T", "K"]))
specs = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.builds(
        TensorSpec,
        st.lists(dimensions, max_size=4).map(tuple),
        st.sampled_from([F32, I64, np.dtype(bool), np.dtype(np.uint8)]),
    ),
    min_size=1,
    max_size=4,
)
sizes = st.fixed_dictionaries({name: st.integers(1, 5) for name in "BTK"})


def feeds_for(inputs: Mapping[str, TensorSpec], sizes: Mapping[str, int]) -> dict[str, Any]:
    return {
        name: np.zeros([sizes[d] if isinstance(d, str) else d for d in spec.shape], spec.dtype)
        for name, spec in inputs.items()
    }


@given(inputs=specs, sizes=sizes)
def test_feeds_made_from_the_specs_pass_and_bind_their_dimensions(
    inputs: dict[str, TensorSpec], sizes: dict[str, int]
) -> None:
    bound = check_feeds(inputs, feeds_for(inputs, sizes))
    named = {d for spec in inputs.values() for d in spec.shape if isinstance(d, str)}
    assert bound == {name: sizes[name] for name in named}


@given(inputs=specs, sizes=sizes, data=st.data())
def test_any_single_change_to_good_feeds_is_refused(
    inputs: dict[str, TensorSpec], sizes: dict[str, int], data: st.DataObject
) -> None:
    feeds = feeds_for(inputs, sizes)
    name = data.draw(st.sampled_from(sorted(inputs)))
    good = feeds[name]
    changes: dict[str, Callable[[], object]] = {
        "missing": lambda: feeds.pop(name),
        "unknown": lambda: feeds.update({name + "_": good}),
        "dtype": lambda: feeds.update({name: good.astype(np.complex64)}),
        "rank": lambda: feeds.update({name: good[None]}),
        "list": lambda: feeds.update({name: good.tolist()}),
    }
    changes[data.draw(st.sampled_from(sorted(changes)))]()
    with pytest.raises(FeedError):
        check_feeds(inputs, feeds)


def test_the_fake_counts_its_calls_and_a_refused_call_is_none() -> None:
    fake = FakeEngine(pick, PICK_INPUTS, PICK_OUTPUTS)
    fake.run(pick_feeds())
    with pytest.raises(FeedError):
        fake.run({})
    assert fake.calls == 1


@pytest.mark.parametrize(
    "results",
    [{}, {"picked": np.zeros((2, 2, 4), F32)}, {"picked": np.zeros((9, 2, 3), F32)}, {"picked": 1.0}],
)
def test_the_fake_refuses_a_function_that_breaks_its_promise(results: dict[str, Any]) -> None:
    fake = FakeEngine(lambda _: results, PICK_INPUTS, PICK_OUTPUTS)
    with pytest.raises(EngineError, match="returned"):
        fake.run(pick_feeds())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8", "int8", "int32", "int64", "bool"])
def test_onnx_runtime_keeps_each_dtype(tmp_path: Path, dtype: str) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "same",
        [helper.make_tensor_value_info("x", kind, [None, 2])],
        [helper.make_tensor_value_info("y", kind, [None, 2])],
    )
    path = tmp_path / "same.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    engine = OrtEngine(path, threads=1)
    assert engine.inputs["x"] == TensorSpec(("x:0", 2), np.dtype(dtype))
    values = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    returned = engine.run({"x": values})["y"]
    assert returned.dtype == values.dtype
    np.testing.assert_array_equal(returned, values)


def test_a_fixed_size_shows_in_the_specs_and_is_required(tmp_path: Path) -> None:
    path = pick_graph(tmp_path / "pick.onnx")
    with closing(OrtEngine(path, threads=1, sizes={"P": 2, "K": 2, "elsewhere": 7})) as fixed:
        assert fixed.inputs["motion"].shape == (2, "T", 3)
        with closing(OrtEngine(path, threads=1)) as free:
            np.testing.assert_array_equal(fixed.run(pick_feeds())["picked"], free.run(pick_feeds())["picked"])
        with pytest.raises(ShapeError, match="axis 0 must be 2"):
            fixed.run(pick_feeds(samples=3))


def test_a_failure_inside_the_backend_names_the_graph(tmp_path: Path) -> None:
    engine = OrtEngine(pick_graph(tmp_path / "pick.onnx"), threads=1)
    feeds = pick_feeds(frames=5) | {"frames": np.array([99], np.int64)}
    with pytest.raises(EngineError, match=r"'pick' failed: .*(?i:gather)") as caught:
        engine.run(feeds)
    assert "\n" not in str(caught.value)


def test_a_missing_graph_and_a_broken_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"absent\.onnx: no such file"):
        OrtEngine(tmp_path / "absent.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08garbage")
    with pytest.raises(EngineError, match=r"broken\.onnx could not be loaded"):
        OrtEngine(broken)


@pytest.mark.parametrize("threads", [0, most_threads() + 1, 100_000])
def test_threads_that_no_machine_has_are_refused(tmp_path: Path, threads: int) -> None:
    with pytest.raises(ThreadsError, match=f"threads is {threads}; give 1 to {most_threads()} ") as caught:
        OrtEngine(pick_graph(tmp_path / "pick.onnx"), threads=threads)
    assert isinstance(caught.value, EngineError)
    OrtEngine(pick_graph(tmp_path / "pick.onnx"), threads=most_threads()).close()


def test_a_missing_package_comes_with_its_install_line() -> None:
    with pytest.raises(BackendMissingError, match=r"no_such_backend.*pip install 'pflx\[x\]'") as caught:
        import_backend("no_such_backend", "pip install 'pflx[x]'")
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("import a_part_that_is_absent", "it needs a_part_that_is_absent, which is not installed"),
        ("raise ImportError('libcudart.so.13: cannot open shared object file')", "libcudart.so.13: cannot open"),
        ("raise OSError('libGL.so.1: cannot open shared object file')", "libGL.so.1: cannot open"),
        ("raise RuntimeError('built for another numpy.\\nTraceback ...')", "built for another numpy. Install"),
        ("raise RuntimeError", "RuntimeError. Install"),
        ("__version__ = '99.0'", "99.0 has no Session, so it is incomplete, or of a version that pflx does not know"),
        ("", "of unknown version has no Session"),
        (None, "only an empty folder is left of it"),
    ],
)
def test_a_package_that_is_there_and_does_not_work_says_why_and_what_puts_it_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, reason: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_backend").mkdir()
    if content is not None:
        (tmp_path / "broken_backend/__init__.py").write_text(content)
    with pytest.raises(BackendBrokenError) as caught:
        import_backend("broken_backend", "pip install 'pflx[x]'", needs=("Session",))
    sys.modules.pop("broken_backend", None)
    assert str(caught.value).startswith(f"broken_backend is installed, but does not work: {reason}")
    assert str(caught.value).endswith("Install it again: pip install --force-reinstall 'pflx[x]'")
    assert isinstance(caught.value, BackendMissingError)


def test_importing_the_engines_loads_no_backend_and_no_torch() -> None:
    code = (
        "import sys, pflx.engines, pflx.engines.building.build, pflx.engines.bundle.bundle; "
        "heavy = {'torch', 'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'cv2'}; "
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["ort", pytest.param("openvino", marks=needs_openvino)])
def test_several_threads_run_an_engine_of_the_cpu_at_once(kind: str, tmp_path: Path) -> None:
    """As live sessions on a CPU do: each gets what belongs to its own feeds."""
    with ExitStack() as made, ThreadPoolExecutor(4) as threads:
        shared = made.enter_context(closing(OPENERS[kind](tmp_path, made)))

        def ask(number: int) -> bool:
            feeds: dict[str, Any] = {
                "motion": np.full((2, 5, 3), number, np.float32),
                "frames": np.array([0, 4], np.int64),
            }
            return bool((np.asarray(shared.run(feeds)["picked"]) == pick(feeds)["picked"]).all())

        assert all(threads.map(ask, range(200)))
