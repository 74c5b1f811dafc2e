"""All rows of a data set in one file, in the order of its index: what is evaluated."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pflx.engines import Array, PflxError
from pflx.engines.files.array_file import read_arrays
from pflx.engines.files.writer import OutputError, Replacement
from pflx.runtime.dataset.dataset import Index, read_index
from pflx.runtime.dataset.maker import read_note, row_file, row_note
from pflx.runtime.dataset.rows import Row
from pflx.runtime.dataset.seal import SEAL, Seal, difference, from_array
from pflx.runtime.frames.coefficients import COEFFICIENTS, POSE
from pflx.runtime.speaker.extractor import ExtractorError
from pflx.runtime.speaker.recorded import read_recorded
from pflx.runtime.stream.chain import PUBLISHED

_EMOTION, _SEED = "emotion", "seed"
_TRACKS = {"coefficients": COEFFICIENTS, "generated_pose": POSE.stop - POSE.start, _EMOTION: 25}
"""What a row's file holds `[M, T, …]` of; the last one only of generators that tell it."""
_NUMBERS = ("fps", "hop", "untrained")


class CollectError(PflxError, ValueError):
    """Rows do not make one array."""


@dataclass(frozen=True)
class Missing:
    """A row that is not there, and why."""

    row: Row
    why: str


@dataclass(frozen=True)
class Collected:
    """What was found of a data set.

    Attributes:
        rows: those that are there, N of them.
        missing: the others.
        arrays: `coefficients` [N, M, T, 58], `generated_pose` [N, M, T, 6] and, if the generator tells it, `emotion`
            [N, M, T, 25]; `listener_gt` and `speaker` [N, T, 25 or 58] where every row names files of them; `ids` and
            `seeds` [N], and `fps`, `hop`, `untrained`, `posnet`, `crop` and `generator_history` as in every row.
        left_out: why there is no `listener_gt`, or no `speaker`.
    """

    rows: Sequence[Row]
    missing: Sequence[Missing]
    arrays: Mapping[str, Array]
    left_out: Sequence[str]


def collect(
    folder: str | Path, *, frames: int | None = None, progress: Callable[[int, int], None] = lambda *_: None
) -> Collected:
    """Read all rows of a data set. All are in memory at once: 562 rows of 10 reactions of 750 frames are 1.4 GB.

    Args:
        folder: that `react_dataset` wrote.
        frames: T, of each reaction from its start on; a row that has fewer counts as missing. None takes all, and all
            have to be of one length.
        progress: rows read, rows in all.

    Raises:
        RowError: it is no such folder.
        CollectError: rows are of several lengths, or none is there.
    """
    place = Path(folder)
    index = read_index(place)
    found: list[tuple[Row, dict[str, Array]]] = []
    missing: list[Missing] = []
    for done, row in enumerate(index.rows, 1):
        arrays = _read(place, row, index, frames)
        if isinstance(arrays, str):
            missing.append(Missing(row, arrays))
        else:
            found.append((row, arrays))
        progress(done, len(index.rows))
    if not found:
        raise CollectError(f"None of the {len(index.rows)} rows of {place} is there. {missing[0].why}")
    _check_lengths(place, found)
    rows, kept = [row for row, _ in found], [arrays for _, arrays in found]
    named = [name for name in _TRACKS if name in kept[0]]
    if odd := next((row.id for row, each in found if (_EMOTION in each) != (_EMOTION in named)), None):
        raise CollectError(f"Of the rows of {place}, {odd} tells {_EMOTION} unlike the first. Make them anew: --redo.")
    # Popped, so that no more than one track is in memory twice.
    tracks: dict[str, Any] = {name: np.stack([each.pop(name) for each in kept]) for name in named}
    need = _EMOTION if _EMOTION in tracks else "coefficients"
    true, left_out = _true(rows, need, tracks[need].shape[2])
    seeds = np.array([each[_SEED] for each in kept], np.int64)
    chain = {name: np.array(index.seal[name]) for name in vars(PUBLISHED) if name in index.seal}
    numbers = {name: kept[0][name] for name in _NUMBERS}
    return Collected(
        rows=rows,
        missing=missing,
        arrays={**tracks, **true, "ids": np.array([row.id for row in rows]), "seeds": seeds, **numbers, **chain},
        left_out=left_out,
    )


