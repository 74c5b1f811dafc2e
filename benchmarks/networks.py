"""One PIRender frame and one ReactFace step: exported graphs against eager PyTorch, side by side in one run.

    python benchmarks/networks.py BUNDLE [--threads 2] [--rounds 10]

BUNDLE is one of `pflx export --untrained SEED`: its seed is used for the PyTorch side, so that both compute the same.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pflx.engines import Array, Bundle, OrtEngine
from pflx.export import load_model, untrained
from pflx.export.models import PIRender
from pflx.export.models.pirender import EPSILON, LayerNorm2d, ResidualBlock, _act
from pflx.runtime.bundle_engines import CALL_SIZES


class ReleasedBlock(ResidualBlock):
    """The residual block as the public code runs it: the overwritten half is computed too."""

    def forward(self, features: Tensor, descriptor: Tensor) -> Tensor:
        _act(self.norm1(self.conv1(features), descriptor))
        return super().forward(features, descriptor)


class ReleasedLayerNorm(LayerNorm2d):
    """The norm as the public code runs it: with its parameters expanded to C×H×W."""

    def forward(self, features: Tensor) -> Tensor:
        shape = features.shape[1:]
        return F.layer_norm(features, shape, self.weight.expand(shape), self.bias.expand(shape), EPSILON)


_RELEASED: dict[type[nn.Module], type[nn.Module]] = {ResidualBlock: ReleasedBlock, LayerNorm2d: ReleasedLayerNorm}


def as_released(network: PIRender) -> PIRender:
    """A copy that also does what the public code does in vain."""
    network = copy.deepcopy(network)
    for module in network.modules():
        module.__class__ = _RELEASED.get(type(module), type(module))
    return network


class Image(nn.Module):
    """The network as published, its picture alone: what a plain export would be made of."""

    def __init__(self, network: PIRender) -> None:
        super().__init__()
        self.network = network

    def forward(self, portrait: Tensor, coefficients: Tensor) -> Tensor:
        image: Tensor = self.network(portrait, coefficients)["fake_image"]
        return image


def plain_export(network: PIRender, folder: Path, threads: int) -> OrtEngine:
    path = folder / "plain.onnx"
    example = (torch.zeros(1, 3, 256, 256), torch.zeros(1, 58, 27))
    names: dict[str, Any] = {"input_names": ["portrait", "coefficients"], "output_names": ["image"]}
    torch.onnx.export(Image(network), example, path, dynamo=True, opset_version=20, verbose=False, **names)
    return OrtEngine(path, threads=threads)


def renderer_feeds(bundle: Bundle, threads: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    portrait = rng.integers(0, 256, (1, 256, 256, 3), np.uint8)
    features = OrtEngine(bundle.graph_path("pirender_portrait", "fp32"), threads=threads).run({"portrait": portrait})
    track = rng.normal(0, 0.3, (1, 27, 58)).astype(np.float32)
    return {**features, "coefficients": track, "frames": np.array([13])}


def renderer_runs(
    bundle: Bundle, feeds: dict[str, Array], threads: int, folder: Path
) -> dict[str, Callable[[], object]]:
    network = load_model("pirender", untrained("pirender", bundle.manifest.untrained or 0))
    assert isinstance(network, PIRender)
    picture = torch.from_numpy(feeds["source"])
    window = torch.from_numpy(feeds["coefficients"]).transpose(1, 2).contiguous()
    plain = plain_export(network, folder, threads)
    deployed = OrtEngine(bundle.graph_path("pirender_frame", "fp32"), threads=threads, sizes=CALL_SIZES)
    return {
        "eager_as_released": partial(as_released(network), picture, window),
        "plain_onnx": partial(plain.run, {"portrait": picture.numpy(), "coefficients": window.numpy()}),
        "deploy": partial(deployed.run, feeds),
    }


def profile(bundle: Bundle, feeds: dict[str, Array], threads: int, rounds: int) -> dict[str, object]:
    """Where a frame's time goes: least time of every node, added up per operator, and the share of the cores' peak."""
    path = bundle.graph_path("pirender_frame", "fp32")
    by_operator = report.node_times(path, feeds, CALL_SIZES, threads=threads, calls=rounds)
    gflop = (bundle.manifest.graphs["pirender_frame"].flops or 0) / 1e9
    return {
        "ms_by_operator": {name: round(ms, 1) for name, ms in list(by_operator.items())[:12]},
        "ms_of_all_nodes": round(sum(by_operator.values()), 1),
        "gflop": round(gflop, 1),
        "gflop_per_s_in_convolutions": round(1e3 * gflop / (by_operator["Conv"] + by_operator["ConvTranspose"])),
        "gflop_per_s_of_a_large_matrix_product": round(_matrix_peak(rounds)),
    }


def _matrix_peak(rounds: int) -> float:
    """What these cores reach in FP32, by PyTorch's matrix product of 2048² with the same threads."""
    matrix = torch.rand(2048, 2048)
    seconds = report.interleaved({"product": lambda: matrix @ matrix}, rounds=rounds)["product"]
    return 2 * 2048**3 / min(seconds) / 1e9


def generator_runs(bundle: Bundle, threads: int) -> dict[str, Callable[[], object]]:
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (1, 8, 224, 224, 3), np.uint8)
    audio, eps = (rng.standard_normal((1, size)).astype(np.float32) for size in (5120, 128))
    state = {"past_reaction": np.zeros((1, 8, 58), np.float32), "past_motion": np.zeros((1, 128), np.float32)}
    network = load_model("reactface", untrained("reactface", bundle.manifest.untrained or 0))
    picture = torch.from_numpy(video).permute(0, 1, 4, 2, 3) / 127.5 - 1
    tensors = [picture, *(torch.from_numpy(value) for value in (audio, *state.values(), eps))]
    speaker = OrtEngine(bundle.graph_path("reactface_speaker", "fp32"), threads=threads)
    listener = OrtEngine(bundle.graph_path("reactface_listener", "fp32"), threads=threads)

    def step() -> dict[str, Array]:
        features = speaker.run({"video": video, "audio": audio})
        return listener.run({**features, **state, "eps": eps, "first": np.ones(1, np.bool_)})

    return {"eager": partial(network, *tensors, True), "deploy": step}


def main() -> None:
    args = report.bundle_arguments(__doc__)
    torch.set_num_threads(args.threads)
    bundle = Bundle.open(args.bundle)
    environment = report.machine(args.threads)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        feeds = renderer_feeds(bundle, args.threads)
        renderer = report.interleaved(renderer_runs(bundle, feeds, args.threads, Path(folder)), rounds=args.rounds)
        generator = report.interleaved(generator_runs(bundle, args.threads), rounds=2 * args.rounds)
    content = {
        "command": f"python benchmarks/networks.py BUNDLE --threads {args.threads} --rounds {args.rounds}",
        "machine": environment,
        "pirender_256_one_frame": {
            **{name: report.summary(seconds) for name, seconds in renderer.items()},
            "deploy_to_eager_as_released": report.ratio(renderer, "deploy", "eager_as_released"),
            "plain_onnx_to_eager_as_released": report.ratio(renderer, "plain_onnx", "eager_as_released"),
            "profile_of_deploy": profile(bundle, feeds, args.threads, args.rounds),
        },
        "reactface_step": {
            **{name: report.summary(seconds) for name, seconds in generator.items()},
            "deploy_to_eager": report.ratio(generator, "deploy", "eager"),
        },
    }
    report.write("networks_cpu", content)


if __name__ == "__main__":
    main()
