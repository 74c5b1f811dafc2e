"""What the weightless renderer knows of a portrait: where the head, the eyes, the brows and the mouth are."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pflx.runtime.frames.arrays import Float32Array, Float64Array, UInt8Array
from pflx.runtime.rendering.picture_file import PortraitError
from pflx.runtime.rendering.portrait import load_picture, load_portrait, load_square, load_whole
from pflx.runtime.speaker.landmarks import FaceLandmarks, FaceMesh

log = logging.getLogger(__name__)

GEOMETRY: Mapping[str, int] = {
    "head": 2,
    "radii": 3,
    "turn": 9,
    "neck": 3,
    "nose": 3,
    "eye_x": 2,
    "eye_y": 2,
    "eye_axis_x": 2,
    "eye_axis_y": 2,
    "eye_half": 2,
    "eye_upper": 2,
    "eye_lower": 2,
    "brow_x": 2,
    "brow_y": 2,
    "mouth": 2,
    "mouth_axis": 2,
    "mouth_half": 1,
    "mouth_lower": 1,
    "chin": 1,
    "mouth_inside": 3,
    "teeth": 4,
    "body": 2,
}
"""The geometry of a portrait: name → how many numbers, in the order in which they lie one behind the other.

Pixels of the square picture, pixel centres at whole numbers; x right, y down, z away from the camera. Of eyes and brows
the first number is of the one on the picture's left.

| name | numbers |
|---|---|
| `head` | x, y of the middle of the head |
| `radii` | of the ellipsoid that stands for the head, hair included: across, along and in depth |
| `turn` | rotation matrix, row by row: axes of the head (right, down, back) → axes of the picture |
| `neck` | x, y, z of the pivot, from the middle of the head |
| `nose` | x, y of its tip; how far it stands out of the ellipsoid |
| `eye_x`, `eye_y` | the middle between the corners, of each eye |
| `eye_axis_x`, `eye_axis_y` | unit vector through the corners, towards the picture's right, of each |
| `eye_half` | half of the distance between the corners, of each |
| `eye_upper`, `eye_lower` | how far the lids are below the middle, across the axis, of each |
| `brow_x`, `brow_y` | the middle of each brow, along and across the axis of its eye, from the middle of that |
| `mouth`, `mouth_axis`, `mouth_half` | as for an eye, x and y side by side, of the inner corners |
| `mouth_lower` | how far the inner edge of the lower lip is below the middle, across the axis |
| `chin` | how far it is below that middle |
| `mouth_inside` | R, G, B in [0, 1] of the dark between the lips |
| `teeth` | R, G, B of made-up upper teeth, and how far they reach below the lip; 0 in a mouth that shows its own |
| `body` | how much of turns and of shifts of the head its shoulders take part in |
"""

GEOMETRY_SIZE = sum(GEOMETRY.values())
_STARTS = dict(zip(GEOMETRY, accumulate(GEOMETRY.values(), initial=0), strict=False))

# Landmarks of MediaPipe's face mesh. Eyes: corner on the picture's left, on its right, upper lid, lower lid.
_EYES = ((33, 133, 159, 145), (362, 263, 386, 374))
_BROWS = ((70, 105, 107), (336, 334, 300))
_MOUTH = (78, 308, 14)  # inner corners, inner edge of the lower lip
_UPPER_LIP = 13  # its inner edge
_CHEEKS = (50, 280)
_LOWER_LIP = 17  # its outer edge
_SIDES, _TOP, _CHIN, _NOSE = (234, 454), 10, 152, 1

# A head beside its face, which ends at the hairline: looked up in pictures, and by how natural a turn looks.
_CROWN = 0.28  # of the face's height, above it
_ACROSS = 1.14  # of the face's width, hair and ears included
_DEPTH = 0.62  # of the face's width, from the axis between the ears to the front
_NOSE_OUT = 0.16  # likewise, of the nose beyond that
_NECK = 0.8  # of half the head's height, below its middle

_BODY = (0.08, 0.5)  # how much of turns and shifts of the head the shoulders take part in
_TEETH = 0.22  # of half the mouth's width, of made-up ones, in the middle
_CLOSED = 0.12  # likewise, between the lips of a mouth that shows no teeth

_SMALL_HEAD = 0.45
"""Share of the picture's height that a head takes, crown to chin; a smaller one is brought nearer."""
_BROUGHT_NEAR = 0.52
"""What it takes then, if the picture reaches so far."""
_LEVEL = 0.46
"""Where the middle of the head is then, from the top."""

