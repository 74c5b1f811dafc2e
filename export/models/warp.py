"""The weightless renderer: a portrait, moved by coefficients. Nothing in it is learned.

The portrait comes in layers: the person, the same with closed eyes, and what is behind. Lids are drawn over the eyes
first. Then a pixel of a picture is looked up in the person, in two steps backwards: where it was before the head moved,
and where that was before the face did. Both are smooth displacements, but for the edges of lids and lips, and so they
are computed on coarse grids and enlarged. What the person does not cover shows the background, which stays.

**The head** is an ellipsoid that turns about the neck. A point of the portrait moves with it: in full on the head,
less and less around it, and by little on the shoulders. The flat top of the depth, the width of the fall-off and
`LARGEST_TURN` are chosen so that this never folds. The displacement is known where a
point comes from and needed where it goes to: a fixed point, which a few steps come close to.

**The face** moves by amounts that are linear in the expression (`EYE_MOVES`, `LIP_MOVES`, `MOUTH_MOVES`), within
bounds.

- Lids: the closed eye comes down over the open one, with the line of its lashes at the edge. The skin below is pushed
  up a little. The eyeball stays behind them, and turns.
- Brows: lifted or lowered with the skin around them, more or less at either end.
- Corners of the mouth: bent up or down, drawn apart or together.
- Jaw: what is below the inner edge of the lower lip moves down, and nothing far below the chin. That uncovers the
  teeth, the portrait's or made-up ones, and below them the dark.

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

ITERATIONS = 3
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
    """Graph `warp_portrait`: the layers of portraits as frames are made of them."""

    def forward(
        self, portrait: Tensor, closed: Tensor, lashed: Tensor, background: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Layers, see `pflx.runtime.rendering.layers.Layers`, to floats in 0…255.

        Half a level is added to all that a picture is summed of, so that cutting off its fraction rounds it.

        Returns:
            source [P, 4, S, S]: what the person adds to the background, and how much of that it covers; closing
            [P, 4, S, S]: what a closed lid adds to the source; lashes, likewise: what their line adds to the lid; lids
            [P, 3, S, S]; behind [P, 3, S, S]: the background.
        """
        layers = (portrait, closed, lashed, background)
        picture, lid, line, behind = (layer.float().permute(0, 3, 1, 2) for layer in layers)
        person, lids = torch.split(masks.permute(0, 3, 1, 2), [1, 3], dim=1)
        behind = behind + 0.5
        source = torch.cat([picture + 0.5 - (1 - person) * behind, person], dim=1)
        none = torch.zeros_like(person)
        closing, lashes = torch.cat([lid - picture, none], dim=1), torch.cat([line - lid, none], dim=1)
        return source, closing, lashes, lids.contiguous(), behind


