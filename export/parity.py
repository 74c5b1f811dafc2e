"""Does a graph compute what its module computes? Per graph, and along the whole chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pflx.engines import Array, Engine, OrtEngine, PflxError
from pflx.export.components import Components
from pflx.export.recipes import COEFFICIENTS, FEATURES, FRAME_SIDE, SAMPLES_PER_FRAME, Recipe

FP16_PSNR_DB = 45.0
"""Lowest peak signal-to-noise ratio of reduced-precision frames against FP32 frames."""

_HOPS = 2
_RENDERED = 3


class ParityError(PflxError, ValueError):
    """A graph differs from the network it was exported from by more than its recipe allows."""


def count_flops(module: nn.Module, recipe: Recipe) -> int:
    """Floating-point operations of convolutions and matrix products, at the recipe's smallest sizes."""
    feeds = recipe.example(0, recipe.size_sets[-1])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*(torch.from_numpy(value) for value in feeds.values()))
    return int(counter.get_total_flops())


def graph_errors(
    module: nn.Module,
    engine: Engine,
    recipe: Recipe,
    size_sets: Sequence[Mapping[str, int]],
    *,
    seed: int = 1,
) -> dict[str, float]:
    """Largest absolute difference of each output between `module` (PyTorch) and `engine`, over seeded inputs.

    With more than one set of sizes, a dynamic axis that became fixed in the export shows.
    """
    errors = dict.fromkeys(recipe.outputs, 0.0)
    for sizes in size_sets:
        feeds = recipe.example(seed, sizes)
        with torch.inference_mode():
            expected = module(*(torch.from_numpy(value) for value in feeds.values()))
        values = (expected,) if isinstance(expected, torch.Tensor) else expected
        actual = engine.run(feeds)
        for name, value in zip(recipe.outputs, values, strict=True):
            errors[name] = max(errors[name], _largest_difference(value.numpy(), actual[name]))
    return errors


def _largest_difference(expected: Array, actual: Array) -> float:
    """NaN counts as infinitely far."""
    difference = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    return float(np.nan_to_num(difference, nan=np.inf).max())


def check_graph(recipe: Recipe, errors: Mapping[str, float]) -> None:
    """Fail the export when an output is over its tolerance.

    Raises:
        ParityError: naming graph, output, error and bound.
    """
    for output, error in errors.items():
        if error > recipe.tolerance[output]:
            raise ParityError(
                f"{recipe.graph}: output '{output}' is {error:.3g} away from PyTorch, allowed is "
                f"{recipe.tolerance[output]:.3g}. Check the checkpoint for NaN or huge weights."
            )


@dataclass(frozen=True)
class ChainInput:
    """Seeded input of a short run of the whole chain, one speaker and one listener.

    Attributes:
        video: uint8 [hops, 1, W, 224, 224, 3].
        audio: float32 [hops, 1, 640·W].
        eps: float32 [hops, 1, 128].
        portrait: uint8 [1, size, size, 3].
        frames: int64 [K], which frames of the result to render.
    """

    video: Array
    audio: Array
    eps: Array
    portrait: Array
    frames: Array

    @classmethod
    def seeded(cls, seed: int, *, window: int, size: int) -> ChainInput:
        """Smooth moving pictures and noise in place of sound; the middle frames are rendered."""
        rng = np.random.default_rng(seed)
        sound = rng.standard_normal((_HOPS, 1, SAMPLES_PER_FRAME * window))
        middle = (_HOPS * window - _RENDERED) // 2
        return cls(
            video=_smooth_pictures(rng, _HOPS * window, FRAME_SIDE).reshape(
                _HOPS, 1, window, FRAME_SIDE, FRAME_SIDE, 3
            ),
            audio=sound.astype(np.float32),
            eps=rng.standard_normal((_HOPS, 1, FEATURES)).astype(np.float32),
            portrait=_smooth_pictures(rng, 1, size),
            frames=np.arange(middle, middle + _RENDERED, dtype=np.int64),
        )


def _smooth_pictures(rng: np.random.Generator, count: int, size: int) -> Array:
    """uint8 [count, size, size, 3]: drifting waves, as pictures have large areas and few edges."""
    axis = np.linspace(0, 2 * np.pi, size)
    waves = np.zeros((count, size, size, 3))
    for frequency in (1, 2, 5):
        phase = rng.uniform(0, 2 * np.pi, (2, 3)) + 0.2 * np.arange(count)[:, None, None]
        rows = np.sin(frequency * axis[None, :, None] + phase[:, :1])
        columns = np.sin(frequency * axis[None, :, None] + phase[:, 1:])
        waves += rows[:, :, None] * columns[:, None] / frequency
    return np.clip(127.5 + 80 * waves, 0, 255).astype(np.uint8)


