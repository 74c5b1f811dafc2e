"""Steps of `gpu.py`: the graphs on the GPU against those on the CPU, and what each takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gpu_steps.record import Record, Setting, read_step, rounded, timed

from pflx.engines import Array, Bundle, Engine, Manifest
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.device_engine import DeviceEngine, ExecutionContext
from pflx.engines.gpu.ort_cuda import OrtContext
from pflx.engines.gpu.placement import fetch
from pflx.engines.gpu.streams import Stream
from pflx.engines.graphs.protocol import run_loop
from pflx.runtime import EngineSettings
from pflx.runtime.bench.measure.drawing import draw_face
from pflx.runtime.bench.measure.engine import make_feeds
from pflx.runtime.bench.measure.usage import graph_uses
from pflx.runtime.bundle_engines import open_engine, stream_of
from pflx.runtime.frames.coefficients import COEFFICIENTS, WINDOW_RADIUS
from pflx.runtime.generators import make_generator
from pflx.runtime.generators.diffusion import updates
from pflx.runtime.rendering.renderers import make_renderer
from pflx.runtime.stream.posnet import Smoother

PRECISIONS = ("fp16", "fp32")
FRAMES = (1, 2, 4, 7, 8)
LEAST_EQUAL_SHARE, LEAST_PSNR_DB = 0.999, 45.0
_PARITY_FRAMES, _PARITY_SEGMENTS = 24, 4
_DIFFUSED_FRAMES = 50  # of a window of PerFRDiff


@dataclass(frozen=True)
class Opened:
    """One graph on a GPU, captured and not, on one execution context.

    Attributes:
        captured: replays its calls as CUDA graphs.
        plain: never does.
        stream: that both put their work on.
    """

    captured: DeviceEngine
    plain: DeviceEngine
    stream: Stream

    @classmethod
    def on(cls, graph: str, context: ExecutionContext, gpu: Device, stream: Stream) -> Opened:
        """Both engines of a context."""
        captured = DeviceEngine(graph, context, gpu, stream)
        return cls(captured, DeviceEngine(graph, context, gpu, stream, capture=False), stream)

    def close(self) -> None:
        """Close the graph."""
        self.captured.close()
        self.plain.close()


def open_on_gpu(bundle: Bundle, graph: str, precision: str, gpu: Device) -> Opened:
    """A graph on ONNX Runtime's CUDA provider, on the stream that a listener puts it on."""
    info, stream = bundle.manifest.graphs[graph], gpu.streams.named(stream_of(bundle.manifest, graph))
    context = OrtContext(bundle.graph_path(graph, precision), info.inputs, info.outputs, gpu, stream)
    return Opened.on(graph, context, gpu, stream)


def call_feeds(manifest: Manifest, graph: str, frames: int = 1) -> dict[str, Array]:
    """What a stream feeds to a graph: noise of the right sizes, the same every time.

    Args:
        manifest: of the bundle.
        graph: which.
        frames: how many are rendered at once.
    """
    sizes = {**graph_uses(manifest, 1)[graph].sizes, "frames": frames, "track": frames + 2 * WINDOW_RADIUS}
    feeds = make_feeds(manifest.graphs[graph].inputs, sizes)
    if graph == manifest.renderer.graphs["frame"]:
        feeds["frames"] = np.arange(WINDOW_RADIUS, WINDOW_RADIUS + frames)
        feeds["coefficients"] = made_up_track(frames)[None]
    return feeds


def made_up_track(frames: int) -> Array:
    """Slow waves without noise, float32 [frames + 26, 58]: what is rendered, with what lies around it."""
    times, columns = np.arange(frames + 2 * WINDOW_RADIUS)[:, None], np.arange(COEFFICIENTS)[None]
    return np.asarray(0.3 * np.sin(0.15 * times + columns), np.float32)


def engines(setting: Setting, record: Record) -> None:
    """Every graph at the sizes of a stream: ms a call, TFLOP/s, share of the peak, with CUDA graphs and without."""
    bundle = Bundle.open(setting.bundle, verify=False)
    peaks = read_step(setting.work, "probe").get("result", {}).get("peaks", {})
    with closing(Device.open(setting.device)) as gpu:
        for precision in PRECISIONS:
            for graph in bundle.manifest.graphs:
                _measure_graph(bundle, graph, precision, gpu, setting.seconds, peaks, record)


def _measure_graph(
    bundle: Bundle, graph: str, precision: str, gpu: Device, seconds: float, peaks: Mapping[str, Any], record: Record
) -> None:
    is_frame = graph == bundle.manifest.renderer.graphs["frame"]
    share = 1 if precision == "fp16" else 0.5
    with closing(open_on_gpu(bundle, graph, precision, gpu)) as opened:
        for frames in FRAMES if is_frame else (1,):
            name = f"{precision} {graph}" + (f" x{frames}" if is_frame else "")
            feeds = call_feeds(bundle.manifest, graph, frames)
            found = record.attempt(name, partial(measure, opened, feeds, gpu, share * seconds))
            if found:
                flops = bundle.manifest.graphs[graph].flops
                add_speed(found, flops and flops * frames, peaks.get(f"{precision}_tflops"))
                record.put(name, {**found, "frames": frames})
                record.say(f"{name}: {_in_short(found)}")


