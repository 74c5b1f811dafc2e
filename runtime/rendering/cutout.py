"""A portrait in two layers: the person, and what is behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pflx.runtime.frames.arrays import Float32Array, UInt8Array

# In shares of the picture's side.
_FILTER = 1 / 64  # over which the outline is drawn by the picture's own edges
_AROUND = 1 / 40  # from what is surely the person's to what may be
_HAIR = 1 / 128  # beyond the outline, what is taken out of the background all the same
_FILLED = 1 / 8  # how far inside the outline the background is drawn on; the head uncovers no more
_EDGE_NOISE = 1e-3
"""Variance of grey in [0, 1] below which the outline follows no edge."""
_SURE = 0.8
"""Of the head's radii: within them everything is the person's."""


@dataclass(frozen=True)
class Cutout:
    """The layers.

    Attributes:
        person: float32 [S, S] in 0..1, how much of each pixel is the person's.
        background: uint8 [S, S, 3] RGB, without the person.
    """

    person: Float32Array
    background: UInt8Array


def cut_out(picture: UInt8Array, likely: Float32Array, inside: Float32Array) -> Cutout:
    """Cut the person out of a portrait.

    Args:
        picture: uint8 [S, S, 3] RGB.
        likely: float32 [S, S] in 0..1, where the person is, of `Silhouette`.
        inside: float32 [S, S], distance from the middle of the head in radii of it.
    """
    person = np.maximum(likely, (inside < _SURE).astype(np.float32))
    person = person * _connected(person, inside)
    person = _along_edges(picture, person)
    return Cutout(person, _without(picture, person))


def _connected(person: Float32Array, inside: Float32Array) -> Float32Array:
    """1 on the part that holds the head and close to it, 0 on what else was taken for a person."""
    whole = (person > 0.3).astype(np.uint8)
    _, parts = cv2.connectedComponents(whole)
    head = np.unravel_index(int(np.argmin(inside)), inside.shape)
    of_head = (parts == parts[head]).astype(np.uint8)
    return np.asarray(cv2.dilate(of_head, _disc(len(person) * _AROUND)), np.float32)


def _disc(radius: float) -> UInt8Array:
    side = 2 * round(radius) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _along_edges(picture: UInt8Array, person: Float32Array) -> Float32Array:
    """The mask, drawn to the edges of the picture: in each neighbourhood a linear function of its grey.

    Source: He, Sun and Tang, "Guided Image Filtering" (2010), equations 5, 6 and 8.
    """
    side = 2 * round(len(picture) * _FILTER) + 1

    def mean(values: npt.NDArray[np.floating[Any]]) -> Float32Array:
        return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT), np.float32)

    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32) / 255
    mean_grey, mean_mask = mean(grey), mean(person)
    slope = (mean(grey * person) - mean_grey * mean_mask) / (mean(grey * grey) - mean_grey**2 + _EDGE_NOISE)
    drawn = mean(slope) * grey + mean(mean_mask - slope * mean_grey)
    return np.asarray(((drawn - 0.15) / 0.7).clip(0, 1), np.float32)


def _without(picture: UInt8Array, person: Float32Array) -> UInt8Array:
    """The picture with what is around the person drawn on into the outline, and its colours behind the rest."""
    size = len(picture)
    hole = np.asarray(cv2.dilate((person > 0.05).astype(np.uint8), _disc(size * _HAIR)), np.uint8)
    if hole.all():
        return picture.copy()
    depth = cv2.distanceTransform(hole, cv2.DIST_L2, 5)
    near = ((depth > 0) & (depth < size * _FILLED)).astype(np.uint8)
    filled = np.asarray(_spread(picture, hole), np.uint8)
    begun = np.where(hole[..., None], filled, picture)
    return np.asarray(cv2.inpaint(begun, near, 3, cv2.INPAINT_TELEA), np.uint8)


def _spread(picture: UInt8Array, hole: UInt8Array) -> UInt8Array:
    """The colours around a hole, in the hole, by the halved picture's, and so on."""
    known = (1 - hole).astype(np.float32)[..., None]
    if min(hole.shape) <= 2 or known.all():
        total = max(float(known.sum()), 1.0)
        mean = (picture * known).sum(axis=(0, 1)) / total
        return np.asarray(np.where(hole[..., None], mean, picture), np.uint8)
    height, width = hole.shape
    small_known = cv2.resize(known, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    sums = cv2.resize(picture * known, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    small = sums / np.maximum(small_known, 1e-6)[..., None]
    spread = _spread(np.asarray(small.clip(0, 255), np.uint8), (small_known < 0.2).astype(np.uint8))
    larger = cv2.resize(spread, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.where(hole[..., None], larger, picture), np.uint8)
