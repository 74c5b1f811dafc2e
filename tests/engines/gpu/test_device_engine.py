"""Engines on a GPU made of Python: calls, captured calls and loops, and how they fail."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from support.gpu.fake_cuda import FakeCuda
from support.gpu.fake_gpu import FunctionContext

from pflx.engines import Array, Engine, FakeEngine, ShapeError, TensorSpec
from pflx.engines.gpu.array import DeviceArray
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import Arrays, DeviceEngine
from pflx.engines.graphs.protocol import DeviceLostError, DeviceMemoryError, EngineError, FeedError, placed, run_loop

F32 = np.dtype(np.float32)
INPUTS = {
    "x": TensorSpec(("samples", 4), F32),
    "y": TensorSpec(("samples", 4), F32),
    "gain": TensorSpec((1,), F32),
}
OUTPUTS = {"sum": TensorSpec(("samples", 4), F32), "last": TensorSpec(("samples",), F32)}


def add(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    total = feeds["x"] * feeds["gain"] + feeds["y"]
    return {"sum": total, "last": total[:, -1].copy()}


def feeds_of(samples: int = 2, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    x, y = (rng.standard_normal((samples, 4)).astype(np.float32) for _ in range(2))
    return {"x": x, "y": y, "gain": np.array([2], np.float32)}


class Bench:
    """One graph on a fake GPU, and all there is to look at."""

    def __init__(self, *, capture: bool = True, total: int = 1 << 24) -> None:
        self.cuda = FakeCuda(total)
        self.device = Device(self.cuda)
        self.stream = self.device.streams.named("generate")
        self.context = FunctionContext(add, INPUTS, OUTPUTS, self.device, self.stream)
        self.engine = DeviceEngine("add", self.context, self.device, self.stream, capture=capture)

    def check(self, feeds: Mapping[str, Any], expected: Mapping[str, Array] | None = None) -> None:
        made, wanted = self.engine.run(feeds), expected or add({k: np.asarray(v) for k, v in feeds.items()})
        for name, value in wanted.items():
            np.testing.assert_array_equal(np.asarray(made[name]), value)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.engine.close()
    made.device.close()


def test_it_serves_the_protocol_with_arrays_of_numpy_in_and_of_the_gpu_out(bench: Bench) -> None:
    engine: Engine = bench.engine
    made = engine.run(feeds_of())
    assert all(isinstance(value, DeviceArray) for value in made.values())
    bench.check(feeds_of())


def test_every_call_is_right_new_captured_and_replayed(bench: Bench) -> None:
    for seed in range(6):
        bench.check(feeds_of(seed=seed))
    assert (bench.engine.captures, bench.engine.replays) == (1, 5)
    assert bench.cuda.calls["launch"] == 5


def test_weights_that_were_placed_take_turns_in_one_captured_call(bench: Bench) -> None:
    """Two persons and nobody: whose weights a captured call read last changes nothing for the next."""
    owns = [placed(bench.engine, {"y": feeds_of(seed=seed)["y"]}) for seed in (1, 2, 3)]
    assert all(isinstance(own["y"], DeviceArray) for own in owns)
    x = {name: value for name, value in feeds_of(seed=9).items() if name != "y"}
    for person in (0, 0, 1, 2, 2, 1, 0):
        bench.check({**x, **owns[person]})
    assert (bench.engine.captures, bench.engine.replays) == (1, 6)
    steps = [{"gain": np.full(1, 0.5, np.float32)}] * 3
    for person in (1, 0, 0):
        own = owns[person]
        looped = run_loop(bench.engine, {"x": feeds_of()["x"], **own}, {"x": "sum"}, steps)
        expected = feeds_of()["x"]
        for _ in range(3):
            expected = expected * np.float32(0.5) + np.asarray(own["y"])
        np.testing.assert_array_equal(np.asarray(looped["sum"]), expected)


def test_no_call_waits_for_the_gpu(bench: Bench) -> None:
    placed = {name: bench.device.upload(value) for name, value in feeds_of().items()}
    results = [bench.engine.run(placed) for _ in range(5)]
    assert not bench.cuda.calls["wait_host"] + bench.cuda.calls["synchronize"]
    assert bench.cuda.pending
    for made in results:
        np.testing.assert_array_equal(np.asarray(made["sum"]), add(feeds_of())["sum"])


def test_results_belong_to_the_caller(bench: Bench) -> None:
    results = [bench.engine.run(feeds_of(seed=seed))["sum"] for seed in range(8)]
    for seed, made in enumerate(results):
        np.testing.assert_array_equal(np.asarray(made), add(feeds_of(seed=seed))["sum"])


def test_results_are_the_feeds_of_an_engine_on_another_stream(bench: Bench) -> None:
    render = bench.device.streams.named("render")
    context = FunctionContext(add, INPUTS, OUTPUTS, bench.device, render)
    second = DeviceEngine("second", context, bench.device, render)
    for seed in range(6):
        feeds = feeds_of(seed=seed)
        first = bench.engine.run(feeds)
        made = second.run({**feeds, "x": first["sum"]})
        wanted = add({**feeds, "x": add(feeds)["sum"]})
        np.testing.assert_array_equal(np.asarray(made["sum"]), wanted["sum"])


def test_after_the_first_calls_nothing_is_allocated(bench: Bench) -> None:
    for seed in range(4):
        bench.check(feeds_of(seed=seed))
    before = {name: bench.cuda.calls[name] for name in ("malloc", "malloc_host", "create_event")}
    for seed in range(30):
        bench.check(feeds_of(seed=seed))
    assert {name: bench.cuda.calls[name] for name in before} == before


def test_feeds_of_other_libraries_and_views_are_taken(bench: Bench) -> None:
    feeds = feeds_of(samples=3)
    for _ in range(4):
        values = torch.from_numpy(feeds["x"].copy())
        bench.cuda.live[values.data_ptr()] = np.from_dlpack(values).view(np.uint8).reshape(-1)
        wide = bench.device.upload(np.concatenate([feeds["y"], feeds["y"]], axis=1))
        bench.check({**feeds, "x": values, "y": wide[:, 4:]}, add(feeds))


# Captured calls


def test_another_size_is_another_capture(bench: Bench) -> None:
    for _ in range(3):
        for samples in (1, 2, 3):
            bench.check(feeds_of(samples))
    assert bench.engine.captures == 3
    assert bench.cuda.graphs == 3


def test_a_replay_never_reads_what_the_caller_has_dropped_or_moved(bench: Bench) -> None:
    """The addresses in a captured call are the engine's own, whatever becomes of those of its feeds."""
    kept = []
    for seed in range(12):
        feeds = feeds_of(seed=seed)
        placed = {name: bench.device.upload(value) for name, value in feeds.items()}
        bench.check(placed, add(feeds))
        if seed % 3:
            kept.append(placed)  # so that the next feeds lie elsewhere
    assert bench.engine.captures == 1