class WarpFrame(nn.Module):
    """Graph `warp_frame`: K frames of each of P portraits, S pixels a side, a multiple of 4."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", moves_table(), persistent=False)

    def forward(
        self,
        source: Tensor,
        closing: Tensor,
        lashes: Tensor,
        lids: Tensor,
        behind: Tensor,
        geometry: Tensor,
        shown: Tensor,
        coefficients: Tensor,
        frames: Tensor,
    ) -> Tensor:
        """Render frames.

        Args:
            source: float32 [P, 4, S, S], of `WarpPortrait`: of the portrait, or of a picture that was made of it.
            closing: float32 [P, 4, S, S], likewise.
            lashes: float32 [P, 4, S, S], likewise.
            lids: float32 [P, 3, S, S], likewise.
            behind: float32 [P, 3, S, S], likewise.
            geometry: float32 [P, G] of the portrait, see `pflx.runtime.rendering.warp.GEOMETRY`.
            shown: float32 [P, 6], pose that the source shows, mean face subtracted; 0 for the portrait.
            coefficients: float32 [P, T, 58], mean face subtracted.
            frames: int64 [K], indices into T; a frame reads its own coefficients only.

        Returns:
            uint8 [P, K, S, S, 3] RGB.
        """
        size = source.shape[-1]
        rows = coefficients.index_select(1, frames)
        portrait, moves = _parts(geometry), self._moves(rows)
        middle = (size + FACE_STRIDE - 1) // FACE_STRIDE
        head = _enlarged(_head(size, portrait, moves, rows[..., len(ARKIT_NAMES) :], shown), middle)
        maps = _enlarged(_face(size, portrait, moves, head), size)
        person = _with_lids(source, closing, lashes, lids, moves["blink"].clamp(0.0, 1.0))
        return _developed(person, behind, maps, portrait)

    def _moves(self, rows: Tensor) -> dict[str, Tensor]:
        """Amounts in [-1, 1], each [P, K, 2, 1, 1] (left and right in the picture), or [P, K, 1, 1] of the mouth."""
        amounts = (rows[..., : len(ARKIT_NAMES)].clamp(0.0, 1.0) @ self.table).clamp(-1.0, 1.0)[..., None, None]
        pairs = (*EYE_MOVES, *LIP_MOVES)
        parts = torch.split(amounts, [2] * len(pairs) + [1] * len(MOUTH_MOVES), dim=2)
        moves = dict(zip((*pairs, *MOUTH_MOVES), parts, strict=True))
        return moves | {name: moves[name].squeeze(2) for name in MOUTH_MOVES}


def _positions(size: int, stride: int) -> tuple[Tensor, Tensor]:
    """Columns [1, w] and rows [h, 1] of the points of a grid, in pixels."""
    at = torch.arange((size + stride - 1) // stride).float() * stride + (stride - 1) / 2
    return at[None, :], at[:, None]


def _with_lids(source: Tensor, closing: Tensor, lashes: Tensor, lids: Tensor, blink: Tensor) -> Tensor:
    """The source with its eyes as far closed as `blink` [P, K, 2, 1, 1] says, [P, K, 4, S, S]."""
    left, right = blink.unbind(2)
    of_left, of_right, bare = (lid[:, None] for lid in lids.unbind(1))
    depth = left * of_left + right * of_right - bare
    line = torch.relu(1 - (depth - 1).abs())
    drawn = depth.clamp(0.0, 1.0)[:, :, None] * closing[:, None] + line[:, :, None] * lashes[:, None]
    return source[:, None] + drawn


def _head(
    size: int, portrait: Mapping[str, Sequence[Tensor]], moves: Mapping[str, Tensor], pose: Tensor, shown: Tensor
) -> Tensor:
    """To where points were before the head moved, and where that is in the source, before brows did: [P, K, 4, h, w]."""
    at_x, at_y = _positions(size, HEAD_STRIDE)
    head_x, head_y = portrait["head"]
    from_x, from_y = at_x - head_x, at_y - head_y
    solid, (motion, earlier) = _solid(portrait), _motions(portrait, pose, shown)
    x, y = from_x, from_y
    for _ in range(ITERATIONS):
        move_x, move_y = _moved(solid, motion, x, y)
        x, y = from_x - move_x, from_y - move_y
    to_x, to_y = _moved(solid, earlier, x, y)
    brows_x, brows_y = _brows(portrait, moves, x + head_x, y + head_y)
    neutral_x, neutral_y = x - from_x, y - from_y
    return torch.stack([neutral_x, neutral_y, neutral_x + to_x + brows_x, neutral_y + to_y + brows_y], dim=2)


def _face(size: int, portrait: Mapping[str, Sequence[Tensor]], moves: Mapping[str, Tensor], head: Tensor) -> Tensor:
    """Displacement in all, in halves of the picture's side, and how far inside of the opened mouth and of its teeth.

    Returns:
        [P, K, 4, h, w], the last two in pixels.
    """
    (at_x, at_y), (neutral_x, neutral_y, source_x, source_y) = _positions(size, FACE_STRIDE), head.unbind(2)
    x, y = at_x + neutral_x, at_y + neutral_y
    eyes_x, eyes_y = _eyes(portrait, moves, x, y)
    mouth_x, mouth_y, inside, teeth = _mouth(portrait, moves, x, y)
    move_x, move_y = (source_x + eyes_x + mouth_x) * (2 / size), (source_y + eyes_y + mouth_y) * (2 / size)
    return torch.stack([move_x, move_y, inside, teeth], dim=2)


def _developed(person: Tensor, behind: Tensor, maps: Tensor, portrait: Mapping[str, Sequence[Tensor]]) -> Tensor:
    """The picture of a person [P, K, 4, S, S] before a background.

    Clipping the grid gives in a third of the time what the padding mode "border" gives. And the edges of the dark
    inside are as sharp as on a grid of every pixel, for they are found on that, between distances from them.
    """
    portraits, frames, planes, size, _ = person.shape
    at_x, at_y = (at * (2 / size) + (1 / size - 1) for at in _positions(size, 1))
    move_x, move_y, inside, teeth = maps.unbind(2)
    grid = torch.stack([at_x + move_x, at_y + move_y], dim=-1).clamp(1 / size - 1, 1 - 1 / size).flatten(0, 1)
    looked_up = F.grid_sample(person.flatten(0, 1), grid, align_corners=False)
    colours, covered = torch.split(looked_up.view(portraits, frames, planes, size, size), [3, 1], dim=2)
    dark = inside.clamp(0.0, 1.0)
    mouth = torch.stack([dark, dark * teeth.clamp(0.0, 1.0)], dim=2)
    shown = colours * (1 - dark)[:, :, None] + _mixed(portrait, mouth) + (1 - covered) * behind[:, None]
    return shown.permute(0, 1, 3, 4, 2).clamp(0.0, 255.0).to(torch.uint8)


def _mixed(portrait: Mapping[str, Sequence[Tensor]], mouth: Tensor) -> Tensor:
    """Colours of shares of the dark and of teeth before it, [P, K, 2, S, S] → [P, K, 3, S, S]."""
    inside, teeth = (torch.cat(list(portrait[name])[:3], dim=1).view(-1, 1, 3, 1) for name in ("mouth_inside", "teeth"))
    inks = torch.cat([255 * inside + 0.5, 255 * (teeth - inside)], dim=3)
    portraits, frames, _, size, _ = mouth.shape
    return (inks @ mouth.flatten(3)).view(portraits, frames, 3, size, size)


def _parts(geometry: Tensor) -> dict[str, Sequence[Tensor]]:
    """The numbers of each name of `GEOMETRY`, [P, 1, 1, 1] each; those of pairs as one [P, 1, 2, 1, 1]."""
    groups = dict(zip(GEOMETRY, torch.split(geometry[:, :, None, None], list(GEOMETRY.values()), dim=1), strict=True))
    return {
        name: (group[:, None],) if name.startswith(("eye_", "brow_")) else torch.split(group, 1, dim=1)
        for name, group in groups.items()
    }


def _enlarged(maps: Tensor, size: int) -> Tensor:
    """Maps [P, K, C, h, w], as [P, K, C, size, size]."""
    portraits, frames, channels, _, _ = maps.shape
    larger = F.interpolate(maps.flatten(0, 1), size=(size, size), mode="bilinear", align_corners=False)
    return larger.view(portraits, frames, channels, size, size)


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


def _motions(
    portrait: Mapping[str, Sequence[Tensor]], pose: Tensor, shown: Tensor
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """How a point (x, y, z), told from the middle of the head, is displaced by poses [P, K, 6], and by one [P, 6].

    Each is factors of x, y and z and a constant, to the right, the same down, and the shift: [P, K or 1, 1, 1] each.
    """
    poses = torch.cat([shown[:, None], pose], dim=1)
    right, down, larger = _shifted(poses, portrait["radii"][0])
    turn = larger[:, :, None] * _turned(portrait["turn"], poses)
    neck = torch.cat(list(portrait["neck"]), dim=1).view(-1, 1, 3, 1)
    constant = neck[:, :, :2] - turn @ neck
    factors = torch.cat([turn - torch.eye(2, 3), constant], dim=3).flatten(2)
    numbers = torch.cat([factors, right, down], dim=2)[..., None, None]
    return numbers[:, 1:].unbind(2), numbers[:, :1].unbind(2)


def _solid(portrait: Mapping[str, Sequence[Tensor]]) -> Sequence[Tensor]:
    """What says how deep a point of the portrait is, and how much it belongs to the head."""
    (head_x, head_y), radii = portrait["head"], portrait["radii"]
    nose_x, nose_y, nose_out = portrait["nose"]
    down_x, down_y = _down_in_picture(portrait["turn"])
    narrow = 1 / (0.3 * radii[0])
    along, across = (down_x / radii[1], down_y / radii[1]), (down_y / radii[0], -down_x / radii[0])
    nose = (narrow, narrow * (nose_x - head_x), narrow * (nose_y - head_y), -nose_out)
    return (*along, *across, *nose, -radii[2], *portrait["body"])


def _moved(solid: Sequence[Tensor], motion: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """How far a motion takes points of the portrait, which are told from the middle of the head: [P, K, h, w] each."""
    down_x, down_y, across_x, across_y, narrow, nose_x, nose_y, nose_out, deep, body_turn, body_shift = solid
    xx, xy, xz, x0, yx, yy, yz, y0, shift_x, shift_y = motion
    down, across = x * down_x + y * down_y, x * across_x + y * across_y
    square = across * across + down * down
    near_nose = _square(x * narrow - nose_x) + _square(y * narrow - nose_y)
    depth = deep / (1 + _square(1.5 * square)) + nose_out / (1 + _square(near_nose))
    share = 1 - _smooth((torch.sqrt(square) - 0.9) / (1.25 - 0.5 * down.clamp(0.0, 1.0)))
    turned, shifted = body_turn + (1 - body_turn) * share, body_shift + (1 - body_shift) * share
    move_x = turned * (xx * x + xy * y + xz * depth + x0) + shifted * shift_x
    move_y = turned * (yx * x + yy * y + yz * depth + y0) + shifted * shift_y
    return move_x, move_y


def _turned(turn: Sequence[Tensor], pose: Tensor) -> Tensor:
    """The first two rows of the rotation by which the head moves, in the picture's axes, [P, K, 2, 3]."""
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
    return about_picture[:, :, :2]


