"""Counts the rooms of the house: folders, files, and which imports which. Prints the table of docs/architecture.md.

A floor is one of the top folders. Its rooms are what lies at its top: folders, and files beside them. An arrow is that
one room imports another; a storey is how many arrows lie one after the other below a room, at most.

    python tools/count_rooms.py            this tree
    python tools/count_rooms.py FOLDER     another checkout, to compare with
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("engines", "runtime", "export", "calibration", "cli")
CODE = (*FLOORS, "pflx", "tests", "benchmarks", "examples", "tools")
ROOMS: Mapping[str, Sequence[str]] = {
    "engines": ("graphs", "files", "hub", "bundle", "gpu", "building"),
    "runtime": (
        "frames",
        "persons",
        "media",
        "speaker",
        "generators",
        "rendering",
        "stream",
        "live",
        "latency",
        "text_table",
        "beside_loop",
        "spawning",
        "builtin",
        "bundle_engines",
        "sharing",
        "listener",
        "bench",
        "evaluation",
        "serve",
        "cluster",
        "dataset",
    ),
    "calibration": (
        "errors",
        "progress",
        "reports",
        "curves",
        "feeds",
        "judge",
        "precision",
        "posnet",
        "foresight",
        "lookahead",
    ),
}
"""The rooms of each floor in the order of reading: a room imports only rooms before it."""

Arrows = Mapping[str, frozenset[str]]
"""Who imports whom."""


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description="Counts the rooms of the house.")
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="a checkout; by default this one")
    for line in table(parser.parse_args().root):
        print(line)


def table(root: Path) -> Iterator[str]:
    """The counts as lines of Markdown."""
    yield "| floor | files | rooms | storeys | arrows | files in the fullest folder | lines of the longest file |"
    yield "|---|---|---|---|---|---|---|"
    for floor in FLOORS:
        files, arrows = sources(root / floor), between_rooms(root, floor)
        height = "a circle" if circle_in(arrows) else str(storeys(arrows))
        yield _row(floor, files, str(len(arrows)), height, str(sum(map(len, arrows.values()))))
    yield _row("tests", sources(root / "tests"), "", "", "")


def _row(floor: str, files: Sequence[Path], *counts: str) -> str:
    full, longest = max(files_by_folder(files).values()), max(map(n_lines, files))
    return f"| `{floor}` | {' | '.join((str(len(files)), *counts, str(full), str(longest)))} |"


def sources(folder: Path) -> list[Path]:
    """All files of Python below a folder."""
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def n_lines(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text().splitlines())


def files_by_folder(files: Iterable[Path]) -> dict[Path, int]:
    """How many files of code each folder holds; what only introduces a folder (`__init__.py`) does not count."""
    folders = [path.parent for path in files if path.name != "__init__.py"]
    return {folder: folders.count(folder) for folder in folders}


def between_files(root: Path) -> Arrows:
    """Which module of the package imports which."""
    modules = {module_of(path, root): path for floor in FLOORS for path in sources(root / floor)}
    found = {}
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        targets = {target for target in imported(path) if target in modules}
        found[name] = frozenset(targets - {name, package})  # a folder's introduction may import what it introduces
    return found


def between_rooms(root: Path, floor: str) -> Arrows:
    """Which room of a floor imports which."""
    arrows: dict[str, set[str]] = {}
    for name, targets in between_files(root).items():
        if name.startswith(f"pflx.{floor}."):
            here = room_of(name)
            arrows.setdefault(here, set()).update(
                room_of(target) for target in targets if target.startswith(f"pflx.{floor}.") and room_of(target) != here
            )
    return {room: frozenset(targets) for room, targets in arrows.items()}


def module_of(path: Path, root: Path) -> str:
    """The full name that a file is imported by."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(("pflx", *parts)).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room that a module lies in: its floor and the next word."""
    return ".".join(module.split(".")[1:3])


def imported(path: Path) -> Iterator[str]:
    """Everything that a file imports when it is loaded or called, and for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def storeys(arrows: Arrows) -> int:
    """Rooms that lie on top of one another, at most, where there is no circle."""

    @cache
    def height(room: str) -> int:
        return 1 + max((height(below) for below in arrows.get(room, ())), default=0)

    return max(map(height, arrows))


def circle_in(arrows: Arrows) -> list[str]:
    """A way from a room back to itself; empty if there is none."""
    done: set[str] = set()

    def walk(room: str, way: list[str]) -> list[str]:
        if room in way:
            return [*way[way.index(room) :], room]
        if room not in done:
            for below in sorted(arrows.get(room, ())):
                if circle := walk(below, [*way, room]):
                    return circle
            done.add(room)
        return []

    return next((circle for room in sorted(arrows) if (circle := walk(room, []))), [])


if __name__ == "__main__":
    main()
