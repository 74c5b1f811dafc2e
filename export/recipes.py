"""What is exported of each network, as data: graphs, named inputs and outputs, dynamic axes, tolerances.

A dimension given by name is dynamic. Names: `speakers`, `samples` (M parallel reactions), `portraits`, `frames`
(rendered per call), `track` (coefficient frames given to the renderer).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pflx.engines import Array, TensorSpec

OPSET = 20
"""From 23 on, attention becomes one operator that TensorRT for RTX refuses in FP32; below 18 nothing is native."""

COEFFICIENTS = 58
FEATURES = 128
FRAME_SIDE = 224
SAMPLES_PER_FRAME = 640

_FLOAT = np.dtype(np.float32)
_UINT8 = np.dtype(np.uint8)

_TRACED_SIZES = {"speakers": 2, "samples": 3, "portraits": 2, "frames": 2, "track": 34}
_SMALLEST_SIZES = {"speakers": 1, "samples": 1, "portraits": 1, "frames": 1, "track": 27}


@dataclass(frozen=True)
class Recipe:
    """One graph to export.

    Attributes:
        graph: its name in the bundle.
        inputs: name → shape and dtype; the names are the contract with the runtime.
        outputs: likewise.
        tolerance: output → largest absolute difference allowed between PyTorch and ONNX Runtime, FP32.
        source: the public code whose numbers it reproduces.
    """

    graph: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    tolerance: Mapping[str, float]
    source: str

    @property
    def size_sets(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Sizes of the dynamic dimensions: those the graph is traced with, and the smallest it must serve."""
        return _TRACED_SIZES, _SMALLEST_SIZES

    def example(self, seed: int, sizes: Mapping[str, int]) -> dict[str, Array]:
        """Seeded inputs in the range the runtime feeds, for dynamic dimensions of `sizes`."""
        rng = np.random.default_rng(seed)
        return {name: _example(name, spec, rng, sizes) for name, spec in self.inputs.items()}


def _example(name: str, spec: TensorSpec, rng: np.random.Generator, sizes: Mapping[str, int]) -> Array:
    shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape)
    if name == "frames":
        return np.arange(13, 13 + shape[0], dtype=np.int64)
    if spec.dtype == _UINT8:
        return rng.integers(0, 256, shape, np.uint8)
    if spec.dtype == np.bool_:
        return np.zeros(shape, np.bool_)
    return np.asarray(rng.standard_normal(shape) * _EXAMPLE_SCALE.get(name, 1.0), np.float32)


_EXAMPLE_SCALE = {"coefficients": 0.3, "segment": 0.3, "last_pose": 0.3, "past_reaction": 0.3, "source": 0.4}


def _float(*shape: int | str) -> TensorSpec:
    return TensorSpec(shape, _FLOAT)


def recipes(*, window: int, slide: int, size: int) -> dict[str, Recipe]:
    """The graphs of one bundle.

    Args:
        window: frames per step of the generator.
        slide: frames per call of PosNet.
        size: side of the rendered frame in pixels, a multiple of 32.
    """
    graphs = (*_reactface(window), _posnet(slide), *_pirender(size))
    return {recipe.graph: recipe for recipe in graphs}


def _reactface(window: int) -> tuple[Recipe, Recipe]:
    source = "ReactFace fa4b3a4, window mode"
    speaker = Recipe(
        "reactface_speaker",
        inputs={
            "video": TensorSpec(("speakers", window, FRAME_SIDE, FRAME_SIDE, 3), _UINT8),
            "audio": _float("speakers", SAMPLES_PER_FRAME * window),
        },
        outputs={
            "speaker_motion": _float("speakers", window, FEATURES),
            "speaker_audio": _float("speakers", 2 * window, FEATURES),
        },
        tolerance={"speaker_motion": 2e-4, "speaker_audio": 1e-3},
        source=source,
    )
    listener = Recipe(
        "reactface_listener",
        inputs={
            "speaker_motion": _float(1, window, FEATURES),
            "speaker_audio": _float(1, 2 * window, FEATURES),
            "past_reaction": _float("samples", window, COEFFICIENTS),
            "past_motion": _float("samples", FEATURES),
            "eps": _float("samples", FEATURES),
            "first": TensorSpec((1,), np.dtype(np.bool_)),
        },
        outputs={"reaction": _float("samples", window, COEFFICIENTS), "motion": _float("samples", FEATURES)},
        tolerance={"reaction": 2e-4, "motion": 2e-4},
        source=source,
    )
    return speaker, listener


def _posnet(slide: int) -> Recipe:
    return Recipe(
        "posnet",
        inputs={"segment": _float("samples", slide, COEFFICIENTS), "last_pose": _float("samples", 6)},
        outputs={"smoothed": _float("samples", slide, COEFFICIENTS), "pose": _float("samples", 6)},
        tolerance={"smoothed": 1e-5, "pose": 1e-5},
        source="PFLPosNet 6c274a2, PosModifierMLP",
    )


def _pirender(size: int) -> tuple[Recipe, Recipe]:
    source = "PIRender, 58 coefficients (ReactFace fa4b3a4)"
    features = {
        "source": _float("portraits", 3, size, size),
        "warp_features": _float("portraits", 32, size, size),
        "edit_features": _float("portraits", 64, size, size),
    }
    portrait = Recipe(
        "pirender_portrait",
        inputs={"portrait": TensorSpec(("portraits", size, size, 3), _UINT8)},
        outputs=features,
        tolerance={"source": 1e-6, "warp_features": 2e-4, "edit_features": 1e-4},
        source=source,
    )
    frame = Recipe(
        "pirender_frame",
        inputs={
            **features,
            "coefficients": _float("portraits", "track", COEFFICIENTS),
            "frames": TensorSpec(("frames",), np.dtype(np.int64)),
        },
        outputs={"image": TensorSpec(("portraits", "frames", size, size, 3), _UINT8)},
        tolerance={"image": 1},
        source=source,
    )
    return portrait, frame
