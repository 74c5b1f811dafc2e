"""What is built of the package: the sdist, the wheel, and what an index shows of them."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import build_dist
import pytest
from build_dist import build, copy_source, placeholders
from support.places import ROOT

import pflx

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY: str = PROJECT["urls"]["Repository"]
ROOMS = ("calibration", "cli", "engines", "export", "runtime")
LEFT_OUT = ("typings/", "pflx.egg-info/")
PICTURES = {".png", ".webp"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_source(tmp_path_factory.mktemp("distribution") / "source")


@pytest.fixture(scope="module")
def built(source: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that was built from it."""
    return build(source, source.parent / "dist")


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, Path]) -> list[str]:
    with zipfile.ZipFile(built[1]) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def sdist(built: tuple[Path, Path]) -> set[str]:
    """Its files, without the folder that holds them."""
    with tarfile.open(built[0]) as archive:
        assert all(member.isfile() or member.isdir() for member in archive)
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


@pytest.fixture(scope="module")
def metadata(built: tuple[Path, Path]) -> Message:
    with zipfile.ZipFile(built[1]) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


NETWORKS = ("runtime/speaker/data", "runtime/rendering/data")


def data_files() -> Iterator[Path]:
    """What the wheel must hold besides modules."""
    yield from (ROOT / "export/data").iterdir()
    for room in NETWORKS:
        yield from (ROOT / room).glob("*.onnx")
    yield from (path for path in (ROOT / "runtime/data").rglob("*") if path.is_file() and path.suffix != ".txt")
    yield from (ROOT / "runtime/serve/page").iterdir()
    yield ROOT / "pflx/py.typed"


def test_the_wheel_holds_all_modules_and_data_and_nothing_else(wheel: list[str]) -> None:
    modules = [path for room in (*ROOMS, "pflx") for path in (ROOT / room).rglob("*.py")]
    paths = [path.relative_to(ROOT).as_posix() for path in (*modules, *data_files())]
    expected = {path if path.startswith("pflx/") else f"pflx/{path}" for path in paths}
    assert {name for name in wheel if ".dist-info/" not in name} == expected
    kinds = {".onnx", ".safetensors", ".json", ".html", ".css", ".js", ".typed", ".mp4", ".png"}
    assert {path.suffix for path in data_files()} == kinds


def test_the_wheel_brings_each_licence_once(wheel: list[str], built: tuple[Path, Path]) -> None:
    licences = [name for name in wheel if re.search(r"licen[cs]e|notice", Path(name).name, re.IGNORECASE)]
    assert all(".dist-info/licenses/" in name for name in licences)
    assert sorted(Path(name).name for name in licences) == [
        "LICENSE",
        "NOTICE.txt",
        "blazeface_short_range.NOTICE.txt",
        "face_landmarks.NOTICE.txt",
        "mediapipe.LICENSE.txt",
        "silero_vad.LICENSE.txt",
        "silero_vad.NOTICE.txt",
        "silhouette.NOTICE.txt",
    ]
    with zipfile.ZipFile(built[1]) as archive:
        texts = [archive.read(name) for name in licences]
    assert len(set(texts)) == len(texts)


def test_every_network_that_comes_with_pflx_has_a_notice_that_names_its_licence() -> None:
    licences = ROOT / NETWORKS[0]
    for network in (network for room in NETWORKS for network in (ROOT / room).glob("*.onnx")):
        notice = network.with_suffix(".NOTICE.txt").read_text()
        named = re.findall(r"\S+\.LICENSE\.txt", notice)
        assert "MIT" in notice or [(licences / name).is_file() for name in named] == [True], network.name


def files_of(tree: Path) -> set[str]:
    """All files that git knows; all that there are, where the tree is no clone."""
    found = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    return found & {*listed} if "pyproject.toml" in listed else found


def test_results_at_the_top_are_not_copied_and_folders_of_that_name_below_are(source: Path) -> None:
    assert (source / "runtime/data/demo/speaker.mp4").is_file()
    assert not {".git", ".venv", "build", "dist", "demo"} & {path.name for path in source.iterdir()}


def test_the_sdist_holds_every_file_but_links(source: Path, sdist: set[str]) -> None:
    wanted = {name for name in files_of(source) if not name.startswith(LEFT_OUT)}
    assert wanted - sdist == set()
    assert len(wanted) > 500
    assert not any(name.startswith("typings/") for name in sdist)


