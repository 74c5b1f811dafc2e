"""What only a real GPU shows: the CUDA runtime, memory shared with other libraries, captured graphs, real pictures.

    PYTHONPATH=typings:tests python -m pytest tests/test_gpu.py

runs it without installing pflx. PFLX_TEST_BUNDLE names a bundle, for the tests of a whole listener.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.gpu.real_gpu import GPUS, needs_gpu, needs_onnxruntime

from pflx.engines import Array, Bundle, DeviceError, EngineError, FeedError, OrtEngine, TensorSpec
from pflx.engines.gpu.array import DeviceArray
from pflx.engines.gpu.cuda import open_cuda
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import DeviceEngine
from pflx.engines.gpu.ort_cuda import OrtContext
from pflx.engines.graphs.protocol import DeviceMemoryError, run_loop
from pflx.runtime import EngineSettings, SpeakerSettings

if TYPE_CHECKING:
    from pflx.runtime import Listener, ListenerFrame

pytestmark = needs_gpu
needs_torch = pytest.mark.skipif(
    not GPUS or find_spec("torch") is None or not import_module("torch.cuda").is_available(),
    reason="torch is not installed, or without CUDA",
)
needs_cupy = pytest.mark.skipif(find_spec("cupy") is None, reason="cupy is not installed")

F32 = np.dtype(np.float32)
MB = 1_000_000
FLAT_MB = 8
"""How much the free memory of a GPU may differ that nobody has taken anything of for good."""


@pytest.fixture
def device() -> Iterator[Device]:
    made = Device.open("cuda")
    yield made
    made.close()


def numbers(*shape: int, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    return (np.arange(np.prod(shape, dtype=int)) % 251).reshape(shape).astype(dtype)


# The CUDA runtime


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 7), (0, 4), (1 << 20,)])
def test_an_array_goes_to_the_gpu_and_comes_back(device: Device, dtype: str, shape: tuple[int, ...]) -> None:
    array = numbers(*shape, dtype=dtype)
    placed = device.upload(array)
    assert (placed.shape, placed.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(np.asarray(placed), array)


def test_the_host_may_write_into_its_array_as_soon_as_it_is_handed_over(device: Device) -> None:
    """Of many uploads and fetches under way at once each has page-locked memory of its own."""
    array = np.zeros(1 << 20, np.float32)
    coming = []
    for round_ in range(12):
        array[:] = round_
        coming.append(device.upload(array).fetch())
    for round_, arriving in enumerate(coming):
        assert np.unique(arriving.wait()).tolist() == [round_]


@pytest.mark.parametrize(
    "key",
    [
        (slice(None), slice(1, 3)),
        (slice(None, None, 2), slice(None), slice(None, None, 3)),
        (slice(None, None, -1),),
        (..., slice(None, None, -1)),
        (1, slice(None), slice(2, 5)),
    ],
)
def test_strided_parts_are_put_together_as_numpy_does(device: Device, key: Any) -> None:
    whole = numbers(6, 5, 8)
    placed = device.upload(whole)
    part, expected = placed[key], whole[key]
    np.testing.assert_array_equal(np.asarray(part), expected)
    for axis in range(expected.ndim):
        made = device.concatenate([part, expected, part], axis)
        assert made.is_contiguous
        np.testing.assert_array_equal(np.asarray(made), np.concatenate([expected] * 3, axis))


def test_work_on_several_streams_is_ordered_by_its_data_alone(device: Device) -> None:
    """Each copy is long, so that one that did not wait would read what is not there yet."""
    given = np.random.default_rng(0).integers(0, 256, 1 << 26, np.uint8)
    made = device.upload(given)
    for round_ in range(9):
        stream = device.streams.named(("generate", "render", "smooth")[round_ % 3])
        made = device.concatenate([made], 0, stream)
    np.testing.assert_array_equal(np.asarray(made), given)


def test_memory_is_handed_out_again_only_behind_its_last_reader(device: Device) -> None:
    generate, render = device.streams.named("generate"), device.streams.named("render")
    coming = []
    for round_ in range(30):
        made = device.concatenate([device.upload(np.full(1 << 20, round_, np.float32))], 0, generate)
        coming.append(device.concatenate([made], 0, render).fetch())
    for round_, arriving in enumerate(coming):
        assert np.unique(arriving.wait()).tolist() == [round_]


def test_an_event_has_come_when_the_work_before_it_is_done(device: Device) -> None:
    stream = device.streams.named("generate")
    made = device.concatenate([device.upload(np.ones(1 << 26, np.uint8))] * 4, 0, stream)
    event = stream.mark()
    event.wait()
    assert event.is_done
    before = stream.mark()
    stream.synchronize()
    assert before.is_done
    assert made.shape == (1 << 28,)


def test_a_new_thread_uses_the_same_gpu(device: Device) -> None:
    made: list[npt.NDArray[Any]] = []
    thread = threading.Thread(target=lambda: made.append(np.asarray(device.upload(numbers(100)))))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(made[0], numbers(100))


def test_opening_and_closing_a_hundred_times_leaves_nothing_on_the_gpu() -> None:
    free: list[int] = []
    for _ in range(100):
        device = Device.open("cuda")
        made = device.concatenate([device.upload(np.ones(1 << 20, np.float32))] * 4, 0, device.streams.named("render"))
        assert np.asarray(made).sum() == 1 << 22
        device.close()
        device.close()
        free.append(open_cuda(0).memory()[0])
    assert abs(free[-1] - free[9]) < FLAT_MB * MB


def test_more_memory_than_there_is_is_an_error_of_its_own_and_all_goes_on(device: Device) -> None:
    _, total = device.cuda.memory()
    with pytest.raises(DeviceMemoryError, match=r"cuda:0: cudaMalloc failed .* of \d+ MB are free") as caught:
        device.cuda.malloc(2 * total)
    assert isinstance(caught.value, MemoryError)
    with pytest.raises(DeviceMemoryError):
        device.empty((2 * total,), np.uint8, device.streams.named("generate"))
    np.testing.assert_array_equal(np.asarray(device.upload(numbers(10))), numbers(10))


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match=rf"cuda:{len(GPUS)}, this machine has {len(GPUS)} GPU"):
        Device.open(f"cuda:{len(GPUS)}")


def test_a_call_that_cuda_refuses_is_told_by_its_name(device: Device) -> None:
    stream = device.streams.named("generate")
    with pytest.raises(EngineError, match="cuda:0: cudaStreamEndCapture failed with cudaError"):
        device.cuda.end_capture(stream.handle)
    np.testing.assert_array_equal(np.asarray(device.upload(numbers(10))), numbers(10))


# Other libraries


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64"])
def test_pytorch_takes_an_array_and_gives_one_without_a_copy(device: Device, dtype: str) -> None:
    from torch.utils.dlpack import from_dlpack

    array = numbers(3, 4, dtype=dtype)
    placed = device.upload(array)
    taken = from_dlpack(placed[:, 1:])
    assert taken.device.type == "cuda"
    assert taken.data_ptr() == placed.address + array.itemsize
    np.testing.assert_array_equal(taken.cpu().numpy(), array[:, 1:])
    given = taken * 2
    adopted = device.adopt(given.t())
    assert adopted.address == given.data_ptr()
    np.testing.assert_array_equal(np.asarray(adopted), 2 * array[:, 1:].T)


@needs_torch
def test_pytorch_and_pflx_wait_for_one_another_on_any_stream(device: Device) -> None:
    """A product takes long, so that whoever did not wait would read what is not there yet."""
    import torch
    from torch.utils.dlpack import from_dlpack

    cuda: Any = torch.cuda
    stream = cuda.Stream()
    for _ in range(5):
        with cuda.stream(stream):
            factor = torch.eye(4096, device="cuda")
            made = torch.ones(4096, 4096, device="cuda")
            for _ in range(8):
                made = made @ factor
            adopted = device.adopt(made)
        del made
        copied = device.concatenate([adopted, adopted], 0, device.streams.named("generate"))
        with cuda.stream(stream):
            assert float(from_dlpack(copied).double().sum()) == 2 * 4096**2


@needs_torch
def test_an_array_of_the_host_is_no_array_of_this_gpu(device: Device) -> None:
    import torch

    with pytest.raises(FeedError, match=r"not on cuda:0, \(2, 0\)"):
        device.adopt(torch.zeros(3))


@needs_cupy
def test_cupy_takes_an_array_and_gives_one_without_a_copy(device: Device) -> None:
    cupy = pytest.importorskip("cupy")
    array = numbers(3, 4)
    placed = device.upload(array)
    for taken in (cupy.from_dlpack(placed[:, 1:]), cupy.asarray(placed[:, 1:])):
        assert taken.data.ptr == placed.address + 4
        np.testing.assert_array_equal(cupy.asnumpy(taken), array[:, 1:])
    with cupy.cuda.Stream(non_blocking=True):
        given = cupy.asarray(array) * 2
        for offered in (given, _Interface(given)):
            adopted = device.adopt(offered)
            assert adopted.address == given.data.ptr
            np.testing.assert_array_equal(np.asarray(adopted), 2 * array)


class _Interface:
    """An array that offers the CUDA Array Interface alone."""

    def __init__(self, array: Any) -> None:
        self._array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        found: dict[str, Any] = self._array.__cuda_array_interface__
        return found


# ONNX Runtime's CUDA provider

SIDE = 64
INPUTS = {"x": TensorSpec(("samples", SIDE), F32), "step": TensorSpec((1,), F32)}
OUTPUTS = {"y": TensorSpec(("samples", SIDE), F32)}
ROUNDING = 1e-5
"""Of float32 sums of 64 products below 1, taken in another order; TF32 would be off by 1e-3."""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """`y = tanh(x @ weight) + step`."""
    weight = np.random.default_rng(1).standard_normal((SIDE, SIDE)).astype(np.float32) / 8
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Tanh", ["product"], ["bounded"]),
        helper.make_node("Add", ["bounded", "step"], ["y"]),
    ]
    made = helper.make_graph(
        nodes,
        "layer",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["samples", SIDE]),
            helper.make_tensor_value_info("step", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["samples", SIDE])],
        [numpy_helper.from_array(weight, "weight")],
    )
    path = tmp_path / "layer.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def cpu(graph: Path) -> Iterator[OrtEngine]:
    with closing(OrtEngine(graph, threads=1)) as made:
        yield made


@pytest.fixture
def engine(graph: Path, device: Device) -> Iterator[DeviceEngine]:
    stream = device.streams.named("generate")
    with closing(DeviceEngine("layer", OrtContext(graph, INPUTS, OUTPUTS, device, stream), device, stream)) as made:
        yield made


def feeds_of(samples: int = 2, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {"x": rng.uniform(-1, 1, (samples, SIDE)).astype(np.float32), "step": np.array([seed / 8], np.float32)}


def assert_close(made: Mapping[str, Any], expected: Mapping[str, Array]) -> None:
    assert made.keys() == expected.keys()
    for name, value in made.items():
        assert isinstance(value, DeviceArray)
        np.testing.assert_allclose(np.asarray(value), expected[name], rtol=0, atol=ROUNDING)


@needs_onnxruntime
def test_a_call_new_captured_and_replayed_is_that_of_the_cpu(engine: DeviceEngine, cpu: OrtEngine) -> None:
    for round_ in range(5):
        for samples in (1, 3):
            feeds = feeds_of(samples, round_)
            assert_close(engine.run(feeds), cpu.run(feeds))
    assert (engine.captures, engine.replays) == (2, 8)


@needs_onnxruntime
def test_results_belong_to_the_caller(engine: DeviceEngine, cpu: OrtEngine) -> None:
    results = [engine.run(feeds_of(seed=seed)) for seed in range(12)]
    for seed, made in enumerate(results):
        assert_close(made, cpu.run(feeds_of(seed=seed)))


@needs_onnxruntime
def test_more_sizes_than_sessions_are_kept_are_all_right(engine: DeviceEngine, cpu: OrtEngine) -> None:
    for round_ in range(3):
        for samples in range(1, 11):
            feeds = feeds_of(samples, round_)
            assert_close(engine.run(feeds), cpu.run(feeds))


@needs_onnxruntime
def test_a_loop_of_steps_is_that_of_the_cpu(engine: DeviceEngine, cpu: OrtEngine) -> None:
    for round_ in range(4):
        x = {"x": feeds_of(seed=round_)["x"]}
        steps = [{"step": np.array([(round_ + index) / 10], np.float32)} for index in range(5)]
        assert_close(run_loop(engine, x, {"x": "y"}, steps), run_loop(cpu, x, {"x": "y"}, steps))
    assert (engine.captures, engine.replays) == (1, 3)


@needs_onnxruntime
@needs_torch
def test_a_tensor_of_pytorch_is_a_feed_and_a_result_is_one(engine: DeviceEngine, cpu: OrtEngine) -> None:
    import torch
    from torch.utils.dlpack import from_dlpack

    for seed in range(4):
        feeds = feeds_of(seed=seed)
        made = engine.run({**feeds, "x": torch.from_numpy(feeds["x"]).cuda()})
        expected = cpu.run(feeds)["y"]
        np.testing.assert_allclose(from_dlpack(made["y"]).cpu().numpy(), expected, rtol=0, atol=ROUNDING)


@needs_onnxruntime
def test_a_failure_in_the_library_names_the_graph_in_one_line(tmp_path: Path, device: Device) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08garbage")
    stream = device.streams.named("generate")
    with closing(DeviceEngine("broken", OrtContext(broken, INPUTS, OUTPUTS, device, stream), device, stream)) as made:
        with pytest.raises(EngineError, match=r"broken\.onnx could not be loaded on cuda:0") as caught:
            made.run(feeds_of())
        assert "\n" not in str(caught.value)


# A whole listener

BUNDLE = os.environ.get("PFLX_TEST_BUNDLE")
FRAMES = 20
needs_bundle = pytest.mark.skipif(BUNDLE is None, reason="PFLX_TEST_BUNDLE names no bundle")


@pytest.fixture(scope="module")
def on_cpu() -> list[ListenerFrame]:
    return opened_and_fed("cpu", [FRAMES])[0]


def opened_and_fed(device: str, chunks: list[int]) -> list[list[ListenerFrame]]:
    """The reaction to one speaker that is pushed in so many frames at a time."""
    from pflx.runtime import Listener

    portrait = np.random.default_rng(2).integers(0, 256, (256, 256, 3), np.uint8)
    assert BUNDLE is not None
    found = Bundle.open(BUNDLE, verify=False)
    with Listener.open(found, portrait, device=device, engines=EngineSettings(precision="fp32")) as listener:
        assert listener.device.startswith(device)
        return [reaction(listener, chunk) for chunk in chunks]


def reaction(listener: Listener, chunk: int) -> list[ListenerFrame]:
    from pflx.runtime import Region

    rng = np.random.default_rng(3)
    video = rng.integers(0, 256, (FRAMES, 96, 96, 3), np.uint8)
    sound = rng.uniform(-0.5, 0.5, FRAMES * listener.sample_rate_hz // 25).astype(np.float32)
    per_frame = len(sound) // FRAMES
    frames: list[ListenerFrame] = []
    with listener.stream(seed=5, speaker=SpeakerSettings(region=Region(0, 0, 96, 96))) as stream:
        for first in range(0, FRAMES, chunk):
            last = first + chunk
            stream.push(video=video[first:last], audio=sound[first * per_frame : last * per_frame])
            frames += stream.pull()
        stream.finish()
        return [*frames, *stream.pull()]


def assert_same_pictures(made: list[ListenerFrame], expected: list[ListenerFrame]) -> None:
    """The same up to rounding: the sums of a convolution are taken in an order of their own for every batch."""
    for field in ("time_s", "sample", "face"):
        assert [getattr(frame, field) for frame in made] == [getattr(frame, field) for frame in expected]
    ours, theirs = (np.stack([frame.coefficients for frame in frames]) for frames in (made, expected))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)
    pairs = zip(made, expected, strict=True)
    levels = np.stack([np.abs(one.image.astype(int) - other.image.astype(int)) for one, other in pairs])
    assert np.mean(levels <= 1) >= 0.999


@needs_onnxruntime
@needs_bundle
def test_pictures_in_full_precision_are_those_of_the_cpu_for_any_chunking(on_cpu: list[ListenerFrame]) -> None:
    assert len(on_cpu) == FRAMES
    for made in opened_and_fed("cuda", [FRAMES, 8, 3]):
        assert_same_pictures(made, on_cpu)


@needs_onnxruntime
@needs_bundle
def test_a_listener_leaves_nothing_on_the_gpu() -> None:
    free = []
    for _ in range(3):
        opened_and_fed("cuda", [FRAMES])
        free.append(open_cuda(0).memory()[0])
    assert abs(free[2] - free[1]) < FLAT_MB * MB
