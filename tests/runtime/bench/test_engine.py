"""Graphs one by one: on a virtual clock, where a call takes what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from support.fakes import FUNCTIONS, SIZE, fake_engine, fake_manifest, open_fake, write_fake_bundle
from support.gpu.fake_cuda import FakeCuda
from support.gpu.fake_gpu import gpu_engines

from pflx.engines import Array, FakeEngine, GraphInfo, PflxError
from pflx.engines.gpu.device import Device
from pflx.runtime import EngineSettings, VirtualClock, bundle_engines
from pflx.runtime.bench.measure.engine import (
    LEAST_CALLS,
    add_speed,
    engines_verdict,
    make_feeds,
    measure_engine,
    measure_on_gpu,
    run_engines,
)
from pflx.runtime.bench.measure.peak import open_peak
from pflx.runtime.bench.measure.plan import Plan
from pflx.runtime.bench.measure.stub_shapes import stub_manifest
from pflx.runtime.bench.measure.usage import graph_uses
from pflx.runtime.bench.report.report import EngineFigures, decode_report, encode_report
from pflx.runtime.bundle_engines import CALL_SIZES

MS = 1_000_000


def sizes_of(samples: int) -> dict[str, int]:
    return {**CALL_SIZES, "samples": samples}


def posnet(clock: VirtualClock, cost: Callable[[int], int]) -> FakeEngine:
    """The fake, of which call n takes `cost(n)` ns."""

    def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        clock.sleep(cost(engine.calls - 1))
        return FUNCTIONS["posnet"](feeds)

    engine = fake_engine("posnet", run)
    return engine


def measured(cost: Callable[[int], int], duration_s: float = 1.0) -> EngineFigures:
    clock = VirtualClock()
    engine = posnet(clock, cost)
    figures = measure_engine("posnet", engine, make_feeds(engine.inputs, sizes_of(2)), duration_s, clock)
    assert engine.calls == figures.warmup_calls + figures.calls
    return figures


def test_on_a_gpu_each_part_of_a_call_is_timed_and_nothing_else_waits() -> None:
    gpu = Device(FakeCuda())
    engine = gpu_engines(gpu)["posnet"]
    feeds = make_feeds(engine.inputs, sizes_of(2))
    figures = measure_on_gpu("posnet", engine, feeds, gpu, duration_s=0.01)
    assert figures.calls >= LEAST_CALLS
    assert engine.captures == 1
    assert figures.feeds == {name: list(value.shape) for name, value in feeds.items()}
    for span in (figures.h2d, figures.compute, figures.d2h, figures.enqueue):
        assert span is not None
        assert span.max > 0
    assert figures.enqueue is not None
    assert figures.enqueue.max <= figures.compute.max
    gpu.close()


def test_a_quick_graph_is_warmed_up_for_200_ms() -> None:
    figures = measured(lambda _: MS)
    assert (figures.warmup_calls, figures.warmup_ms, figures.warmup_note) == (200, 200.0, "")
    assert (figures.calls, figures.compute.max) == (1000, 1.0)


def test_a_graph_of_10_ms_is_warmed_up_by_50_calls() -> None:
    figures = measured(lambda _: 10 * MS)
    assert (figures.warmup_calls, figures.warmup_ms, figures.warmup_note) == (50, 500.0, "")


def test_a_slow_graph_is_warmed_up_by_fewer_calls_and_says_so() -> None:
    figures = measured(lambda _: 500 * MS)
    assert (figures.warmup_calls, figures.warmup_ms) == (10, 5000.0)
    assert figures.warmup_note == "not 50, for one takes 500 ms"
    assert figures.calls == LEAST_CALLS
    assert figures.compute.p90 is not None
    assert measured(lambda _: 9_000 * MS).warmup_calls == 3


def test_the_first_calls_are_not_timed() -> None:
    figures = measured(lambda call: 900 * MS if call == 0 else 2 * MS)
    assert figures.warmup_ms > 900
    assert figures.compute.max == 2.0


def test_feeds_are_those_of_a_stream() -> None:
    shapes = {
        graph: {name: feed.shape for name, feed in make_feeds(info.inputs, sizes_of(3)).items()}
        for graph, info in fake_manifest().graphs.items()
    }
    assert shapes["reactface_listener"]["eps"] == (3, 128)
    assert shapes["reactface_speaker"]["audio"] == (1, 5120)
    assert shapes["pirender_frame"]["coefficients"] == (1, 27, 58)
    for graph in FUNCTIONS:
        engine = fake_engine(graph)
        engine.run(make_feeds(engine.inputs, sizes_of(3)))


def test_operations_a_second_are_claimed_only_at_the_sizes_they_were_counted_for() -> None:
    info: GraphInfo = replace(fake_manifest().graphs["posnet"], flops=3_000_000)
    engine = fake_engine("posnet")

    def speed(samples: int, peak: float | None) -> tuple[float | None, float | None]:
        clock = VirtualClock()
        slow = posnet(clock, lambda _: 2 * MS)
        figures = measure_engine("posnet", slow, make_feeds(engine.inputs, sizes_of(samples)), 0.1, clock)
        fast = add_speed(figures, info, peak)
        return fast.gflops, fast.share_of_peak

    assert speed(1, 30.0) == (1.5, 0.05)
    assert speed(1, None) == (1.5, None)
    assert speed(2, 30.0) == (None, None)


def said_of(samples: int) -> str:
    clock, manifest = VirtualClock(), fake_manifest()
    uses = graph_uses(manifest, samples)
    feeds = make_feeds(fake_engine("posnet").inputs, sizes_of(samples))
    figures = [
        replace(
            measure_engine(graph, posnet(clock, lambda _: 10 * MS), feeds, 0.1, clock),
            per_segment=uses[graph].per_segment,
        )
        for graph in FUNCTIONS
    ]
    return engines_verdict(figures, manifest)[0]


def test_the_verdict_adds_up_a_segment() -> None:
    said = said_of(samples=1)
    assert "generator (1 reactface_speaker call and 1 reactface_listener call), PosNet and 8 renderings" in said
    assert "8 renderings take 110 ms one after the other; a segment lasts 320 ms: they would fit." in said
    said = said_of(samples=4)
    assert "32 renderings take 350 ms one after the other; a segment lasts 320 ms: that is 1.09 times too long." in said


def test_stubs_have_no_speed_and_every_graph_is_reported() -> None:
    seen: list[tuple[int, int]] = []
    plan = Plan(stub=True, duration_s=0.01)
    report = run_engines(plan, progress=lambda done, total: seen.append((done, total)))
    assert [figures.graph for figures in report.engines] == list(stub_manifest().graphs)
    assert seen == [(n, 5) for n in range(5)]
    assert report.peak_gflops is None
    assert report.setup.stub
    assert decode_report(encode_report(report), "it") == report


def test_the_engines_of_a_bundle_are_closed_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[FakeEngine] = []
    asked: list[dict[str, object]] = []

    def open_one(path: Path, **options: object) -> FakeEngine:
        for engine in opened:
            with pytest.raises(PflxError, match="closed"):
                engine.run(make_feeds(engine.inputs, sizes_of(1)))
        asked.append(options)
        opened.append(open_fake(path))
        return opened[-1]

    monkeypatch.setattr(bundle_engines, "OrtEngine", open_one)
    plan = Plan(bundle=write_fake_bundle(tmp_path / "me.pflx"), duration_s=0.01, engines=EngineSettings(threads=1))
    report = run_engines(plan)
    assert len(opened) == 5
    assert {name: asked[0][name] for name in ("threads", "sizes")} == {
        "threads": 1,
        "sizes": {**CALL_SIZES, "side": SIZE, "half": SIZE // 2},
    }
    assert report.setup.untrained == 7


def test_the_peak_is_a_matrix_product_that_is_right() -> None:
    pytest.importorskip("onnxruntime")
    with open_peak(threads=1) as peak:
        peak.visit()
        assert peak.gflops > 0.1
        best = peak.gflops
        peak.visit()
        assert peak.gflops >= best
        a = np.random.default_rng(1).random((1024, 1024), np.float32)
        product = peak._product.run({"a": a, "b": a.T.copy()})["c"]
        np.testing.assert_allclose(product, a @ a.T, rtol=1e-4)