def measure(opened: Opened, feeds: Mapping[str, Array], gpu: Device, seconds: float) -> dict[str, Any]:
    """Times of the same call, captured and not; the feeds lie on the GPU already."""
    placed = {name: gpu.upload(value) for name, value in feeds.items()}
    wait = opened.stream.synchronize
    captured = timed(lambda: opened.captured.run(placed), wait, seconds)
    return {
        "captured": captured if opened.captured.captures else {"failed": "it could not be captured"},
        "not_captured": timed(lambda: opened.plain.run(placed), wait, seconds / 3),
    }


def add_speed(found: dict[str, Any], flops: int | None, peak_tflops: float | None) -> None:
    """Add operations a second, by the median of whichever way is there."""
    best = found["captured"] if "median_ms" in found["captured"] else found["not_captured"]
    if flops:
        tflops = flops / best["median_ms"] / 1e9
        found |= {"gflop": rounded(flops / 1e9), "tflops": rounded(tflops)}
        if peak_tflops:
            found["share_of_peak"] = rounded(tflops / peak_tflops)


def parity(setting: Setting, record: Record) -> None:
    """Pictures and coefficients of the GPU against those of the FP32 graphs on the CPU."""
    bundle = Bundle.open(setting.bundle, verify=False)
    manifest = bundle.manifest
    on_cpu = partial(open_engine, bundle, gpu=None, settings=EngineSettings(precision="fp32"))
    with ExitStack() as stack:
        cpu: dict[str, Engine] = {graph: stack.enter_context(closing(on_cpu(graph))) for graph in manifest.graphs}
        wanted = render(manifest, cpu, [1] * _PARITY_FRAMES)
        reaction = reactions(manifest, cpu)
        record.say(f"{_PARITY_FRAMES} frames on the CPU")
        gpu = stack.enter_context(closing(Device.open(setting.device)))
        for precision in reversed(PRECISIONS):
            record.attempt(precision, partial(_parity, bundle, precision, gpu, wanted, reaction))
            record.say(f"{precision}: {record.found[precision]}")


