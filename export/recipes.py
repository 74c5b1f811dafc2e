"""What is exported of each network, as data: graphs, named inputs and outputs, dynamic axes, tolerances.

Here are the graphs that every bundle has; those of a generator stand beside its parts. A dimension given by name is
dynamic. Names: `speakers`, `samples` (M parallel reactions), `portraits`, `frames` (rendered per call), `track`
(coefficient frames given to the renderer), `history` (past frames that a generator looks back on), `side` (pixels of a
picture's height and width, the usual 256 standing for the smallest), `half` of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pflx.engines import Array, TensorSpec
from pflx.runtime.rendering.warp import GEOMETRY_SIZE, typical_geometry

OPSET = 20
"""From 23 on, attention becomes one operator that TensorRT for RTX refuses in FP32; below 18 nothing is native."""

COEFFICIENTS = 58
FRAME_SIDE = 224
UINT8 = np.dtype(np.uint8)

_TRACED_SIZES = {
    "speakers": 2,
    "samples": 3,
    "portraits": 2,
    "frames": 2,
    "track": 34,
    "history": 16,
    "side": 96,
    "half": 48,
}
_SMALLEST_SIZES = {
    "speakers": 1,
    "samples": 1,
    "portraits": 1,
    "frames": 1,
    "track": 27,
    "history": 1,
    "side": 256,
    "half": 128,
}


@dataclass(frozen=True)
class Recipe:
    """One graph to export.

    Attributes:
        graph: its name in the bundle.
        inputs: name → shape and dtype; the names are the contract with the runtime.
        outputs: likewise.
        tolerance: output → largest absolute difference allowed between PyTorch and ONNX Runtime, FP32.
        source: the public code whose numbers it reproduces.
        scale: float input → factor on the standard normal numbers it is checked with, where 1 is not what it sees.
        about: float input → numbers along its last axes that are added to these, where 0 is not what it sees.
        below: integer input → n, for it is checked with numbers from 0 to n - 1.
    """

    graph: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    tolerance: Mapping[str, float]
    source: str
    scale: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, Array] = field(default_factory=dict)
    below: Mapping[str, int] = field(default_factory=dict)

    @property
    def size_sets(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Sizes of the dynamic dimensions: those the graph is traced with, and the smallest it must serve."""
        return _TRACED_SIZES, _SMALLEST_SIZES

    def example(self, seed: int, sizes: Mapping[str, int]) -> dict[str, Array]:
        """Seeded inputs in the range the runtime feeds, for dynamic dimensions of `sizes`."""
        rng = np.random.default_rng(seed)
        return {name: self._example(name, spec, rng, sizes) for name, spec in self.inputs.items()}

    def _example(self, name: str, spec: TensorSpec, rng: np.random.Generator, sizes: Mapping[str, int]) -> Array:
        shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape)
        if name in self.below:
            return rng.integers(0, self.below[name], shape, spec.dtype)
        if spec.dtype == UINT8:
            return rng.integers(0, 256, shape, np.uint8)
        if spec.dtype == np.bool_:
            return np.zeros(shape, np.bool_)
        numbers = rng.standard_normal(shape) * self.scale.get(name, 1.0)
        return np.asarray(numbers + self.about.get(name, np.zeros(())), np.float32)


def floats(*shape: int | str) -> TensorSpec:
    """float32 of a shape."""
    return TensorSpec(shape, np.dtype(np.float32))


def posnet_recipe(slide: int) -> Recipe:
    """PosNet on segments of `slide` frames.

    A fitted one tells the first frames from the mean of all, and speed from neighbouring frames: rounding grows with
    the slide, on noise as here to 3e-5 at 50 frames. The tolerance of 1e-4 rad is 0.006 degrees.
    """
    return Recipe(
        "posnet",
        inputs={"segment": floats("samples", slide, COEFFICIENTS), "last_pose": floats("samples", 6)},
        outputs={"smoothed": floats("samples", slide, COEFFICIENTS), "pose": floats("samples", 6)},
        tolerance={"smoothed": 1e-4, "pose": 1e-4},
        source="PFLPosNet 6c274a2, PosModifierMLP",
        scale={"segment": 0.3, "last_pose": 0.3},
    )


