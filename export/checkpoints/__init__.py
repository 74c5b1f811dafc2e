"""Reading public checkpoints without running anything that is in them."""

from __future__ import annotations

from pflx.export.checkpoints.kinds import (
    Checkpoint,
    checkpoint_for,
    detect_component,
    generator_part,
    load_component,
    load_network,
    read_checkpoint,
    read_generator,
)

__all__ = [
    "Checkpoint",
    "checkpoint_for",
    "detect_component",
    "generator_part",
    "load_component",
    "load_network",
    "read_checkpoint",
    "read_generator",
]
