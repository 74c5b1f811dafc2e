"""Do the graphs, run as the runtime runs them, give the reaction and the frames of the published networks?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from pflx.engines import Array, Engine, GeneratorInfo, RendererInfo
from pflx.export.generators import GeneratorParts
from pflx.export.models import PosNet
from pflx.export.recipes import COEFFICIENTS, FRAME_SIDE
from pflx.export.renderers import RendererParts
from pflx.runtime.evaluation.psnr import psnr_db
from pflx.runtime.frames.coefficients import POSE
from pflx.runtime.generators import Generator, SpeakerWindow, make_generator, reach
from pflx.runtime.stream.posnet import Smoother, joined_segments

Opener: TypeAlias = Callable[[str], Engine]
"""Graph → an engine of it, which is for the caller to close."""

SPEAKER_SEED, PORTRAIT_SEED = 7, 8
"""Of the speaker and the portrait that every export is checked with."""

_RENDERED = 3
_FPS = 25
_MFCC, _EMOTION = 13, 25


@dataclass(frozen=True)
class ChainInput:
    """Seeded input of a short run of the whole chain, one speaker and one listener.

    Attributes:
        windows: what the generator reads in each step.
        noise: float32 [1, noise size] for each step.
        seams: whether PosNet has a seam to close before each step's segment; there is none where no new speaker frame
            was read, for then the network made the segment in one piece with the one before.
    """

    windows: Sequence[SpeakerWindow]
    noise: Sequence[Array]
    seams: Sequence[bool]

    @classmethod
    def seeded(cls, seed: int, generator: Generator, sample_rate_hz: int) -> ChainInput:
        """As many steps as it takes until a second window was read; the speaker is made up, but smooth."""
        rng = np.random.default_rng(seed)
        reaches = [reach(generator, step) for step in range(generator.window // generator.hop + 1)]
        count = max(reaches)
        speaker = {need: _SPEAKERS[need](rng, count, sample_rate_hz // _FPS) for need in generator.needs}
        windows = [
            {need: last_frames(frames[:end], generator.window) for need, frames in speaker.items()} for end in reaches
        ]
        noise = [rng.standard_normal((1, generator.noise_size), np.float32) for _ in reaches]
        return cls(windows, noise, [new > old for old, new in zip([0, *reaches], reaches, strict=False)])


def last_frames(frames: Array, window: int) -> Array:
    """The last `window` frames; zeros in front where there are fewer."""
    missing = max(0, window - len(frames))
    padding = [(missing, 0)] + [(0, 0)] * (frames.ndim - 1)
    return np.ascontiguousarray(np.pad(frames[len(frames) + missing - window :], padding))


def _video(rng: np.random.Generator, count: int, _: int) -> Array:
    return smooth_pictures(rng, count, FRAME_SIDE)


def _audio(rng: np.random.Generator, count: int, samples_per_frame: int) -> Array:
    return np.asarray(0.1 * rng.standard_normal((count, samples_per_frame)), np.float32)


def _mfcc(rng: np.random.Generator, count: int, _: int) -> Array:
    """Two sets of 13 per frame, their differences, and differences of differences, which are zero."""
    sets = 8 * rng.standard_normal((count, _MFCC, 2))
    delta = np.repeat(0.3 * np.diff(sets, axis=-1), 2, axis=-1)
    stacked = np.stack((sets, delta, np.zeros_like(sets)), axis=1)
    return stacked.reshape(count, -1).astype(np.float32)


def _coefficients(rng: np.random.Generator, count: int, _: int) -> Array:
    return 0.3 * _waves(rng, count, COEFFICIENTS)


def _emotion(rng: np.random.Generator, count: int, _: int) -> Array:
    return np.float32(0.5) + 0.3 * _waves(rng, count, _EMOTION)


def _waves(rng: np.random.Generator, count: int, size: int) -> Array:
    frequency, phase = rng.uniform(0.2, 1.5, size), rng.uniform(0, 2 * np.pi, size)
    return np.sin(2 * np.pi * frequency * np.arange(count)[:, None] / _FPS + phase).astype(np.float32)


_SPEAKERS: Mapping[str, Callable[[np.random.Generator, int, int], Array]] = {
    "video": _video,
    "audio": _audio,
    "mfcc": _mfcc,
    "coefficients": _coefficients,
    "emotion": _emotion,
}


def smooth_pictures(rng: np.random.Generator, count: int, size: int) -> Array:
    """uint8 [count, size, size, 3]: drifting waves, as pictures have large areas and few edges."""
    axis = np.linspace(0, 2 * np.pi, size)
    waves = np.zeros((count, size, size, 3))
    for frequency in (1, 2, 5):
        phase = rng.uniform(0, 2 * np.pi, (2, 3)) + 0.2 * np.arange(count)[:, None, None]
        rows = np.sin(frequency * axis[None, :, None] + phase[:, :1])
        columns = np.sin(frequency * axis[None, :, None] + phase[:, 1:])
        waves += rows[:, :, None] * columns[:, None] / frequency
    return np.clip(127.5 + 80 * waves, 0, 255).astype(np.uint8)


@contextmanager
def runtime_generator(info: GeneratorInfo, opened: Opener) -> Iterator[Generator]:
    """The runtime's generator on graphs; their engines are closed at the end.

    Args:
        info: as the manifest has it.
        opened: opens them.
    """
    with ExitStack() as stack:
        engines = {graph: stack.enter_context(closing(opened(graph))) for graph in info.graphs.values()}
        yield make_generator(info, engines)


def react_with_graphs(generator: Generator, opened: Opener, given: ChainInput) -> Array:
    """The smoothed reaction that the runtime makes of the input, float32 [1, n·hop, 58]."""
    with closing(opened("posnet")) as engine:
        smoother = Smoother(engine)
        steps = zip(given.windows, given.noise, given.seams, strict=True)
        made = joined_segments(generator, smoother, steps, generator.start(1), smoother.start())
        return np.concatenate([joined for _, joined in made], axis=1)


def react_as_published(parts: GeneratorParts, posnet: PosNet, given: ChainInput) -> Array:
    """The smoothed reaction of the published networks in PyTorch, float32 [1, n·hop, 58]."""
    with torch.inference_mode():
        raw = torch.split(parts.published(given.windows, given.noise), parts.hop, dim=1)
        segments: list[Tensor] = []
        for segment, seam in zip(raw, given.seams, strict=True):
            joined = segment
            if segments and seam:
                past, current = (track[:, None, :, POSE] for track in (segments[-1], segment))
                joined = torch.cat([segment[..., : POSE.start], posnet(past, current)[:, 0]], dim=-1)
            segments.append(joined)
        return torch.cat(segments, dim=1).numpy()


@dataclass(frozen=True)
class Shots:
    """What is rendered of a reaction.

    Attributes:
        portrait: uint8 [1, size, size, 3].
        frames: int64 [K], indices into the reaction.
    """

    portrait: Array
    frames: Array

    @classmethod
    def seeded(cls, seed: int, count: int, size: int) -> Shots:
        """Frames from the middle of `count`, which look at those on both sides of a seam."""
        middle = (count - _RENDERED) // 2
        frames = np.arange(middle, middle + _RENDERED, dtype=np.int64)
        return cls(smooth_pictures(np.random.default_rng(seed), 1, size), frames)


def render_with_graphs(
    info: RendererInfo, found: Mapping[str, Array], opened: Opener, track: Array, shots: Shots
) -> Array:
    """Frames of the exported renderer, uint8 [K, size, size, 3]; one at a time, as is one graph, for they are large.

    Args:
        info: as the manifest has it.
        found: what the runtime finds in the portrait by itself; see `RendererParts`.
        opened: opens the graphs.
        track: float32 [1, T, 58].
        shots: what is rendered.
    """
    with closing(opened(info.graphs["portrait"])) as painter:
        given = {"portrait": shots.portrait, **found}
        features = painter.run({name: given[name] for name in painter.inputs})
    with closing(opened(info.graphs["frame"])) as renderer:
        given = {**features, **found, "coefficients": track}
        images = []
        for frame in shots.frames:
            feeds = {**given, "frames": frame[None]}
            images.append(renderer.run({name: feeds[name] for name in renderer.inputs})["image"][0])
    return np.concatenate(images)


def render_as_published(parts: RendererParts, mean_face: Tensor, reaction: Array, shots: Shots) -> Array:
    """Frames of the published renderer in PyTorch, uint8 [K, size, size, 3]."""
    return parts.published(torch.from_numpy(reaction), mean_face, shots.portrait, shots.frames.tolist())


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
        return cls(int(difference.max()), float(np.mean(difference == 0)), psnr_db(error))
