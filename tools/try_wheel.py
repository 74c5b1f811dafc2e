"""Builds the wheel, and tries it with the newest of everything on every Python found here.

For each version of Python that pflx is tried on and this machine has: a fresh environment, the wheel (not the
checkout) with the newest version of every dependency, and tests/smoke.py there. Nothing of it takes PyTorch.

    python tools/try_wheel.py              all it finds; a missing interpreter is named
    python tools/try_wheel.py 3.13         one
    python tools/try_wheel.py --lowest     with the lowest version of every dependency in place of the newest
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from build_dist import copy_source

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = ("cpu", "serve")
PYTEST = ("-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider")
PIP = ("-m", "pip", "-qq", "--disable-pip-version-check")


def main() -> int:
    """Try each version; the exit code says whether all that were found passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=f"by default {', '.join(PYTHONS)}")
    parser.add_argument("--lowest", action="store_true", help="lowest versions of all dependencies, not the newest")
    arguments = parser.parse_args()
    found = {version: find_python(version) for version in arguments.versions or PYTHONS}
    for version in [version for version, python in found.items() if python is None]:
        print(f"Python {version}: not found on this machine, not tried.")
    tried = {version: python for version, python in found.items() if python is not None}
    if not tried:
        print(f"None of Python {', '.join(found)} is here: nothing was tried.")
        return 1
    with TemporaryDirectory(prefix="pflx-wheel-") as folder:
        wheel = build_wheel(Path(folder))
        pins = [*lower_bounds()] if arguments.lowest else []
        failed = [version for version, python in tried.items() if not passes(version, python, wheel, pins)]
    print(f"The wheel was tried on Python {', '.join(tried)}; failed: {', '.join(failed) or 'none'}.")
    return int(bool(failed))


def find_python(version: str) -> Path | None:
    """An interpreter of that version: this one, one of pyenv's, or `pythonX.Y` on the path, if it starts."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = shutil.which(f"python{version}")
    candidates = [
        Path(sys.executable),
        *sorted(pyenv.glob(f"{version}.*/bin/python")),
        *([Path(on_path)] if on_path else []),
    ]
    ask = "import sys; print('{}.{}'.format(*sys.version_info))"
    for python in candidates:
        answer = subprocess.run([python, "-c", ask], capture_output=True, text=True)
        if answer.returncode == 0 and answer.stdout.strip() == version:
            return python
    return None


def build_wheel(folder: Path) -> Path:
    """Build from a copy of the tree."""
    source = copy_source(folder / "source")
    subprocess.run([sys.executable, *PIP, "wheel", "--no-deps", "--wheel-dir", folder, source], check=True)
    return next(folder.glob("pflx-*.whl"))


def passes(version: str, python: Path, wheel: Path, pins: Sequence[str]) -> bool:
    """Whether the smoke set passes in a fresh environment; the environment is gone afterwards."""
    with TemporaryDirectory(prefix="pflx-try-") as folder:
        place = Path(folder)
        subprocess.run([python, "-m", "venv", place / "env"], check=True)
        environment = place / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
        constraints = place / "constraints.txt"
        constraints.write_text("\n".join(pins))
        wanted = [f"{wheel}[{','.join(EXTRAS)}]", "pytest"]
        subprocess.run([environment, *PIP, "install", "--constraint", constraints, *wanted], check=True)
        shutil.copytree(ROOT / "tests/media", place / "tests/media")
        shutil.copy2(ROOT / "tests/smoke.py", place / "tests/smoke.py")
        print(f"Python {version}: {', '.join(installed(environment))}", flush=True)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run([environment, *PYTEST, "smoke.py"], cwd=place / "tests", env=clean).returncode == 0


def installed(python: Path) -> Iterator[str]:
    """Name and version of what pflx asks for itself."""
    listing: list[str | Path] = [python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    wanted = {name_of(requirement) for requirement in requirements()}
    for line in subprocess.run(listing, capture_output=True, text=True, check=True).stdout.splitlines():
        name, _, version = line.partition("==")
        if name.lower().replace("_", "-") in wanted:
            yield f"{name} {version}"


def table() -> dict[str, Any]:
    """All of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirements() -> list[str]:
    """What the wheel and the extras tried ask for."""
    project = table()["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(requirement for extra in EXTRAS for requirement in extras[extra])]


def name_of(requirement: str) -> str:
    """A requirement without extras and versions."""
    match = re.match(r"[A-Za-z0-9.-]+", requirement)
    assert match, requirement
    return match[0].lower()


def lower_bounds() -> Iterator[str]:
    """Every requirement pinned to its lower bound."""
    for requirement in requirements():
        yield f"{name_of(requirement)}=={requirement.partition('>=')[2]}"


if __name__ == "__main__":
    sys.exit(main())
