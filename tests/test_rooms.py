"""The house as docs/architecture.md draws it: which room imports which, and how full the rooms are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from count_rooms import (
    CODE,
    FLOORS,
    ROOMS,
    Arrows,
    between_files,
    between_rooms,
    circle_in,
    files_by_folder,
    imported,
    n_lines,
    sources,
    table,
)
from support.places import ROOT

MOST_FILES, MOST_LINES = 15, 450
LARGER = {"export/models"}
"""Folders that may hold a few files more: one for each published network."""


@pytest.mark.parametrize("floor", ROOMS)
def test_every_room_has_its_place(floor: str) -> None:
    assert {room.removeprefix(f"{floor}.") for room in between_rooms(ROOT, floor)} == set(ROOMS[floor])


@pytest.mark.parametrize("floor", ROOMS)
def test_a_room_imports_only_rooms_before_it(floor: str) -> None:
    order = [f"{floor}.{room}" for room in ROOMS[floor]]
    wrong = [
        f"{room} imports {other}"
        for room, others in between_rooms(ROOT, floor).items()
        for other in others
        if order.index(other) >= order.index(room)
    ]
    assert not wrong


def test_no_files_of_the_package_import_one_another_in_a_circle() -> None:
    assert not circle_in(between_files(ROOT))


def scripts(folder: Path) -> Arrows:
    """Which script imports which, by the names that they have for one another."""
    names = {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sources(folder)
    }
    return {name: frozenset(names.keys() & set(imported(path))) - {name} for name, path in names.items()}


@pytest.mark.parametrize("folder", ["benchmarks", "examples", "tools"])
def test_no_scripts_import_one_another_in_a_circle(folder: str) -> None:
    assert not circle_in(scripts(ROOT / folder))


def folders() -> Iterator[tuple[str, int]]:
    for name in CODE:
        for folder, count in files_by_folder(sources(ROOT / name)).items():
            yield folder.relative_to(ROOT).as_posix(), count


@pytest.mark.parametrize(("folder", "count"), list(folders()))
def test_no_folder_holds_more_than_a_person_looks_through(folder: str, count: int) -> None:
    assert count <= MOST_FILES + 3 * (folder in LARGER)


def test_no_file_is_longer_than_a_person_reads() -> None:
    long = {path: n_lines(path) for name in CODE for path in sources(ROOT / name) if n_lines(path) > MOST_LINES}
    assert not long


def test_the_page_on_the_architecture_counts_rooms_and_arrows_as_they_are() -> None:
    row = re.compile(r"^\| `(\w+)` \| \d+ \| (\d+) \| (\d+) \| (\d+) \|", re.MULTILINE)
    shown = row.findall((ROOT / "docs/architecture.md").read_text())
    assert [floor for floor, *_ in shown] == list(FLOORS)
    assert shown == row.findall("\n".join(table(ROOT)))
