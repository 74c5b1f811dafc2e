"""A stretch of a session that can be played again, with any engines in the place of those it was recorded with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pflx.engines import Array, Engine, Manifest
from pflx.runtime.frames.coefficients import WINDOW_RADIUS
from pflx.runtime.frames.foresight import Foresight
from pflx.runtime.generators import SpeakerWindow, State, make_generator
from pflx.runtime.rendering.renderers import make_renderer
from pflx.runtime.stream.posnet import joined_segments, make_smoother

PICTURES = 6
"""Rendered of a take unless told: three on both sides of a seam."""


@dataclass(frozen=True)
class Step:
    """What one segment is made of.

    Attributes:
        window: of the speaker.
        noise: float32 [1, noise size].
        is_seam: whether PosNet has a seam to close before it.
    """

    window: SpeakerWindow
    noise: Array
    is_seam: bool


@dataclass(frozen=True)
class Take:
    """Consecutive segments of a session with one reaction, and what was known before the first of them.

    Attributes:
        name: for messages.
        portrait: uint8 [size, size, 3] RGB.
        generator_state: before the first step.
        smoother_state: likewise.
        steps: one per segment.
    """

    name: str
    portrait: Array
    generator_state: State
    smoother_state: State
    steps: Sequence[Step]


@dataclass(frozen=True)
class Performance:
    """What engines make of a take.

    Attributes:
        generated: float32 [1, T, 58] before PosNet, mean face subtracted.
        smoothed: float32 [1, T, 58] after it.
        shots: int64 [K], the frames that were rendered; they follow one another.
        images: uint8 [K, size, size, 3] RGB.
        seam: the first of the shots that belongs to a new segment, as an index into them.
    """

    generated: Array
    smoothed: Array
    shots: Array
    images: Array
    seam: int


def play(take: Take, manifest: Manifest, engines: Mapping[str, Engine], *, pictures: int = PICTURES) -> Performance:
    """Play a take: generate, smooth, and render the pictures around the seam in its middle.

    Args:
        take: what to play.
        manifest: of the bundle.
        engines: by graph name.
        pictures: how many to render; fewer where the take is shorter.

    Raises:
        EngineError, FeedError: an engine fails, or the take is not of this bundle.
    """
    generated, smoothed = react(take, manifest, engines)
    hop, count = manifest.generator.hop, smoothed.shape[1]
    border = len(take.steps) // 2 * hop
    first = max(0, min(border - pictures // 2, count - pictures))
    shots = np.arange(first, min(first + pictures, count), dtype=np.int64)
    images = render(take.portrait, smoothed, shots, manifest, engines)
    return Performance(generated, smoothed, shots, images, border - first)


def react(take: Take, manifest: Manifest, engines: Mapping[str, Engine]) -> tuple[Array, Array]:
    """The motion of a take before and after PosNet, float32 [1, T, 58] each; see `play`."""
    generator = make_generator(manifest.generator, engines)
    smoother = make_smoother(generator, engines[manifest.smoother.graphs["smooth"]])
    steps = ((step.window, step.noise, step.is_seam) for step in take.steps)
    made = list(joined_segments(generator, smoother, steps, take.generator_state, take.smoother_state))
    return np.concatenate([raw for raw, _ in made], axis=1), np.concatenate([joined for _, joined in made], axis=1)


def render(
    portrait: Array,
    track: Array,
    shots: Array,
    manifest: Manifest,
    engines: Mapping[str, Engine],
    *,
    lookahead: int = WINDOW_RADIUS,
    foresight: Foresight | None = None,
) -> Array:
    """Render some frames of a track, one by one as the CPU does.

    Args:
        portrait: uint8 [size, size, 3] RGB.
        track: float32 [1, T, 58], mean face subtracted.
        shots: int64 [K], indices into T.
        manifest: of the bundle.
        engines: by graph name.
        lookahead: coefficient frames to wait for, 0…13. A window reaches what was closed by then, as in a session; the
            last frame of it stands for those that were not.
        foresight: foretells those instead, but behind the end of the track.

    Returns:
        uint8 [K, size, size, 3] RGB.
    """
    info, hop = manifest.renderer, manifest.generator.hop
    renderer = make_renderer(info, engines)
    features = renderer.prepare(portrait)
    around = np.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1)
    images = []
    for shot in shots.tolist():
        closed = ((shot + lookahead) // hop + 1) * hop
        rows = np.clip(shot + around, 0, min(closed, track.shape[1]) - 1)
        window = track[0, rows]
        missing = shot + WINDOW_RADIUS + 1 - closed
        if foresight is not None and missing > 0 and closed < track.shape[1]:
            past = track[0, np.clip(np.arange(closed - foresight.reach, closed), 0, None)]
            window[-missing:] = foresight.after(past)[:missing]
        images.append(renderer.render(window, 1, features)[0].copy())
    return np.stack(images)
