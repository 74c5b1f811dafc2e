"""Engines of TensorRT and TensorRT for RTX, on a library and a GPU made of Python."""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.gpu.fake_cuda import FakeCuda
from support.gpu.fake_trt import FakeTrt, Plan
from support.gpu.user_cache import put_user_cache

from pflx.engines import EngineError, FeedError, Passport, PassportError, TensorSpec
from pflx.engines.bundle.driver import Gpu
from pflx.engines.gpu.array import DeviceArray
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import DeviceEngine
from pflx.engines.gpu.trt import TrtContext
from pflx.engines.graphs.protocol import DeviceLostError, DeviceMemoryError, run_loop

F32 = np.dtype(np.float32)
INPUTS = {"x": TensorSpec(("P", 64), F32), "step": TensorSpec((1,), F32)}
OUTPUTS = {"y": TensorSpec(("P", 64), F32)}
GPU = Gpu("NVIDIA GeForce RTX 4090", "sm_89", "13.0")
CONTENT = b"adds one"


class Bench:
    """A fake library on a fake GPU, one engine file, and what opens it.

    Attributes:
        trt: the library.
        cuda: the GPU.
        device: the same, for pflx.
        stream: that contexts run on.
    """

    def __init__(self, folder: Path, rtx: bool) -> None:
        self.cuda = FakeCuda()
        plan = Plan(lambda feeds: {"y": feeds["x"] + feeds["step"]}, INPUTS, OUTPUTS)
        self.trt = FakeTrt(self.cuda, {CONTENT: plan}, rtx)
        self.plan = folder / "adder.plan"
        self.plan.write_bytes(CONTENT)
        self.device = Device(self.cuda)
        self.stream = self.device.streams.named("engines")
        self.passport = Passport(
            file="engines/adder.plan",
            graph="adder",
            precision="fp32",
            backend="tensorrt-rtx" if rtx else "tensorrt",
            backend_version="1",
            onnx_sha256="",
            compute_capabilities=["sm_89"],
            profile={"x": ((1, 64), (1, 64), (4, 64)), "step": ((1,), (1,), (1,))},
            driver=None,
            os="",
            created="",
        )

    def context(self, **changes: Any) -> TrtContext:
        given: dict[str, Any] = {"inputs": INPUTS, "outputs": OUTPUTS, "passport": self.passport} | changes
        return TrtContext(plan=self.plan, device=self.device, stream=self.stream, **given)

    def engine(self, capture: bool = True) -> DeviceEngine:
        return DeviceEngine("adder", self.context(), self.device, self.stream, capture=capture)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return put_user_cache(tmp_path / "cache", monkeypatch)


def make_bench(folder: Path, monkeypatch: pytest.MonkeyPatch, rtx: bool) -> Bench:
    bench = Bench(folder, rtx)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx" if rtx else "tensorrt", bench.trt.module())
    monkeypatch.setattr("pflx.engines.bundle.engine_passport.find_gpus", lambda: [GPU])
    return bench


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return make_bench(tmp_path, monkeypatch, request.param == "tensorrt-rtx")


@pytest.fixture
def rtx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return make_bench(tmp_path, monkeypatch, True)


def placed(bench: Bench) -> tuple[dict[str, DeviceArray], dict[str, DeviceArray]]:
    """Feeds and room for results on the GPU, for the bench's stream."""
    given = {name: bench.device.place(value) for name, value in feeds().items()}
    for feed in given.values():
        feed.use_on(bench.stream)
    return given, {"y": bench.device.empty((2, 64), F32, bench.stream)}


def feeds(batch: int = 2, step: float = 1) -> dict[str, np.ndarray[Any, Any]]:
    x = np.random.default_rng(batch).random((batch, 64), np.float32)
    return {"x": x, "step": np.full(1, step, np.float32)}


@pytest.mark.parametrize("capture", [False, True])
def test_an_engine_computes_what_its_file_says_in_every_shape(bench: Bench, capture: bool) -> None:
    engine = bench.engine(capture)
    for batch in (1, 2, 4, 2, 2, 1, 1):
        given = feeds(batch, batch)
        np.testing.assert_array_equal(np.asarray(engine.run(given)["y"]), given["x"] + batch)
    assert (engine.captures, engine.replays) == ((2, 4) if capture else (0, 0))
    engine.close()


