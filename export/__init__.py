"""From public checkpoints to networks and to what runs without PyTorch."""

from __future__ import annotations

from pflx.export.checkpoints import Checkpoint, detect_component, load_component, read_checkpoint
from pflx.export.components import Components, load_components, untrained_components
from pflx.export.errors import (
    CheckpointError,
    ComponentError,
    InputError,
    ModelNameError,
    ModelOptionError,
    RangeError,
    StateDictError,
    UnknownComponentError,
    WrongComponentError,
)
from pflx.export.exporter import ExportOptions, export_bundle
from pflx.export.generators import FAMILIES, ExportSettings
from pflx.export.models import load_model, untrained
from pflx.export.parity import ParityError

__all__ = [
    "FAMILIES",
    "Checkpoint",
    "CheckpointError",
    "ComponentError",
    "Components",
    "ExportOptions",
    "ExportSettings",
    "InputError",
    "ModelNameError",
    "ModelOptionError",
    "ParityError",
    "RangeError",
    "StateDictError",
    "UnknownComponentError",
    "WrongComponentError",
    "detect_component",
    "export_bundle",
    "load_component",
    "load_components",
    "load_model",
    "read_checkpoint",
    "untrained",
    "untrained_components",
]
