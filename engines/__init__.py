"""What runs a graph, and the artefacts it runs.

Heavy backends are imported by the engine that needs them, when it is constructed.
"""

from __future__ import annotations

from pflx.engines.admission import Admission
from pflx.engines.bundle import Bundle
from pflx.engines.fake import FakeEngine
from pflx.engines.manifest import (
    BundleCorruptError,
    BundleError,
    BundleMissingError,
    BundleVersionError,
    FileInfo,
    GeneratorInfo,
    GraphInfo,
    Manifest,
    MeanFace,
    PflInfo,
    Provenance,
    RendererInfo,
    SmootherInfo,
)
from pflx.engines.openvino import OpenVinoEngine
from pflx.engines.ort import OrtEngine
from pflx.engines.passport import Passport, PassportError
from pflx.engines.protocol import (
    Array,
    BackendMissingError,
    DeviceError,
    DeviceLostError,
    DeviceMemoryError,
    Engine,
    EngineError,
    FeedError,
    PflxError,
    ShapeError,
    TensorSpec,
    check_feeds,
)
from pflx.engines.writer import (
    OutputError,
    OutputExistsError,
    bundle_writer,
    require_space,
    write_manifest,
)

__all__ = [
    "Admission",
    "Array",
    "BackendMissingError",
    "Bundle",
    "BundleCorruptError",
    "BundleError",
    "BundleMissingError",
    "BundleVersionError",
    "DeviceError",
    "DeviceLostError",
    "DeviceMemoryError",
    "Engine",
    "EngineError",
    "FakeEngine",
    "FeedError",
    "FileInfo",
    "GeneratorInfo",
    "GraphInfo",
    "Manifest",
    "MeanFace",
    "OpenVinoEngine",
    "OrtEngine",
    "OutputError",
    "OutputExistsError",
    "Passport",
    "PassportError",
    "PflInfo",
    "PflxError",
    "Provenance",
    "RendererInfo",
    "ShapeError",
    "SmootherInfo",
    "TensorSpec",
    "bundle_writer",
    "check_feeds",
    "require_space",
    "write_manifest",
]
