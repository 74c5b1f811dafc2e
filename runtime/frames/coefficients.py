"""How a coefficient frame is laid out: float32 [58], expression 52, rotation 3, translation 3 (FaceVerse)."""

from __future__ import annotations

POSE = slice(52, 58)
"""Rotation (3, rad) and translation (3, FaceVerse units) in a coefficient vector."""

WINDOW_RADIUS = 13
"""Coefficient frames that a renderer may read on each side of a frame. Source: PIRender, semantic radius."""
