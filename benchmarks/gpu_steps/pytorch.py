"""Steps of `gpu.py` that need PyTorch: the peaks of the GPU, the plain modules, and what the frame graph is made of."""

from __future__ import annotations

import math
import re
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import report
import torch
from gpu_steps.engines import Opened, call_feeds, open_on_gpu
from gpu_steps.record import Record, Setting, rounded, settle
from networks import Image, as_released
from torch import Tensor, nn

from pflx.engines import Bundle
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.placement import fetch
from pflx.export import load_model, untrained
from pflx.export.models import PIRender, ReactFace

_SIDE, _COPIED, _PINNED = 8192, 1 << 30, 1 << 28
_ROUNDS = 25
_COMPILE_S = 80.0
_PROFILED = 5
BATCHES = (1, 8)

Run = Callable[[], object]

CLASSES: Mapping[str, str] = {
    "layout": r"nchw_?to_?nhwc|nhwc_?to_?nchw|transpose|permute",
    "convolution": r"conv(?!ert)|fprop|dgrad|wgrad|winograd|implicit|gemm|xmma|cutlass|cublas|matmul|sm\d\d_",
    "cast": r"(?<!broad)cast|convert",
    "reduction and norm": r"reduc|norm|bn_fw|welford|softmax|mean|moments",
    "copy": r"memcpy|memset|concat|split|slice|gather|pad|expand|tile",
    "elementwise": r"element_?wise|binary|unary|relu|tanh|sigmoid|add|mul|sqrt|pow|clip|where|pointwise|grid_?sample",
}
"""Kernels by words in their names; the first class that fits counts."""


@dataclass(frozen=True)
class Peaks:
    """What PyTorch reaches on a GPU: matrix products of 8192² in TFLOP/s, copies in GB/s.

    A copy on the GPU reads and writes, and both count; `fp32_tflops` is without TF32.
    """

    fp16_tflops: float
    tf32_tflops: float
    fp32_tflops: float
    copy_gb_per_s: float
    h2d_gb_per_s: float
    d2h_gb_per_s: float


