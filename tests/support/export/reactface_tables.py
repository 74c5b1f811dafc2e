"""The position tables that ReactFace's public checkpoint holds beside its weights."""

from __future__ import annotations

import json

from support.places import GOLDEN
from torch import Tensor

from pflx.export.models.layers import sinusoid

_DIM, _PERIOD = 128, 8


def position_tables(rows: int | None = None) -> dict[str, Tensor]:
    """Key to table, of the public length or of another: float32 [1, rows, 128] or [rows, 1, 128]."""
    tables = {}
    for key, shape in json.loads((GOLDEN / "keys.json").read_text())["reactface"].items():
        if key.endswith(".pe"):
            count = rows or max(shape[:2])
            if shape[0] == 1:
                tables[key] = sinusoid(_PERIOD, _DIM).repeat(-(-count // _PERIOD), 1)[None, :count]
            else:
                tables[key] = sinusoid(count, _DIM)[:, None]
    return tables