def _parity(
    bundle: Bundle, precision: str, gpu: Device, wanted: Array, reaction: Mapping[str, Array]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        opened = {
            graph: stack.enter_context(closing(open_on_gpu(bundle, graph, precision, gpu)))
            for graph in bundle.manifest.graphs
        }
        for way in ("captured", "plain"):
            engines: dict[str, Engine] = {graph: getattr(each, way) for graph, each in opened.items()}
            for size in (1, 8):
                made = render(bundle.manifest, engines, [size] * (len(wanted) // size))
                found[f"{way} x{size}"] = difference(made, wanted)
            errors = reactions(bundle.manifest, engines)
            found[f"{way} max_error"] = {name: largest_error(value, reaction[name]) for name, value in errors.items()}
        frame = opened[bundle.manifest.renderer.graphs["frame"]].captured
        found["captures"], found["replays"] = frame.captures, frame.replays
    pictures = [value for name, value in found.items() if " x" in name]
    return {**found, "limit": limit(precision), "met": all(is_met(precision, each) for each in pictures)}


def render(manifest: Manifest, engines: Mapping[str, Engine], batches: Sequence[int]) -> Array:
    """Pictures of a drawn face on a made-up track, uint8 [N, size, size, 3], so many in a call."""
    renderer = make_renderer(manifest.renderer, engines)
    features = renderer.prepare(draw_face())
    track, at, pictures = made_up_track(sum(batches)), 0, []
    for size in batches:
        window = track[at : at + size + 2 * WINDOW_RADIUS]
        pictures.append(np.array(fetch(renderer.render(window, size, features)).wait()))
        at += size
    return np.concatenate(pictures)


def reactions(manifest: Manifest, engines: Mapping[str, Engine]) -> dict[str, Array]:
    """Coefficients of a few segments for a made-up speaker and no noise, before PosNet and after."""
    generator = make_generator(manifest.generator, engines)
    smoother = Smoother(engines[manifest.smoother.graphs["smooth"]])
    state, pose = generator.start(1), smoother.start()
    noise = np.zeros((1, generator.noise_size), np.float32)
    found: dict[str, list[Array]] = {"reaction": [], "posnet": []}
    for window in speaker_windows(generator.window, _PARITY_SEGMENTS):
        reaction, state = generator.step(window, state, noise)
        smoothed, pose = smoother.step(reaction.coefficients, pose)
        for name, values in (("reaction", reaction.coefficients), ("posnet", smoothed)):
            found[name].append(np.array(fetch(values).wait()))
    return {name: np.stack(values) for name, values in found.items()}


def speaker_windows(length: int, count: int) -> Iterator[dict[str, Array]]:
    """A drawn face that sways and hums, as a generator of pictures and sound takes it."""
    face = draw_face(224)
    for window in range(count):
        frames = [np.roll(face, window * length + row, axis=1) for row in range(length)]
        times = np.arange(640 * length) / 16_000 + window * length / 25
        yield {"video": np.stack(frames), "audio": np.asarray(0.1 * np.sin(2 * np.pi * 220 * times), np.float32)}


def difference(made: Array, wanted: Array) -> dict[str, Any]:
    """How pictures differ, in levels of 0…255."""
    levels = np.abs(made.astype(np.int16) - wanted.astype(np.int16))
    error = float(np.mean(np.square(levels, dtype=np.float64)))
    return {
        "max_levels": int(levels.max()),
        "equal_share": float(np.mean(levels == 0)),
        "within_one_level_share": float(np.mean(levels <= 1)),
        "psnr_db": rounded(10 * np.log10(255**2 / error)) if error else None,
    }


def limit(precision: str) -> str:
    """What is asked of the pictures of a precision."""
    if precision == "fp32":
        return f"at most 1 level on {LEAST_EQUAL_SHARE:.1%} of the values"
    return f"PSNR of at least {LEAST_PSNR_DB:g} dB"


def is_met(precision: str, found: Mapping[str, Any]) -> bool:
    """Whether it is met."""
    if precision == "fp32":
        return bool(found["within_one_level_share"] >= LEAST_EQUAL_SHARE)
    return found["psnr_db"] is None or bool(found["psnr_db"] >= LEAST_PSNR_DB)


def diffusion(setting: Setting, record: Record) -> None:
    """A window of PerFRDiff: 49 steps as one CUDA graph, a graph for each step, and none."""
    bundle = Bundle.open(setting.perfrdiff_bundle, verify=False)
    roles = bundle.manifest.generator.graphs
    with closing(open_engine(bundle, roles["condition"], None, settings=EngineSettings(precision="fp32"))) as engine:
        condition = {name: np.array(value) for name, value in engine.run(_condition_feeds(bundle)).items()}
    with closing(open_engine(bundle, roles["denoise"], None, settings=EngineSettings(precision="fp32"))) as engine:
        wanted = denoise(engine, condition).copy()
    with closing(Device.open(setting.device)) as gpu:
        for precision in PRECISIONS:
            measure_it = partial(_diffusion, bundle, roles["denoise"], precision, gpu, condition, wanted, setting)
            record.attempt(precision, measure_it)
            record.say(f"{precision}: {record.found[precision]}")


def _condition_feeds(bundle: Bundle) -> dict[str, Array]:
    graph = bundle.manifest.generator.graphs["condition"]
    feeds = call_feeds(bundle.manifest, graph)
    return {**feeds, "mfcc": np.random.default_rng(0).random(feeds["mfcc"].shape, np.float32)}


def _diffusion(
    bundle: Bundle,
    graph: str,
    precision: str,
    gpu: Device,
    condition: Mapping[str, Array],
    wanted: Array,
    setting: Setting,
) -> dict[str, Any]:
    with closing(open_on_gpu(bundle, graph, precision, gpu)) as opened:
        placed = {name: gpu.upload(value) for name, value in condition.items()}
        ways = {
            "one_graph": partial(denoise, opened.captured, placed),
            "graph_per_step": partial(denoise, Stepwise(opened.captured), placed),
            "no_graph": partial(denoise, opened.plain, placed),
        }
        times, made = {}, {}
        for name, run in ways.items():
            times[name] = timed(run, opened.stream.synchronize, setting.seconds / 2, least=10)
            made[name] = np.array(fetch(run()).wait())
    return {
        **times,
        "max_difference_of_ways": max(largest_error(each, made["no_graph"]) for each in made.values()),
        "max_error_to_cpu_fp32": largest_error(made["one_graph"], wanted),
    }


class Stepwise:
    """Another engine without its loop."""

    def __init__(self, engine: Engine) -> None:
        self.run, self.close = engine.run, engine.close
        self.inputs, self.outputs = engine.inputs, engine.outputs


def denoise(engine: Engine, condition: Mapping[str, Any]) -> Array:
    """A window from noise, float32 [1, 50, 58], by the trained sampler."""
    noise = np.random.default_rng(1).standard_normal((1, _DIFFUSED_FRAMES, COEFFICIENTS), np.float32)
    steps = [{"step": np.array([row]), "update": weights} for row, weights in updates()]
    feeds = {"x": noise, "previous": noise, **condition}
    return run_loop(engine, feeds, {"x": "next", "previous": "clean"}, steps)["next"]


def largest_error(made: Array, wanted: Array) -> float:
    """The largest absolute difference."""
    return rounded(float(np.abs(made - wanted).max()))


def _in_short(found: Mapping[str, Any]) -> str:
    ways = [f"{way} {found[way].get('median_ms')} ms" for way in ("captured", "not_captured")]
    speed = [f"{found['tflops']} TFLOP/s"] if "tflops" in found else []
    share = [f"{found['share_of_peak']:.1%} of the peak"] if "share_of_peak" in found else []
    return ", ".join([*ways, *speed, *share])
