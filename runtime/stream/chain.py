"""What all streams of a listener share, and the frames that come out of them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast, get_args

import numpy as np

from pflx.engines import FeedError, Manifest
from pflx.runtime.frames.arrays import Float32Array
from pflx.runtime.frames.foresight import Foresight
from pflx.runtime.frames.timing import Clock
from pflx.runtime.generators import Generator, joins_by_itself
from pflx.runtime.generators.protocol import SelfReader
from pflx.runtime.generators.speaker_window import SpeakerWindows
from pflx.runtime.rendering.renderers import Features, NoPictures, Renderer
from pflx.runtime.speaker.pfl import CropMode
from pflx.runtime.stream.posnet import Smoother

Noise: TypeAlias = Callable[[int, int, int], Float32Array]
"""(segment, sample, size) → float32 [size], standard normal. A function of its arguments alone."""

TOLD_NOISE = 1 << 20
"""The first of the samples whose noise goes into what a listener is told to do: far beyond all reactions."""


Crop: TypeAlias = Literal["pfl"] | CropMode
History: TypeAlias = Literal["generated", "adjusted"]


@dataclass(frozen=True)
class ChainSettings:
    """What is left out of the published chain, or exchanged, to see what it is worth.

    Attributes:
        posnet: False joins no segments: they are shown as the generator made them.
        crop: of the speaker. `pfl` is the fixed region that the bundle was made for; `release` and `paper` say which;
            `floating` is a square around the nose in each frame. See docs/cropping.md.
        generator_history: what a generator that looks back on its own past sees there: what it `generated`, or the same
            `adjusted`, as it was shown after PosNet.

    Raises:
        FeedError: there is no such crop, or history.
    """

    posnet: bool = True
    crop: Crop = "pfl"
    generator_history: History = "generated"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        crops = ("pfl", *get_args(CropMode))
        for name, value, known in (
            ("crop", self.crop, crops),
            ("generator_history", self.generator_history, get_args(History)),
        ):
            if value not in known:
                raise FeedError(f"{name} is '{value}'; give {', '.join(known)}.")

    def on(self, manifest: Manifest) -> ChainSettings:
        """What they come to on a bundle: its own crop by name, and no PosNet where none is needed."""
        crop = cast(Crop, manifest.pfl.mode) if self.crop == "pfl" else self.crop
        return replace(self, crop=crop, posnet=self.posnet and not joins_by_itself(manifest.generator.name))


def check_history(generator: Generator, name: str, settings: ChainSettings) -> None:
    """Refuse a history for a generator that has none.

    Args:
        generator: that is opened.
        name: its name, for the message.
        settings: of its chain.

    Raises:
        FeedError: it does not look back on its own past.
    """
    if settings.generator_history != "generated" and not (isinstance(generator, SelfReader) and generator.reads_itself):
        raise FeedError(
            f"generator_history is '{settings.generator_history}', and this {name} does not look back on what it made. "
            "Leave it out."
        )


PUBLISHED = ChainSettings()
"""The chain as it was published."""


@dataclass(frozen=True)
class Chain:
    """The stages that all streams of a listener share; they hold no state of a session.

    Attributes:
        speaker: makes the generator's windows.
        generator: speaker window → segment.
        smoother: segment → segment without a jump.
        renderer: track → picture.
        portraits: what the renderer needs of each portrait; sample m shows portrait m modulo their number.
        mean_face: float32 [58], added at the edge.
        lookahead: coefficient frames to wait for before a frame is rendered, 0…13.
        clock: stamps the ledgers.
        settings: what of the published chain is left out or exchanged, of the bundle that it is made of.
        foresight: foretells the coefficient frames that were not waited for; None repeats the last one.
        looks_alone: whether nobody else uses what looks at the speaker's pictures, so that it needs no turn.
        badge: whether pictures get a label that says what made them.
    """

    speaker: SpeakerWindows
    generator: Generator
    smoother: Smoother
    renderer: Renderer
    portraits: Sequence[Features]
    mean_face: Float32Array
    lookahead: int
    clock: Clock
    settings: ChainSettings = PUBLISHED
    foresight: Foresight | None = None
    looks_alone: bool = False
    badge: bool = False

    def drawing(self, render: bool) -> Chain:
        """The same stages; without `render`, none that draws, and so no look-ahead is waited for."""
        return self if render else replace(self, renderer=NoPictures(), lookahead=0)


def any_seed(given: int | None) -> int:
    """A seed, or another one in every call: no two sessions blink alike."""
    return secrets.randbelow(1 << 32) if given is None else given


def as_noise(given: int | Noise) -> Noise:
    """The noise of a seed, or what makes it.

    Raises:
        FeedError: the seed is negative.
    """
    return seeded_noise(given) if isinstance(given, int) else given


def seeded_noise(seed: int) -> Noise:
    """Noise that depends on seed, segment and sample only: sample m is the same whatever M is.

    Raises:
        FeedError: the seed is negative.
    """
    if seed < 0:
        raise FeedError(f"seed is {seed}; take 0 or more.")
    return SeededNoise(seed)


@dataclass(frozen=True)
class SeededNoise:
    """See `seeded_noise`."""

    seed: int

    def __call__(self, segment: int, sample: int, size: int) -> Float32Array:
        """See `Noise`."""
        return np.random.default_rng((self.seed, sample, segment)).standard_normal(size, np.float32)
