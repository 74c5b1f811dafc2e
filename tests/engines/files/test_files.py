"""Files that are written: whole or not at all, whoever stops, whoever else writes, whatever is at the place."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from support.files.crash_points import crashes
from support.sample_bundle import fill_bundle

from pflx.engines import Bundle, OutputError, Passport, bundle_writer
from pflx.engines.bundle.writer import install_engine
from pflx.engines.files.locks import locked
from pflx.engines.files.writer import Replacement, write_whole
from pflx.runtime.media.video_writer import VideoWriter

OLD, NEW = b"old", b"new" * 100_000
LEFTOVER = ".pflx-00112233445566aa.part"


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def bundle(content: bytes, target: Path) -> None:
    with bundle_writer(target, overwrite=True) as folder:
        fill_bundle(folder, content)


def content_of(target: Path) -> bytes:
    """The first of a bundle's graphs, all of which are checked."""
    return Bundle.open(target).graph_path("posnet").read_bytes()


def film(path: Path) -> None:
    with VideoWriter(path, (64, 48), audio=True) as writer:
        writer.write(np.zeros((10, 48, 64, 3), np.uint8))
        writer.write_audio(np.zeros(6400, np.float32))


@pytest.mark.parametrize("old", [None, OLD])
def test_a_file_is_the_old_or_the_new_one_wherever_its_writer_dies(tmp_path: Path, old: bytes | None) -> None:
    path = tmp_path / "report.json"
    if old is not None:
        path.write_bytes(old)
    seen = set()
    for done in crashes(tmp_path, lambda: write_whole(path, NEW)):
        seen.add(content := path.read_bytes() if path.exists() else None)
        assert content in (old, NEW), done
        write_whole(path, OLD)
        assert entries(tmp_path) == [path.name], done
        if old is None:
            path.unlink()
    assert seen == {old, NEW}
    assert path.read_bytes() == NEW


def test_a_video_is_the_old_or_the_new_one_wherever_its_writer_dies(tmp_path: Path) -> None:
    path, other = tmp_path / "out.mp4", tmp_path / "other.mp4"
    film(other)
    new = other.read_bytes()
    other.unlink()
    path.write_bytes(OLD)
    seen = set()
    for done in crashes(tmp_path, lambda: film(path)):
        seen.add(content := path.read_bytes() if path.exists() else OLD)
        assert content in (OLD, new), done
        write_whole(path, OLD)
        assert entries(tmp_path) == [path.name], done
    assert seen == {OLD, new}
    assert path.read_bytes() == new


def test_a_bundle_is_the_old_or_the_new_one_wherever_its_writer_dies(tmp_path: Path) -> None:
    target = tmp_path / "me.pflx"
    bundle(b"old ", target)
    seen = set()
    for done in crashes(tmp_path, lambda: bundle(b"new ", target)):
        seen.add(content := content_of(target))
        assert content in (b"old posnet", b"new posnet"), done
        bundle(b"old ", target)
        assert entries(tmp_path) == [target.name], done
    assert seen == {b"old posnet", b"new posnet"}
    assert content_of(target) == b"new posnet"


def test_a_bundle_is_valid_wherever_the_installation_of_an_engine_dies(tmp_path: Path) -> None:
    target = tmp_path / "me.pflx"
    bundle(b"old ", target)
    passport = Passport(
        file="",
        graph="posnet",
        precision="fp32",
        backend="tensorrt-rtx",
        backend_version="1.7",
        onnx_sha256=sha256(b"old posnet").hexdigest(),
        compute_capabilities=["sm_89"],
        profile={},
        driver=None,
        os="Linux x86_64",
        created="2026-01-02T03:04:05+00:00",
    )
    install_engine(target, passport, OLD)
    seen = set()
    for done in crashes(tmp_path, lambda: install_engine(target, passport, NEW)):
        opened = Bundle.open(target)
        [entry] = opened.manifest.engines
        seen.add((target / entry.file).read_bytes())
        install_engine(target, passport, OLD)
        [entry] = Bundle.open(target).manifest.engines
        assert [f"engines/{name}" for name in entries(target / "engines")] == [entry.file], done
        assert not [name for name in entries(target) if name.startswith(".")], done
    assert seen == {OLD, NEW}


@pytest.mark.parametrize(
    ("make", "open_it"),
    [(lambda path: write_whole(path, NEW), Path.read_bytes), (lambda path: bundle(b"new ", path), content_of)],
)
def test_what_dead_processes_left_goes_with_the_next_write_and_what_the_living_make_stays(
    tmp_path: Path, make: Callable[[Path], None], open_it: Callable[[Path], bytes]
) -> None:
    (tmp_path / LEFTOVER).write_bytes(b"half")
    (tmp_path / LEFTOVER.replace("aa", "bb")).mkdir()
    (tmp_path / LEFTOVER.replace("aa", "bb") / "graph").write_bytes(b"half")
    (tmp_path / LEFTOVER.replace("aa", "cc")).symlink_to("elsewhere")
    (tmp_path / "elsewhere").write_bytes(b"mine")
    with Replacement(tmp_path / "living.json") as living:
        make(tmp_path / "me.pflx")
        assert open_it(tmp_path / "me.pflx")
        there = [living.partial.name, LEFTOVER.replace("aa", "cc"), "elsewhere", "me.pflx"]
        assert entries(tmp_path) == sorted(there)
        living.partial.write_bytes(NEW)
    assert (tmp_path / "living.json").read_bytes() == NEW