def test_an_index_would_take_both(built: tuple[Path, Path]) -> None:
    check: list[str | Path] = [sys.executable, "-m", "twine", "check", "--strict", *built]
    checked = subprocess.run(check, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("PASSED") == 2


def test_the_version_is_stated_in_one_place(built: tuple[Path, Path], metadata: Message) -> None:
    assert metadata["Version"] == pflx.__version__
    assert built[0].name == f"pflx-{pflx.__version__}.tar.gz"
    assert "version" not in PROJECT
    assert re.search(r"^version:", (ROOT / "CITATION.cff").read_text(), re.MULTILINE) is None


def test_the_metadata_say_who_what_and_where(metadata: Message) -> None:
    assert metadata["Author"] == "pflx maintainers"
    assert metadata["License-Expression"] == "Apache-2.0 AND MIT"
    assert {address.split(", ")[0] for address in metadata.get_all("Project-URL", [])} >= {"Repository", "Issues"}
    assert all(address.split(", ")[1].startswith(REPOSITORY) for address in metadata.get_all("Project-URL", []))
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def test_the_pythons_of_the_metadata_are_those_that_the_wheel_is_tried_on(metadata: Message) -> None:
    from try_wheel import PYTHONS

    found = re.findall(r"Python :: (\d\.\d+)$", "\n".join(metadata.get_all("Classifier", [])), re.MULTILINE)
    assert tuple(found) == PYTHONS


def targets(markdown: str) -> list[str]:
    """What links and pictures lead to, without what stands in fenced code."""
    text = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"""(?:\]\(|\b(?:src|href|srcset)=")([^)"\s]+)""", text)


def test_every_link_of_the_readme_works_outside_of_the_repository(metadata: Message) -> None:
    shown = targets(str(metadata.get_payload()))
    inside = targets((ROOT / "README.md").read_text())
    assert len(shown) == len(inside)
    for link, path in zip(shown, inside, strict=True):
        if re.match(r"[a-z]+:|#", path):
            assert link == path
            continue
        found = re.fullmatch(rf"{re.escape(REPOSITORY)}/(raw|blob)/v{re.escape(pflx.__version__)}/(.+)", link)
        assert found, link
        assert found[2] == path
        assert (ROOT / path.partition("#")[0]).exists(), path
        assert (found[1] == "raw") == (Path(path).suffix in PICTURES)


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ("[a](docs/a.md)", "[a](R/blob/v1/docs/a.md)"),
        ("[a](docs/a.md#part)", "[a](R/blob/v1/docs/a.md#part)"),
        ("![a](docs/a.png)", "![a](R/raw/v1/docs/a.png)"),
        ("[![a](a.webp)](docs/a.md)", "[![a](R/raw/v1/a.webp)](R/blob/v1/docs/a.md)"),
        ('<img src="a.png" width="9">', '<img src="R/raw/v1/a.png" width="9">'),
        ("[a](https://a.example/b)", "[a](https://a.example/b)"),
        ("[a](#part)", "[a](#part)"),
        ("[a](mailto:a@a.example)", "[a](mailto:a@a.example)"),
    ],
)
def test_a_link_leads_to_the_repository_whatever_its_form(inside: str, outside: str) -> None:
    absolute_links = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["absolute_links"]
    assert absolute_links(inside, "R", "v1") == outside


def test_placeholders_stand_in_the_places_that_are_named_and_nowhere_else(source: Path) -> None:
    named = {*build_dist.WITH_PLACEHOLDERS, "tools/build_dist.py", "docs/releasing.md"}
    texts = (path for path in source.rglob("*") if path.suffix in {".md", ".toml", ".py", ".yml", ".yaml", ".cff"})
    outside = (path for path in texts if not path.relative_to(source).as_posix().startswith(LEFT_OUT))
    holding = {path for path in outside if build_dist.PLACEHOLDER in path.read_text(encoding="utf-8")}
    assert {path.relative_to(source).as_posix() for path in holding} <= named
    assert {place.partition(":")[0] for place in placeholders()} == {
        path.relative_to(source).as_posix() for path in holding if path.name in build_dist.WITH_PLACEHOLDERS
    }


def test_a_build_that_fails_says_so(source: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(source, broken, symlinks=True)
    (broken / "pflx/__init__.py").write_text('"""Without a version."""\n')
    with pytest.raises(subprocess.CalledProcessError) as failed:
        build(broken, tmp_path / "dist")
    assert "pflx/__init__.py states no version" in failed.value.stderr + failed.value.stdout
