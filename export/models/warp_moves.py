"""Which expression coefficient moves what in the weightless renderer: amounts that are linear in the expression."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

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
