"""Reading public checkpoints without running anything that is in them."""

from __future__ import annotations

from pflx.export.checkpoints.kinds import (
    Checkpoint,
    RowReader,
    checkpoint_for,
    detect_component,
    generator_part,
    load_component,
    load_network,
    read_checkpoint,
    read_generator,
    read_in_parts,
)

__all__ = [
    "Checkpoint",
    "RowReader",
    "checkpoint_for",
    "detect_component",
    "generator_part",
    "load_component",
    "load_network",
    "read_checkpoint",
    "read_generator",
    "read_in_parts",
]
