"""An experiment: the renderer's graph on an engine with Winograd convolutions (MNN) against ONNX Runtime, in one run.

    pip install MNN==3.6.1
    python benchmarks/winograd.py BUNDLE [--threads 2] [--rounds 10]

MNN is no engine of pflx: it is faster, but its convolutions cost the precision that the FP32 graph is held to, and its
package depends on one that can report usage over the network.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import report
from networks import renderer_feeds

from pflx.engines import Array, Bundle, OrtEngine
from pflx.runtime.bundle_engines import CALL_SIZES


def converted(bundle: Bundle, folder: Path) -> Path:
    """The graph for one frame in MNN's format; ONNX Runtime folds the shapes first, as MNN reads fixed ones best."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "fixed.onnx")
    for name, size in CALL_SIZES.items():
        options.add_free_dimension_override_by_name(name, size)
    onnxruntime.InferenceSession(bundle.graph_path("pirender_frame", "fp32"), options)
    convert = Path(sys.executable).with_name("mnnconvert")
    files = ["--modelFile", options.optimized_model_filepath, "--MNNModel", str(folder / "frame.mnn")]
    subprocess.run([convert, "-f", "ONNX", *files, "--bizCode", "pflx"], check=True, capture_output=True)
    return folder / "frame.mnn"


def mnn_run(path: Path, feeds: Mapping[str, Array], threads: int) -> Callable[[], Array]:
    import MNN  # pyright: ignore[reportMissingImports]

    expr: Any = MNN.expr
    config = {"backend": "CPU", "precision": "high", "numThread": threads}
    manager = MNN.nn.create_runtime_manager((config,))
    network = MNN.nn.load_module_from_file(str(path), list(feeds), ["image"], runtime_manager=manager)

    def tensor(value: Array) -> Any:
        whole = value.dtype == np.int64
        content = value.astype(np.int32) if whole else value
        return expr.const(content, content.shape, expr.NCHW, expr.int if whole else expr.float)

    tensors = [tensor(value) for value in feeds.values()]  # once: those of the portrait stay for a session

    def run() -> Array:
        image = expr.convert(network.forward(tensors)[0], expr.NCHW)
        return np.asarray(image.read())

    return run


def main() -> None:
    args = report.bundle_arguments(__doc__)
    bundle = Bundle.open(args.bundle)
    environment = report.machine(args.threads)
    feeds = renderer_feeds(bundle, args.threads)
    deployed = OrtEngine(bundle.graph_path("pirender_frame", "fp32"), threads=args.threads, sizes=CALL_SIZES)
    with tempfile.TemporaryDirectory() as folder:
        run = mnn_run(converted(bundle, Path(folder)), feeds, args.threads)
        seconds = report.interleaved({"mnn": run, "onnx_runtime": lambda: deployed.run(feeds)}, rounds=args.rounds)
        expected, actual = deployed.run(feeds)["image"], run()
    difference = np.abs(expected.astype(int) - actual.reshape(expected.shape))
    content = {
        "command": f"python benchmarks/winograd.py BUNDLE --threads {args.threads} --rounds {args.rounds}",
        "machine": {**environment, "mnn": version("MNN")},
        **{name: report.summary(values) for name, values in seconds.items()},
        "mnn_to_onnx_runtime": report.ratio(seconds, "mnn", "onnx_runtime"),
        "largest_difference_in_levels": int(difference.max()),
        "equal_share": round(float(np.mean(difference == 0)), 5),
    }
    report.write("winograd_cpu", content)


if __name__ == "__main__":
    main()