_NO_FACE = "No face was found in the portrait. Take a picture that shows a whole face from the front, well lit."


def geometry_part(geometry: Float32Array, name: str) -> Float32Array:
    """The numbers of one name of `GEOMETRY`, of float32 [..., G]."""
    return geometry[..., _STARTS[name] : _STARTS[name] + GEOMETRY[name]]


def typical_geometry(size: int) -> Float32Array:
    """The geometry of no particular face, from the front, in the middle of a picture of `size` pixels.

    Returns:
        float32 [G].
    """
    parts: dict[str, npt.ArrayLike] = {
        "head": (0.5, 0.42),
        "radii": (0.25, 0.32, 0.26),
        "neck": (0.0, 0.25, 0.0),
        "nose": (0.5, 0.48, 0.06),
        "eye_x": (0.41, 0.59),
        "eye_y": (0.4, 0.4),
        "eye_half": (0.05, 0.05),
        "eye_upper": (-0.015, -0.015),
        "eye_lower": (0.015, 0.015),
        "brow_x": (0.0, 0.0),
        "brow_y": (-0.07, -0.07),
        "mouth": (0.5, 0.58),
        "mouth_half": 0.08,
        "mouth_lower": 0.01,
        "chin": 0.14,
    }
    unscaled: dict[str, npt.ArrayLike] = {
        "turn": np.eye(3),
        "eye_axis_x": (1.0, 1.0),
        "eye_axis_y": (0.0, 0.0),
        "mouth_axis": (1.0, 0.0),
        "mouth_inside": (0.2, 0.1, 0.1),
        "teeth": (0.8, 0.75, 0.7, 0.015 * size),
        "body": _BODY,
    }
    return _joined({name: np.multiply(size, part) for name, part in parts.items()} | unscaled)


def find_geometry(picture: UInt8Array, face: FaceLandmarks) -> Float32Array:
    """The geometry of a portrait from its landmarks.

    Args:
        picture: uint8 [S, S, 3] RGB.
        face: of its largest face, in pixels of the picture, whose corner is 0.

    Returns:
        float32 [G], see `GEOMETRY`.
    """
    points = np.asarray(face.points, np.float64) - [0.5, 0.5, 0.0]
    return _joined({**_head(points), **_eyes(points[:, :2]), **_mouth(points[:, :2], picture), "body": _BODY})


def cut_portrait(
    source: str | Path | npt.NDArray[np.uint8], size: int, mesh: FaceMesh
) -> tuple[UInt8Array, FaceLandmarks]:
    """A portrait as the renderer takes it, and its face.

    The middle square of the picture, as for PIRender, if the head of its largest face is in it and not small; else the
    square around that head. One that has fewer pixels than are asked for is enlarged, and that is logged.

    Args:
        source: see `load_portrait`.
        size: side of the picture in pixels.
        mesh: finds the face.

    Returns:
        uint8 [size, size, 3] RGB, and the face in its pixels.

    Raises:
        PortraitError: it cannot be read, or no face is found in it.
    """
    whole = load_whole(source)
    seen = load_picture(whole)
    if (face := mesh.find(seen)) is None:
        raise PortraitError(_NO_FACE)
    square = _square_around(face, seen.shape[1], seen.shape[0])
    picture = load_portrait(whole, size) if square is None else load_square(whole, square, size)
    found = round(min(whole.shape[:2]) * (1.0 if square is None else square[2]))
    if found < size:
        log.warning(
            "The portrait shows the head on %d px, which are enlarged to %d. Take a larger picture of it, or a smaller "
            "size.",
            found,
            size,
        )
    return picture, _found(picture, mesh)


def square_geometry(picture: UInt8Array, mesh: FaceMesh) -> Float32Array:
    """The geometry of a portrait that is cut already.

    Args:
        picture: uint8 [S, S, 3] RGB.
        mesh: finds the face.

    Returns:
        float32 [G].

    Raises:
        PortraitError: no face is found in it.
    """
    return find_geometry(picture, _found(picture, mesh))


def _found(picture: UInt8Array, mesh: FaceMesh) -> FaceLandmarks:
    if (face := mesh.find(picture)) is None:
        raise PortraitError(_NO_FACE)
    return face


def _joined(parts: Mapping[str, npt.ArrayLike]) -> Float32Array:
    return np.concatenate([np.ravel(parts[name]) for name in GEOMETRY]).astype(np.float32)