def test_two_writers_of_one_number_write_one_file_each_and_the_last_stays(tmp_path: Path) -> None:
    """As in two containers on one volume, where both are process 1."""
    code = (
        "import os, sys; os.getpid = lambda: 1\n"
        "from pathlib import Path; import numpy as np\n"
        "from pflx.runtime.media.video_writer import VideoWriter\n"
        "with VideoWriter(sys.argv[1], (64, 48)) as writer:\n"
        "    for _ in range(20): writer.write(np.zeros((5, 48, 64, 3), np.uint8))\n"
        "    print('written', flush=True); sys.stdin.readline()\n"
    )
    path = tmp_path / "out.mp4"
    pipe = subprocess.PIPE
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=pipe, stdout=pipe, text=True) for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "written\n"
    assert len(entries(tmp_path)) == 2
    for writer in writers:
        writer.communicate("\n")
        assert writer.returncode == 0
        with VideoWriter(tmp_path / "like.mp4", (64, 48)) as like:
            like.write(np.zeros((100, 48, 64, 3), np.uint8))
        assert path.read_bytes() == (tmp_path / "like.mp4").read_bytes()
    assert entries(tmp_path) == ["like.mp4", "out.mp4"]


@pytest.mark.parametrize("name", [f"{'n' * 244}.json", "\N{CYRILLIC SMALL LETTER PE}" * 120 + ".json", "-[*]?.json"])
def test_a_file_may_have_any_name_that_the_folder_takes(tmp_path: Path, name: str) -> None:
    write_whole(tmp_path / name, OLD)
    write_whole(tmp_path / name, NEW)
    assert entries(tmp_path) == [name]


def test_a_name_that_is_too_long_is_found_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long") as refused:
        Replacement(tmp_path / ("n" * 256))
    assert refused.value.errno == errno.ENAMETOOLONG
    assert entries(tmp_path) == []


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("points", ["disk/kept.mp4", "{}/disk/kept.mp4"])
def test_a_link_stays_and_what_it_points_at_is_written(tmp_path: Path, there: bool, points: str) -> None:
    (tmp_path / "disk").mkdir()
    link, real = tmp_path / "out.mp4", tmp_path / "disk" / "kept.mp4"
    link.symlink_to(points.format(tmp_path))
    if there:
        real.write_bytes(OLD)
    film(link)
    assert link.is_symlink()
    assert real.stat().st_size > len(OLD)
    assert (entries(tmp_path), entries(tmp_path / "disk")) == (["disk", "out.mp4"], ["kept.mp4"])


def test_a_device_a_pipe_a_folder_and_a_link_to_itself_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "null").symlink_to("/dev/null")
    before = entries(tmp_path)
    for name, why in (("pipe", "a pipe"), ("null", "a device"), ("itself", "a link to itself"), ("folder", "a folder")):
        with pytest.raises(OutputError, match=f"{name} cannot be written: .*{why}.*Choose another name"):
            write_whole(tmp_path / name, NEW)
    assert entries(tmp_path) == before
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_permissions_are_those_of_any_new_file_or_of_the_one_that_is_replaced(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        for path in (tmp_path / "new.json", tmp_path / "new.mp4"):
            (film if path.suffix == ".mp4" else lambda file: write_whole(file, NEW))(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
        (tmp_path / "old.json").write_bytes(OLD)
        (tmp_path / "old.json").chmod(0o604)
        with Replacement(tmp_path / "old.json") as new:
            assert stat.S_IMODE(new.partial.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "old.json").stat().st_mode) == 0o604
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_root_replaces_keeps_its_owner(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_bytes(OLD)
    os.chown(tmp_path / "old.json", 1234, 4321)
    write_whole(tmp_path / "old.json", NEW)
    found = (tmp_path / "old.json").stat()
    assert (found.st_uid, found.st_gid) == (1234, 4321)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_what_does_not_reach_the_disk_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "report.json").write_bytes(OLD)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=os.strerror(number)):
        write_whole(tmp_path / "report.json", NEW)
    assert (tmp_path / "report.json").read_bytes() == OLD
    assert entries(tmp_path) == ["report.json"]


def test_files_are_synced_before_they_are_renamed_and_folders_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_sync(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"file of {os.fstat(handle).st_size}")
        fsync(handle)

    def noted_replace(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_whole(tmp_path / "report.json", NEW)
    assert done == [f"file of {len(NEW)}", "rename", "folder"]
    done.clear()
    film(tmp_path / "out.mp4")
    assert done == [f"file of {(tmp_path / 'out.mp4').stat().st_size}", "rename", "folder"]


def test_a_writer_that_was_taken_for_dead_before_it_was_locked_makes_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open
    taken: list[Path] = []

    def open_and_lose(path: Path, flags: int, mode: int = 0o777) -> int:
        handle = opened(path, flags, mode)
        if flags & os.O_EXCL and not taken:
            taken.append(path)
            Path(path).unlink()
        return handle

    monkeypatch.setattr(os, "open", open_and_lose)
    write_whole(tmp_path / "report.json", NEW)
    assert taken
    assert (tmp_path / "report.json").read_bytes() == NEW
    assert entries(tmp_path) == ["report.json"]


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    for path in (tmp_path, tmp_path / "file"):
        with locked(path) as first, locked(path, wait=False) as second:
            assert (first, second) == (True, False)
        with locked(path, wait=False) as third:
            assert third


def test_whoever_waits_for_a_lock_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pflx.engines.files.locks.TELL_AFTER_S", 0.05)
    path = tmp_path / "manifest.json"
    path.touch()
    code = (
        "import sys; from pathlib import Path; from pflx.engines.files.locks import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        told = Event()
        caplog.handler.addFilter(lambda record: told.set() or True)  # type: ignore[func-returns-value]
        holder = other.stdin
        Thread(target=lambda: told.wait(60) and holder.close()).start()
        with locked(path) as held:
            assert held
    assert caplog.messages == [f"{path} is locked by another process. Waiting until it is done."]
