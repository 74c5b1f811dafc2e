"""ONNX Runtime's CUDA provider, on a library and a GPU made of Python."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.gpu.fake_cuda import FakeCuda
from support.gpu.fake_ort import CPU, CUDA, FakeOrt, Graph, Level

from pflx.engines import Array, TensorSpec
from pflx.engines.gpu.array import DeviceArray
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import DeviceEngine
from pflx.engines.gpu.ort_cuda import OrtContext
from pflx.engines.graphs.protocol import (
    BackendMissingError,
    DeviceError,
    DeviceLostError,
    DeviceMemoryError,
    EngineError,
)

F32 = np.dtype(np.float32)
INPUTS = {
    "x": TensorSpec(("samples", 4), F32),
    "past": TensorSpec(("samples", "history", 4), F32),
    "step": TensorSpec((1,), F32),
}
OUTPUTS = {"y": TensorSpec(("samples", 4), F32)}


def add(feeds: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": feeds["x"] + feeds["past"].sum(axis=1, dtype=np.float32) + feeds["step"]}


def feeds_of(samples: int = 2, history: int = 3, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    x, past = (rng.random(shape, np.float32) for shape in ((samples, 4), (samples, history, 4)))
    return {"x": x, "past": past, "step": np.array([seed], np.float32)}


class Bench:
    """A fake library on a fake GPU, and one ONNX file.

    Attributes:
        cuda: the GPU.
        device: the same, for pflx.
        stream: that contexts run on.
        ort: the library.
        path: the file.
    """

    def __init__(self, folder: Path, ordinal: int = 0) -> None:
        self.cuda = FakeCuda(ordinal=ordinal)
        self.device = Device(self.cuda)
        self.stream = self.device.streams.named("generate")
        self.ort = FakeOrt(self.cuda, {"adder": Graph(add, INPUTS)})
        self.path = folder / "adder.onnx"
        self.path.write_bytes(b"graph")

    def context(self, path: Path | None = None) -> OrtContext:
        return OrtContext(path or self.path, INPUTS, OUTPUTS, self.device, self.stream)

    def engine(self) -> DeviceEngine:
        return DeviceEngine("adder", self.context(), self.device, self.stream)

    def enqueue(self, context: OrtContext, feeds: Mapping[str, Array]) -> DeviceArray:
        """One run on a context; nobody waits for it."""
        placed = {name: self.device.upload(value) for name, value in feeds.items()}
        made = self.device.empty((len(feeds["x"]), 4), F32, self.stream)
        for feed in placed.values():
            feed.use_on(self.stream)
        context.enqueue(placed, {"y": made})
        return made.written(self.stream.mark())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path)
    monkeypatch.setattr("pflx.engines.graphs.ort.import_backend", lambda *_, **__: made.ort.module())
    yield made
    made.device.close()


def sizes_of(bench: Bench) -> list[dict[str, int]]:
    return [opened.options.sizes for opened in bench.ort.opened]


# Sessions


def test_a_session_is_opened_on_the_gpu_and_the_stream_in_full_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, ordinal=2)
    monkeypatch.setattr("pflx.engines.graphs.ort.import_backend", lambda *_, **__: bench.ort.module())
    context = bench.context()
    np.asarray(bench.enqueue(context, feeds_of()))
    (opened,) = bench.ort.opened
    assert (opened.path, opened.provider) == (bench.path, CUDA)
    expected = {"device_id": "2", "user_compute_stream": str(bench.stream.handle), "use_tf32": "0"}
    assert opened.given.items() >= expected.items()
    assert opened.options.graph_optimization_level is Level.ORT_ENABLE_ALL
    assert opened.options.intra_op_num_threads == 1
    bench.device.close()


def test_cuda_is_looked_for_where_pip_has_put_it_before_the_first_session(bench: Bench) -> None:
    bench.context()
    assert bench.ort.preloaded == 1
    assert not bench.ort.opened


def test_each_set_of_sizes_has_a_session_fixed_to_it_and_a_history_that_grows_has_none(bench: Bench) -> None:
    context = bench.context()
    for samples, history in [(1, 1), (2, 1), (1, 2), (2, 3), (1, 4)]:
        made = bench.enqueue(context, feeds_of(samples, history))
        np.testing.assert_array_equal(np.asarray(made), add(feeds_of(samples, history))["y"])
    assert sizes_of(bench) == [{"samples": 1}, {"samples": 2}]


def test_the_eight_sessions_used_last_are_kept_and_none_goes_before_its_work_is_done(bench: Bench) -> None:
    context = bench.context()
    results = [(samples, bench.enqueue(context, feeds_of(samples))) for samples in (1, 2, 3, 4, 5, 6, 7, 8, 1, 9, 10)]
    assert len(bench.ort.sessions) == 8
    for samples, made in results:
        np.testing.assert_array_equal(np.asarray(made), add(feeds_of(samples))["y"])
    bench.enqueue(context, feeds_of(1))
    assert len(bench.ort.opened) == 10
    bench.enqueue(context, feeds_of(2))
    assert sizes_of(bench)[10:] == [{"samples": 2}]
    bench.cuda.drain()


def test_closing_drops_all_sessions_and_twice_is_harmless(bench: Bench) -> None:
    context = bench.context()
    for samples in (1, 2):
        np.asarray(bench.enqueue(context, feeds_of(samples)))
    context.close()
    assert not bench.ort.sessions
    context.close()


def test_a_context_for_a_capture_keeps_its_session_until_it_is_closed_itself(bench: Bench) -> None:
    context = bench.context()
    np.asarray(bench.enqueue(context, feeds_of()))
    own = context.for_capture()
    np.testing.assert_array_equal(np.asarray(bench.enqueue(own, feeds_of(seed=1))), add(feeds_of(seed=1))["y"])
    assert len(bench.ort.opened) == 1
    context.close()
    made = bench.enqueue(own, feeds_of(seed=2))
    assert len(bench.ort.opened) == 1
    np.testing.assert_array_equal(np.asarray(made), add(feeds_of(seed=2))["y"])
    own.close()
    assert not bench.ort.sessions


def test_closing_the_context_of_a_capture_leaves_the_others_their_sessions(bench: Bench) -> None:
    context = bench.context()
    bench.enqueue(context, feeds_of())
    context.for_capture().close()
    np.testing.assert_array_equal(np.asarray(bench.enqueue(context, feeds_of())), add(feeds_of())["y"])
    assert len(bench.ort.opened) == 1


# Runs


def test_feeds_and_results_are_bound_where_they_lie_and_nothing_waits(bench: Bench) -> None:
    context = bench.context()
    placed = {name: bench.device.upload(value) for name, value in feeds_of().items()}
    made = bench.device.empty((2, 4), F32, bench.stream)
    for feed in placed.values():
        feed.use_on(bench.stream)
    bench.cuda.events.clear()
    context.enqueue(placed, {"y": made})
    assert bench.cuda.events == [("kernel", bench.stream.handle)]
    assert bench.cuda.pending
    made.written(bench.stream.mark())
    np.testing.assert_array_equal(np.asarray(made), add(feeds_of())["y"])


def test_as_an_engine_every_call_is_right_new_captured_and_replayed(bench: Bench) -> None:
    engine = bench.engine()
    for round_ in range(5):
        for samples in (1, 2, 3):
            feeds = feeds_of(samples, 3, seed=round_)
            np.testing.assert_array_equal(np.asarray(engine.run(feeds)["y"]), add(feeds)["y"])
    assert (engine.captures, engine.replays) == (3, 12)
    assert len(bench.ort.opened) == 3
    engine.close()
    assert not bench.ort.sessions


def test_a_captured_call_outlives_the_sessions_that_are_kept(bench: Bench) -> None:
    engine = bench.engine()
    for samples in range(1, 13):
        for _ in range(2):
            engine.run(feeds_of(samples))
    for samples in range(1, 13):
        feeds = feeds_of(samples, seed=samples)
        np.testing.assert_array_equal(np.asarray(engine.run(feeds)["y"]), add(feeds)["y"])
    assert (engine.captures, len(bench.ort.opened)) == (12, 12)
    engine.close()


def test_a_history_that_grows_is_captured_anew_on_the_same_session(bench: Bench) -> None:
    engine = bench.engine()
    for history in (1, 2, 3):
        for _ in range(3):
            feeds = feeds_of(history=history)
            np.testing.assert_array_equal(np.asarray(engine.run(feeds)["y"]), add(feeds)["y"])
    assert (engine.captures, len(bench.ort.opened)) == (3, 1)
    engine.close()


def test_a_graph_with_a_node_on_the_cpu_runs_call_by_call(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.ort.waits = True
    engine = bench.engine()
    with caplog.at_level(logging.WARNING):
        for seed in range(4):
            np.testing.assert_array_equal(
                np.asarray(engine.run(feeds_of(seed=seed))["y"]), add(feeds_of(seed=seed))["y"]
            )
    assert engine.captures == 0
    (told,) = [record.getMessage() for record in caplog.records]
    assert "Graph 'adder' cannot be captured and runs call by call: Graph 'adder' failed on cuda:0" in told
    engine.close()


# Errors


def test_a_cuda_provider_that_did_not_load_is_no_silent_cpu(bench: Bench) -> None:
    bench.ort.taken = CPU
    with pytest.raises(DeviceError, match=r"cuda:0, ONNX Runtime took CPUExecutionProvider.*pip install 'pflx\[gpu\]'"):
        bench.enqueue(bench.context(), feeds_of())


def test_an_onnxruntime_without_cuda_is_refused_with_the_install_line(bench: Bench) -> None:
    bench.ort.providers = ("AzureExecutionProvider", CPU)
    with pytest.raises(DeviceError, match=r"cuda:0, but this onnxruntime has no CUDA.*pip install 'pflx\[gpu\]'"):
        bench.context()


def test_a_missing_onnxruntime_comes_with_its_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    bench = Bench(tmp_path)
    with pytest.raises(BackendMissingError, match=r"onnxruntime is not installed.*'pflx\[gpu\]'"):
        bench.context()
    bench.device.close()


def test_a_missing_file_is_named(bench: Bench) -> None:
    with pytest.raises(EngineError, match=r"absent\.onnx: no such file\. Give the path of an ONNX graph"):
        bench.context(bench.path.with_name("absent.onnx"))


FAILURES: list[tuple[str, type[EngineError], str]] = [
    (
        "bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested buffer of size 9\nstack",
        DeviceMemoryError,
        "no memory left. Close other programs",
    ),
    ("CUDA failure 2: out of memory ; GPU=0", DeviceMemoryError, "no memory left"),
    (
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0",
        DeviceLostError,
        "the GPU is lost to this process. Resume from a snapshot in a new one",
    ),
    ("CUDA failure 719: unspecified launch failure", DeviceLostError, "the GPU is lost"),
    ("[ONNXRuntimeError] : 1 : FAIL : Non-zero status code\n  trace of it", EngineError, "Non-zero status code"),
]


@pytest.mark.parametrize(("said", "kind", "told"), FAILURES)
def test_a_failure_in_a_run_is_told_in_one_line_of_its_kind(
    bench: Bench, said: str, kind: type[EngineError], told: str
) -> None:
    context = bench.context()
    bench.ort.on_run = cause = RuntimeError(said)
    with pytest.raises(EngineError, match="Graph 'adder' failed on cuda:0: ") as caught:
        bench.enqueue(context, feeds_of())
    assert type(caught.value) is kind
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "trace" not in str(caught.value)
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize(("said", "kind", "told"), FAILURES)
def test_a_graph_that_cannot_be_loaded_is_told_in_one_line_of_its_kind(
    bench: Bench, said: str, kind: type[EngineError], told: str
) -> None:
    context = bench.context()
    bench.ort.on_load = RuntimeError(said)
    with pytest.raises(EngineError, match=r"adder\.onnx could not be loaded on cuda:0: ") as caught:
        bench.enqueue(context, feeds_of())
    assert type(caught.value) is kind
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_after_a_failure_the_next_run_is_right(bench: Bench) -> None:
    engine = bench.engine()
    for samples in (1, 2):
        for seed in range(2):  # in a call that is new, and in one that is to be captured
            bench.ort.on_run = RuntimeError("CUDA failure 2: out of memory")
            with pytest.raises(DeviceMemoryError, match="Graph 'adder'"):
                engine.run(feeds_of(samples, seed=seed))
        bench.ort.on_run = None
        for seed in range(3):
            feeds = feeds_of(samples, seed=seed)
            np.testing.assert_array_equal(np.asarray(engine.run(feeds)["y"]), add(feeds)["y"])
    assert engine.captures == 2
    engine.close()


def test_an_engine_tells_the_name_of_its_graph_once(bench: Bench) -> None:
    bench.ort.on_run = RuntimeError("broken")
    engine = bench.engine()
    with pytest.raises(EngineError, match=r"^Graph 'adder' failed on cuda:0: broken$"):
        engine.run(feeds_of())


def test_a_context_tells_what_the_graph_takes_and_returns(bench: Bench) -> None:
    context: Any = bench.context()
    assert (context.inputs, context.outputs) == (INPUTS, OUTPUTS)
