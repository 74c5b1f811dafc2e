"""The weightless renderer: a portrait, moved by coefficients. Nothing in it is learned.

A pixel of a picture is looked up in the portrait, in two steps backwards: where it was before the head moved, and
where that was before the face did. Both are smooth displacements, but for the edges of lids and lips, and so they are
computed on coarse grids and enlarged.

**The head** is an ellipsoid that turns about the neck. A point of the portrait moves with it: in full on the head,
less and less around it, and not at all on the shoulders and far away in the background. The flat top of the depth,
the width of the fall-off and `LARGEST_TURN` are chosen so that this never folds. The displacement is known where a
point comes from and needed where it goes to: a fixed point, which a few steps come close to.

**The face** moves by amounts that are linear in the expression (`EYE_MOVES`, `LIP_MOVES`, `MOUTH_MOVES`), within
bounds.

- Lids: the skin between brow and eye is stretched down over the eye, or that below it a little up. The eyeball stays
  behind them, and turns.
- Brows: lifted or lowered with the skin around them, more or less at either end.
- Corners of the mouth: bent up or down, drawn apart or together.
- Jaw: what is below the inner edge of the lower lip moves down, and nothing far below the chin. That uncovers the
  teeth, where the portrait shows any, and below them the dark.

The pose is FaceVerse's (`pflx.runtime.speaker.landmarks`), relative to the portrait's own. Pitch counts from the
nearest half turn: heads face the camera at π, at -π, or at 0 where a mean face was subtracted. Coefficients are taken
without the mean face, in whose place the portrait stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pflx.runtime.rendering.warp import GEOMETRY
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

Moves = Mapping[str, Mapping[str, float]]
"""Move → expression coefficients and their weights in it; * stands for Left and Right, of the person."""

EYE_MOVES: Moves = {
    "blink": {"eyeBlink*": 1.0},
    "squint": {"eyeSquint*": 0.6, "cheekSquint*": 0.4, "mouthSmile*": 0.4},
    "look_out": {"eyeLookOut*": 1.0, "eyeLookIn*": -1.0},
    "look_down": {"eyeLookDown*": 1.0, "eyeLookUp*": -1.0},
    "brow_inner": {"browInnerUp": 1.0, "browDown*": -0.7},
    "brow_outer": {"browOuterUp*": 1.0, "browDown*": -0.4},
}
"""Moves of each eye."""

LIP_MOVES: Moves = {"smile": {"mouthSmile*": 1.0, "mouthDimple*": 0.4, "mouthFrown*": -0.8}}
"""Moves of each half of the mouth."""

MOUTH_MOVES: Moves = {
    "jaw": {"jawOpen": 1.0, "mouthLowerDown*": 0.1, "mouthFunnel": 0.15, "mouthClose": -1.0},
    "jaw_left": {"jawLeft": 1.0, "jawRight": -1.0},
    "wide": {"mouthStretch*": 0.5, "mouthSmile*": 0.5, "mouthPucker": -1.0, "mouthFunnel": -0.6},
    "mouth_left": {"mouthLeft": 1.0, "mouthRight": -1.0},
}
"""Moves of the mouth as a whole."""

SIDES = ("Right", "Left")
"""Of the person, as they lie from the picture's left to its right."""

LARGEST_TURN = 0.42
"""Of the head, in rad: 24 degrees."""
LARGEST_SHIFT = 0.25
"""Of the head within the picture, in decimetres."""
LARGEST_APPROACH = 1.0
"""To the camera, in decimetres."""
CAMERA_DISTANCE = 10.0
"""Decimetres. Source: FaceVerse's camera, `pflx.runtime.speaker.landmarks`."""
RADII_PER_DM = 1.15
"""Half widths of a head, hair included, in a decimetre."""

ITERATIONS = 4
HEAD_STRIDE, FACE_STRIDE = 4, 2
"""Pixels from one point to the next of the grids on which head and face are computed."""

# Of the opening between the lids: how far beyond the corners, and above and below the lids, an eye has to be covered.
_CORNERS, _ABOVE, _BELOW = 1.12, 1.08, 1.15
_SOFT = 2.0
"""Pixels over which an edge of a lid goes from one side to the other, and the distance from a lip's edge is told: less
would not survive the grid."""


