"""The weightless renderer: a portrait, moved by coefficients. Nothing in it is learned.

The portrait comes in layers: the person, the same with closed eyes, and what is behind. Lids are drawn over the eyes
first. Then a pixel of a picture is looked up in the person, in two steps backwards: where it was before the head moved,
and where that was before the face did. Both are smooth displacements, but for the edges of lids and lips, and so they
are computed on coarse grids and enlarged. What the person does not cover shows the background, which stays.

**The head** is an ellipsoid that turns about the neck. A point of the portrait moves with it: in full on the head,
less and less around it, and by little on the shoulders. The flat top of the depth, the width of the fall-off and
`LARGEST_TURN` are chosen so that this never folds. The displacement is known where a point comes from and needed where
it goes to: a fixed point, which a few steps come close to.

**The face** moves by amounts that are linear in the expression (`EYE_MOVES`, `LIP_MOVES`, `MOUTH_MOVES`), within
bounds. Lids: the closed eye comes down over the open one, the line of its lashes at the edge; the skin below is pushed
up a little; the eyeball stays behind, and turns. Brows: lifted or lowered with the skin around them. Corners of the
mouth: bent up or down, drawn apart or together. Jaw: what is below the inner edge of the lower lip moves down, and
nothing far below the chin; that uncovers the teeth, the portrait's or made-up ones, and below them the dark.

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

from pflx.export.models.warp_moves import EYE_MOVES, LIP_MOVES, MOUTH_MOVES, moves_table
from pflx.runtime.rendering.warp import GEOMETRY
from pflx.runtime.speaker.landmarks import ARKIT_NAMES

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


class _Moving(nn.Module):
    """What says where a picture comes from."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", moves_table(), persistent=False)

    def _field(
        self, points: Tensor, geometry: Tensor, shown: Tensor, coefficients: Tensor, frames: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows = coefficients.index_select(1, frames)
        portrait, moves = _parts(geometry), self._moves(rows)
        size, middle = points.shape[-1] * FACE_STRIDE, points.shape[-1]
        head = _enlarged(_head(size, portrait, moves, rows[..., len(ARKIT_NAMES) :], shown), middle)
        return _face(points, portrait, moves, head), moves["blink"].clamp(0.0, 1.0)

    def _moves(self, rows: Tensor) -> dict[str, Tensor]:
        """Amounts in [-1, 1], each [P, K, 2, 1, 1] (left and right in the picture), or [P, K, 1, 1, 1] of the mouth."""
        amounts = (rows[..., : len(ARKIT_NAMES)].clamp(0.0, 1.0) @ self.table).clamp(-1.0, 1.0)[..., None, None]
        pairs = (*EYE_MOVES, *LIP_MOVES)
        parts = torch.split(amounts, [2] * len(pairs) + [1] * len(MOUTH_MOVES), dim=2)
        return dict(zip((*pairs, *MOUTH_MOVES), parts, strict=True))


class WarpField(_Moving):
    """Graph `warp_field`: the first part of `warp_frame`, for whoever looks pixels up by other means, on a CPU."""

    def forward(
        self, points: Tensor, geometry: Tensor, shown: Tensor, coefficients: Tensor, frames: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where K frames of each of P portraits come from.

        Args:
            points: float32 [2, S/2, S/2], x and y in pixels of the middles of blocks of 2 by 2 pixels.
            geometry: see `WarpFrame`.
            shown: see `WarpFrame`.
            coefficients: see `WarpFrame`.
            frames: see `WarpFrame`.

        Returns:
            maps [P, K, 4, S/2, S/2]: displacement to the source in x and y, in halves of the picture's side, and how
            far inside of the opened mouth and of its teeth a point is, in pixels; closed [P, K, 2]: how far the eyes
            are, on the picture's left and right, 0…1.
        """
        maps, blink = self._field(points, geometry, shown, coefficients, frames)
        return maps, blink.flatten(2)


class WarpFrame(_Moving):
    """Graph `warp_frame`: K frames of each of P portraits, S pixels a side, a multiple of 4."""

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
        maps, blink = self._field(_grid(size, FACE_STRIDE), geometry, shown, coefficients, frames)
        person = _with_lids(source, closing, lashes, lids, blink)
        return _developed(person, behind, _enlarged(maps, size), _parts(geometry))


def _positions(size: int, stride: int) -> tuple[Tensor, Tensor]:
    """Columns [1, w] and rows [h, 1] of the points of a grid, in pixels."""
    at = torch.arange((size + stride - 1) // stride).float() * stride + (stride - 1) / 2
    return at[None, :], at[:, None]


def _grid(size: int, stride: int) -> Tensor:
    """The points of a grid, [2, h, w]: x and y in pixels."""
    columns, rows = _positions(size, stride)
    return torch.stack([columns.expand(rows.shape[0], -1), rows.expand(-1, columns.shape[1])])


def _with_lids(source: Tensor, closing: Tensor, lashes: Tensor, lids: Tensor, blink: Tensor) -> Tensor:
    """The source with its eyes as far closed as `blink` [P, K, 2, 1, 1] says, [P, K, 4, S, S]."""
    closed = blink.flatten(2)
    depth = _combined(torch.cat([closed, -torch.ones_like(closed[..., :1])], dim=2)[:, :, None], lids[:, None])
    line = torch.relu(1 - (depth - 1).abs())
    return source[:, None] + depth.clamp(0.0, 1.0) * closing[:, None] + line * lashes[:, None]


def _combined(weights: Tensor, maps: Tensor) -> Tensor:
    """Weights [P, K, M, N] of maps [P, K or 1, N, h, w]: [P, K, M, h, w]."""
    return torch.unflatten(weights @ maps.flatten(3), 3, maps.shape[-2:])


def _head(
    size: int, portrait: Mapping[str, Sequence[Tensor]], moves: Mapping[str, Tensor], pose: Tensor, shown: Tensor
) -> Tensor:
    """To where points were before the head moved, and to where that is in the source, less brows: [P, K, 4, h, w]."""
    middle = torch.cat(list(portrait["head"]), dim=1)[:, None]
    here = _grid(size, HEAD_STRIDE) - middle
    solid, (motion, earlier) = _solid(portrait), _motions(portrait, pose, shown)
    at = here
    for _ in range(ITERATIONS):
        at = here - _moved(solid, motion, at)
    neutral = at - here
    return torch.cat([neutral, neutral + _moved(solid, earlier, at) + _brows(portrait, moves, at + middle)], dim=2)


def _face(
    points: Tensor, portrait: Mapping[str, Sequence[Tensor]], moves: Mapping[str, Tensor], head: Tensor
) -> Tensor:
    """Displacement of points [2, h, w] in all, in halves of the picture's side.

    And how far inside of the opened mouth and of its teeth they are.

    Returns:
        [P, K, 4, h, w], the last two in pixels.
    """
    neutral, source = torch.split(head, 2, dim=2)
    places = _in_face(portrait, points + neutral)
    eyes_u, eyes_v, u, v = torch.split(places, [2, 2, 1, 1], dim=2)
    mouth, inside, teeth = _mouth(portrait, moves, u, v)
    move = (source + _eyes(portrait, moves, eyes_u, eyes_v) + mouth) * (2 / (FACE_STRIDE * points.shape[-1]))
    return torch.cat([move, inside, teeth], dim=2)


def _in_face(portrait: Mapping[str, Sequence[Tensor]], at: Tensor) -> Tensor:
    """Points of the portrait [P, K, 2, h, w] along both eyes, across both, along the mouth and across it."""
    eyes = (portrait[f"eye_{name}"][0].flatten(2) for name in ("x", "y", "axis_x", "axis_y"))
    mouth = (portrait[name][at].flatten(2) for name in ("mouth", "mouth_axis") for at in (0, 1))
    x, y, axis_x, axis_y = (torch.cat(pair, dim=2) for pair in zip(eyes, mouth, strict=True))
    along, across = torch.stack([axis_x, axis_y], dim=3), torch.stack([-axis_y, axis_x], dim=3)
    turn = torch.cat([along[:, :, :2], across[:, :, :2], along[:, :, 2:], across[:, :, 2:]], dim=2)
    middle = torch.stack([x, y], dim=3)
    middle = torch.cat([middle[:, :, :2], middle[:, :, :2], middle[:, :, 2:], middle[:, :, 2:]], dim=2)
    return _combined(turn, at) - (turn * middle).sum(dim=3)[..., None, None]


def _developed(person: Tensor, behind: Tensor, maps: Tensor, portrait: Mapping[str, Sequence[Tensor]]) -> Tensor:
    """The picture of a person [P, K, 4, S, S] before a background.

    Clipping the grid gives in a third of the time what the padding mode "border" gives. And the edges of the dark
    inside are as sharp as on a grid of every pixel, for they are found on that, between distances from them.
    """
    size = person.shape[-1]
    at_x, at_y = (at * (2 / size) + (1 / size - 1) for at in _positions(size, 1))
    move_x, move_y, mouth = torch.split(maps, [1, 1, 2], dim=2)
    grid = torch.cat([(at_x + move_x).flatten(0, 2)[..., None], (at_y + move_y).flatten(0, 2)[..., None]], dim=-1)
    looked_up = F.grid_sample(person.flatten(0, 1), grid.clamp(1 / size - 1, 1 - 1 / size), align_corners=False)
    colours, covered = torch.split(torch.unflatten(looked_up, 0, person.shape[:2]), [3, 1], dim=2)
    mouth = mouth.clamp(0.0, 1.0)
    shown = colours * (1 - mouth[:, :, :1]) + _combined(_inks(portrait), mouth) + (1 - covered) * behind[:, None]
    return shown.permute(0, 1, 3, 4, 2).clamp(0.0, 255.0).to(torch.uint8)


def _inks(portrait: Mapping[str, Sequence[Tensor]]) -> Tensor:
    """Colours of the dark in the mouth and of what teeth add to it, [P, 1, 3, 2]."""
    inside, teeth = (torch.cat(list(portrait[name])[:3], dim=1).view(-1, 1, 3, 1) for name in ("mouth_inside", "teeth"))
    return torch.cat([255 * inside + 0.5, 255 * (teeth - inside)], dim=3)


def _parts(geometry: Tensor) -> dict[str, Sequence[Tensor]]:
    """The numbers of each name of `GEOMETRY`, [P, 1, 1, 1] each; those of pairs as one [P, 1, 2, 1, 1]."""
    groups = dict(zip(GEOMETRY, torch.split(geometry[:, :, None, None], list(GEOMETRY.values()), dim=1), strict=True))
    return {
        name: (group[:, None],) if name.startswith(("eye_", "brow_")) else torch.split(group, 1, dim=1)
        for name, group in groups.items()
    }


def _enlarged(maps: Tensor, size: int) -> Tensor:
    """Maps [P, K, C, h, w], as [P, K, C, size, size]."""
    larger = F.interpolate(maps.flatten(0, 1), size=(size, size), mode="bilinear", align_corners=False)
    return torch.unflatten(larger, 0, maps.shape[:2])


def _square(value: Tensor) -> Tensor:
    return value * value


def _smooth(share: Tensor) -> Tensor:
    """From 0 at 0 to 1 at 1, level at both ends and beyond."""
    return _square(share := share.clamp(0.0, 1.0)) * (3 - 2 * share)


Motion = tuple[Tensor, Tensor, Tensor]
"""How far a turn displaces (x, y, z), told from the middle of the head: a matrix [P, K, 2, 3] and a constant; and the
shift, [P, K, 2, 1, 1] both."""


def _motions(portrait: Mapping[str, Sequence[Tensor]], pose: Tensor, shown: Tensor) -> tuple[Motion, Motion]:
    """Of poses [P, K, 6], and of one [P, 6]."""
    poses = torch.cat([shown[:, None], pose], dim=1)
    shift, larger = _shifted(poses, portrait["radii"][0])
    turn = larger[..., None] * _turned(portrait["turn"], poses)
    neck = torch.cat(list(portrait["neck"]), dim=1).view(-1, 1, 3, 1)
    numbers = (turn - torch.eye(2, 3), (neck[:, :, :2] - turn @ neck)[..., None], shift)
    turns, constants, shifts = (torch.split(each, [1, pose.shape[1]], dim=1) for each in numbers)
    return (turns[1], constants[1], shifts[1]), (turns[0], constants[0], shifts[0])


def _solid(portrait: Mapping[str, Sequence[Tensor]]) -> Sequence[Tensor]:
    """What says how deep a point of the portrait is, and how much it belongs to the head.

    Returns:
        Matrix [P, 1, 4, 2] and constant [P, 1, 4, 1, 1] to radii down and across the head and the nose; how deep both
        are, and how much of turns and shifts the body takes part in, [P, 1, 1, 1, 1] each.
    """
    head, (across, along, deep) = torch.cat(list(portrait["head"]), dim=1), portrait["radii"]
    (nose_x, nose_y, nose_out), (down_x, down_y) = portrait["nose"], (portrait["turn"][1], portrait["turn"][4])
    scale, narrow = torch.rsqrt(down_x * down_x + down_y * down_y), 1 / (0.3 * across)
    by_x = torch.cat([scale * down_x / along, scale * down_y / across, narrow, 0 * narrow], dim=1)
    by_y = torch.cat([scale * down_y / along, -scale * down_x / across, 0 * narrow, narrow], dim=1)
    nose = narrow * (torch.cat([0 * nose_x, 0 * nose_y, nose_x, nose_y], dim=1) - torch.cat([0 * head, head], dim=1))
    rest = (each[:, None] for each in (-nose_out, -deep, *portrait["body"]))
    return (torch.cat([by_x, by_y], dim=3).transpose(1, 2), nose[:, None], *rest)


def _moved(solid: Sequence[Tensor], motion: Motion, at: Tensor) -> Tensor:
    """How far a motion takes points of the portrait, told from the middle of the head: [P, K, 2, h, w] both."""
    lines, nose, nose_out, deep, body_turn, body_shift = solid
    turn, constant, shift = motion
    places = _combined(lines, at) - nose
    down, across, nose_x, nose_y = torch.split(places * places, 1, dim=2)
    square = down + across
    depth = deep / (1 + _square(1.5 * square)) + nose_out / (1 + _square(nose_x + nose_y))
    share = 1 - _smooth((torch.sqrt(square) - 0.9) / (1.25 - 0.5 * places[:, :, :1].clamp(0.0, 1.0)))
    turned, shifted = body_turn + (1 - body_turn) * share, body_shift + (1 - body_shift) * share
    return turned * (_combined(turn, torch.cat([at, depth], dim=2)) + constant) + shifted * shift


def _turned(turn: Sequence[Tensor], pose: Tensor) -> Tensor:
    """The first two rows of the rotation by which the head moves, in the picture's axes, [P, K, 2, 3]."""
    half_turns = torch.round(pose[..., :1] / math.pi) * math.pi
    angles = torch.cat([pose[..., :1] - half_turns, -pose[..., 1:3]], dim=-1)
    angles = angles.clamp(-LARGEST_TURN, LARGEST_TURN)
    length = torch.sqrt((angles * angles).sum(dim=-1, keepdim=True) + 1e-12)
    angles = angles * (LARGEST_TURN / length).clamp(0.0, 1.0)
    (cx, cy, cz), (sx, sy, sz) = (torch.split(of(angles), 1, dim=-1) for of in (torch.cos, torch.sin))
    rows = (
        *(cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx),
        *(sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx),
        *(-sy, cy * sx, cy * cx),
    )
    relative = torch.unflatten(torch.cat(rows, dim=-1), -1, (3, 3))
    axes = torch.cat(list(turn), dim=1).view(-1, 1, 3, 3)
    about_picture = axes @ relative @ axes.transpose(2, 3)
    return about_picture[:, :, :2]


def _shifted(pose: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """How far the head is moved, in pixels, [P, K, 2, 1, 1], and how many times larger it is, [P, K, 1]."""
    to_picture = (RADII_PER_DM * radius)[:, 0] * torch.tensor([1.0, -1.0])
    shift = to_picture[:, None, 0] * pose[..., 3:5].clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
    nearer = pose[..., 5:].clamp(-LARGEST_APPROACH, LARGEST_APPROACH)
    return shift[..., None, None], CAMERA_DISTANCE / (CAMERA_DISTANCE - nearer)


_OUTWARDS = (-1.0, 1.0)
"""Which way from the middle of each eye the temple is."""


def _eyes(portrait: Mapping[str, Sequence[Tensor]], moves: Mapping[str, Tensor], u: Tensor, v: Tensor) -> Tensor:
    """Displacement by lids and gaze, [P, K, 2, h, w], of points along and across each eye, [P, K, 2, h, w]."""
    names = ("eye_axis_x", "eye_axis_y", "eye_half", "eye_upper", "eye_lower")
    axis_x, axis_y, half, upper, lower = (portrait[name][0] for name in names)
    lids_v, open_share = _lids(moves, u, v, half, upper, lower)
    aside = -0.3 * half * torch.tensor(_OUTWARDS).view(2, 1, 1) * moves["look_out"]
    down = -0.15 * half * moves["look_down"]
    by_x = torch.cat([aside * axis_x - down * axis_y, (-axis_y).expand_as(down)], dim=2)
    by_y = torch.cat([aside * axis_y + down * axis_x, axis_x.expand_as(down)], dim=2)
    weights = torch.cat([by_x.flatten(2)[:, :, None], by_y.flatten(2)[:, :, None]], dim=2)
    return _combined(weights, torch.cat([open_share, lids_v], dim=2))


def _brows(portrait: Mapping[str, Sequence[Tensor]], moves: Mapping[str, Tensor], at: Tensor) -> Tensor:
    """Displacement by brows of points of the portrait, [P, K, 2, h, w] both."""
    names = ("eye_axis_x", "eye_axis_y", "eye_half", "eye_upper", "brow_x", "brow_y")
    axis_x, axis_y, half, upper, brow_u, brow_v = (portrait[name][0] for name in names)
    eyes_u, eyes_v, _ = torch.split(_in_face(portrait, at), 2, dim=2)
    u, v = eyes_u - brow_u, eyes_v - brow_v
    outer = (0.5 + torch.tensor(_OUTWARDS).view(2, 1, 1) * u / (2 * half)).clamp(0.0, 1.0)
    lift = (0.3 * half) * (moves["brow_inner"] + (moves["brow_outer"] - moves["brow_inner"]) * outer)
    beside = _square(_square(u / (1.15 * half)))
    above, below = torch.relu(-v) / (1.3 * half), torch.relu(v) / (0.75 * (upper - brow_v))
    dv = lift * torch.exp(-(beside + _square(above) + _square(below)))
    return _combined(torch.stack([-axis_y.flatten(2), axis_x.flatten(2)], dim=2), dv)


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
    portrait: Mapping[str, Sequence[Tensor]], moves: Mapping[str, Tensor], at_u: Tensor, at_v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Displacement [P, K, 2, h, w] by lips and jaw of points along and across the mouth, [P, K, 1, h, w].

    And how far inside of the opened mouth they are, and of the teeth in it, likewise.
    """
    axis_x, axis_y = (axis[:, None] for axis in portrait["mouth_axis"])
    half, lower, chin = (portrait[name][0][:, None] for name in ("mouth_half", "mouth_lower", "chin"))
    u, v = _lips(moves, at_u, at_v, half)
    bow = torch.relu(1 - _square(u / (1.02 * half)))
    lip = lower * bow
    drop = (0.3 * chin) * moves["jaw"].clamp(0.0, 1.0)
    opening = drop * bow * (2 - bow)
    beside = torch.exp(-_square(_square(u / (2.1 * half))))
    fade = (1 - _smooth((v - chin) / (1.3 * chin))) * beside
    fall = opening + (drop * fade - opening) * _smooth((v - lip - opening) / chin)
    below = v - lip
    inside = torch.minimum(below, opening - below).clamp(-_SOFT, _SOFT)
    du = u - at_u - (0.15 * half * moves["jaw_left"]) * _smooth(v / chin) * fade
    dv = torch.minimum(v, torch.maximum(lip, v - fall)) - at_v
    teeth = torch.minimum(inside, portrait["teeth"][3][:, None] * bow - below).clamp(-_SOFT, _SOFT)
    turn = torch.cat([torch.cat([axis_x, -axis_y], dim=3), torch.cat([axis_y, axis_x], dim=3)], dim=2)[..., 0]
    return _combined(turn, torch.cat([du, dv], dim=2)), inside, teeth


def _lips(moves: Mapping[str, Tensor], u: Tensor, v: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Where points along and across the mouth were before its corners moved."""
    along = u / half
    near = torch.exp(-(_square(_square(along / 1.7)) + _square(v / (1.1 * half))))
    left, right = torch.split(moves["smile"], 1, dim=2)
    smile = left + (right - left) * (0.5 + 0.5 * along).clamp(0.0, 1.0)
    apart = (0.16 * moves["wide"]) * u + 0.2 * half * moves["mouth_left"]
    bend = _square(along).clamp(0.0, 1.6) - 0.25
    return u - near * apart, v + near * smile * (0.2 * half) * bend
