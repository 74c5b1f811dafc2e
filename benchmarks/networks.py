"""One PIRender frame and one ReactFace step: exported graphs against eager PyTorch, side by side in one run.

    python benchmarks/networks.py BUNDLE [--threads 2] [--rounds 10]

BUNDLE is one of `pflx export --untrained SEED`: its seed is used for the PyTorch side, so that both compute the same.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import report
import torch
from torch import Tensor, nn

from pflx.engines import Array, Bundle, OrtEngine
from pflx.export import load_model, untrained
from pflx.export.models import PIRender
from pflx.export.models.pirender import ResidualBlock, _act
from pflx.runtime.listener import CALL_SIZES


class ReleasedBlock(ResidualBlock):
    """The residual block as the public code runs it: the overwritten half is computed too."""

    def forward(self, features: Tensor, descriptor: Tensor) -> Tensor:
        _act(self.norm1(self.conv1(features), descriptor))
        return super().forward(features, descriptor)


def as_released(network: PIRender) -> PIRender:
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            module.__class__ = ReleasedBlock
    return network


class Image(nn.Module):
    """The network as published, its picture alone: what a plain export would be made of."""

    def __init__(self, network: PIRender) -> None:
        super().__init__()
        self.network = network

    def forward(self, portrait: Tensor, coefficients: Tensor) -> Tensor:
        return self.network(portrait, coefficients)["fake_image"]


def plain_export(network: PIRender, folder: Path, threads: int) -> OrtEngine:
    path = folder / "plain.onnx"
    example = (torch.zeros(1, 3, 256, 256), torch.zeros(1, 58, 27))
    names = {"input_names": ["portrait", "coefficients"], "output_names": ["image"]}
    torch.onnx.export(Image(network), example, path, dynamo=True, opset_version=20, verbose=False, **names)
    return OrtEngine(path, threads=threads)


def renderer_runs(bundle: Bundle, threads: int, folder: Path) -> dict[str, Callable[[], object]]:
    rng = np.random.default_rng(0)
    portrait = rng.integers(0, 256, (1, 256, 256, 3), np.uint8)
    track = rng.normal(0, 0.3, (1, 27, 58)).astype(np.float32)
    network = load_model("pirender", untrained("pirender", bundle.manifest.untrained or 0))
    assert isinstance(network, PIRender)
    picture = torch.from_numpy(portrait).permute(0, 3, 1, 2) / 127.5 - 1
    window = torch.from_numpy(track).transpose(1, 2).contiguous()
    plain = plain_export(network, folder, threads)
    deployed = OrtEngine(bundle.graph_path("pirender_frame", "fp32"), threads=threads, sizes=CALL_SIZES)
    features = OrtEngine(bundle.graph_path("pirender_portrait", "fp32"), threads=threads).run({"portrait": portrait})
    feeds = {**features, "coefficients": track, "frames": np.array([13])}
    return {
        "eager_as_released": partial(as_released(network), picture, window),
        "plain_onnx": partial(plain.run, {"portrait": picture.numpy(), "coefficients": window.numpy()}),
        "deploy": partial(deployed.run, feeds),
    }


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bundle = Bundle.open(args.bundle)
    environment = report.machine(args.threads)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        renderer = report.interleaved(renderer_runs(bundle, args.threads, Path(folder)), rounds=args.rounds)
        generator = report.interleaved(generator_runs(bundle, args.threads), rounds=2 * args.rounds)
    content = {
        "command": f"python benchmarks/networks.py BUNDLE --threads {args.threads} --rounds {args.rounds}",
        "machine": environment,
        "pirender_256_one_frame": {
            **{name: report.summary(seconds) for name, seconds in renderer.items()},
            "deploy_to_eager_as_released": report.ratio(renderer, "deploy", "eager_as_released"),
            "plain_onnx_to_eager_as_released": report.ratio(renderer, "plain_onnx", "eager_as_released"),
        },
        "reactface_step": {
            **{name: report.summary(seconds) for name, seconds in generator.items()},
            "deploy_to_eager": report.ratio(generator, "deploy", "eager"),
        },
    }
    report.write("networks_cpu", content)


if __name__ == "__main__":
    main()
