"""Rows out of a folder of clips, or a manifest: a table (.csv), or a JSON object on each line (.jsonl)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pflx.runtime.dataset.rows import Row, RowError, check_rows, fault_of_id
from pflx.runtime.media.clip import CLIPS

_PATHS = ("speaker", "sound", "portrait", "coefficients", "emotion")
_COLUMNS = ("id", *_PATHS, "seed", "listener")


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a data set.

    Args:
        path: a folder, of which all clips are taken, those of folders in it too, each named by its path without the
            suffix; or a `.csv` with a line of names, or a `.jsonl`, with the fields of `Row`. Only `speaker` is needed.
            Paths are relative to the manifest; `listener` is one of them, in a `.jsonl` perhaps a list. A row without
            an id is named by the path of its speaker.

    Raises:
        RowError: there is no such thing, no row in it, or a line that cannot be meant, which is named with its field.
    """
    place = Path(path)
    if place.is_dir():
        rows = list(_of_folder(place))
        if not rows:
            raise RowError(
                f"{place} holds no clip ({', '.join(sorted(CLIPS))}). Give a folder of clips, or a manifest."
            )
    else:
        rows = list(_of_manifest(place))
        if not rows:
            raise RowError(f"{place} names no speaker. Give a line for each.")
    check_rows(rows)
    return rows


def _of_folder(folder: Path) -> Iterator[Row]:
    found: dict[str, Path] = {}
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in CLIPS and path.is_file()]
    for path in sorted(paths, key=lambda path: path.relative_to(folder).as_posix()):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts):
            continue
        name = relative.with_suffix("").as_posix()
        if (other := found.setdefault(name, path)) is not path:
            raise RowError(f"{other} and {path} would both be '{name}'. Rename one, or give a manifest with ids.")
        yield Row(id=name, speaker=path)


def _of_manifest(path: Path) -> Iterator[Row]:
    readers = {".csv": _table, ".jsonl": _lines, ".ndjson": _lines}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise RowError(f"{path} is no folder and no manifest. Give a folder of clips, a .csv or a .jsonl.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise RowError(f"{path} does not exist. Check the path.") from error
    except UnicodeDecodeError as error:
        raise RowError(f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise RowError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    lines: dict[str, int] = {}
    for number, fields in read(path, text):
        row = _row(f"{path}, line {number}", path.parent, fields)
        if (first := lines.setdefault(row.id, number)) != number:
            raise RowError(f"{path}, line {number}: id '{row.id}' is that of line {first}, too. Give it another.")
        yield row


def _table(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        for fields in reader:
            if None in fields:
                raise RowError(f"{path}, line {reader.line_num}: there are more cells than names. Quote commas.")
            given = {name: cell.strip() for name, cell in fields.items() if cell and cell.strip()}
            if given:
                yield reader.line_num, given
    except csv.Error as error:
        raise RowError(f"{path}, line {reader.line_num}: {error}. Repair it.") from error


def _lines(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise RowError(
                f"{path}, line {number}: no JSON ({error.msg} at column {error.colno}). Repair it."
            ) from error
        if not isinstance(fields, dict):
            raise RowError(f'{path}, line {number}: no object of fields. Give one like {{"speaker": "a.mp4"}}.')
        yield number, {name: value for name, value in fields.items() if value is not None}


def _row(where: str, folder: Path, fields: Mapping[str, Any]) -> Row:
    """One line as a row; paths become those of the folder."""
    if unknown := [name for name in fields if name not in _COLUMNS]:
        raise RowError(f"{where}: there is no field '{unknown[0]}'. Fields are {', '.join(_COLUMNS)}.")
    if "speaker" not in fields:
        raise RowError(f"{where}: speaker is missing. Give the clip to react to.")
    paths = {name: folder / _text(where, name, fields[name]) for name in _PATHS if name in fields}
    name = _text(where, "id", fields["id"]) if "id" in fields else _named(paths["speaker"], folder)
    if (fault := fault_of_id(name)) is not None:
        raise RowError(f"{where}: id '{name}' {fault}")
    listener = fields.get("listener", ())
    several = listener if isinstance(listener, list | tuple) else [listener]
    true = tuple(folder / _text(where, "listener", each) for each in several)
    return Row(id=name, seed=_seed(where, fields.get("seed")), listener=true, **paths)


def _named(speaker: Path, folder: Path) -> str:
    """An id for a row without one."""
    try:
        name = speaker.relative_to(folder).with_suffix("").as_posix()
    except ValueError:
        return speaker.stem
    return speaker.stem if ".." in name.split("/") else name


def _text(where: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise RowError(f"{where}: {name} is {value!r}; give text.")
    return value


def _seed(where: str, value: Any) -> int | None:
    if value is None:
        return None
    text = str(value)
    if isinstance(value, bool | float) or not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise RowError(f"{where}: seed is '{text}'; give a whole number, 0 or more.")
    return int(text)
