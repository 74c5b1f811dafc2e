"""From public checkpoints to networks and to what runs without PyTorch."""

from __future__ import annotations

from pflx.export.checkpoints import Checkpoint, detect_component, load_component, read_checkpoint
from pflx.export.errors import (
    CheckpointError,
    InputError,
    ModelNameError,
    ModelOptionError,
    StateDictError,
    UnknownComponentError,
    WrongComponentError,
)
from pflx.export.models import load_model, untrained

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "InputError",
    "ModelNameError",
    "ModelOptionError",
    "StateDictError",
    "UnknownComponentError",
    "WrongComponentError",
    "detect_component",
    "load_component",
    "load_model",
    "read_checkpoint",
    "untrained",
]