def test_shapes_and_addresses_are_set_when_they_change(bench: Bench) -> None:
    context = bench.context()
    place = bench.device.place
    given = {name: place(value) for name, value in feeds().items()}
    results = {"y": bench.device.empty((2, 64), F32, bench.stream)}
    for _ in range(3):
        for feed in given.values():
            feed.use_on(bench.stream)
        context.enqueue(given, results)
    assert bench.trt.count("execute_async_v3") == 3
    assert [call[1:] for call in bench.trt.calls if call[0] == "set_input_shape"] == [("x", (2, 64))]
    assert bench.trt.count("set_tensor_address") == 3
    assert {call[1] for call in bench.trt.calls if call[0] == "execute_async_v3"} == {bench.stream.handle}
    context.close()


def test_every_run_takes_its_gpu_whatever_another_library_has_chosen(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = bench.context()
    given, results = placed(bench)
    library, run = context._context, context._context.execute_async_v3
    chosen = bench.cuda.calls["make_current"]

    def counted(stream: int) -> bool:
        assert bench.cuda.calls["make_current"] == chosen + 1
        return bool(run(stream))

    monkeypatch.setattr(library, "execute_async_v3", counted)
    context.enqueue(given, results)
    context.close()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), RuntimeError("a handler of the log")])
def test_what_is_raised_in_the_librarys_log_is_raised_after_its_call(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    context = bench.context()
    given, results = placed(bench)

    def interrupt(*_: object) -> None:
        raise interruption

    bench.trt.faults.no_run = "something is said"
    with monkeypatch.context() as patch:
        patch.setattr("pflx.engines.bundle.tensorrt_library.log.log", interrupt)
        with pytest.raises(type(interruption)) as caught:
            context.enqueue(given, results)
    assert caught.value is interruption
    bench.trt.faults.no_run = ""
    context.enqueue(given, results)  # it is told once
    context.close()


def test_a_loop_of_steps_runs_with_rows_that_begin_anywhere(bench: Bench) -> None:
    engine = bench.engine()
    steps = [{"step": np.full(1, number, np.float32)} for number in range(5)]
    x = feeds()["x"]
    for _ in range(3):
        made = run_loop(engine, {"x": x}, {"x": "y"}, steps)
        np.testing.assert_allclose(np.asarray(made["y"]), x + sum(range(5)), rtol=1e-6)
    assert (engine.captures, engine.replays) == (1, 2)
    engine.close()


def test_a_view_that_begins_anywhere_is_read_from_an_aligned_copy(bench: Bench) -> None:
    engine = bench.engine(capture=False)
    values = np.arange(129, dtype=np.float32)
    view = bench.device.place(values)[1:].reshape(2, 64)
    made = engine.run({"x": view, "step": np.ones(1, np.float32)})
    np.testing.assert_array_equal(np.asarray(made["y"]), values[1:].reshape(2, 64) + 1)
    engine.close()


@pytest.mark.parametrize("batch", [5, 7])
def test_a_shape_outside_of_the_profile_is_refused_before_the_library_sees_it(bench: Bench, batch: int) -> None:
    engine = bench.engine()
    with pytest.raises(FeedError) as caught:
        engine.run(feeds(batch))
    assert str(caught.value) == (
        f"'x' has shape [{batch}, 64], the engine engines/adder.plan was built for [1, 64] to [4, 64]. "
        "Take another size of 'P', or build the engine with a wider range of it: "
        f"build_bundle_engines(..., ranges={{'P': (1, {batch}, {batch})}})."
    )
    assert bench.trt.count("set_input_shape") == 0
    given = feeds(4)
    np.testing.assert_array_equal(np.asarray(engine.run(given)["y"]), given["x"] + 1)
    engine.close()


def test_contexts_on_one_file_share_its_engine_until_the_last_is_closed(bench: Bench) -> None:
    first, second = bench.context(), bench.context()
    assert bench.trt.count("deserialize") == 1
    assert bench.trt.count("create_execution_context") == 2
    assert (first.device_memory, second.device_memory) == (4096, 4096)
    first.close()
    first.close()
    assert first.device_memory == 0
    assert len(bench.trt.alive) == 1
    second.close()
    gc.collect()
    assert not bench.trt.alive
    bench.context().close()
    assert bench.trt.count("deserialize") == 2


def test_a_context_for_a_capture_has_shapes_of_its_own_and_shares_the_memory(bench: Bench) -> None:
    context = bench.context()
    allocated = bench.device.allocated
    own = context.for_capture()
    assert bench.device.allocated == allocated
    assert bench.trt.count("deserialize") == 1
    for place, batch in ((context, 2), (own, 4), (context, 2), (own, 4)):
        given = {name: bench.device.place(value) for name, value in feeds(batch).items()}
        made = bench.device.empty((batch, 64), F32, bench.stream)
        for feed in given.values():
            feed.use_on(bench.stream)
        place.enqueue(given, {"y": made})
        np.testing.assert_array_equal(np.asarray(made.written(bench.stream.mark())), feeds(batch)["x"] + 1)
    assert bench.trt.count("set_input_shape") == 2
    own.close()
    assert (own.device_memory, context.device_memory) == (0, 4096)
    context.close()
    with pytest.raises(EngineError, match="Graph 'adder' is closed"):
        context.for_capture()


def test_a_closed_context_says_so(bench: Bench) -> None:
    engine = bench.engine()
    engine.close()
    with pytest.raises(EngineError, match="Graph 'adder' is closed; open a new engine"):
        engine.run(feeds())
    context = bench.context()
    context.close()
    with pytest.raises(EngineError, match="Graph 'adder' is closed; open a new engine"):
        context.enqueue({}, {})


def test_the_gpu_has_done_all_work_before_a_context_goes(bench: Bench) -> None:
    engine = bench.engine(capture=False)
    made = engine.run(feeds())
    assert bench.cuda.pending
    engine.close()
    np.testing.assert_array_equal(np.asarray(made["y"]), feeds()["x"] + 1)
    bench.cuda.fail["synchronize"] = DeviceLostError("cuda:0: the GPU is lost to this process.")
    bench.context().close()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no_engine", r"engines/adder.plan: graph 'adder' on cuda:0 could not be loaded: Error Code 1: no\."),
        ("no_context", r"engines/adder.plan: graph 'adder' on cuda:0 could not be started: Error Code 1: no\."),
        ("no_run", r"engines/adder.plan: graph 'adder' on cuda:0 does not run: Error Code 1: no\."),
    ],
)
def test_what_the_library_logs_is_the_reason(bench: Bench, fault: str, words: str) -> None:
    setattr(bench.trt.faults, fault, "Error Code 1:\n  no.")
    with pytest.raises(EngineError, match=words) as caught:
        bench.engine().run(feeds())
    assert not isinstance(caught.value, DeviceMemoryError)
    assert "\n" not in str(caught.value)
    setattr(bench.trt.faults, fault, "[defaultAllocator.cpp] Error Code 2: OutOfMemory (Requested size was 9 bytes.)")
    with pytest.raises(DeviceMemoryError, match=r"1074 of 1074 MB are free\. Close other programs"):
        bench.engine().run(feeds())


