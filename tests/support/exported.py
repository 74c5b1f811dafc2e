"""The one bundle with real graphs that all tests share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pflx.engines.files.locks import locked

if TYPE_CHECKING:
    from pflx.export.recipes import Recipe


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pflx export --untrained 0 --precision fp16` writes, made once; nobody may change it.

    The environment variable PFLX_TEST_BUNDLE names one that was made before, which saves two minutes.
    """
    if made := os.environ.get("PFLX_TEST_BUNDLE"):
        return Path(made)
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    guard = folder.with_name("exported.lock")  # the folder's own lock is for who puts the bundle there
    for place in (folder, guard):
        place.mkdir(exist_ok=True)
    target = folder / "untrained.pflx"
    with locked(guard):  # tests that run side by side share it
        if not target.exists():
            options = ["--untrained", "0", "--precision", "fp16", "-o", str(target)]
            done = subprocess.run([sys.executable, "-m", "pflx", "export", *options], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert [path.name for path in folder.iterdir()] == ["untrained.pflx"]
    return target


def exported_recipes() -> dict[str, Recipe]:
    """The recipes of its graphs."""
    from pflx.export.generators import reactface
    from pflx.export.recipes import pirender_recipes, posnet_recipe, warp_recipes

    graphs = (*reactface.recipes(8), posnet_recipe(8), *pirender_recipes(256), *warp_recipes())
    return {recipe.graph: recipe for recipe in graphs}


def all_recipes() -> dict[str, Recipe]:
    """The recipes of every graph that a bundle may hold."""
    from pflx.export import FAMILIES, ExportSettings
    from pflx.export.components import untrained_generator
    from pflx.export.generators import reactface
    from pflx.export.recipes import pirender_recipes, posnet_recipe, warp_recipes

    settings = {"perfrdiff": ExportSettings(persons=True)}
    kinds = (kind for kind in FAMILIES if kind != "reactface")
    others = (untrained_generator(kind, 0, settings.get(kind, ExportSettings()))[0] for kind in kinds)
    recipes = (recipe for parts in others for recipe in parts.recipes)
    graphs = (*reactface.recipes(8), *recipes, posnet_recipe(8), *pirender_recipes(256), *warp_recipes())
    return {recipe.graph: recipe for recipe in graphs}


def linked_copy(bundle: Path, target: Path) -> Path:
    """A bundle of its own whose files are those of another, without copying them where the disk allows it."""
    return Path(shutil.copytree(bundle, target, copy_function=_link))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