def test_a_feed_that_stays_the_same_is_copied_once(bench: Bench) -> None:
    same = bench.device.upload(feeds_of()["y"])
    for seed in range(3):
        bench.check({**feeds_of(seed=seed), "y": same})
    before = bench.cuda.calls["copy"]
    bench.engine.run({**feeds_of(seed=7), "y": same})
    copied = bench.cuda.calls["copy"] - before
    before = bench.cuda.calls["copy"]
    bench.engine.run({**feeds_of(seed=8), "y": bench.device.upload(feeds_of(seed=9)["y"])})
    assert bench.cuda.calls["copy"] - before == copied + 2  # to the GPU, and into the engine's own


def test_only_so_many_captures_are_kept(bench: Bench) -> None:
    for samples in range(1, 40):
        for _ in range(2):
            bench.check(feeds_of(samples))
    assert bench.engine.captures == 39
    assert bench.cuda.graphs == 16


def test_what_cannot_be_captured_runs_call_by_call(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    enqueue = bench.context.enqueue

    def allocating(feeds: Arrays, results: Arrays) -> None:
        bench.cuda.malloc(512)
        enqueue(feeds, results)

    bench.context.enqueue = allocating  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        for seed in range(5):
            bench.check(feeds_of(seed=seed))
    assert bench.engine.captures == 0
    assert bench.cuda.graphs == 0
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "'add' cannot be captured and runs call by call: cuda:0: malloc failed" in told[0]


def test_without_capture_nothing_is_captured() -> None:
    bench = Bench(capture=False)
    for seed in range(4):
        bench.check(feeds_of(seed=seed))
    assert not bench.cuda.calls["begin_capture"]


# Loops


def steps_of(count: int, seed: int = 0) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [{"gain": rng.standard_normal(1).astype(np.float32)} for _ in range(count)]


def looped(engine: Engine, count: int, seed: int = 0) -> dict[str, Array]:
    feeds = {name: value for name, value in feeds_of(seed=seed).items() if name != "gain"}
    made = run_loop(engine, feeds, {"x": "sum"}, steps_of(count, seed))
    return {name: np.asarray(value) for name, value in made.items()}


@pytest.mark.parametrize("count", [1, 2, 3, 49])
def test_a_loop_is_one_graph_and_equals_calls_one_by_one(bench: Bench, count: int) -> None:
    plain = FakeEngine(add, INPUTS, OUTPUTS)
    for round_ in range(4):
        expected = looped(plain, count, round_)
        for name, value in looped(bench.engine, count, round_).items():
            np.testing.assert_array_equal(value, expected[name])
    assert plain.calls == 4 * count
    assert bench.engine.captures == 1
    assert bench.cuda.calls["launch"] == 3  # whatever the number of steps


def test_steps_that_stay_the_same_are_not_copied_again(bench: Bench) -> None:
    feeds: dict[str, Any] = {k: bench.device.upload(value) for k, value in feeds_of().items() if k != "gain"}
    for _ in range(3):
        run_loop(bench.engine, feeds, {"x": "sum"}, steps_of(5))
    before = bench.cuda.calls["copy"]
    made = run_loop(bench.engine, feeds, {"x": "sum"}, steps_of(5))
    assert bench.cuda.calls["copy"] - before == len(made)


def test_loops_of_other_lengths_are_other_captures(bench: Bench) -> None:
    for _ in range(2):
        for count in (4, 5):
            looped(bench.engine, count)
    assert bench.engine.captures == 2


def test_a_loop_on_buffers_that_are_used_again_is_right() -> None:
    """What an engine returns may be overwritten by its next call, and the result of a loop is not."""
    buffers = {"sum": np.zeros((2, 4), np.float32), "last": np.zeros(2, np.float32)}

    def reuse(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        for name, value in add(feeds).items():
            buffers[name][...] = value
        return buffers

    expected = looped(FakeEngine(add, INPUTS, OUTPUTS), 5)
    made = looped(FakeEngine(reuse, INPUTS, OUTPUTS), 5)
    buffers["sum"][...] = 0
    for name, value in made.items():
        np.testing.assert_array_equal(value, expected[name])


# Errors


def test_wrong_feeds_are_refused_before_anything_is_put_on_a_stream(bench: Bench) -> None:
    with pytest.raises(FeedError, match="missing gain"):
        bench.engine.run({name: value for name, value in feeds_of().items() if name != "gain"})
    with pytest.raises(ShapeError, match="'y' takes float32"):
        bench.engine.run({**feeds_of(), "y": np.zeros((3, 4), np.float32)})
    with pytest.raises(ShapeError):
        run_loop(bench.engine, feeds_of() | {"x": np.zeros((2, 5), np.float32)}, {"x": "sum"}, [{}])
    with pytest.raises(FeedError, match="list"):
        bench.engine.run({**feeds_of(), "x": [[1.0] * 4] * 2})
    assert not bench.cuda.events


def test_no_memory_left_names_the_graph_and_gives_captured_buffers_back() -> None:
    bench = Bench(total=16384)
    for _ in range(3):
        bench.check(feeds_of())
    assert bench.cuda.graphs == 1
    with pytest.raises(DeviceMemoryError, match="Graph 'add': cuda:0"):
        bench.engine.run(feeds_of(samples=1000))
    assert bench.cuda.graphs == 0
    bench.check(feeds_of())


def test_a_lost_gpu_names_the_graph(bench: Bench) -> None:
    bench.cuda.fail["copy"] = DeviceLostError("cuda:0: the GPU is lost")
    with pytest.raises(DeviceLostError, match="Graph 'add': cuda:0: the GPU is lost"):
        bench.engine.run(feeds_of())


def test_a_closed_engine_says_so_and_has_given_everything_back(bench: Bench) -> None:
    for _ in range(3):
        bench.check(feeds_of())
    bench.engine.close()
    bench.engine.close()
    assert bench.context.is_closed
    assert bench.cuda.graphs == 0
    with pytest.raises(EngineError, match="'add' is closed"):
        bench.engine.run(feeds_of())


def test_an_output_of_unknown_size_is_refused_on_opening() -> None:
    bench = Bench()
    outputs = {"sum": TensorSpec(("found", 4), F32)}
    context = FunctionContext(add, INPUTS, outputs, bench.device, bench.stream)
    with pytest.raises(EngineError, match="size of 'found' of output 'sum' follows from no input"):
        DeviceEngine("add", context, bench.device, bench.stream)
