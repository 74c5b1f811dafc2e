"""Small data sets of real clips, and what came out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from support.places import MEDIA

from pflx.engines import Array
from pflx.runtime.dataset import DatasetSettings, Row

PODIUM, WEBCAM = MEDIA / "podium_speech_8s.mp4", MEDIA / "webcam_cap12_12s.mp4"
ONE_SECOND = DatasetSettings(samples=2, duration_s=1.0)


def some_rows(count: int) -> list[Row]:
    """Rows of two clips in turns, in folders of their own."""
    return [Row(id=f"{index % 3}/{index}", speaker=(PODIUM, WEBCAM)[index % 2]) for index in range(count)]


def manifest_of(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("id,speaker\n" + "".join(f"{row.id},{row.speaker}\n" for row in rows))
    return path


def arrays_of(path: Path) -> dict[str, Array]:
    with np.load(path) as arrays:
        return dict(arrays)


def files_of(folder: Path) -> Mapping[str, bytes]:
    """Every row's file of coefficients, by its path without the suffix."""
    return {path.relative_to(folder).with_suffix("").as_posix(): path.read_bytes() for path in folder.rglob("*.npz")}


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))
