"""One window of PerFRDiff: the exported graphs against eager PyTorch as published, side by side in one run.

    python benchmarks/perfrdiff.py [--threads 2] [--rounds 6]

Weights are seeded. PyTorch runs the plain network as published: 50 guided calls, every projection in each, in layers
with `batch_first=True`, where PyTorch multiplies token by token, for what it transposes inside is not contiguous. For
comparison it also runs the same layers on contiguous tokens, PyTorch's fastest layout, which the public code does not
use.

Source: PFLPosNet, `TransformerDenoiser_v5`, for the layout.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from torch import Tensor, nn

from pflx.engines import Array, OrtEngine
from pflx.export import load_model, untrained
from pflx.export.generators import ExportSettings
from pflx.export.generators.perfrdiff import PerFRDiffParts
from pflx.export.models import PerFRDiff
from pflx.export.models.perfrdiff import causal_mask, memory_mask
from pflx.export.parity import count_flops
from pflx.export.trace import trace
from pflx.runtime.generators import GeneratorOptions
from pflx.runtime.generators.diffusion import N_STEPS
from pflx.runtime.generators.perfrdiff import PerFRDiffGenerator

FEWER = (25, 12, 6)


class TokensFirst(PerFRDiff):
    """The same network on contiguous tokens, in layers without `batch_first`."""

    def _decode(self, x: Tensor, memory: Tensor, n_past: int) -> Tensor:
        query = self.to_3dmm_embed(x) + self.positions
        tokens = (value.transpose(0, 1).contiguous() for value in (query, memory))
        hidden: Tensor = self.decoder(*tokens, causal_mask(), memory_mask(n_past))
        return hidden.transpose(0, 1).contiguous()


def tokens_first(network: PerFRDiff) -> TokensFirst:
    made = copy.deepcopy(network)
    made.__class__ = TokensFirst
    for module in made.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.batch_first = False
    assert isinstance(made, TokensFirst)
    return made


def exported(parts: PerFRDiffParts, folder: Path, threads: int) -> dict[str, OrtEngine]:
    modules = parts.modules()
    for recipe in parts.recipes:
        trace(modules[recipe.graph], recipe, folder / f"{recipe.graph}.onnx", precision="fp32")
    return {
        role: OrtEngine(folder / f"{graph}.onnx", threads=threads, sizes={"samples": 1})
        for role, graph in parts.info.graphs.items()
    }


def profile(path: Path, feeds: Mapping[str, Array], gflop: float, threads: int, calls: int = 20) -> dict[str, Any]:
    """Least time of every node of a denoising call, added up per operator."""
    by_operator = report.node_times(path, feeds, {"samples": 1}, threads=threads, calls=calls)
    return {
        "ms_by_operator": {name: round(ms, 2) for name, ms in list(by_operator.items())[:10]},
        "ms_of_all_nodes": round(sum(by_operator.values()), 2),
        "gflop": round(gflop, 3),
        "gflop_per_s": round(1e3 * gflop / sum(by_operator.values())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    network = load_model("perfrdiff", untrained("perfrdiff", 0))
    assert isinstance(network, PerFRDiff)
    parts = PerFRDiffParts(network, None, ExportSettings())
    rng = np.random.default_rng(0)
    speaker = {
        "coefficients": 0.3 * rng.standard_normal((50, 58), np.float32),
        "mfcc": 20 * rng.standard_normal((50, 78), np.float32),
    }
    noise = rng.standard_normal((1, 50, 58), np.float32)
    environment = report.machine(args.threads)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as name:
        engines = exported(parts, Path(name), args.threads)

        def deploy(steps: int = N_STEPS) -> Array:
            generator = PerFRDiffGenerator(parts.info, engines, GeneratorOptions(steps=steps))
            return generator.step(speaker, generator.start(1), noise.reshape(1, -1))[0].coefficients

        low, high = parts.info.settings["mfcc_min"], parts.info.settings["mfcc_max"]
        scaled = torch.from_numpy((speaker["mfcc"] - low) / (high - low))[None].float().clamp(0, 1)
        inputs = torch.from_numpy(noise), torch.from_numpy(speaker["coefficients"])[None], scaled
        runs: dict[str, Callable[[], object]] = {
            "eager": partial(network.sample, *inputs),
            "eager_tokens_first": partial(tokens_first(network).sample, *inputs),
            "deploy": deploy,
            **{f"deploy_{steps}_steps": partial(deploy, steps) for steps in FEWER},
        }
        error = float(np.abs(network.sample(*inputs)[:, :25].numpy() - deploy()).max())
        seconds = report.interleaved(runs, rounds=args.rounds)
        recipe, module = parts.recipes[1], parts.modules()[parts.recipes[1].graph]
        feeds = recipe.example(0, recipe.size_sets[-1])
        gflop = count_flops(module, recipe) / 1e9
        measured = profile(Path(name) / f"{recipe.graph}.onnx", feeds, gflop, args.threads)
    content = {
        "command": f"python benchmarks/perfrdiff.py --threads {args.threads} --rounds {args.rounds}",
        "machine": environment,
        "one_window": {run: report.summary(times) for run, times in seconds.items()},
        "deploy_to_eager": report.ratio(seconds, "deploy", "eager"),
        "deploy_to_eager_tokens_first": report.ratio(seconds, "deploy", "eager_tokens_first"),
        "max_abs_difference_to_eager": error,
        "profile_of_denoise": measured,
    }
    report.write("perfrdiff", content)


if __name__ == "__main__":
    main()
