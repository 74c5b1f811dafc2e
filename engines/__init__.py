"""What runs a graph, and the artefacts it runs.

Heavy backends are imported by the engine that needs them, when it is constructed.
"""

from __future__ import annotations

from pflx.engines.bundle.bundle import Bundle
from pflx.engines.bundle.engine_passport import Passport, PassportError
from pflx.engines.bundle.manifest import (
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
from pflx.engines.bundle.variant_admission import Admission
from pflx.engines.bundle.writer import bundle_writer, require_space, write_manifest
from pflx.engines.files.writer import OutputError, OutputExistsError
from pflx.engines.graphs.fake import FakeEngine
from pflx.engines.graphs.openvino import OpenVinoEngine
from pflx.engines.graphs.ort import OrtEngine
from pflx.engines.graphs.protocol import (
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
from pflx.engines.hub.address import HubError

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
    "HubError",
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
