"""The package as it is laid out, and as it is imported."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import link_typings
import pytest
from support.places import ROOT

ROOMS = ("calibration", "cli", "engines", "export", "runtime")
MAY_IMPORT = {
    "engines": {"engines"},
    "runtime": {"runtime", "engines"},
    "export": {"export", "runtime", "engines"},
    "calibration": {"calibration", "export", "runtime", "engines"},
    "cli": {"cli", "calibration", "runtime", "export", "engines"},
    "pflx": {"cli"},
}
HEAVY = {
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "cv2",
    "av",
    "PIL",
    "matplotlib",
    "dtaidistance",
    "openvino",
    "ray",
    "scipy",
    "skimage",
    "tensorrt",
    "tensorrt_rtx",
    "typer",
    "rich",
    "aiortc",
    "starlette",
    "uvicorn",
}


def setuptools_table() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return table


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module
            yield node.module


def in_new_process(code: str) -> Any:
    command = [sys.executable, "-P", "-c", code]  # without this folder: a clone that lies in it is named pflx, too
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_the_package_table_names_every_folder_with_an_init_and_no_other() -> None:
    found = {"pflx"}
    for room in ROOMS:
        folders = (init.parent.relative_to(ROOT) for init in (ROOT / room).rglob("__init__.py"))
        found |= {".".join(("pflx", *folder.parts)) for folder in folders}
    assert set(setuptools_table()["packages"]) == found


def test_every_package_is_mapped_to_its_folder() -> None:
    assert setuptools_table()["package-dir"] == {"pflx": "pflx"} | {f"pflx.{room}": room for room in ROOMS}


def test_static_tools_see_the_same_tree_through_links() -> None:
    typings = ROOT / "typings/pflx"
    expected = {name: ROOT / "pflx" / name for name in ("__init__.py", "__main__.py", "py.typed")}
    expected |= {room: ROOT / room for room in ROOMS}
    assert link_typings.links(ROOT) == expected
    assert {link.name for link in typings.iterdir()} == set(expected)
    for name, target in expected.items():
        link = typings / name
        assert link.is_symlink(), f"{link} is a copy, not a link"
        assert not link.readlink().is_absolute()
        assert link.resolve() == target


def test_the_links_of_static_tools_are_made_where_there_are_none(tmp_path: Path) -> None:
    for room in (*ROOMS, "pflx"):
        (tmp_path / room).mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    link_typings.make_links(tmp_path)
    link_typings.make_links(tmp_path)
    made, committed = tmp_path / "typings/pflx", ROOT / "typings/pflx"
    assert {link.name: link.readlink() for link in made.iterdir()} == {
        link.name: link.readlink() for link in committed.iterdir()
    }


def test_every_typed_folder_is_checked_by_pyright() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert {f"typings/pflx/{room}" for room in ROOMS} <= set(tools["pyright"]["include"])


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_import_goes_against_an_arrow(room: str) -> None:
    for path in modules(room):
        rooms = {name.split(".")[1] for name in imported(path) if name.startswith("pflx.")}
        assert rooms <= MAY_IMPORT[room], f"{path.relative_to(ROOT)} imports {rooms - MAY_IMPORT[room]}"


@pytest.mark.parametrize("room", ["engines", "runtime", "cli", "pflx"])
def test_torch_is_imported_where_networks_are_exported_or_fitted_only(room: str) -> None:
    for path in modules(room):
        assert "torch" not in {name.split(".")[0] for name in imported(path)}, path.relative_to(ROOT)


def test_no_module_is_loaded_under_a_bare_name() -> None:
    names = [name for name in setuptools_table()["packages"] if name != "pflx"]
    loaded = in_new_process(f"import {', '.join(names)}, json, sys; print(json.dumps([*sys.modules]))")
    assert not set(ROOMS) & set(loaded)


def test_importing_the_runtime_loads_no_backend() -> None:
    loaded = in_new_process("import pflx.runtime, json, sys; print(json.dumps([*sys.modules]))")
    assert not HEAVY & {name.split(".")[0] for name in loaded}


def test_asking_the_command_for_help_loads_no_backend() -> None:
    loaded = in_new_process("import pflx.cli, json, sys; print(json.dumps([*sys.modules]))")
    assert not (HEAVY - {"typer", "rich"}) & {name.split(".")[0] for name in loaded}


def test_the_two_packages_of_onnx_runtime_are_never_asked_for_together() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    asking = {extra for extra, needed in extras.items() if any(name.startswith("onnxruntime") for name in needed)}
    assert asking == {"cpu", "gpu"}
    assert [{"extra": "cpu"}, {"extra": "gpu"}] in project["tool"]["uv"]["conflicts"]


def test_every_dependency_has_a_lower_bound_and_no_upper_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for needed in (*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())):
        assert re.fullmatch(r"[a-z0-9-]+(\[[a-z,]+\])?>=[0-9.]+", needed), needed
