"""The weightless renderer made of Python, and a fake bundle with it for a preview."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.fakes import SIZE, fake_manifest, picture
from support.sample_bundle import F32

import pflx.runtime.rendering.renderers as rendering
from pflx.engines import Array, Engine, FakeEngine, GraphInfo, RendererInfo, TensorSpec
from pflx.runtime.rendering.layers import one_layer
from pflx.runtime.rendering.warp import GEOMETRY_SIZE, cut_portrait, find_geometry, geometry_part, typical_geometry
from pflx.runtime.speaker.landmarks import FaceMesh

WARP = RendererInfo(name="warp", size=SIZE, graphs={"portrait": "warp_portrait", "frame": "warp_frame"})
U8, I64 = np.dtype(np.uint8), np.dtype(np.int64)


def engine(function: Any, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> FakeEngine:
    """A graph that is a function."""
    return FakeEngine(function, inputs, outputs)


def f32(*shape: int | str) -> TensorSpec:
    """float32 of that shape."""
    return TensorSpec(shape, F32)


def warp_engines() -> dict[str, Engine]:
    """The graphs of the weightless renderer: a picture that any bit of the row, the source or the geometry changes."""

    def frame(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        rows = feeds["coefficients"][0, feeds["frames"]]
        content = np.concatenate([feeds[name].ravel() for name in ("source", "geometry", "shown")])
        return {"image": np.stack([picture(row, content) for row in rows])[None]}

    source = {"source": f32("portraits", 3, "side", "side")}
    layer = TensorSpec(("portraits", "side", "side", 3), U8)
    layers = dict.fromkeys(("portrait", "closed", "lashed", "background"), layer)
    return {
        "warp_portrait": engine(
            lambda feeds: {"source": np.moveaxis(feeds["portrait"], -1, 1).astype(np.float32)},
            {**layers, "masks": f32("portraits", "side", "side", 4)},
            source,
        ),
        "warp_frame": engine(
            frame,
            {
                **source,
                "geometry": f32("portraits", GEOMETRY_SIZE),
                "shown": f32("portraits", 6),
                "coefficients": f32("portraits", "track", 58),
                "frames": TensorSpec(("frames",), I64),
            },
            {"image": TensorSpec(("portraits", "frames", "side", "side", 3), U8)},
        ),
    }


def put_face(monkeypatch: pytest.MonkeyPatch) -> npt.NDArray[np.float32]:
    """From now on a face is found in every portrait; what is known of it."""
    geometry = typical_geometry(SIZE)
    geometry_part(geometry, "body")[:] = 0
    monkeypatch.setattr(rendering, "square_geometry", lambda portrait, mesh: geometry.copy())
    monkeypatch.setattr(rendering, "cut_portrait", lambda portrait, size, mesh: (portrait, None))
    monkeypatch.setattr(rendering, "find_geometry", lambda portrait, face: geometry)
    monkeypatch.setattr(rendering, "make_layers", lambda portrait, *_: one_layer(portrait))
    return geometry


def frame_portrait(
    source: str | Path | npt.NDArray[np.uint8], size: int, mesh: FaceMesh
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A portrait as the renderer cuts it, and its geometry, float32 [G]."""
    found, face = cut_portrait(source, size, mesh)
    return found, find_geometry(found, face)


def preview_manifest() -> Any:
    """The fake bundle with the weightless renderer for a preview."""
    manifest = fake_manifest(preview=WARP)
    graphs = {
        name: GraphInfo(
            inputs=dict(made.inputs),
            outputs=dict(made.outputs),
            parameters=0,
            opset=20,
            files={"fp32": f"graphs/{name}.fp32.onnx"},
        )
        for name, made in warp_engines().items()
    }
    manifest.graphs.update(graphs)
    return manifest