def test_a_run_that_fails_in_a_capture_alone_goes_on_call_by_call(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    engine = bench.engine()
    begin = bench.cuda.begin_capture

    def fail_from_now_on(stream: int) -> None:
        begin(stream)
        bench.trt.faults.no_run = "operation not permitted when stream is capturing"

    bench.cuda.begin_capture = fail_from_now_on  # type: ignore[method-assign]
    np.asarray(engine.run(feeds())["y"])
    with caplog.at_level(logging.WARNING), pytest.raises(EngineError, match="not permitted"):
        engine.run(feeds())  # the fault stays, here
    assert "Graph 'adder' cannot be captured and runs call by call" in caplog.text
    bench.trt.faults.no_run = ""
    np.testing.assert_array_equal(np.asarray(engine.run(feeds())["y"]), feeds()["x"] + 1)
    engine.close()


def test_a_lost_gpu_is_told_from_a_failure_of_the_library(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = bench.engine()
    bench.trt.faults.no_run = "Cuda Runtime (an illegal memory access was encountered)"

    def lost() -> tuple[int, int]:
        raise DeviceLostError("cuda:0: cudaMemGetInfo failed with cudaErrorIllegalAddress")

    monkeypatch.setattr(bench.cuda, "memory", lost)
    with pytest.raises(DeviceLostError, match="Graph 'adder': cuda:0: cudaMemGetInfo failed"):
        engine.run(feeds())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"inputs": {"z": INPUTS["x"]}}, PassportError, r"the engine has x, step where the graph has z\."),
        ({"outputs": {"y": TensorSpec(("P", 65), F32)}}, PassportError, r"'y' is float32 \[-1, 64\] in the engine"),
        ({"outputs": {"y": TensorSpec(("P", 64), np.dtype(np.float16))}}, PassportError, r"float16 \[P, 64\] in the"),
    ],
)
def test_an_engine_of_another_graph_is_refused(
    bench: Bench, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        bench.context(**changes)


def test_an_input_that_is_read_on_the_host_is_refused(bench: Bench) -> None:
    bench.trt.plans[CONTENT].on_host = ("step",)
    with pytest.raises(EngineError, match="'step' decides a shape, so TensorRT reads it on the host"):
        bench.context()


def test_files_that_are_missing_or_no_engine_are_named(bench: Bench) -> None:
    bench.plan.write_bytes(b"garbage")
    with pytest.raises(EngineError, match=r"could not be loaded: .*Serialization\. Build it again: pflx build BUNDLE"):
        bench.context()
    bench.plan.unlink()
    with pytest.raises(EngineError, match=r"adder\.plan cannot be read: No such file"):
        bench.context()


def test_a_gpu_without_kernels_is_named_with_its_generation_and_what_runs_there(rtx: Bench) -> None:
    rtx.trt.faults.validity = ("INVALID", 2)
    with pytest.raises(PassportError) as caught:
        rtx.context()
    assert str(caught.value) == (
        "engines/adder.plan: graph 'adder' on cuda:0 (sm_89) is refused by TensorRT for RTX: unsupported cc; "
        "The engine cannot run on this GPU. Run it with another engine library: ONNX Runtime, or "
        "`pflx build BUNDLE --engine tensorrt`."
    )
    assert rtx.trt.count("deserialize") == 0
    rtx.trt.faults.validity = ("INVALID", 33)
    with pytest.raises(PassportError, match=r"version mismatch, malformed engine; .*\. Build it again: pflx build BU"):
        rtx.context()


def test_an_engine_that_is_slower_than_it_could_be_runs_with_a_warning(
    rtx: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    rtx.trt.faults.validity = ("SUBOPTIMAL", 0)
    with caplog.at_level(logging.WARNING):
        rtx.context().close()
    assert "graph 'adder' on cuda:0 (sm_89) runs slower than it could" in caplog.text


def test_rtx_captures_nothing_itself_and_keeps_the_kernels_of_a_graph(rtx: Bench) -> None:
    rtx.context().close()
    (config,) = (call[1] for call in rtx.trt.calls if call[0] == "create_execution_context")
    assert config.cuda_graph_strategy.name == "DISABLED"
    assert config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
    growing = {"x": TensorSpec(("history", 64), F32), "step": INPUTS["step"]}
    rtx.context(inputs=growing, outputs={"y": TensorSpec(("history", 64), F32)}).close()
    *_, config = (call[1] for call in rtx.trt.calls if call[0] == "create_execution_context")
    assert config.dynamic_shapes_kernel_specialization_strategy.name == "NONE"


def test_rtx_says_before_a_capture_whether_there_can_be_one(bench: Bench) -> None:
    context = bench.context()
    context.require_capturable()
    bench.trt.faults.is_capturable = False
    if bench.trt.rtx:
        with pytest.raises(EngineError, match="Graph 'adder' takes memory while it runs, which no CUDA graph can hold"):
            context.require_capturable()
    context.close()


def test_compiled_kernels_are_there_at_the_next_start(rtx: Bench, cache: Path) -> None:
    assert not cache.exists()
    engine = rtx.engine(capture=False)
    engine.run(feeds())
    engine.close()
    (file,) = cache.iterdir()
    assert file.name.startswith("kernels-")
    written = file.stat().st_mtime_ns
    rtx.trt.kernels = b""
    rtx.context().close()
    assert rtx.trt.kernels == b"k"
    assert file.stat().st_mtime_ns == written
    rtx.engine(capture=False).run(feeds())
    gc.collect()


@pytest.mark.parametrize("harm", ["cut", "changed", "refused", "folder"])
def test_a_cache_that_is_no_good_is_ignored_with_a_warning(
    rtx: Bench, cache: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    engine = rtx.engine()
    engine.run(feeds())
    engine.close()
    (file,) = cache.iterdir()
    content = file.read_bytes()
    if harm == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes({"cut": content[:20], "changed": content[:-1] + b"?", "refused": content}[harm])
    rtx.trt.faults.takes_caches = harm != "refused"
    rtx.trt.kernels = b""
    with caplog.at_level(logging.WARNING):
        engine = rtx.engine()
        np.testing.assert_array_equal(np.asarray(engine.run(feeds())["y"]), feeds()["x"] + 1)
        engine.close()
    assert f"{file} is ignored, its work is done again" in caplog.text
    assert ("Nothing is kept for the next start" in caplog.text) == (harm == "folder")
    assert file.is_dir() or file.read_bytes() == content