def save_collected(path: str | Path, collected: Collected) -> None:
    """Write the arrays as an `.npz`, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    arrays: dict[str, Any] = dict(collected.arrays)
    try:
        with Replacement(path) as new, new.partial.open("r+b") as stream:
            np.savez(stream, **arrays)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error


def _read(folder: Path, row: Row, index: Index, frames: int | None) -> dict[str, Array] | str:
    """What a row's file holds, or why it is of no use."""
    path = row_file(folder, row)
    if not os.path.lexists(path):
        return read_note(row_note(folder, row)) or "It was not made yet."
    try:
        arrays = read_arrays(path, CollectError)
        seal = from_array(arrays[SEAL])
        tracks = {name: arrays[name] for name in _TRACKS if name in arrays}
        shapes = [track.shape for track in tracks.values()]
        if "generated_pose" not in tracks or any(
            track.ndim != 3 or track.shape[2] != _TRACKS[name] for name, track in tracks.items()
        ):
            raise CollectError(f"{path} holds {', '.join(f'{n} {list(t.shape)}' for n, t in tracks.items())}.")
        if {shape[:2] for shape in shapes} != {(seal["samples"], shapes[0][1])}:
            raise CollectError(f"{path} holds tracks of several lengths, or not of {seal['samples']} samples.")
        numbers = {**{name: arrays[name] for name in _NUMBERS}, _SEED: np.array(seal["row seed"], np.int64)}
    except (PflxError, ValueError, KeyError, TypeError) as error:
        return f"Its file is damaged ({error}). Delete it, and run the same command again."
    if (otherwise := difference(_common(seal, index.seal), index.seal)) is not None:
        return f"It {otherwise}. Make it again: --redo."
    length = shapes[0][1]
    if frames is not None and length < frames:
        return f"It has {length} frames, fewer than {frames}."
    return {**{name: track[:, :frames] for name, track in tracks.items()}, **numbers}


def _common(seal: Seal, like: Seal) -> Seal:
    """What a row's seal has in common with all others."""
    return {name: seal.get(name) for name in like}


def _check_lengths(folder: Path, found: Sequence[tuple[Row, Mapping[str, Array]]]) -> None:
    lengths = Counter(arrays["coefficients"].shape[1] for _, arrays in found)
    if len(lengths) == 1:
        return
    told = ", ".join(f"{count} of {length}" for length, count in sorted(lengths.items())[:5])
    more = "" if len(lengths) <= 5 else f" and {len(lengths) - 5} other lengths"
    raise CollectError(
        f"The rows of {folder} are of several lengths ({told} frames{more}), and one array has one. Take as many "
        f"frames of each: --frames {min(lengths)}, in Python frames={min(lengths)}."
    )


def _true(rows: Sequence[Row], need: str, frames: int) -> tuple[dict[str, Array], list[str]]:
    """True reactions and speakers, of the kind of numbers that is predicted, where every row names them."""
    found: dict[str, Array] = {}
    left_out: list[str] = []
    kinds: dict[str, Callable[[Row], Sequence[Path]]] = {
        "listener_gt": lambda row: row.listener,
        "speaker": lambda row: [path for path in (getattr(row, need),) if path is not None],
    }
    for name, files in kinds.items():
        several = []
        for row in rows:
            one = _recorded(files(row), need, frames)
            if isinstance(one, str):
                left_out.append(f"No {name}: {row.id} {one}")
                break
            several.append(one)
        else:
            found[name] = np.stack(several)
    return found, left_out


def _recorded(paths: Sequence[Path], need: str, frames: int) -> Array | str:
    """The first of some files that holds such numbers, float32 [frames, n]; or what is wrong with all of them."""
    said = f"names no file of {need}."
    for path in paths:
        try:
            recorded = read_recorded(path, need)
        except ExtractorError as error:
            said = f"has none that can be read. {error}"
            continue
        if recorded.frames < frames:
            return f"has {recorded.frames} frames in {path}, fewer than {frames}."
        return np.stack([recorded.extract(None, frame) for frame in range(frames)])
    return said
