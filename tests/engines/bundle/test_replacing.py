"""Bundles that are replaced while others read or write them, by writers who live and by writers who die."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.files.crash_points import crashes
from support.files.unprivileged import shared_folder, unprivileged
from support.places import TESTS
from support.sample_bundle import fill_bundle

from pflx.engines import Bundle, BundleCorruptError, BundleMissingError, Manifest, bundle_writer
from pflx.engines.bundle import bundle as opening
from pflx.engines.files import folders
from pflx.engines.files.folders import repair_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="folders are locked as POSIX has it")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    write(tmp_path / "me.pflx", b"old ")
    return tmp_path / "me.pflx"


@pytest.fixture
def in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems that exchange nothing."""
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)


def write(target: Path, content: bytes) -> None:
    with bundle_writer(target, overwrite=True) as folder:
        fill_bundle(folder, content)


def content_of(target: Path) -> bytes:
    return Bundle.open(target).read_graph("posnet")


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start(code: str) -> subprocess.Popen[str]:
    head = (
        "import sys; from pathlib import Path; from pflx.engines import bundle_writer\n"
        "from pflx.engines.files import folders; from support.sample_bundle import fill_bundle\n"
        "folders._exchange = lambda one, other: False\n"
        "def write(target, content):\n"
        "    with bundle_writer(Path(target), overwrite=True) as folder: fill_bundle(folder, content)\n"
    )
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", head + code], cwd=TESTS, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


@pytest.mark.usefixtures("in_steps")
def test_a_reader_finds_the_old_or_the_new_bundle_wherever_its_writer_died(target: Path) -> None:
    seen, gaps = set(), 0
    for done in crashes(target.parent, lambda: write(target, b"new ")):
        gaps += not target.exists()
        content = content_of(target)
        assert content in (b"old posnet", b"new posnet"), done
        seen.add(content)
        write(target, b"old ")
        assert entries(target.parent) == [target.name], done
    assert seen == {b"old posnet", b"new posnet"}
    assert gaps
    assert content_of(target) == b"new posnet"


@pytest.mark.usefixtures("in_steps")
def test_a_repair_that_is_killed_is_repaired_by_the_next_reader(target: Path) -> None:
    aside = target.with_name(f"{folders._aside(target)}00112233.old")
    target.rename(aside)
    deaths = 0
    for _ in crashes(target.parent, lambda: Bundle.open(target)):
        assert content_of(target) == b"old posnet"
        target.rename(aside)
        deaths += 1
    assert deaths
    assert content_of(target) == b"old posnet"
    assert entries(target.parent) == [target.name]


def test_a_link_to_a_bundle_that_was_moved_aside_opens_again(target: Path) -> None:
    link = target.parent / "link.pflx"
    link.symlink_to(target.name)
    target.rename(target.with_name(f"{folders._aside(target)}00112233.old"))
    assert content_of(link) == b"old posnet"


@pytest.mark.usefixtures("in_steps")
def test_the_longest_name_is_moved_aside_too(target: Path) -> None:
    longest = target.with_name(f"{'n' * 250}.pflx")
    target.rename(longest)
    write(longest, b"new ")
    assert content_of(longest) == b"new posnet"
    assert entries(longest.parent) == [longest.name]


def test_a_reader_waits_for_a_writer_who_is_between_the_two(target: Path) -> None:
    code = (
        "rename = folders._rename\n"
        "def slowly(*given):\n"
        "    print('between', flush=True); sys.stdin.readline(); rename(*given)\n"
        f"folders._rename = slowly\nwrite({str(target)!r}, b'new ')\n"
    )
    writer = start(code)
    assert writer.stdout is not None
    assert writer.stdin is not None
    assert writer.stdout.readline() == "between\n"
    assert not target.exists()
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(content_of, target)
        with pytest.raises(TimeoutError):
            reader.result(timeout=0.3)
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert reader.result() == b"new posnet"
    _, said = writer.communicate()
    assert (writer.returncode, said) == (0, "")


def test_two_writers_wait_for_one_another_and_the_last_one_wins_whole(target: Path) -> None:
    code = f"print('ready', flush=True); sys.stdin.readline()\nfor _ in range(15): write({str(target)!r}, {{}})\n"
    writers = [start(code.format(content)) for content in (b"one ", b"two ")]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    while any(writer.poll() is None for writer in writers):
        repair_folder(target)  # a reader among them
    for writer in writers:
        _, said = writer.communicate()
        assert (writer.returncode, said) == (0, "")
    assert content_of(target) in (b"one posnet", b"two posnet")
    assert entries(target.parent) == [target.name]


def replaced_while_opened(monkeypatch: pytest.MonkeyPatch, target: Path, contents: list[bytes]) -> None:
    """Put another bundle in place each time that files are about to be compared with the manifest."""
    check: Callable[..., None] = opening._check_files

    def slow(root: Path, *rest: object) -> None:
        if root == target and contents:
            write(target, contents.pop(0))
        check(root, *rest)

    monkeypatch.setattr(opening, "_check_files", slow)


@pytest.mark.parametrize("steps", [False, True])
def test_a_reader_opens_the_bundle_that_came_meanwhile(
    target: Path, monkeypatch: pytest.MonkeyPatch, steps: bool
) -> None:
    if steps:
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    replaced_while_opened(monkeypatch, target, [b"newer "])
    assert content_of(target) == b"newer posnet"


def test_a_reader_says_so_where_another_bundle_comes_each_time(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced_while_opened(monkeypatch, target, [b"newer ", b"newest "])
    with pytest.raises(BundleCorruptError, match=r"'graphs/\w+\.fp32\.onnx' has \d+ bytes, not \d+"):
        Bundle.open(target)
    assert content_of(target) == b"newest posnet"


def test_a_bundle_that_is_damaged_is_read_once(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Path] = []
    check = opening._check_files

    def counted(root: Path, manifest: Manifest, verify: bool) -> None:
        checked.append(root)
        check(root, manifest, verify)

    monkeypatch.setattr(opening, "_check_files", counted)
    (target / "report.json").write_text("[]")
    with pytest.raises(BundleCorruptError, match=r"the content of 'report\.json' has changed"):
        Bundle.open(target)
    assert checked == [target]


def test_who_may_not_put_it_back_is_told_how() -> None:
    with shared_folder() as folder:
        target = folder / "me.pflx"
        write(target, b"old ")
        old = target.with_name(f"{folders._aside(target)}00112233.old")
        target.rename(old)
        folder.chmod(0o555)
        with unprivileged(), pytest.raises(BundleMissingError) as caught:
            Bundle.open(target)
        folder.chmod(0o755)
        assert str(caught.value) == (
            f"{target} was being replaced when that was stopped. Put it back: mv {old} {target}"
        )
        assert content_of(target) == b"old posnet"
