"""Builds the sdist, and the wheel from it, and lets twine check both: dist/.

Builds from a copy: a build leaves folders behind, which the next would package. setuptools comes from the environment,
with the extra `dev`, so that a build downloads nothing.

    python tools/build_dist.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
PLACEHOLDER = "example.invalid"
WITH_PLACEHOLDERS = ("pyproject.toml", "SECURITY.md")


def main() -> int:
    """Build into dist/; the exit code is that of what failed."""
    with TemporaryDirectory(prefix="pflx-dist-") as folder:
        made = build(copy_source(Path(folder) / "source"), Path(folder) / "dist")
        subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *made], check=True)
        (ROOT / "dist").mkdir(exist_ok=True)
        for path in made:
            shutil.copy2(path, ROOT / "dist")
            print(f"dist/{path.name}")
    for place in placeholders():
        print(f"{place}: a placeholder, to be replaced before a release (docs/releasing.md)")
    return 0


def copy_source(folder: Path) -> Path:
    """Copy the tree, without what .gitignore names.

    Args:
        folder: which must not exist.
    """
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    anywhere = shutil.ignore_patterns(".git", *(name for name in ignored if not name.startswith("/")))
    at_the_top = {name[1:] for name in ignored if name.startswith("/")}

    def left_out(place: str, names: list[str]) -> set[str]:
        return {*anywhere(place, names)} | (at_the_top & {*names} if Path(place) == ROOT else set())

    return Path(shutil.copytree(ROOT, folder, symlinks=True, ignore=left_out))


def build(source: Path, folder: Path) -> tuple[Path, Path]:
    """Build an sdist, and a wheel from it.

    Args:
        source: the tree; the build leaves a folder behind in it.
        folder: for both files.

    Raises:
        CalledProcessError: with what the build printed.
    """
    command: list[str | Path] = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def placeholders() -> Iterator[str]:
    """Where addresses still stand in for real ones."""
    for name in WITH_PLACEHOLDERS:
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
            if PLACEHOLDER in line:
                yield f"{name}:{number}"


if __name__ == "__main__":
    sys.exit(main())
