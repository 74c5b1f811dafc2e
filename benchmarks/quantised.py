"""A renderer's frame on the CPU: eager FP32 PyTorch as released against ONNX Runtime and OpenVINO, down to INT8.

    pflx calibrate record BUNDLE --speaker CLIP --portrait PICTURE -o FEEDS
    python benchmarks/quantised.py BUNDLE FEEDS [--threads 2] [--rounds 10]

BUNDLE is one of `pflx export --untrained SEED`. Every variant of the renderer is timed in turns in one run, and judged
by the pictures that it makes of the held-out takes, with a generator in FP32. Which layers are in INT8 is found by
`pflx calibrate int8`, as it stands, with the generator's own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias, cast

import msgspec
import numpy as np
import onnx
import report
import torch
from networks import Image, as_released

from pflx.calibration.feeds.feeds import Feeds
from pflx.calibration.feeds.replay import play
from pflx.calibration.judge import Bound, judge
from pflx.calibration.precision.int8 import calibrate_int8
from pflx.calibration.precision.int8_report import Int8Report
from pflx.calibration.precision.int8_target import TARGETS, EngineName
from pflx.calibration.precision.quantise import layers_of, measure_ranges, prune, quantised
from pflx.engines import Array, Bundle, Engine, OpenVinoEngine, OrtEngine, TensorSpec
from pflx.engines.bundle.variant_admission import cpu_features
from pflx.export import load_model, untrained
from pflx.export.models import PIRender
from pflx.runtime.bundle_engines import CALL_SIZES

FRAME = "pirender_frame"
GOAL = 0.20
BASE = "eager, as released"
BOUND = Bound()

Calibrated: TypeAlias = tuple[Int8Report, dict[str, onnx.ModelProto]]


def eager_run(bundle: Bundle, feeds: Mapping[str, Array], folder: Path) -> Callable[[], object]:
    """The public code's way; a plain export of the network is left in the folder."""
    network = load_model("pirender", untrained("pirender", bundle.manifest.untrained or 0))
    assert isinstance(network, PIRender)
    example = (torch.from_numpy(feeds["source"]), torch.from_numpy(window(feeds)))
    names: dict[str, Any] = {"input_names": ["portrait", "coefficients"], "output_names": ["image"]}
    torch.onnx.export(
        Image(network), example, folder / "plain.onnx", dynamo=True, opset_version=20, verbose=False, **names
    )
    return partial(as_released(network), *example)


def window(feeds: Mapping[str, Array]) -> Array:
    """What the published network reads, float32 [1, 58, 27]."""
    return np.ascontiguousarray(feeds["coefficients"].transpose(0, 2, 1))


def plain_runs(
    feeds: Mapping[str, Array], folder: Path, threads: int, stack: ExitStack
) -> Iterator[tuple[str, Callable[[], object]]]:
    """The plain export on both libraries; its pictures are floats, and are timed only."""
    path = folder / "plain.onnx"
    given = {"portrait": feeds["source"], "coefficients": window(feeds)}
    inputs = {name: TensorSpec(value.shape, value.dtype) for name, value in given.items()}
    outputs = {"image": inputs["portrait"]}
    yield (
        "plain ONNX, ONNX Runtime f32",
        partial(stack.enter_context(closing(OrtEngine(path, threads=threads))).run, given),
    )
    for inference in ("f32", "bf16"):
        engine = OpenVinoEngine(path, inputs, outputs, threads=threads, inference=cast(Any, inference))
        yield f"plain ONNX, OpenVINO {inference}", partial(stack.enter_context(closing(engine)).run, given)


def variants(
    bundle: Bundle, feeds: Feeds, found: Mapping[EngineName, Calibrated], folder: Path
) -> Iterator[tuple[str, Path, str]]:
    """Name, graph and what it computes in: `ort`, or OpenVINO's `f32` or `bf16`, and whether as written."""
    deployed = bundle.graph_path(FRAME, "fp32")
    yield "ONNX Runtime f32", deployed, "ort"
    model = onnx.load(str(deployed))
    for inference in ("f32", "bf16"):
        yield f"OpenVINO {inference}, as written", deployed, f"{inference} as written"
        yield f"OpenVINO {inference}", deployed, inference
    for engine in ("onnxruntime", "openvino"):
        scheme = TARGETS[engine].scheme
        layers = layers_of(model, ("Conv",))
        ranges = measure_ranges(model, ("Conv",), feeds.of_graph(FRAME), "percentile")
        every = quantised(model, layers, [layer.node for layer in layers], ranges, scheme)
        path = saved(every, folder / f"{engine}.all.onnx")
        chosen = found[engine][1].get(FRAME)
        calibrated = saved(chosen, folder / f"{engine}.int8.onnx") if chosen else None
        for inference in ("f32", "bf16") if engine == "openvino" else ("ort",):
            label = "ONNX Runtime INT8" if engine == "onnxruntime" else f"OpenVINO INT8 and {inference}"
            yield f"{label}, all layers", path, inference
            if calibrated:
                yield f"{label}, calibrated", calibrated, inference


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save_model(prune(model), str(path))
    return path


