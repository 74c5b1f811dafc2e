"""Trans-VAE and BeLFusion: one step in PyTorch as published against the exported graphs, and what a history costs.

    python benchmarks/baselines.py CLIP [--threads 2] [--rounds 3]

The weights are seeded. CLIP is a speaker with sound; the middle of its pictures stands in for the face. On it the
coefficients with a bounded history are compared with those of the whole history: how they differ, not how well either
would do with trained weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import report
import torch

from pflx.engines import Array, Engine, OrtEngine
from pflx.export import load_model, untrained
from pflx.export.generators.belfusion import BeLFusionParts
from pflx.export.generators.protocol import GeneratorParts
from pflx.export.generators.transvae import SAMPLE_RATE_HZ, TransVAEParts
from pflx.export.models import BeLFusion, TransVAE
from pflx.export.trace import trace
from pflx.runtime import open_speaker
from pflx.runtime.generators import GeneratorOptions, make_generator
from pflx.runtime.speaker.mfcc import mfcc

HISTORIES = (0, 8, 16, 32, 64, 128, 256)
BOUNDS = (16, 32, 64, 128)
SIDE = 224
Runs = dict[str, Callable[[], object]]


def engines_of(parts: GeneratorParts, folder: Path, threads: int) -> dict[str, Engine]:
    modules = parts.modules()
    for recipe in parts.recipes:
        trace(modules[recipe.graph], recipe, folder / f"{recipe.graph}.onnx", precision="fp32")
    return {r.graph: OrtEngine(folder / f"{r.graph}.onnx", threads=threads) for r in parts.recipes}


def transvae_runs(network: TransVAE, parts: GeneratorParts, engines: Mapping[str, Engine], history: int) -> Runs:
    """One step with a past of that many frames."""
    first, following = parts.recipes
    recipe = following if history else first
    feeds = recipe.example(0, {"samples": 1, "history": history})
    rng = np.random.default_rng(0)
    n_frames = history + network.window
    video = torch.from_numpy(rng.uniform(-1, 1, (1, n_frames, 3, SIDE, SIDE)).astype(np.float32))
    sound = torch.from_numpy(rng.standard_normal((1, n_frames, 78), np.float32))
    past = torch.zeros(1, history, 58), torch.zeros(1, history, 25)
    eps = torch.from_numpy(feeds["eps"])
    return {
        "eager": partial(network, video, sound, *past, eps),
        "deploy": partial(engines[recipe.graph].run, feeds),
    }


def belfusion_runs(network: BeLFusion, parts: GeneratorParts, engine: Engine, samples: int) -> Runs:
    feeds = parts.recipes[0].example(0, {"samples": samples})
    emotion, noise = (torch.from_numpy(value) for value in feeds.values())
    return {
        "eager": partial(network, emotion.expand(samples, -1, -1), noise),
        "deploy": partial(engine.run, feeds),
    }


def compared(runs: Runs, rounds: int) -> dict[str, Any]:
    seconds = report.interleaved(runs, rounds=rounds)
    summaries = {name: report.summary(taken) for name, taken in seconds.items()}
    return {**summaries, "deploy_to_eager": report.ratio(seconds, "deploy", "eager")}


def speaker_of(clip: Path) -> tuple[Array, Array]:
    """Pictures uint8 [T, 224, 224, 3] and MFCC float32 [T, 78]."""
    pictures, features = [], []
    for chunk in open_speaker(clip, SAMPLE_RATE_HZ).chunks():
        for frame in chunk.video:
            side = min(frame.shape[:2])
            top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
            pictures.append(cv2.resize(frame[top : top + side, left : left + side], (SIDE, SIDE)))
        features.append(mfcc(chunk.audio, SAMPLE_RATE_HZ)[: len(chunk.video)])
    return np.stack(pictures), np.concatenate(features)


def react(parts: GeneratorParts, engines: Mapping[str, Engine], speaker: tuple[Array, Array], history: int) -> Array:
    """Coefficients of the whole clip, float32 [T, 58]."""
    generator = make_generator(parts.info, engines, GeneratorOptions(history=history))
    state, segments = generator.start(1), []
    rng = np.random.default_rng(0)
    for begin in range(0, len(speaker[0]) - generator.window + 1, generator.window):
        pictures, sound = (rows[begin : begin + generator.window] for rows in speaker)
        noise = rng.standard_normal((1, generator.noise_size), np.float32)
        reaction, state = generator.step({"video": pictures, "mfcc": sound}, state, noise)
        segments.append(reaction.coefficients[0])
    return np.concatenate(segments)


def bounded_against_exact(parts: GeneratorParts, engines: Mapping[str, Engine], clip: Path) -> dict[str, Any]:
    speaker = speaker_of(clip)
    exact = react(parts, engines, speaker, 0)
    moves = float(exact.std(axis=0).mean())
    found: dict[str, Any] = {"clip": clip.name, "frames": len(exact), "std_over_time_of_exact": round(moves, 4)}
    for bound in BOUNDS:
        difference = np.abs(react(parts, engines, speaker, bound) - exact)
        equal, after = difference[: bound + parts.window], difference[bound + parts.window :]
        found[str(bound)] = {
            "largest_until_full": float(equal.max()),
            "largest_after": round(float(after.max()), 4),
            "rms_after": round(float(np.sqrt(np.square(after).mean())), 5),
            "rms_after_to_std": round(float(np.sqrt(np.square(after).mean())) / moves, 4),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    environment = report.machine(args.threads)
    transvae, belfusion = (load_model(name, untrained(name, 0)) for name in ("transvae", "belfusion"))
    assert isinstance(transvae, TransVAE)
    assert isinstance(belfusion, BeLFusion)
    listening, diffusing = TransVAEParts(transvae), BeLFusionParts(belfusion)
    with torch.no_grad(), TemporaryDirectory() as folder, ExitStack() as stack:
        engines = {
            name: stack.enter_context(closing(engine))
            for parts in (listening, diffusing)
            for name, engine in engines_of(parts, Path(folder), args.threads).items()
        }
        content = {
            "command": f"python benchmarks/baselines.py CLIP --threads {args.threads} --rounds {args.rounds}",
            "machine": environment,
            "weights": "seeded: costs hold for any weights, differences of coefficients do not",
            "transvae_step_of_8_frames_by_history": {
                str(history): compared(transvae_runs(transvae, listening, engines, history), args.rounds)
                for history in HISTORIES
            },
            "transvae_state_bytes_per_frame": 4 * (32 * 55 * 55 + 2 * 32 + 78 + 58 + 25),
            "transvae_bounded_against_exact": bounded_against_exact(listening, engines, args.clip),
            "belfusion_window_of_50_frames_by_samples": {
                str(samples): compared(
                    belfusion_runs(belfusion, diffusing, engines["belfusion"], samples), 4 * args.rounds
                )
                for samples in (1, 10)
            },
        }
    report.write("baselines_cpu", content)


if __name__ == "__main__":
    main()