def _shifted(pose: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How far the head is moved right and down, in pixels, and how many times larger it is, [P, K, 1] each."""
    scale = (RADII_PER_DM * radius)[:, 0]
    moved = scale * pose[..., 3:5].clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
    nearer = pose[..., 5:].clamp(-LARGEST_APPROACH, LARGEST_APPROACH)
    return moved[..., :1], -moved[..., 1:], CAMERA_DISTANCE / (CAMERA_DISTANCE - nearer)


_OUTWARDS = (-1.0, 1.0)
"""Which way from the middle of each eye the temple is."""


def _eyes(
    portrait: Mapping[str, Sequence[Tensor]], moves: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Displacement by lids and gaze, [P, K, h, w] each. Within, [P, K, 2, h, w]: u along, v across each eye."""
    names = ("eye_x", "eye_y", "eye_axis_x", "eye_axis_y", "eye_half", "eye_upper", "eye_lower")
    eye_x, eye_y, axis_x, axis_y, half, upper, lower = (portrait[name][0] for name in names)
    x, y = x[:, :, None] - eye_x, y[:, :, None] - eye_y
    u, v = x * axis_x + y * axis_y, y * axis_x - x * axis_y
    lids_v, open_share = _lids(moves, u, v, half, upper, lower)
    outwards = torch.tensor(_OUTWARDS).view(2, 1, 1)
    du = (-0.3 * half * outwards * moves["look_out"]) * open_share
    dv = lids_v - (0.15 * half * moves["look_down"]) * open_share
    return (du * axis_x - dv * axis_y).sum(dim=2), (du * axis_y + dv * axis_x).sum(dim=2)


def _brows(
    portrait: Mapping[str, Sequence[Tensor]], moves: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Displacement by brows, [P, K, h, w] each. Within, [P, K, 2, h, w]: u along, v across each eye."""
    names = ("eye_x", "eye_y", "eye_axis_x", "eye_axis_y", "eye_half", "eye_upper", "brow_x", "brow_y")
    eye_x, eye_y, axis_x, axis_y, half, upper, brow_u, brow_v = (portrait[name][0] for name in names)
    x, y = x[:, :, None] - eye_x, y[:, :, None] - eye_y
    u, v = x * axis_x + y * axis_y - brow_u, y * axis_x - x * axis_y - brow_v
    outer = (0.5 + torch.tensor(_OUTWARDS).view(2, 1, 1) * u / (2 * half)).clamp(0.0, 1.0)
    lift = (0.3 * half) * (moves["brow_inner"] + (moves["brow_outer"] - moves["brow_inner"]) * outer)
    beside = _square(_square(u / (1.15 * half)))
    above, below = torch.relu(-v) / (1.3 * half), torch.relu(v) / (0.75 * (upper - brow_v))
    dv = lift * torch.exp(-(beside + _square(above) + _square(below)))
    return (-dv * axis_y).sum(dim=2), (dv * axis_x).sum(dim=2)


def _lids(
    moves: Mapping[str, Tensor], u: Tensor, v: Tensor, half: Tensor, upper: Tensor, lower: Tensor
) -> tuple[Tensor, Tensor]:
    """Displacement across the eye by the lower lid, and how much of each point is seen between the lids."""
    bow = torch.relu(1 - _square(u / (_CORNERS * half)))
    upper, lower = (_ABOVE * upper) * bow, (_BELOW * lower) * bow
    blink = moves["blink"].clamp(0.0, 1.0)
    edge = upper + blink * (lower - upper)
    raised = (0.35 * moves["squint"].clamp(0.0, 1.0) * (1 - blink)) * (lower - upper)
    by_lower = torch.relu(lower + half - v) * raised / (half + raised)
    is_upper = ((edge - v) / _SOFT + 0.5).clamp(0.0, 1.0)
    is_lower = ((v - lower + raised) / _SOFT + 0.5).clamp(0.0, 1.0)
    return by_lower * is_lower, (1 - is_upper) * (1 - is_lower) * bow


def _mouth(
    portrait: Mapping[str, Sequence[Tensor]], moves: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Displacement by lips and jaw, and how far inside of the opened mouth and of its teeth: [P, K, h, w] each."""
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
    teeth = (lip + portrait["teeth"][3] * bow - v).clamp(-_SOFT, _SOFT)
    return du * axis_x - dv * axis_y, du * axis_y + dv * axis_x, inside, teeth


def _lips(moves: Mapping[str, Tensor], u: Tensor, v: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Where points along and across the mouth were before its corners moved."""
    along = u / half
    near = torch.exp(-(_square(_square(along / 1.7)) + _square(v / (1.1 * half))))
    left, right = moves["smile"].unbind(2)
    smile = left + (right - left) * (0.5 + 0.5 * along).clamp(0.0, 1.0)
    apart = (0.16 * moves["wide"]) * u + 0.2 * half * moves["mouth_left"]
    bend = _square(along).clamp(0.0, 1.6) - 0.25
    return u - near * apart, v + near * smile * (0.2 * half) * bend
