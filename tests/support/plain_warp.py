"""The weightless renderer in plain numpy, float64 and formula by formula, to compare its graphs with.

A picture of one frame: `render(layers, geometry, coefficients)`. Points are [..., 2], x before y.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pflx.runtime.rendering.layers import Layers
from pflx.runtime.rendering.warp import geometry_part
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

Float64Array: TypeAlias = npt.NDArray[np.float64]

_STILL = np.zeros(6)
TURN = 0.42  # rad
SHIFT, APPROACH, CAMERA = 0.25, 1.0, 10.0  # dm
OUTWARDS = (-1, 1)  # from the middle of an eye to the temple


def render(layers: Layers, geometry: Any, coefficients: Any, shown: Any = _STILL) -> Any:
    """uint8 [S, S, 3], of a portrait's layers, or of those of a picture that shows it in another pose, float [6]."""
    places, dark, teeth = look_up(len(layers.portrait), geometry, coefficients, shown)
    person = layers.masks[..., :1].astype(np.float64)
    adds = with_lids(layers, coefficients) - (1 - person) * layers.background
    adds, covered = sample(adds, places), sample(person, places)
    inside, tooth = part(geometry, "mouth_inside"), part(geometry, "teeth")[:3]
    person_there = adds + dark[..., None] * (255 * inside - adds) + teeth[..., None] * 255 * (tooth - inside)
    return (person_there + (1 - covered) * layers.background + 0.5).clip(0, 255).astype(np.uint8)


def with_lids(layers: Layers, coefficients: Any) -> Float64Array:
    """The portrait with its eyes as far closed as the coefficients say."""
    blink = [float(np.clip(coefficients[ARKIT_NAMES.index(f"eyeBlink{side}")], 0, 1)) for side in ("Right", "Left")]
    left, right, bare = np.moveaxis(layers.masks[..., 1:].astype(np.float64), -1, 0)[..., None]
    depth = blink[0] * left + blink[1] * right - bare
    open_eyes, closed, lashed = (layer.astype(np.float64) for layer in (layers.portrait, layers.closed, layers.lashed))
    covered, line = depth.clip(0, 1), (1 - np.abs(depth - 1)).clip(0)
    return np.asarray(open_eyes + covered * (closed - open_eyes) + line * (lashed - closed))