def moves_table() -> Tensor:
    """The weight of each expression coefficient in each move: both sides of an eye's and a lip's, then the mouth's.

    Returns:
        float32 [52, moves].
    """
    columns = [
        _column(weights, side) for moves in (EYE_MOVES, LIP_MOVES) for weights in moves.values() for side in SIDES
    ]
    return torch.stack(columns + [_column(weights, *SIDES) for weights in MOUTH_MOVES.values()], dim=1)


def _column(weights: Mapping[str, float], *sides: str) -> Tensor:
    column = torch.zeros(len(ARKIT_NAMES))
    for name, weight in weights.items():
        for full in dict.fromkeys(name.replace("*", side) for side in sides):
            column[ARKIT_NAMES.index(full)] = weight
    return column


class WarpPortrait(nn.Module):
    """Graph `warp_portrait`: the portrait as it is looked up in."""

    def forward(self, portrait: Tensor) -> Tensor:
        """Portrait uint8 [P, S, S, 3] → source float32 [P, 3, S, S] in 0…255."""
        return portrait.float().permute(0, 3, 1, 2).contiguous()


class WarpFrame(nn.Module):
    """Graph `warp_frame`: K frames of each of P portraits.

    Args:
        size: S, side of a picture in pixels; a multiple of 4.
    """

    table: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self.register_buffer("table", moves_table(), persistent=False)

    def forward(self, source: Tensor, geometry: Tensor, shown: Tensor, coefficients: Tensor, frames: Tensor) -> Tensor:
        """Render frames.

        Args:
            source: float32 [P, 3, S, S], of `WarpPortrait`: the portrait, or a picture that was made of it.
            geometry: float32 [P, G] of the portrait, see `pflx.runtime.rendering.warp.GEOMETRY`.
            shown: float32 [P, 6], pose that the source shows, mean face subtracted; 0 for the portrait.
            coefficients: float32 [P, T, 58], mean face subtracted.
            frames: int64 [K], indices into T; a frame reads its own coefficients only.

        Returns:
            uint8 [P, K, S, S, 3] RGB.
        """
        rows = coefficients.index_select(1, frames)
        portrait = _parts(geometry)
        head = _enlarged(self._head(portrait, rows[..., len(ARKIT_NAMES) :], shown), HEAD_STRIDE // FACE_STRIDE)
        face = self._face(portrait, self._moves(rows), head)
        return self._developed(source, _enlarged(face, FACE_STRIDE), portrait["mouth_inside"])

    def _moves(self, rows: Tensor) -> dict[str, Tensor]:
        """Amounts in [-1, 1], each [P, K, 2, 1, 1] (left and right in the picture), or [P, K, 1, 1] of the mouth."""
        amounts = (rows[..., : len(ARKIT_NAMES)].clamp(0.0, 1.0) @ self.table).clamp(-1.0, 1.0)[..., None, None]
        pairs = (*EYE_MOVES, *LIP_MOVES)
        parts = torch.split(amounts, [2] * len(pairs) + [1] * len(MOUTH_MOVES), dim=2)
        moves = dict(zip((*pairs, *MOUTH_MOVES), parts, strict=True))
        return moves | {name: moves[name].squeeze(2) for name in MOUTH_MOVES}

    def _positions(self, stride: int) -> tuple[Tensor, Tensor]:
        """Columns [1, w] and rows [h, 1] of the points of a grid, in pixels."""
        at = torch.arange(self._size // stride).float() * stride + (stride - 1) / 2
        return at[None, :], at[:, None]

    def _head(self, portrait: Mapping[str, Sequence[Tensor]], pose: Tensor, shown: Tensor) -> Tensor:
        """To where each point was before the head moved, and to where that is in the source: [P, K, 4, h, w]."""
        at_x, at_y = self._positions(HEAD_STRIDE)
        from_x, from_y = at_x - portrait["head"][0], at_y - portrait["head"][1]
        motion = _motion(portrait, pose)
        x, y = from_x, from_y
        for _ in range(ITERATIONS):
            move_x, move_y = _moved(portrait, motion, x, y)
            x, y = from_x - move_x, from_y - move_y
        to_x, to_y = _moved(portrait, _motion(portrait, shown[:, None]), x, y)
        return torch.stack([x - from_x, y - from_y, x - from_x + to_x, y - from_y + to_y], dim=2)

    def _face(self, portrait: Mapping[str, Sequence[Tensor]], moves: Mapping[str, Tensor], head: Tensor) -> Tensor:
        """Displacement in all, and how far inside of the opened mouth a point is: [P, K, 3, h, w] in pixels."""
        (at_x, at_y), (neutral_x, neutral_y, source_x, source_y) = self._positions(FACE_STRIDE), head.unbind(2)
        x, y = at_x + neutral_x, at_y + neutral_y
        eyes_x, eyes_y = _eyes(portrait, moves, x, y)
        mouth_x, mouth_y, inside = _mouth(portrait, moves, x, y)
        return torch.stack([source_x + eyes_x + mouth_x, source_y + eyes_y + mouth_y, inside], dim=2)

    def _developed(self, source: Tensor, maps: Tensor, inside_mouth: Sequence[Tensor]) -> Tensor:
        """The picture.

        Clipping the grid gives in a third of the time what the padding mode "border" gives. And the edge of the dark
        inside is as sharp as on a grid of every pixel, for it is found on that, between distances from it.
        """
        portraits, size = source.shape[0], self._size
        at_x, at_y = self._positions(1)
        move_x, move_y, inside = maps.unbind(2)
        scaled = [((at + move) * (2 / size) + (1 / size - 1)) for at, move in ((at_x, move_x), (at_y, move_y))]
        grid = torch.stack(scaled, dim=-1).clamp(1 / size - 1, 1 - 1 / size).view(portraits, -1, size, 2)
        looked_up = F.grid_sample(source, grid, align_corners=False).view(portraits, 3, -1, size, size)
        colour = 255 * torch.cat(list(inside_mouth), dim=1)[:, :, None]
        dark = inside[:, None].clamp(0.0, 1.0)
        pixels = looked_up + dark * (colour - looked_up)
        return (pixels.permute(0, 2, 3, 4, 1) + 0.5).clamp(0.0, 255.0).to(torch.uint8)


def _parts(geometry: Tensor) -> dict[str, Sequence[Tensor]]:
    """The numbers of each name of `GEOMETRY`, [P, 1, 1, 1] each; those of pairs as one [P, 1, 2, 1, 1]."""
    groups = dict(zip(GEOMETRY, torch.split(geometry[:, :, None, None], list(GEOMETRY.values()), dim=1), strict=True))
    return {
        name: (group[:, None],) if name.startswith(("eye_", "brow_")) else torch.split(group, 1, dim=1)
        for name, group in groups.items()
    }


def _enlarged(maps: Tensor, factor: int) -> Tensor:
    """Maps [P, K, C, h, w], `factor` times as large."""
    portraits, frames, channels, height, width = maps.shape
    larger = F.interpolate(maps.flatten(0, 1), scale_factor=factor, mode="bilinear", align_corners=False)
    return larger.view(portraits, frames, channels, factor * height, factor * width)


def _square(value: Tensor) -> Tensor:
    return value * value


def _smooth(share: Tensor) -> Tensor:
    """From 0 at 0 to 1 at 1, level at both ends and beyond."""
    share = share.clamp(0.0, 1.0)
    return share * share * (3 - 2 * share)


def _down_in_picture(turn: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The head's own down axis as a unit vector of the picture."""
    x, y = turn[1], turn[4]
    scale = torch.rsqrt(x * x + y * y)
    return scale * x, scale * y


def _motion(portrait: Mapping[str, Sequence[Tensor]], pose: Tensor) -> Sequence[Tensor]:
    """Two rows of the matrix by which the head moves about its neck, and its shift, [P, K, 1, 1] each."""
    shift_x, shift_y, larger = _shifted(pose, portrait["radii"][0])
    return (*(larger * value for value in _turned(portrait["turn"], pose)), shift_x, shift_y)


def _moved(
    portrait: Mapping[str, Sequence[Tensor]], motion: Sequence[Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """How far a motion takes points of the portrait, which are told from the middle of the head: [P, K, h, w] each."""
    (head_x, head_y), (neck_x, neck_y, neck_z), radii = (portrait[name] for name in ("head", "neck", "radii"))
    nose_x, nose_y, nose_out = portrait["nose"]
    down_x, down_y = _down_in_picture(portrait["turn"])
    xx, xy, xz, yx, yy, yz, shift_x, shift_y = motion
    down, across = (x * down_x + y * down_y) / radii[1], (x * down_y - y * down_x) / radii[0]
    square, nose_width = across * across + down * down, 0.3 * radii[0]
    near_nose = _square((x - (nose_x - head_x)) / nose_width) + _square((y - (nose_y - head_y)) / nose_width)
    depth = -radii[2] / (1 + _square(1.5 * square)) - nose_out / (1 + _square(near_nose))
    share = 1 - _smooth((torch.sqrt(square) - 0.9) / (1.25 - 0.5 * down.clamp(0.0, 1.0)))
    to_x, to_y, to_z = x - neck_x, y - neck_y, depth - neck_z
    move_x = xx * to_x + xy * to_y + xz * to_z + (neck_x + shift_x) - x
    move_y = yx * to_x + yy * to_y + yz * to_z + (neck_y + shift_y) - y
    return share * move_x, share * move_y


def _turned(turn: Sequence[Tensor], pose: Tensor) -> Sequence[Tensor]:
    """The first two rows of the rotation by which the head moves, in the picture's axes, [P, K, 1, 1] each."""
    half_turns = torch.round(pose[..., 0] / math.pi) * math.pi
    angles = torch.stack([pose[..., 0] - half_turns, -pose[..., 1], -pose[..., 2]], dim=-1)
    angles = angles.clamp(-LARGEST_TURN, LARGEST_TURN)
    length = torch.sqrt((angles * angles).sum(dim=-1, keepdim=True) + 1e-12)
    angles = angles * (LARGEST_TURN / length).clamp(0.0, 1.0)
    (cx, cy, cz), (sx, sy, sz) = torch.cos(angles).unbind(-1), torch.sin(angles).unbind(-1)
    rows = (
        (cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        (sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        (-sy, cy * sx, cy * cx),
    )
    relative = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    axes = torch.cat(list(turn), dim=1).view(-1, 1, 3, 3)
    about_picture = axes @ relative @ axes.transpose(2, 3)
    return about_picture[:, :, :2].flatten(2)[..., None, None].unbind(2)


def _shifted(pose: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How far the head is moved right and down, in pixels, and how many times larger it is, [P, K, 1, 1] each."""
    right, up, near = pose[..., 3:, None, None].unbind(2)
    scale = RADII_PER_DM * radius
    nearer = near.clamp(-LARGEST_APPROACH, LARGEST_APPROACH)
    return (
        scale * right.clamp(-LARGEST_SHIFT, LARGEST_SHIFT),
        -scale * up.clamp(-LARGEST_SHIFT, LARGEST_SHIFT),
        CAMERA_DISTANCE / (CAMERA_DISTANCE - nearer),
    )


def _eyes(
    portrait: Mapping[str, Sequence[Tensor]], moves: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Displacement by lids, gaze and brows, [P, K, h, w] each. Within, [P, K, 2, h, w]: u along, v across each eye."""
    names = ("eye_x", "eye_y", "eye_axis_x", "eye_axis_y", "eye_half", "eye_upper", "eye_lower", "brow_x", "brow_y")
    eye_x, eye_y, axis_x, axis_y, half, upper, lower, brow_u, brow_v = (portrait[name][0] for name in names)
    x, y = x[:, :, None] - eye_x, y[:, :, None] - eye_y
    u, v = x * axis_x + y * axis_y, y * axis_x - x * axis_y
    outwards = torch.tensor([-1.0, 1.0]).view(2, 1, 1)
    lids_v, open_share = _lids(moves, u, v, half, upper, lower, upper - brow_v)
    du = (-0.3 * half * outwards * moves["look_out"]) * open_share
    dv = lids_v - (0.15 * half * moves["look_down"]) * open_share
    outer = (0.5 + outwards * (u - brow_u) / (2 * half)).clamp(0.0, 1.0)
    lift = (0.3 * half) * (moves["brow_inner"] + (moves["brow_outer"] - moves["brow_inner"]) * outer)
    beside = _square(_square((u - brow_u) / (1.15 * half)))
    above, below = torch.relu(brow_v - v) / (1.3 * half), torch.relu(v - brow_v) / (0.75 * (upper - brow_v))
    dv = dv + lift * torch.exp(-(beside + _square(above) + _square(below)))
    return (du * axis_x - dv * axis_y).sum(dim=2), (du * axis_y + dv * axis_x).sum(dim=2)


def _lids(
    moves: Mapping[str, Tensor], u: Tensor, v: Tensor, half: Tensor, upper: Tensor, lower: Tensor, to_brow: Tensor
) -> tuple[Tensor, Tensor]:
    """Displacement across the eye by the lids, and how much of each point is seen between them."""
    bow = torch.relu(1 - _square(u / (_CORNERS * half)))
    upper, lower = (_ABOVE * upper) * bow, (_BELOW * lower) * bow
    blink = moves["blink"].clamp(0.0, 1.0)
    closed = blink * (lower - upper)
    raised = (0.35 * moves["squint"].clamp(0.0, 1.0) * (1 - blink)) * (lower - upper)
    skin, cheek = 0.55 * to_brow, half
    by_upper = torch.relu(v - upper + skin) * closed / (skin + closed)
    by_lower = torch.relu(lower + cheek - v) * raised / (cheek + raised)
    is_upper = ((upper + closed - v) / _SOFT + 0.5).clamp(0.0, 1.0)
    is_lower = ((v - lower + raised) / _SOFT + 0.5).clamp(0.0, 1.0)
    return by_lower * is_lower - by_upper * is_upper, (1 - is_upper) * (1 - is_lower) * bow


def _mouth(
    portrait: Mapping[str, Sequence[Tensor]], moves: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Displacement by lips and jaw, and how far inside of the opened mouth each point is, [P, K, h, w] each."""
    (mouth_x, mouth_y), (axis_x, axis_y) = portrait["mouth"], portrait["mouth_axis"]
    half, lower, chin = (portrait[name][0] for name in ("mouth_half", "mouth_lower", "chin"))
    x, y = x - mouth_x, y - mouth_y
    at_u, at_v = x * axis_x + y * axis_y, y * axis_x - x * axis_y
    u, v = _lips(moves, at_u, at_v, half)
    bow = torch.relu(1 - _square(u / (1.02 * half)))
    lip = lower * bow
    drop = (0.3 * chin) * moves["jaw"].clamp(0.0, 1.0)
    opening = drop * bow * (2 - bow)
    beside = torch.exp(-_square(_square(u / (2.1 * half))))
    fade = (1 - _smooth((v - chin) / (1.3 * chin))) * beside
    fall = opening + (drop * fade - opening) * _smooth((v - lip - opening) / chin)
    inside = torch.minimum(v - lip, lip + opening - v).clamp(-_SOFT, _SOFT)
    du = u - at_u - (0.15 * half * moves["jaw_left"]) * _smooth(v / chin) * fade
    dv = torch.minimum(v, torch.maximum(lip, v - fall)) - at_v
    return du * axis_x - dv * axis_y, du * axis_y + dv * axis_x, inside


def _lips(moves: Mapping[str, Tensor], u: Tensor, v: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Where points along and across the mouth were before its corners moved."""
    along = u / half
    near = torch.exp(-(_square(_square(along / 1.7)) + _square(v / (1.1 * half))))
    left, right = moves["smile"].unbind(2)
    smile = left + (right - left) * (0.5 + 0.5 * along).clamp(0.0, 1.0)
    apart = (0.16 * moves["wide"]) * u + 0.2 * half * moves["mouth_left"]
    bend = _square(along).clamp(0.0, 1.6) - 0.25
    return u - near * apart, v + near * smile * (0.2 * half) * bend
