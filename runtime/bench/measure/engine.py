"""Each graph alone, run again and again as trtexec does: what it takes, and how near it comes to the peak."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
from msgspec.structs import replace

from pflx.engines import Array, Bundle, Engine, GraphInfo, Manifest, TensorSpec
from pflx.engines.bundle.manifest import on_gpu
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.placement import fetch
from pflx.runtime.bench.measure.environment import describe_environment
from pflx.runtime.bench.measure.peak import PEAK_MEANS, open_peak
from pflx.runtime.bench.measure.plan import Plan, make_report, read_manifest
from pflx.runtime.bench.measure.stub import stub_engines
from pflx.runtime.bench.measure.usage import graph_uses
from pflx.runtime.bench.report.report import EngineFigures, Report
from pflx.runtime.bundle_engines import CALL_SIZES, open_device, open_engine
from pflx.runtime.frames.coefficients import WINDOW_RADIUS
from pflx.runtime.frames.timing import NS_PER_MS, Clock
from pflx.runtime.latency.percentiles import distribution
from pflx.runtime.text_table import count, number

LEAST_CALLS = 30
"""Timed at least, however long they take: enough for a p90."""

_WARM_UP_NS, _WARM_UP_CALLS = 200 * NS_PER_MS, 50
_LONGEST_WARM_UP_NS, _FEWEST_CALLS = 5_000 * NS_PER_MS, 3  # 50 calls of 100 ms; slower ones need not be as many

_STUBS = "The networks are stubs: the figures are those of calling an engine that does nothing."


def run_engines(plan: Plan, progress: Callable[[int, int], None] | None = None) -> Report:
    """Measure every graph of the plan's bundle by itself, each for `duration_s`.

    The machine's peak is measured before each of them and after the last. It is that of the CPU: on another device,
    and for stubs, there is none.

    Args:
        plan: of which `samples` is the size of the batches.
        progress: gets the number of graphs measured, and of all.

    Raises:
        BundleError, DeviceError, EngineError, BackendMissingError: what cannot be opened.
    """
    environment = describe_environment(plan.device)
    manifest = read_manifest(plan)
    uses = graph_uses(manifest, plan.samples, plan.options, plan.person)
    measured = []
    with ExitStack() as stack:
        gpu = None if plan.stub else open_device(plan.device, plan.engines.library)
        if gpu is not None:
            stack.callback(gpu.close)
        peak = None if plan.stub or gpu else stack.enter_context(open_peak(plan.engines.threads))
        graphs = manifest.graphs if gpu is None else on_gpu(manifest)
        for done, graph in enumerate(graphs):
            if progress:
                progress(done, len(graphs))
            if peak:
                peak.visit()
            with closing(_open(plan, manifest, graph, gpu)) as engine:
                feeds = make_feeds(engine.inputs, uses[graph].sizes)
                figures = (
                    measure_engine(graph, engine, feeds, plan.duration_s)
                    if gpu is None
                    else measure_on_gpu(graph, engine, feeds, gpu, plan.duration_s)
                )
                measured.append(replace(figures, per_segment=uses[graph].per_segment))
        if peak:
            peak.visit()
    peak_gflops = peak.gflops if peak else None
    return make_report(
        plan,
        "engine",
        manifest,
        environment,
        source="noise into each graph",
        engines=[add_speed(figures, manifest.graphs[figures.graph], peak_gflops) for figures in measured],
        peak_gflops=peak_gflops,
        verdict=[
            *([_STUBS] if plan.stub else engines_verdict(measured, manifest)),
            *([PEAK_MEANS] if peak else []),
        ],
    )


def measure_engine(
    graph: str, engine: Engine, feeds: Mapping[str, Array], duration_s: float, clock: Clock = time.perf_counter_ns
) -> EngineFigures:
    """Run one graph on the same feeds, call after call.

    It is warmed up by at least 50 calls and 200 ms, or by 5 s where a call takes more than 100 ms. `compute` is the
    whole call, from arrays in main memory to arrays in main memory.

    Args:
        graph: its name.
        engine: the graph.
        feeds: of every call.
        duration_s: how long to go on; at least `LEAST_CALLS` calls are made.
        clock: in ns.
    """
    calls, took, note = _warm_up(lambda: engine.run(feeds), clock)
    spans: list[int] = []
    until = clock() + round(duration_s * 1000 * NS_PER_MS)
    while len(spans) < LEAST_CALLS or clock() < until:
        begun = clock()
        engine.run(feeds)
        spans.append(clock() - begun)
    return EngineFigures(
        graph=graph,
        per_segment=1,
        calls=len(spans),
        warmup_calls=calls,
        warmup_ms=took / NS_PER_MS,
        warmup_note=note,
        feeds={name: list(value.shape) for name, value in feeds.items()},
        compute=distribution(np.array(spans) / NS_PER_MS),
    )


def measure_on_gpu(
    graph: str,
    engine: Engine,
    feeds: Mapping[str, Array],
    gpu: Device,
    duration_s: float,
    clock: Clock = time.perf_counter_ns,
) -> EngineFigures:
    """Run one graph on the same feeds on a GPU, each part of a call waited for before the next begins.

    `compute` is a call from arrays on the GPU to arrays on the GPU, with the wait for them; `enqueue` the part of it
    until the call returns; `h2d` and `d2h` are the copies before and after it. A stream does not wait in between.

    Args:
        graph: its name.
        engine: the graph.
        feeds: of every call, on the host.
        gpu: that it runs on.
        duration_s: how long to go on; at least `LEAST_CALLS` calls are made.
        clock: in ns.
    """
    placed: dict[str, Any] = {name: gpu.upload(value) for name, value in feeds.items()}

    def call() -> None:
        engine.run(placed)
        gpu.streams.synchronize()

    calls, took, note = _warm_up(call, clock)
    spans: dict[str, list[int]] = defaultdict(list)
    until = clock() + round(duration_s * 1000 * NS_PER_MS)
    while len(spans["compute"]) < LEAST_CALLS or clock() < until:
        stamps = [clock()]
        for value in feeds.values():
            gpu.upload(value)
        gpu.streams.synchronize()
        stamps.append(clock())
        made = engine.run(placed)
        stamps.append(clock())
        gpu.streams.synchronize()
        stamps.append(clock())
        for coming in [fetch(value) for value in made.values()]:
            coming.wait()
        stamps.append(clock())
        spans["h2d"].append(stamps[1] - stamps[0])
        spans["enqueue"].append(stamps[2] - stamps[1])
        spans["compute"].append(stamps[3] - stamps[1])
        spans["d2h"].append(stamps[4] - stamps[3])
    return EngineFigures(
        graph=graph,
        per_segment=1,
        calls=len(spans["compute"]),
        warmup_calls=calls,
        warmup_ms=took / NS_PER_MS,
        warmup_note=note,
        feeds={name: list(value.shape) for name, value in feeds.items()},
        h2d=distribution(np.array(spans["h2d"]) / NS_PER_MS),
        compute=distribution(np.array(spans["compute"]) / NS_PER_MS),
        d2h=distribution(np.array(spans["d2h"]) / NS_PER_MS),
        enqueue=distribution(np.array(spans["enqueue"]) / NS_PER_MS),
    )


def make_feeds(inputs: Mapping[str, TensorSpec], sizes: Mapping[str, int]) -> dict[str, Array]:
    """Arrays of the sizes that a stream feeds: noise, the same every time.

    Args:
        inputs: of the graph.
        sizes: of its named dimensions; 1 where they are not told.
    """
    rng = np.random.default_rng(0)
    return {name: _noise(spec, rng, sizes) for name, spec in inputs.items()}


def add_speed(figures: EngineFigures, info: GraphInfo, peak_gflops: float | None) -> EngineFigures:
    """The same with operations a second, unless they were not counted at these sizes.

    Args:
        figures: of the graph.
        info: of the same graph; its operations are those of the smallest sizes.
        peak_gflops: of the machine; None where it is not known.
    """
    counted = {name: _shape(spec, CALL_SIZES) for name, spec in info.inputs.items()}
    if info.flops is None or figures.feeds != counted:
        return figures
    median_ms = _median_ms(figures)
    gflops = info.flops / 1e6 / median_ms if median_ms else None
    share = gflops / peak_gflops if gflops is not None and peak_gflops else None
    return replace(figures, flops=info.flops, gflops=gflops, share_of_peak=share)


def engines_verdict(measured: list[EngineFigures], manifest: Manifest) -> list[str]:
    """Say whether the graphs alone would keep the frame rate.

    Args:
        measured: all graphs of a bundle.
        manifest: of the bundle.
    """
    spent = {figures.graph: figures.per_segment * _median_ms(figures) for figures in measured}
    calls = {figures.graph: figures.per_segment for figures in measured}
    total, segment_ms = sum(spent.values()), manifest.generator.hop * 1000 / manifest.fps
    outcome = "they would fit" if total <= segment_ms else f"that is {number(total / segment_ms)} times too long"
    run = [graph for graph in manifest.generator.graphs.values() if calls[graph]]
    made_of = " and ".join(count(calls[graph], f"{graph} call") for graph in run) or "no graph"
    pictures = count(calls[manifest.renderer.graphs["frame"]], "rendering")
    return [
        f"By their medians, generator ({made_of}), PosNet and {pictures} take {number(total)} ms one after the other; "
        f"a segment lasts {number(segment_ms)} ms: {outcome}.",
        "Calls without a pause are the fastest there are, and crop and waiting are left out: realtime measures them.",
    ]


def _open(plan: Plan, manifest: Manifest, graph: str, gpu: Device | None) -> Engine:
    if plan.stub:
        return stub_engines(manifest)[graph]
    assert plan.bundle is not None
    bundle = Bundle(plan.bundle, manifest)
    return open_engine(bundle, graph, gpu, plan.engines)


def _warm_up(call: Callable[[], object], clock: Clock) -> tuple[int, int, str]:
    """Calls made, ns they took, and why there were fewer than usual."""
    begun, calls = clock(), 0
    while True:
        call()
        calls += 1
        took = clock() - begun
        if calls >= _WARM_UP_CALLS and took >= _WARM_UP_NS:
            return calls, took, ""
        if _FEWEST_CALLS <= calls < _WARM_UP_CALLS and took >= _LONGEST_WARM_UP_NS:
            return calls, took, f"not {_WARM_UP_CALLS}, for one takes {number(took / calls / NS_PER_MS)} ms"


def _noise(spec: TensorSpec, rng: np.random.Generator, sizes: Mapping[str, int]) -> Array:
    shape = _shape(spec, sizes)
    if spec.dtype.kind == "f":
        return rng.standard_normal(shape, np.float32).astype(spec.dtype)
    if spec.dtype == np.uint8:
        return rng.integers(0, 256, shape, np.uint8)
    # The step is not the first one, and the frame to render is in the middle of its window.
    return np.full(shape, 0 if spec.dtype.kind == "b" else WINDOW_RADIUS, spec.dtype)


def _shape(spec: TensorSpec, sizes: Mapping[str, int]) -> list[int]:
    return [sizes.get(size, 1) if isinstance(size, str) else size for size in spec.shape]


def _median_ms(figures: EngineFigures) -> float:
    median = figures.compute.p50
    return median.value if median else figures.compute.max