def look_up(
    size: int, geometry: Any, coefficients: Any, shown: Any = _STILL
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Where each pixel comes from, [S, S, 2]; how dark the mouth is inside there, and how much of that is teeth."""
    values = np.clip(coefficients[:52], 0, 1).tolist()
    weights: dict[str, float] = dict(zip(ARKIT_NAMES, values, strict=True))
    coarse, fine = grid(size, 4), grid(size, 2)
    head = head_move(coarse, geometry, np.asarray(coefficients[52:], np.float64))
    onwards = displacement(coarse + head - part(geometry, "head"), geometry, np.asarray(shown, np.float64))
    onwards = onwards + brow_move(coarse + head, geometry, weights)
    maps = enlarge(np.dstack([head, head + onwards]), 2)
    face, inside, teeth = face_move(fine + maps[..., :2], geometry, weights)
    maps = enlarge(np.dstack([maps[..., 2:] + face, inside, teeth]), 2)
    return grid(size, 1) + maps[..., :2], maps[..., 2].clip(0, 1), maps[..., 3].clip(0, 1)


def part(geometry: Any, name: str) -> Float64Array:
    return np.asarray(geometry_part(geometry, name), np.float64)


def grid(size: int, stride: int) -> Float64Array:
    """Points every `stride` pixels, in the middle of what they stand for."""
    at = np.arange(size // stride) * stride + (stride - 1) / 2
    return np.asarray(np.stack(np.meshgrid(at, at), axis=-1), np.float64)


def enlarge(maps: Float64Array, factor: int) -> Float64Array:
    """Linear between the points, the outermost ones beyond."""
    for axis in (0, 1):
        n = maps.shape[axis]
        at = np.clip((np.arange(n * factor) + 0.5) / factor - 0.5, 0, n - 1)
        low = np.floor(at).astype(int).clip(0, n - 2)
        share = np.expand_dims(at - low, tuple({0, 1, 2} - {axis}))
        maps = np.take(maps, low, axis) * (1 - share) + np.take(maps, low + 1, axis) * share
    return maps


def sample(picture: Float64Array, places: Float64Array) -> Float64Array:
    """Bilinear, with what is beyond the edge as at it."""
    places = places.clip(0, len(picture) - 1)
    low = np.floor(places).astype(int).clip(0, len(picture) - 2)
    (x, y), (right, down) = np.moveaxis(low, -1, 0), np.moveaxis(places - low, -1, 0)[..., None]
    upper = picture[y, x] * (1 - right) + picture[y, x + 1] * right
    lower = picture[y + 1, x] * (1 - right) + picture[y + 1, x + 1] * right
    between: Float64Array = upper * (1 - down) + lower * down
    return between


def smooth(share: Any) -> Any:
    share = np.clip(share, 0, 1)
    return 3 * share**2 - 2 * share**3


def about_axis(axis: int, angle: float) -> Float64Array:
    """A turn about x, y or z, right-handed."""
    one, other = [(1, 2), (2, 0), (0, 1)][axis]
    turn = np.eye(3)
    turn[one, one] = turn[other, other] = np.cos(angle)
    turn[other, one], turn[one, other] = np.sin(angle), -np.sin(angle)
    return turn


def rotation(geometry: Any, pose: Float64Array) -> Float64Array:
    """By which the head moves, in the picture's axes."""
    half_turns = np.pi * np.round(pose[0] / np.pi)
    angles = np.clip([pose[0] - half_turns, -pose[1], -pose[2]], -TURN, TURN)
    angles = angles * min(1.0, TURN / max(float(np.linalg.norm(angles)), 1e-6))
    pitch, yaw, roll = (about_axis(axis, angle) for axis, angle in enumerate(angles))
    own = part(geometry, "turn").reshape(3, 3)
    return own @ roll @ yaw @ pitch @ own.T


def head_move(points: Float64Array, geometry: Any, pose: Float64Array) -> Float64Array:
    """What leads from points back to where they were before the head moved."""
    at = points = points - part(geometry, "head")
    for _ in range(3):
        at = points - displacement(at, geometry, pose)
    return at - points


def displacement(at: Float64Array, geometry: Any, pose: Float64Array) -> Float64Array:
    """How far a pose takes points of the portrait, which are told from the middle of the head."""
    neck, radii = part(geometry, "neck"), part(geometry, "radii")
    right, up, near = pose[3:].clip([-SHIFT, -SHIFT, -APPROACH], [SHIFT, SHIFT, APPROACH])
    depth, share = solid(at, geometry)
    turned = (np.dstack([at, depth]) - neck) @ rotation(geometry, pose).T
    by_turn = CAMERA / (CAMERA - near) * turned[..., :2] + neck[:2] - at
    by_shift = 1.15 * radii[0] * np.array([right, -up])
    turns, shifts = (follows + (1 - follows) * share[..., None] for follows in part(geometry, "body"))
    return np.asarray(turns * by_turn + shifts * by_shift)


def solid(at: Float64Array, geometry: Any) -> tuple[Float64Array, Float64Array]:
    """Depth of points of the portrait, and how much they belong to the head."""
    middle, radii, nose = (part(geometry, name) for name in ("head", "radii", "nose"))
    down = part(geometry, "turn").reshape(3, 3)[:2, 1]
    down = down / np.linalg.norm(down)
    along, across = at @ down / radii[1], at @ [down[1], -down[0]] / radii[0]
    radius = np.hypot(along, across)
    off_nose = np.linalg.norm(at - (nose[:2] - middle), axis=-1) / (0.3 * radii[0])
    depth = -radii[2] / (1 + 2.25 * radius**4) - nose[2] / (1 + off_nose**4)
    return depth, 1 - smooth((radius - 0.9) / (1.25 - 0.5 * along.clip(0, 1)))


def face_move(
    points: Float64Array, geometry: Any, weights: dict[str, float]
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """The same of the face, and how far inside of the opened mouth, and of the teeth in it, points are."""
    move, inside, teeth = mouth_move(points, geometry, weights)
    for eye, side in enumerate(("Right", "Left")):  # of the person; in the picture from left to right
        move = move + eye_move(points, geometry, weights, eye, side)
    return move, inside, teeth


def eye_move(points: Float64Array, geometry: Any, weights: dict[str, float], eye: int, side: str) -> Float64Array:
    u, v, axis = at_eye(points, geometry, eye)
    half, upper, lower = (float(part(geometry, f"eye_{name}")[eye]) for name in ("half", "upper", "lower"))
    blink = weights[f"eyeBlink{side}"]
    squint = min(
        1.0, 0.6 * weights[f"eyeSquint{side}"] + 0.4 * (weights[f"cheekSquint{side}"] + weights[f"mouthSmile{side}"])
    )
    bow = (1 - (u / (1.12 * half)) ** 2).clip(0)
    top, bottom = 1.08 * upper * bow, 1.15 * lower * bow
    closed, raised = blink * (bottom - top), 0.35 * squint * (1 - blink) * (bottom - top)
    by_lower = (bottom + half - v).clip(0) * raised / (half + raised)
    is_upper, is_lower = ((top + closed - v) / 2 + 0.5).clip(0, 1), ((v - bottom + raised) / 2 + 0.5).clip(0, 1)
    seen = (1 - is_upper) * (1 - is_lower) * bow
    out = np.clip(weights[f"eyeLookOut{side}"] - weights[f"eyeLookIn{side}"], -1, 1)
    down = np.clip(weights[f"eyeLookDown{side}"] - weights[f"eyeLookUp{side}"], -1, 1)
    du = -0.3 * half * OUTWARDS[eye] * out * seen
    return in_picture(du, by_lower * is_lower - 0.15 * half * down * seen, axis)


def brow_move(points: Float64Array, geometry: Any, weights: dict[str, float]) -> Float64Array:
    """What leads from points back to where they were before the brows moved."""
    moves = []
    for eye, side in enumerate(("Right", "Left")):
        u, v, axis = at_eye(points, geometry, eye)
        half, upper, brow_u, brow_v = (
            float(part(geometry, name)[eye]) for name in ("eye_half", "eye_upper", "brow_x", "brow_y")
        )
        inner = np.clip(weights["browInnerUp"] - 0.7 * weights[f"browDown{side}"], -1, 1)
        outer = np.clip(weights[f"browOuterUp{side}"] - 0.4 * weights[f"browDown{side}"], -1, 1)
        share = (0.5 + OUTWARDS[eye] * (u - brow_u) / (2 * half)).clip(0, 1)
        width = np.where(v < brow_v, 1.3 * half, 0.75 * (upper - brow_v))
        near = np.exp(-(((u - brow_u) / (1.15 * half)) ** 4) - ((v - brow_v) / width) ** 2)
        moves.append(in_picture(0 * u, 0.3 * half * (inner * (1 - share) + outer * share) * near, axis))
    return moves[0] + moves[1]


def at_eye(points: Float64Array, geometry: Any, eye: int) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Points along and across an eye, and its axis."""
    middle, axis = (np.array([part(geometry, f"{name}_{at}")[eye] for at in "xy"]) for name in ("eye", "eye_axis"))
    return *along_and_across(points - middle, axis), axis


def mouth_move(
    points: Float64Array, geometry: Any, weights: dict[str, float]
) -> tuple[Float64Array, Float64Array, Float64Array]:
    middle, axis = part(geometry, "mouth"), part(geometry, "mouth_axis")
    half, lower, chin = (float(part(geometry, name)[0]) for name in ("mouth_half", "mouth_lower", "chin"))
    at_u, at_v = along_and_across(points - middle, axis)
    u, v = corners(at_u, at_v, half, weights)
    bow = (1 - (u / (1.02 * half)) ** 2).clip(0)
    lip = lower * bow
    lowered = 0.1 * (weights["mouthLowerDownLeft"] + weights["mouthLowerDownRight"]) + 0.15 * weights["mouthFunnel"]
    drop = 0.3 * chin * np.clip(weights["jawOpen"] + lowered - weights["mouthClose"], 0, 1)
    opening = drop * (1 - (1 - bow) ** 2)
    fade = (1 - smooth((v - chin) / (1.3 * chin))) * np.exp(-((u / (2.1 * half)) ** 4))
    share = smooth((v - lip - opening) / chin)
    fall = opening * (1 - share) + drop * fade * share
    inside = np.minimum(v - lip, lip + opening - v).clip(-2, 2)
    aside = np.clip(weights["jawLeft"] - weights["jawRight"], -1, 1)
    was_u = u - 0.15 * half * aside * smooth(v / chin) * fade
    was_v = np.where(v <= lip, v, np.maximum(lip, v - fall))
    teeth = np.minimum(inside, lip + part(geometry, "teeth")[3] * bow - v).clip(-2, 2)
    return in_picture(was_u - at_u, was_v - at_v, axis), inside, teeth


def corners(
    u: Float64Array, v: Float64Array, half: float, weights: dict[str, float]
) -> tuple[Float64Array, Float64Array]:
    """Along and across the mouth, before its corners moved."""
    bent = [
        np.clip(
            weights[f"mouthSmile{side}"] + 0.4 * weights[f"mouthDimple{side}"] - 0.8 * weights[f"mouthFrown{side}"],
            -1,
            1,
        )
        for side in ("Right", "Left")
    ]
    drawn = sum(weights[f"mouth{name}{side}"] / 2 for name in ("Stretch", "Smile") for side in ("Left", "Right"))
    wide = np.clip(drawn - weights["mouthPucker"] - 0.6 * weights["mouthFunnel"], -1, 1)
    aside = np.clip(weights["mouthLeft"] - weights["mouthRight"], -1, 1)
    near = np.exp(-((u / half / 1.7) ** 4) - (v / (1.1 * half)) ** 2)
    share = (0.5 + 0.5 * u / half).clip(0, 1)
    bend = 0.2 * half * (bent[0] * (1 - share) + bent[1] * share) * (((u / half) ** 2).clip(0, 1.6) - 0.25)
    return u - near * (0.16 * wide * u + 0.2 * half * aside), v + near * bend


def along_and_across(offsets: Float64Array, axis: Float64Array) -> tuple[Float64Array, Float64Array]:
    return offsets @ axis, offsets @ [-axis[1], axis[0]]


def in_picture(along: Float64Array, across: Float64Array, axis: Float64Array) -> Float64Array:
    return np.dstack([along * axis[0] - across * axis[1], along * axis[1] + across * axis[0]])
