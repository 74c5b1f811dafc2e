"""How a coefficient frame is laid out: float32 [58], expression 52, rotation 3, translation 3 (FaceVerse)."""

from __future__ import annotations

from pflx.engines import FeedError

COEFFICIENTS = 58
"""Numbers of a frame."""

POSE = slice(52, COEFFICIENTS)
"""Rotation (3, rad) and translation (3, FaceVerse units) in a coefficient vector."""

WINDOW_RADIUS = 13
"""Coefficient frames that a renderer may read on each side of a frame. Source: PIRender, semantic radius."""

MOST_SAMPLES = 100
"""Reactions to one speaker at once. The challenge asks for 10."""


def check_samples(samples: int) -> None:
    """Refuse to make no reaction, or more than can be meant.

    Raises:
        FeedError: it is out of range.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise FeedError(f"samples is {samples}; give 1 to {MOST_SAMPLES} reactions.")


def check_lookahead(lookahead: int) -> None:
    """Refuse to wait for more coefficient frames than a renderer reads, or fewer than none.

    Raises:
        FeedError: it is out of range.
    """
    if not 0 <= lookahead <= WINDOW_RADIUS:
        raise FeedError(f"lookahead is {lookahead}; it goes from 0 to {WINDOW_RADIUS} frames.")