def peaks(device: str, seconds: float) -> Peaks:
    """Measure them.

    Args:
        device: the GPU.
        seconds: for each.
    """
    least = partial(_least_seconds, device=device, seconds=seconds)
    product_flops = 2.0 * _SIDE**3
    products = {}
    for name, dtype, tf32 in (
        ("fp16", torch.float16, False),
        ("tf32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        matrix = torch.randn(_SIDE, _SIDE, device=device, dtype=dtype)
        made = torch.empty_like(matrix)
        products[f"{name}_tflops"] = rounded(
            product_flops / least(partial(torch.matmul, matrix, matrix, out=made)) / 1e12
        )
    source = torch.zeros(_COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    pinned = torch.zeros(_PINNED, dtype=torch.uint8, pin_memory=True)
    part = source[:_PINNED]
    return Peaks(
        **products,
        copy_gb_per_s=rounded(2 * _COPIED / least(partial(target.copy_, source)) / 1e9),
        h2d_gb_per_s=rounded(_PINNED / least(partial(part.copy_, pinned, non_blocking=True)) / 1e9),
        d2h_gb_per_s=rounded(_PINNED / least(partial(pinned.copy_, part, non_blocking=True)) / 1e9),
    )


def _least_seconds(run: Run, *, device: str, seconds: float) -> float:
    wait = partial(torch.cuda.synchronize, device)
    settle(run, wait)
    events: Any = torch.cuda.Event
    best, until = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < until:
        begin, end = (events(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        wait()
        best = min(best, begin.elapsed_time(end) / 1e3)
    return best


def plain_modules(setting: Setting, record: Record) -> None:
    """The published networks in PyTorch and our graphs, in turns: eager, autocast, and compiled if that succeeds."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    bundle = Bundle.open(setting.bundle, verify=False)
    record.put("pytorch", f"{torch.__version__}, TF32 off, cudnn.benchmark on; fp16 is autocast")
    left_s = _COMPILE_S
    with torch.no_grad(), closing(Device.open(setting.device)) as gpu:
        for name, module, tensors, graphs in _cases(bundle, setting.device):
            with ExitStack() as stack:
                runs = _our_runs(stack, bundle, graphs, gpu)
                runs |= eager_runs(module, tensors, partial(torch.cuda.synchronize, setting.device))
                record.attempt(name, partial(compare, runs))
                record.say(f"{name}: {_medians(record.found[name])}")
                begun = time.perf_counter()
                compiled = record.attempt(
                    f"{name} compile", partial(_compiled, module, tensors, setting.device, left_s)
                )
                left_s -= time.perf_counter() - begun
                if compiled is None:
                    continue
                record.put(f"{name} compile", {"seconds": round(time.perf_counter() - begun, 1)})
                record.attempt(name, partial(compare, runs | {"compiled_fp16": compiled}))
                record.say(f"{name}: {_medians(record.found[name])}")


def _cases(bundle: Bundle, device: str) -> Iterator[tuple[str, nn.Module, tuple[Any, ...], list[tuple[str, int]]]]:
    """Name, module, what it takes, and the graphs that compute the same, with their number of pictures."""
    seed, manifest = bundle.manifest.untrained or 0, bundle.manifest
    pirender = load_model("pirender", untrained("pirender", seed))
    assert isinstance(pirender, PIRender)
    image = Image(as_released(pirender)).to(device)
    frame = manifest.renderer.graphs["frame"]
    size = manifest.renderer.size
    for batch in reversed(BATCHES):
        tensors = (_noise(device, batch, 3, size, size), _noise(device, batch, 58, 27))
        yield f"pirender x{batch}", image, tensors, [(frame, batch)]
        if batch > 1 and manifest.generator.name == "reactface":
            roles = manifest.generator.graphs
            module, tensors = _reactface(seed, device)
            yield "reactface step", module, tensors, [(roles["speaker"], 1), (roles["listener"], 1)]


def _reactface(seed: int, device: str) -> tuple[nn.Module, tuple[Any, ...]]:
    network = load_model("reactface", untrained("reactface", seed))
    assert isinstance(network, ReactFace)
    shapes = ((1, 8, 3, 224, 224), (1, 5120), (1, 8, 58), (1, 128), (1, 128))
    return network.to(device), (*(_noise(device, *shape) for shape in shapes), False)


def _noise(device: str, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)).to(device)


def eager_runs(module: nn.Module, tensors: tuple[Any, ...], wait: Callable[[], None]) -> dict[str, Run]:
    """In FP32, and with autocast."""

    def fp32() -> None:
        module(*tensors)
        wait()

    return {"eager_fp32": fp32, "eager_fp16": partial(_half, module, tensors, wait)}


def _half(module: Callable[..., object], tensors: tuple[Any, ...], wait: Callable[[], None]) -> None:
    with torch.autocast(tensors[0].device.type, dtype=torch.float16):
        module(*tensors)
    wait()


def _our_runs(stack: ExitStack, bundle: Bundle, graphs: list[tuple[str, int]], gpu: Device) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    for precision in ("fp16", "fp32"):
        calls = []
        for graph, frames in graphs:
            opened = stack.enter_context(closing(open_on_gpu(bundle, graph, precision, gpu)))
            placed = {name: gpu.upload(value) for name, value in call_feeds(bundle.manifest, graph, frames).items()}
            calls.append((opened, placed))
        runs[f"ours_{precision}"] = partial(_run_ours, calls)
    return runs


def _run_ours(calls: list[tuple[Opened, dict[str, Any]]]) -> None:
    for opened, placed in calls:
        opened.captured.run(placed)
    for opened, _ in calls:
        opened.stream.synchronize()


def _compiled(module: nn.Module, tensors: tuple[Any, ...], device: str, limit_s: float) -> Run:
    compiled = torch.compile(module, dynamic=False)
    run: Run = partial(_half, compiled, tensors, partial(torch.cuda.synchronize, device))
    with time_limit(limit_s):
        run()
        run()
    return run


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in this, the main thread, when the time is up."""

    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"not done in {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def compare(runs: Mapping[str, Run], rounds: int = _ROUNDS) -> dict[str, Any]:
    """Times of runs taken in turns, and how long each takes per time of our FP16 graphs."""
    for run in runs.values():
        settle(run, lambda: None)
    seconds = report.interleaved(runs, rounds=rounds)
    others = [name for name in runs if not name.startswith("ours")]
    return {
        **{name: report.summary(spans) for name, spans in seconds.items()},
        "ours_fp16_to": {name: report.ratio(seconds, "ours_fp16", name) for name in others},
        "ours_fp32_to": {name: report.ratio(seconds, "ours_fp32", name) for name in others if name.endswith("fp32")},
    }


def _medians(found: Mapping[str, Any]) -> str:
    known = {
        name: each["median_ms"] for name, each in found.items() if isinstance(each, Mapping) and "median_ms" in each
    }
    return ", ".join(f"{name} {value} ms" for name, value in known.items()) or str(found)


def profile(setting: Setting, record: Record) -> None:
    """Every kernel of the frame graph at batch 8 in FP16, without a CUDA graph, in which names are as well known."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    bundle = Bundle.open(setting.bundle, verify=False)
    graph = bundle.manifest.renderer.graphs["frame"]
    torch.zeros(1, device=setting.device)  # the profiler looks for a context of PyTorch's
    with closing(Device.open(setting.device)) as gpu, closing(open_on_gpu(bundle, graph, "fp16", gpu)) as opened:
        feeds = call_feeds(bundle.manifest, graph, max(BATCHES))
        placed = {name: gpu.upload(value) for name, value in feeds.items()}
        run = partial(opened.plain.run, placed)
        settle(run, opened.stream.synchronize)
        with profiler(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
            begun = time.perf_counter()
            made = [run() for _ in range(_PROFILED)][-1]
            opened.stream.synchronize()
            took_ms = 1e3 * (time.perf_counter() - begun) / _PROFILED
        fetch(next(iter(made.values()))).wait()
    kernels = [event for event in recorded.key_averages() if _on_gpu(event)]
    if not kernels:
        raise RuntimeError("the profiler saw no kernels: CUPTI may not be allowed here")
    spans = {event.key: (_device_ms(event) / _PROFILED, event.count / _PROFILED) for event in kernels}
    for name, value in kernel_summary(spans).items():
        record.put(name, value)
    record.put("wall_ms_per_run", rounded(took_ms))
    record.say(f"{record.found['by_class_ms']}, kernels {record.found['kernels_ms']} of {rounded(took_ms)} ms")


def kernel_summary(spans: Mapping[str, tuple[float, float]], top: int = 20) -> dict[str, Any]:
    """Kernels by their time, and their sum by class.

    Args:
        spans: kernel to its ms and its calls in one run.
        top: how many to name.
    """
    by_class: dict[str, float] = defaultdict(float)
    for name, (ms, _) in spans.items():
        by_class[kernel_class(name)] += ms
    dearest = sorted(spans.items(), key=lambda item: -item[1][0])
    total = sum(by_class.values())
    classes = dict(sorted(by_class.items(), key=lambda item: -item[1]))
    return {
        "kernels_ms": rounded(total),
        "by_class_ms": {name: rounded(ms) for name, ms in classes.items()},
        "share_by_class": {name: rounded(ms / total, 3) for name, ms in classes.items()},
        "bound_by": next(iter(classes)),
        "top": [
            {"kernel": name[:160], "class": kernel_class(name), "ms": rounded(ms), "calls": rounded(calls)}
            for name, (ms, calls) in dearest[:top]
        ],
    }


def kernel_class(name: str) -> str:
    """What kind of work a kernel does, by its name."""
    return next((kind for kind, words in CLASSES.items() if re.search(words, name, re.I)), "other")


def _on_gpu(event: Any) -> bool:
    return str(event.device_type).endswith("CUDA") and _device_ms(event) > 0


def _device_ms(event: Any) -> float:
    """Its own time on the GPU; the attribute was renamed."""
    known: Iterable[str] = ("self_device_time_total", "self_cuda_time_total")
    return next(float(getattr(event, name)) for name in known if hasattr(event, name)) / 1e3