def _square_around(face: FaceLandmarks, width: int, height: int) -> tuple[float, float, float] | None:
    """Left and upper edge and side of the square to cut, as shares of the shorter side; None for the middle square."""
    head = _head(np.asarray(face.points, np.float64))
    (x, y), (across, along, _) = np.asarray(head["head"]), np.asarray(head["radii"])
    short = min(width, height)
    beside, above = abs(x - width / 2) + across, abs(y - height / 2) + 0.8 * along  # hair may be cut off
    if max(beside, above) <= short / 2 and 2 * along >= _SMALL_HEAD * short:
        return None
    side = min(short, max(2 * along / _BROUGHT_NEAR, 2.2 * across))
    left, top = np.clip((x - side / 2, y - _LEVEL * side), 0, (width - side, height - side)) / short
    return float(left), float(top), float(side / short)


def _unit(vector: Float64Array) -> Float64Array:
    return np.asarray(vector / np.linalg.norm(vector))


def _head(points: Float64Array) -> dict[str, npt.ArrayLike]:
    """The head that belongs to landmarks [478, 3]."""
    left, right = points[list(_SIDES)]
    across, along = right - left, points[_CHIN] - points[_TOP]
    x_axis = _unit(across)
    y_axis = _unit(along - (along @ x_axis) * x_axis)
    turn = np.stack([x_axis, y_axis, np.cross(x_axis, y_axis)], axis=1)
    width, half_height = float(np.linalg.norm(across)), (1 + _CROWN) * float(np.linalg.norm(along)) / 2
    between_ears = (left + right) / 2
    up_from_chin = float((points[_CHIN] - between_ears) @ y_axis) - half_height
    return {
        "head": (between_ears + up_from_chin * y_axis)[:2],
        "radii": (_ACROSS * width / 2, half_height, _DEPTH * width),
        "turn": turn,
        "neck": _NECK * half_height * y_axis,
        "nose": (*points[_NOSE, :2], _NOSE_OUT * width),
    }


def _line(left: Float64Array, right: Float64Array) -> tuple[Float64Array, Float64Array, float]:
    """The middle, the axis and half of the length of a line in the picture."""
    return (left + right) / 2, _unit(right - left), float(np.linalg.norm(right - left)) / 2


def _below(axis: Float64Array, offset: Float64Array) -> float:
    return float(axis[0] * offset[1] - axis[1] * offset[0])


def _eyes(points: Float64Array) -> dict[str, npt.ArrayLike]:
    eyes = []
    for (left, right, upper, lower), brow in zip(_EYES, _BROWS, strict=True):
        middle, axis, half = _line(points[left], points[right])
        to_brow = points[list(brow)].mean(axis=0) - middle
        lids = (_below(axis, points[lid] - middle) for lid in (upper, lower))
        eyes.append((*middle, *axis, half, *lids, float(axis @ to_brow), _below(axis, to_brow)))
    names = [name for name in GEOMETRY if name.startswith(("eye_", "brow_"))]
    return dict(zip(names, np.array(eyes).T, strict=True))


def _mouth(points: Float64Array, picture: UInt8Array) -> dict[str, npt.ArrayLike]:
    left, right, lower = points[list(_MOUTH)]
    middle, axis, half = _line(left, right)
    gap = _below(axis, lower - points[_UPPER_LIP])
    return {
        "mouth": middle,
        "mouth_axis": axis,
        "mouth_half": half,
        "mouth_lower": _below(axis, lower - middle),
        "chin": _below(axis, points[_CHIN] - middle),
        "mouth_inside": _inside((lower + points[_LOWER_LIP]) / 2, picture),
        "teeth": (*_tooth(points[list(_CHEEKS)], picture), _TEETH * half if gap < _CLOSED * half else 0.0),
    }


def _inside(lip: Float64Array, picture: UInt8Array) -> Float64Array:
    """The colour of the lip, as it is where little light comes; a grey portrait's is grey."""
    return np.asarray(0.3 * _colour(lip, picture) ** 2.2)


def _tooth(cheeks: Float64Array, picture: UInt8Array) -> Float64Array:
    """A tooth in the light that is on the cheeks, a little of their hue in it."""
    skin = np.mean([_colour(cheek, picture) for cheek in cheeks], axis=0)
    light = skin.mean()
    return np.asarray((0.9 * light + 0.2 * (skin - light)).clip(0, 1))


def _colour(point: Float64Array, picture: UInt8Array) -> Float64Array:
    """The mean around a point, in [0, 1]."""
    x, y = np.clip(np.round(point), 1, len(picture) - 2).astype(int)
    return np.asarray(picture[y - 1 : y + 2, x - 1 : x + 2].mean(axis=(0, 1)) / 255)
