"""What all streams of a listener share, and the frames that come out of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pflx.engines import FeedError
from pflx.runtime.faces import FaceState
from pflx.runtime.generators import Generator
from pflx.runtime.inbox import Float32Array, UInt8Array
from pflx.runtime.latency import Ledger, Rung
from pflx.runtime.rendering import Features, Renderer
from pflx.runtime.smoothing import Smoother
from pflx.runtime.speaker_window import SpeakerWindows

Noise: TypeAlias = Callable[[int, int, int], Float32Array]
"""(segment, sample, size) → float32 [size], standard normal. A function of its arguments alone."""
Clock: TypeAlias = Callable[[], int]
"""Monotonic time in ns."""


@dataclass(frozen=True)
class ListenerFrame:
    """One frame of one reaction.

    Attributes:
        image: uint8 [H, W, 3] RGB. Frames that show one picture share the array.
        coefficients: float32 [58] that it shows, mean face added.
        generated_pose: float32 [6], the generator's own pose before PosNet, mean face added.
        time_s: on the speaker's media clock.
        sample: which of the M reactions.
        face: whether the speaker's face was there when the segment was made.
        emotion: float32 [25] of the frame, from a generator that tells it.
        ledger: what happened to the frame, and when.
    """

    image: UInt8Array
    coefficients: Float32Array
    generated_pose: Float32Array
    time_s: float
    sample: int
    face: FaceState
    ledger: Ledger
    emotion: Float32Array | None = None

    @property
    def degraded(self) -> Rung:
        """How it was made; `Rung.FULL` unless a live session ran short of time."""
        return self.ledger.rung


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
        looks_alone: whether nobody else uses what looks at the speaker's pictures, so that it needs no turn.
    """

    speaker: SpeakerWindows
    generator: Generator
    smoother: Smoother
    renderer: Renderer
    portraits: Sequence[Features]
    mean_face: Float32Array
    lookahead: int
    clock: Clock
    looks_alone: bool = False


def seeded_noise(seed: int) -> Noise:
    """Noise that depends on seed, segment and sample only: sample m is the same whatever M is.

    Raises:
        FeedError: the seed is negative.
    """
    if seed < 0:
        raise FeedError(f"seed is {seed}; take 0 or more.")

    def noise(segment: int, sample: int, size: int) -> Float32Array:
        return np.random.default_rng((seed, sample, segment)).standard_normal(size, np.float32)

    return noise
