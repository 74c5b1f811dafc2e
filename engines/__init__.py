"""What runs a graph, and the artefacts it runs.

Heavy backends are imported by the engine that needs them, when it is constructed.
"""

from __future__ import annotations

from pflx.engines.fake import FakeEngine
from pflx.engines.ort import OrtEngine
from pflx.engines.protocol import (
    Array,
    BackendMissingError,
    DeviceError,
    Engine,
    EngineError,
    FeedError,
    PflxError,
    ShapeError,
    TensorSpec,
    check_feeds,
)

__all__ = [
    "Array",
    "BackendMissingError",
    "DeviceError",
    "Engine",
    "EngineError",
    "FakeEngine",
    "FeedError",
    "OrtEngine",
    "PflxError",
    "ShapeError",
    "TensorSpec",
    "check_feeds",
]