def opened(bundle: Bundle, path: Path, inference: str, threads: int) -> Engine:
    if inference == "ort":
        return OrtEngine(path, threads=threads, sizes=CALL_SIZES)
    info, (computed, *form) = bundle.manifest.graphs[FRAME], inference.split(maxsplit=1)
    return OpenVinoEngine(
        path,
        info.inputs,
        info.outputs,
        threads=threads,
        sizes=CALL_SIZES,
        inference=cast(Any, computed),
        as_written=bool(form),
    )


def judged(bundle: Bundle, feeds: Feeds, engines: Mapping[str, Engine], threads: int) -> dict[str, dict[str, Any]]:
    """Pictures of the takes by each engine of the renderer, the other graphs in FP32."""
    takes, hop = feeds.takes(), bundle.manifest.generator.hop
    with ExitStack() as stack:
        exact: dict[str, Engine] = {
            graph: stack.enter_context(
                closing(OrtEngine(bundle.graph_path(graph, "fp32"), threads=threads, sizes=CALL_SIZES))
            )
            for graph in bundle.manifest.graphs
        }
        reference = [play(take, bundle.manifest, exact) for take in takes]
        result = {}
        for name, engine in engines.items():
            found = judge(reference, [play(take, bundle.manifest, {**exact, FRAME: engine}) for take in takes], hop)
            result[name] = {
                "psnr_db": round(found.psnr_db, 2),
                "lowest_psnr_db": round(found.lowest_psnr_db, 2),
                "ssim": round(found.ssim, 4),
                "added_flicker": round(found.added_flicker, 3),
                "added_at_seams": round(found.added_at_seams, 3),
                "admitted": not BOUND.faults(found),
                "faults": BOUND.faults(found),
            }
    return result


def calibrated(bundle: Bundle, feeds: Feeds, engine: EngineName, threads: int) -> Calibrated:
    found = calibrate_int8(
        bundle, feeds, engine, bound=BOUND, threads=threads, progress=lambda *step: print(engine, *step, flush=True)
    )
    return found.report, dict(found.graphs)


def end_to_end(found: Int8Report) -> dict[str, Any]:
    """What was chosen, and how good it is with the generator's layers in INT8 too."""
    left = [node for unit in found.units if not unit.quantised for node in unit.nodes if unit.graph == FRAME]
    return {
        "inference": found.inference,
        "ranges": {method.method: round(method.judgement.lowest_psnr_db, 2) for method in found.methods},
        "method": found.method,
        "share_in_int8": round(found.accepted.share, 4),
        "left_out_of_renderer": left,
        "judgement": msgspec.to_builtins(found.accepted.judgement),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("feeds", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bundle, feeds = Bundle.open(args.bundle), Feeds.open(args.feeds)
    for_cpus: tuple[EngineName, ...] = ("openvino", "onnxruntime")
    found: dict[EngineName, Calibrated] = {
        engine: calibrated(bundle, feeds, engine, args.threads) for engine in for_cpus
    }
    environment = report.machine(args.threads)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, feed = Path(name), next(feeds.of_graph(FRAME))
        runs: dict[str, Callable[[], object]] = {BASE: eager_run(bundle, feed, folder)}
        runs |= dict(plain_runs(feed, folder, args.threads, stack))
        engines: dict[str, Engine] = {
            label: stack.enter_context(closing(opened(bundle, path, inference, args.threads)))
            for label, path, inference in variants(bundle, feeds, found, folder)
        }
        pictures = judged(bundle, feeds, engines, args.threads)
        runs |= {label: partial(engine.run, feed) for label, engine in engines.items()}
        seconds = report.interleaved(runs, rounds=args.rounds)
    ratios = {label: report.ratio(seconds, label, BASE) for label in runs}
    admitted = [label for label, picture in pictures.items() if picture["admitted"]]
    best = min(admitted, key=lambda label: ratios[label]["of_minima"])
    content = {
        "command": f"python benchmarks/quantised.py BUNDLE FEEDS --threads {args.threads} --rounds {args.rounds}",
        "machine": {**environment, "openvino": version("openvino"), "instruction_sets": list(cpu_features())},
        "clips": [recording.clip for recording in feeds.index.recordings],
        "untrained": bundle.manifest.untrained,
        "bound": msgspec.to_builtins(BOUND),
        "pirender_256_one_frame": {
            label: {**report.summary(seconds[label]), "to_eager": ratios[label], **pictures.get(label, {})}
            for label in runs
        },
        "fastest_admitted": {"variant": best, **ratios[best], "goal": GOAL, "met": ratios[best]["of_minima"] <= GOAL},
        "calibrated_end_to_end": {engine: end_to_end(made) for engine, (made, _) in found.items()},
    }
    report.write("quantised_cpu", content)


if __name__ == "__main__":
    main()
