"""Rows out of the REACT challenge's layout; docs/datasets.md says what is known of it.

```
ROOT/val.csv                      a line of names, then number, speaker, listener: paths below each modality
ROOT/val/Video_files/SITE/CHAT/PERSON/CLIP.mp4
ROOT/val/Audio_files/….wav        ROOT/val/3D_FV_files/….npy        ROOT/val/Emotion/….csv
```
"""

from __future__ import annotations

import csv
from pathlib import Path

from pflx.runtime.dataset.rows import Row, RowError, check_rows
from pflx.runtime.media.clip import CLIPS

_PERSONS = {
    "NoXI": {"Expert_video": "P1", "Novice_video": "P2"},
    "RECOLA": {"P25": "P1", "P26": "P2", "P41": "P1", "P42": "P2", "P45": "P1", "P46": "P2"},
}
"""Folders of persons by site, and what they are called among the emotions, where those have names of their own."""


def read_react(root: str | Path, split: str = "val", *, portraits: bool = True) -> list[Row]:
    """The rows of a split: every pair as the index has it, then every pair with its roles exchanged.

    The order is that of the challenge's matrix of appropriate reactions. An id is the speaker's path in the index.

    Args:
        root: the folder that holds `val.csv` and `val/`.
        split: `train`, `val` or `test`.
        portraits: whether each listener looks as in the first frame of its own clip.

    Raises:
        RowError: there is no such split, or its index has a line that cannot be meant.
    """
    folder, index = Path(root) / split, Path(root) / f"{split}.csv"
    if not index.is_file():
        raise RowError(f"{index} does not exist. Give the folder that holds it, and another split if it has another.")
    if not (folder / "Video_files").is_dir():
        raise RowError(f"{folder} has no folder Video_files. Give the folder that holds {split}/Video_files.")
    pairs = _pairs(index)
    rows = [_row(folder, *pair, portraits) for pair in [*pairs, *((other, one) for one, other in pairs)]]
    check_rows(rows)
    return rows


def _pairs(index: Path) -> list[tuple[str, str]]:
    pairs = []
    try:
        with index.open(encoding="utf-8-sig", newline="") as stream:
            for number, cells in enumerate(csv.reader(stream), 1):
                if number == 1 or not any(cell.strip() for cell in cells):
                    continue
                if len(cells) < 3 or not all(cell.strip() for cell in cells[1:3]):
                    raise RowError(f"{index}, line {number}: no number, speaker and listener. Give all three.")
                pairs.append((cells[1].strip(), cells[2].strip()))
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise RowError(f"{index} cannot be read ({error}). Save it as a table of commas in UTF-8.") from error
    return pairs


def _row(folder: Path, speaker: str, listener: str, portraits: bool) -> Row:
    true = (_existing(folder / "3D_FV_files", listener, ".npy"), _emotion(folder, listener))
    return Row(
        id=speaker,
        speaker=_clip(folder, speaker),
        sound=_existing(folder / "Audio_files", speaker, ".wav"),
        portrait=_clip(folder, listener) if portraits else None,
        coefficients=_existing(folder / "3D_FV_files", speaker, ".npy"),
        emotion=_emotion(folder, speaker),
        listener=tuple(path for path in true if path is not None),
    )


def _clip(folder: Path, name: str) -> Path:
    """A clip; a folder of pictures where there is only that, and where there is nothing, what should be there."""
    place = folder / "Video_files" / name
    found = (place.with_name(f"{place.name}{suffix}") for suffix in (".mp4", *sorted(CLIPS)))
    clip = next((path for path in found if path.is_file()), None)
    return clip or (place if place.is_dir() else place.with_name(f"{place.name}.mp4"))


def _existing(folder: Path, name: str, suffix: str) -> Path | None:
    path = folder / f"{name}{suffix}"
    return path if path.is_file() else None


def _emotion(folder: Path, name: str) -> Path | None:
    parts = name.split("/")
    persons = _PERSONS.get(parts[0], {})
    renamed = "/".join(persons.get(part, part) for part in parts)
    emotions = folder / "Emotion"
    return _existing(emotions, name, ".csv") or _existing(emotions, renamed, ".csv")
