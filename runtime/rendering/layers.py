"""A portrait in layers: all that is made of it once, so that a frame only moves and blends."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.rendering.silhouette import Silhouette
from pflx.runtime.rendering.warp import geometry_part
from pflx.runtime.speaker.landmarks import FaceLandmarks, FaceMesh


@dataclass(frozen=True)
class Layers:
    """What the graph `warp_portrait` takes.

    Attributes:
        portrait: uint8 [S, S, 3] RGB.
        closed: likewise, with lids over its eyes.
        lashed: likewise, that with lashes wherever their line comes by.
        background: likewise, without the person.
        masks: float32 [S, S, 4]: how much of each pixel is the person's, and `ClosedEyes.lids`.
    """

    portrait: UInt8Array
    closed: UInt8Array
    lashed: UInt8Array
    background: UInt8Array
    masks: Float32Array

    def feeds(self) -> dict[str, UInt8Array | Float32Array]:
        """Of the graph."""
        return {field.name: getattr(self, field.name)[None] for field in fields(self)}


def make_layers(
    picture: UInt8Array,
    face: FaceLandmarks,
    geometry: Float32Array,
    silhouette: Silhouette,
    mesh: FaceMesh | None = None,
) -> Layers:
    """The layers of a portrait.

    Args:
        picture: uint8 [S, S, 3] RGB.
        face: of the face in it, in pixels of the picture, whose corner is 0.
        geometry: float32 [G], see `pflx.runtime.rendering.warp.GEOMETRY`.
        silhouette: finds the person.
        mesh: chooses the lids that close its eyes; None takes the usual ones.
    """
    # OpenCV is loaded with a portrait, not with the package.
    from pflx.runtime.rendering.cutout import cut_out
    from pflx.runtime.rendering.eyelids import USUAL, close_eyes
    from pflx.runtime.rendering.lid_choice import choose_lids

    drawn = (USUAL, USUAL) if mesh is None else choose_lids(picture, face, mesh)
    eyes = close_eyes(picture, np.asarray(face.points, np.float64) - [0.5, 0.5, 0.0], drawn)
    cut = cut_out(picture, silhouette.find(picture), _from_head(len(picture), geometry))
    masks = np.concatenate([cut.person[..., None], eyes.lids], axis=2)
    return Layers(picture, eyes.closed, eyes.lashed, cut.background, masks)


def one_layer(picture: UInt8Array) -> Layers:
    """A picture that is all person, and whose eyes stay as they are."""
    masks = np.zeros((*picture.shape[:2], 4), np.float32)
    masks[..., 0] = 1
    return Layers(picture, picture, picture, picture, masks)


def _from_head(size: int, geometry: Float32Array) -> Float32Array:
    """Distance of each pixel from the middle of the head, in radii of it, [S, S]."""
    at = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1) - geometry_part(geometry, "head")
    down = geometry_part(geometry, "turn").reshape(3, 3)[:2, 1].astype(np.float64)
    down /= np.linalg.norm(down)
    across, along, _ = geometry_part(geometry, "radii")
    return np.asarray(np.hypot(at @ down / along, at @ [down[1], -down[0]] / across), np.float32)
