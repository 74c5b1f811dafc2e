"""Which closed lid suits a portrait: several are drawn, and the face mesh that found the eyes says which shuts them."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from pflx.runtime.frames.arrays import Float64Array, UInt8Array
from pflx.runtime.rendering.eyelids import LIDS, USUAL, Lid, shut
from pflx.runtime.speaker.landmarks import FaceLandmarks, FaceMesh

log = logging.getLogger(__name__)

TRIED = (
    USUAL,
    replace(USUAL, drop=0.3),
    replace(USUAL, drop=0.3, below=0.2),
    replace(USUAL, drop=0.25, line=0.085, shade=0.48),
    replace(USUAL, drop=0.12, line=0.08, shade=0.25, below=0.3, fade_below=0.15),
    replace(USUAL, drop=0.36, line=0.085, shade=0.45, below=0.05),
    replace(USUAL, drop=0.36, below=0.3, reach=1.4),
    replace(USUAL, drop=0.48, below=0.3, fade_below=0.1, reach=1.35, beside=1.4),
    replace(USUAL, drop=0.5, line=0.1, below=0.65, fade_below=0.1, reach=1.35, beside=1.35),
)
"""Lids in the order in which they are tried, the most usual first, all of them such as people have."""
SHUT = 0.12
"""Share of the opening at rest from which on an eye is shut, and no other lid is tried for it."""

_MIDDLE = len(LIDS[0][0]) // 2
"""Of the landmarks along a lid."""


def openings(face: FaceLandmarks) -> Float64Array:
    """How far eyes are open, [2]: height by width, of the left and of the right one of the picture."""
    at = face.points[:, :2].astype(np.float64)
    spans = [(at[upper[_MIDDLE]] - at[lower[_MIDDLE]], at[upper[0]] - at[upper[-1]]) for upper, lower in LIDS]
    return np.array([float(np.linalg.norm(height) / np.linalg.norm(width)) for height, width in spans])


def choose_lids(picture: UInt8Array, face: FaceLandmarks, mesh: FaceMesh) -> tuple[Lid, Lid]:
    """For each eye the first lid with which the mesh finds it shut; if there is none, that with which it is open least.

    Args:
        picture: uint8 [S, S, 3] RGB.
        face: of the face in it, in pixels of the picture, whose corner is 0.
        mesh: looks at it, once for every lid that is tried; both eyes at a time.
    """
    rest, points = openings(face), np.asarray(face.points, np.float64) - [0.5, 0.5, 0.0]
    best, left = [USUAL, USUAL], np.full(2, np.inf)
    for lid in TRIED:
        drawn = [lid if share > SHUT else kept for kept, share in zip(best, left, strict=True)]
        found = mesh.find(shut(picture, points, drawn))
        if found is None:
            break
        for eye in np.flatnonzero((shares := openings(found) / rest) < left):
            best[eye], left[eye] = drawn[eye], shares[eye]
        if left.max() <= SHUT:
            break
    log.debug("Lids %s leave %s of the openings.", best, left.round(2))
    return best[0], best[1]