def pirender_recipes(size: int) -> tuple[Recipe, Recipe]:
    """PIRender for frames of `size` pixels, a multiple of 32: what is computed once per portrait, and a frame."""
    source = "PIRender, 58 coefficients (ReactFace fa4b3a4)"
    features = {
        "source": floats("portraits", 3, size, size),
        "warp_features": floats("portraits", 32, size, size),
        "edit_features": floats("portraits", 64, size, size),
    }
    portrait = Recipe(
        "pirender_portrait",
        inputs={"portrait": TensorSpec(("portraits", size, size, 3), UINT8)},
        outputs=features,
        tolerance={"source": 1e-6, "warp_features": 2e-4, "edit_features": 1e-4},
        source=source,
    )
    frame = Recipe(
        "pirender_frame",
        inputs={
            **features,
            "coefficients": floats("portraits", "track", COEFFICIENTS),
            "frames": TensorSpec(("frames",), np.dtype(np.int64)),
        },
        outputs={"image": TensorSpec(("portraits", "frames", size, size, 3), UINT8)},
        tolerance={"image": 1},
        source=source,
        scale={"source": 0.4, "coefficients": 0.3},
        below={"frames": _SMALLEST_SIZES["track"]},
    )
    return portrait, frame


def warp_recipes() -> tuple[Recipe, Recipe, Recipe]:
    """The weightless renderer, for frames of any multiple of 4 pixels: what a portrait becomes, and a frame.

    Between them, for a CPU, the first part of a frame.
    """
    source = "pflx, no weights"
    picture, side = TensorSpec(("portraits", "side", "side", 3), UINT8), _SMALLEST_SIZES["side"]
    masks = floats("portraits", "side", "side", 4)
    features = {
        name: floats("portraits", planes, "side", "side")
        for name, planes in {"source": 4, "closing": 4, "lashes": 4, "lids": 3, "behind": 3}.items()
    }
    portrait = Recipe(
        "warp_portrait",
        inputs={**dict.fromkeys(("portrait", "closed", "lashed", "background"), picture), "masks": masks},
        outputs=features,
        tolerance={"source": 1e-4, **dict.fromkeys(("closing", "lashes", "lids", "behind"), 0)},
        source=source,
    )
    moving = {
        "geometry": floats("portraits", GEOMETRY_SIZE),
        "shown": floats("portraits", 6),
        "coefficients": floats("portraits", "track", COEFFICIENTS),
        "frames": TensorSpec(("frames",), np.dtype(np.int64)),
    }
    scale, below = {"geometry": 0.01, "shown": 0.1, "coefficients": 0.3}, {"frames": _SMALLEST_SIZES["track"]}
    where = Recipe(
        "warp_field",
        inputs={"points": floats(2, "half", "half"), **moving},
        outputs={
            "maps": floats("portraits", "frames", 4, "half", "half"),
            "closed": floats("portraits", "frames", 2),
        },
        tolerance={"maps": 1e-4, "closed": 1e-6},
        source=source,
        scale={"points": side / 4, **scale},
        about={"points": np.array(side / 2), "geometry": typical_geometry(side)},
        below=below,
    )
    frame = Recipe(
        "warp_frame",
        inputs={**features, **moving},
        outputs={"image": TensorSpec(("portraits", "frames", "side", "side", 3), UINT8)},
        tolerance={"image": 1},
        source=source,
        scale={"source": 10, "behind": 10, **scale},
        about={"source": np.array(128.0), "behind": np.array(128.0), "geometry": typical_geometry(side)},
        below=below,
    )
    return portrait, where, frame