def run_published(components: Components, given: ChainInput) -> Array:
    """The chain on the networks as published, in PyTorch: uint8 frames [K, size, size, 3]."""
    window = components.window
    reaction, motion = torch.zeros(1, window, COEFFICIENTS), torch.zeros(1, FEATURES)
    segments: list[torch.Tensor] = []
    with torch.inference_mode():
        for hop in range(len(given.video)):
            video = torch.from_numpy(given.video[hop]).float().permute(0, 1, 4, 2, 3) / 127.5 - 1
            audio, eps = torch.from_numpy(given.audio[hop]), torch.from_numpy(given.eps[hop])
            reaction, motion = components.generator(video, audio, reaction, motion, eps, hop == 0)
            segments.append(_smoothed(components, segments, reaction))
        return _render_published(components, torch.cat(segments, dim=1), given)


def _smoothed(components: Components, segments: list[torch.Tensor], reaction: torch.Tensor) -> torch.Tensor:
    if not segments:
        return reaction
    past, current = (segment[:, None, :, -6:] for segment in (segments[-1], reaction))
    return torch.cat([reaction[..., :-6], components.posnet(past, current)[:, 0]], dim=-1)


def _render_published(components: Components, track: torch.Tensor, given: ChainInput) -> Array:
    portrait = torch.from_numpy(given.portrait).float().permute(0, 3, 1, 2) / 127.5 - 1
    track = track + components.mean_face
    images = []
    for frame in given.frames.tolist():
        rows = torch.arange(frame - 13, frame + 14).clamp(0, track.shape[1] - 1)
        images.append(components.renderer(portrait, track[:, rows].transpose(1, 2))["fake_image"])
    pixels = ((torch.cat(images).double() * 0.5 + 0.5) * 255).clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).numpy()


def run_graphs(paths: Mapping[str, Path], given: ChainInput) -> Array:
    """The chain on exported graphs, with ONNX Runtime on the CPU: uint8 frames [K, size, size, 3].

    Each stage is closed before the next is opened, since the largest takes several hundred MB.
    """
    with _opened(paths, "reactface_speaker") as speaker:
        features = [
            speaker.run({"video": video, "audio": audio}) for video, audio in zip(given.video, given.audio, strict=True)
        ]
    with _opened(paths, "reactface_listener") as listener, _opened(paths, "posnet") as posnet:
        track = np.concatenate(_listen(listener, posnet, features, given.eps), axis=1)
    with _opened(paths, "pirender_portrait") as painter:
        portrait = painter.run({"portrait": given.portrait})
    with _opened(paths, "pirender_frame") as renderer:
        images: Array = renderer.run({**portrait, "coefficients": track, "frames": given.frames})["image"][0]
    return images


def _opened(paths: Mapping[str, Path], graph: str) -> closing[OrtEngine]:
    return closing(OrtEngine(paths[graph]))


def _listen(listener: Engine, posnet: Engine, speaker: list[dict[str, Array]], eps: Array) -> list[Array]:
    window = speaker[0]["speaker_motion"].shape[1]
    reaction, motion = np.zeros((1, window, COEFFICIENTS), np.float32), np.zeros((1, FEATURES), np.float32)
    segments: list[Array] = []
    for hop, features in enumerate(speaker):
        state = {"past_reaction": reaction, "past_motion": motion, "first": np.array([hop == 0])}
        step = listener.run({**features, **state, "eps": eps[hop]})
        reaction, motion = step["reaction"], step["motion"]
        if not segments:
            segments.append(reaction)
            continue
        last_pose = np.ascontiguousarray(segments[-1][:, -1, -6:])
        segments.append(posnet.run({"segment": reaction, "last_pose": last_pose})["smoothed"])
    return segments


@dataclass(frozen=True)
class FrameDifference:
    """How far two sets of uint8 frames lie apart.

    Attributes:
        max_levels: largest difference of a colour value, 0..255.
        equal_share: share of colour values that are the same.
        psnr_db: peak signal-to-noise ratio; 100 when equal or nearly so.
    """

    max_levels: int
    equal_share: float
    psnr_db: float

    @classmethod
    def between(cls, expected: Array, actual: Array) -> FrameDifference:
        """Compare frames of the same shape."""
        difference = np.abs(expected.astype(np.int16) - actual.astype(np.int16))
        error = float(np.mean(difference.astype(np.float64) ** 2))
        psnr = 10 * np.log10(255**2 / error) if error else 100.0
        return cls(int(difference.max()), float(np.mean(difference == 0)), min(100.0, float(psnr)))
