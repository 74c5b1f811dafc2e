"""Bundles are whole or absent, however their writer ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from support.places import TESTS
from support.sample_bundle import fill_bundle, sample_manifest

from pflx.engines import (
    Bundle,
    BundleCorruptError,
    BundleMissingError,
    OutputError,
    OutputExistsError,
    Passport,
    bundle_writer,
    require_space,
    write_manifest,
)
from pflx.engines.bundle.tensorrt_library import BACKENDS
from pflx.engines.bundle.writer import install_engine
from pflx.engines.files import folders

PASSPORT = Passport(
    file="",
    graph="posnet",
    precision="fp32",
    backend="tensorrt-rtx",
    backend_version="1.7",
    onnx_sha256=sha256(b"graph posnet").hexdigest(),
    compute_capabilities=["sm_89"],
    profile={"x": ((1, 4), (1, 4), (4, 4))},
    driver=None,
    os="Linux x86_64",
    created="2026-01-02T03:04:05+00:00",
)


def write(target: Path, content: bytes = b"graph ", overwrite: bool = False) -> None:
    with bundle_writer(target, overwrite=overwrite) as folder:
        fill_bundle(folder, content)


def write_then(target: Path, last: Callable[[Path], object], overwrite: bool = False) -> None:
    """Fill a bundle and do one more thing in its folder before the commit."""
    with bundle_writer(target, overwrite=overwrite) as folder:
        fill_bundle(folder, b"new ")
        last(folder)


def stop_with(error: BaseException) -> Callable[[Path], object]:
    def last(_: Path) -> object:
        raise error

    return last


def start_writer(target: Path, *, overwrite: bool = False) -> subprocess.Popen[str]:
    """Start a process that fills a bundle, says so, and waits for a line before it commits."""
    code = (
        "import sys; from pathlib import Path; from pflx.engines import bundle_writer\n"
        "from support.sample_bundle import fill_bundle\n"
        f"with bundle_writer(Path({str(target)!r}), overwrite={overwrite}) as folder:\n"
        "    fill_bundle(folder, b'other ')\n"
        "    print('filled', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "filled\n"
    return writer


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_at_the_target_until_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "me.pflx"
    with bundle_writer(target) as folder:
        fill_bundle(folder)
        assert folder.parent == target.parent
        assert not target.exists()
    Bundle.open(target)
    assert entries(tmp_path) == ["me.pflx"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, RuntimeError, GeneratorExit])
def test_any_exception_leaves_nothing(tmp_path: Path, stop: type[BaseException]) -> None:
    with pytest.raises(stop):
        write_then(tmp_path / "me.pflx", stop_with(stop()))
    assert entries(tmp_path) == []


def test_an_exception_while_overwriting_keeps_the_old_bundle(tmp_path: Path) -> None:
    target = tmp_path / "me.pflx"
    write(target)
    with pytest.raises(KeyboardInterrupt):
        write_then(target, stop_with(KeyboardInterrupt()), overwrite=True)
    assert Bundle.open(target).graph_path("posnet").read_bytes() == b"graph posnet"


def test_a_block_that_leaves_no_valid_bundle_commits_nothing(tmp_path: Path) -> None:
    with pytest.raises(BundleMissingError), bundle_writer(tmp_path / "me.pflx"):
        pass
    with pytest.raises(BundleCorruptError, match=r"late\.json"):
        write_then(tmp_path / "me.pflx", lambda folder: (folder / "late.json").write_text("{}"))
    assert entries(tmp_path) == []


def test_a_manifest_that_refers_to_a_missing_file_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleCorruptError, match="not in files"):
        write_manifest(tmp_path, sample_manifest())
    assert entries(tmp_path) == []


def test_an_existing_bundle_is_replaced_only_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "me.pflx"
    write(target)
    with pytest.raises(OutputExistsError, match=r"me\.pflx exists"):
        write(target, b"new ")
    write(target, b"new ", overwrite=True)
    assert Bundle.open(target).graph_path("posnet").read_bytes() == b"new posnet"
    assert entries(tmp_path) == ["me.pflx"]


def test_overwrite_replaces_bundles_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "folder.pflx").mkdir()
    (tmp_path / "folder.pflx" / "thesis.tex").write_text("years of work")
    (tmp_path / "file.pflx").write_text("?")
    (tmp_path / "link.pflx").symlink_to("folder.pflx")
    (tmp_path / "itself.pflx").symlink_to("itself.pflx")
    before = entries(tmp_path)
    for name in ("folder.pflx", "file.pflx", "link.pflx", "itself.pflx"):
        with pytest.raises(OutputExistsError, match="is no bundle"):
            write(tmp_path / name, overwrite=True)
    assert entries(tmp_path) == before


@pytest.mark.parametrize("there", [False, True])
def test_a_link_stays_and_the_bundle_that_it_points_at_is_written(tmp_path: Path, there: bool) -> None:
    (tmp_path / "disk").mkdir()
    link, real = tmp_path / "me.pflx", tmp_path / "disk" / "kept"
    link.symlink_to("disk/kept")
    if there:
        write(tmp_path / "new.pflx")
        (tmp_path / "new.pflx").rename(real)
        with pytest.raises(OutputExistsError, match=r"me\.pflx exists"):
            write(link)
    write(link, b"new ", overwrite=there)
    assert link.is_symlink()
    assert Bundle.open(real).graph_path("posnet").read_bytes() == b"new posnet"
    assert entries(tmp_path) == ["disk", "me.pflx"]
    assert entries(tmp_path / "disk") == ["kept"]


def test_a_bundle_is_replaced_in_steps_where_the_file_system_exchanges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    target = tmp_path / "me.pflx"
    write(target)
    write(target, b"new ", overwrite=True)
    assert Bundle.open(target).graph_path("posnet").read_bytes() == b"new posnet"
    assert entries(tmp_path) == ["me.pflx"]


def test_a_bundle_may_have_the_longest_name_there_is(tmp_path: Path) -> None:
    target = tmp_path / f"{'n' * 250}.pflx"
    write(target)
    write(target, b"new ", overwrite=True)
    assert entries(tmp_path) == [target.name]


def test_a_bundle_that_is_replaced_keeps_the_permissions_of_its_folder(tmp_path: Path) -> None:
    target = tmp_path / "me.pflx"
    write(target)
    target.chmod(0o750)
    write(target, b"new ", overwrite=True)
    assert target.stat().st_mode & 0o777 == 0o750


def test_a_parent_that_is_missing_or_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for parent in ("absent", "file"):
        with pytest.raises(OutputError, match=f"{parent} is no folder"):
            write(tmp_path / parent / "me.pflx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_that_is_read_only_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="not writable"):
            write(tmp_path / "me.pflx")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which even root cannot write")
def test_a_folder_that_refuses_new_entries_is_named() -> None:
    with pytest.raises(OutputError, match=r"cannot be written|not writable"):
        write(Path("/proc/self/me.pflx"))


@pytest.mark.parametrize("name", ["me", "me.onnx", ".pflx", "me.pflx.zip"])
def test_a_name_without_the_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"ends in \.pflx"):
        write(tmp_path / name)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"):
        write_then(tmp_path / "me.pflx", stop_with(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    assert entries(tmp_path) == []
    with pytest.raises(OutputError, match=r"needs 1\d+ MB"):
        require_space(tmp_path, 10**17)
    require_space(tmp_path, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_write_that_meets_a_full_device_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"):
        write_then(tmp_path / "me.pflx", lambda _: Path("/dev/full").write_bytes(b"x" * 100_000))


def test_a_killed_writer_leaves_no_bundle_and_its_folder_goes_with_the_next_write(tmp_path: Path) -> None:
    target = tmp_path / "me.pflx"
    writer = start_writer(target)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    with pytest.raises(BundleMissingError):
        Bundle.open(target)
    assert len(entries(tmp_path)) == 1
    write(target)
    Bundle.open(target)
    assert entries(tmp_path) == ["me.pflx"]


def test_ctrl_c_in_a_process_leaves_nothing(tmp_path: Path) -> None:
    writer = start_writer(tmp_path / "me.pflx")
    writer.send_signal(signal.SIGINT)
    writer.communicate()
    assert writer.returncode != 0
    assert entries(tmp_path) == []


def test_a_living_writer_is_left_alone_and_the_later_commit_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "me.pflx"
    other = start_writer(target)
    write(target)
    _, errors = other.communicate("\n")
    assert other.returncode != 0
    assert "OutputExistsError" in errors
    assert Bundle.open(target).graph_path("posnet").read_bytes() == b"graph posnet"
    assert entries(tmp_path) == ["me.pflx"]


def test_two_overwriting_writers_both_succeed_and_the_last_one_stays(tmp_path: Path) -> None:
    target = tmp_path / "me.pflx"
    write(target)
    other = start_writer(target, overwrite=True)
    write(target, b"mine ", overwrite=True)
    other.communicate("\n")
    assert other.returncode == 0
    assert Bundle.open(target).graph_path("posnet").read_bytes() == b"other posnet"
    assert entries(tmp_path) == ["me.pflx"]


def test_an_old_bundle_that_was_moved_aside_by_a_killed_writer_comes_back(tmp_path: Path) -> None:
    target = tmp_path / "me.pflx"
    write(target)
    target.rename(tmp_path / f"{folders._aside(target)}00112233.old")
    with pytest.raises(OutputExistsError):
        write(target, b"new ")
    assert Bundle.open(target).graph_path("posnet").read_bytes() == b"graph posnet"


def test_hidden_things_of_others_stay(tmp_path: Path) -> None:
    names = [".me.pflx.00112233.partial", ".pflx-0011.part", ".pflx-00112233445566zz.part", "me.pflx"]
    for name in names[:-1]:
        (tmp_path / name).mkdir()
    write(tmp_path / "me.pflx")
    assert entries(tmp_path) == sorted(names)


def test_an_engine_replaces_the_one_before_it(tmp_path: Path) -> None:
    target = tmp_path / "me.pflx"
    write(target)
    first = install_engine(target, PASSPORT, b"first")
    again = install_engine(target, PASSPORT, b"first")
    assert first == again
    other = install_engine(target, msgspec.structs.replace(PASSPORT, backend="tensorrt"), b"full")
    second = install_engine(target, PASSPORT, b"second")
    bundle = Bundle.open(target)
    assert bundle.passport("posnet", "tensorrt-rtx") == second
    assert bundle.passport("posnet", "tensorrt") == other
    assert bundle.passport("posnet", "tensorrt-rtx", "fp16") is None
    assert sorted(f"engines/{name}" for name in entries(target / "engines")) == sorted([other.file, second.file])


@pytest.mark.parametrize("changes", [{"onnx_sha256": "0" * 64}, {"graph": "another"}, {"precision": "fp16"}])
def test_an_engine_of_another_graph_is_refused_and_leaves_nothing(tmp_path: Path, changes: dict[str, str]) -> None:
    target = tmp_path / "me.pflx"
    write(target)
    with pytest.raises(BundleCorruptError, match="has changed since an engine was built"):
        install_engine(target, msgspec.structs.replace(PASSPORT, **changes), b"engine")
    assert not Bundle.open(target).manifest.engines
    assert not (target / "engines").exists()


@pytest.mark.parametrize("step", ["engine", "manifest", "replaced"])
def test_an_interrupted_installation_leaves_a_valid_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = tmp_path / "me.pflx"
    write(target)
    install_engine(target, PASSPORT, b"first")
    replace, unlink = Path.replace, Path.unlink

    def stop(path: Path, *arguments: object, **named: object) -> object:
        plan = ".plan" in str(arguments[0])
        if (step == "engine" and plan) or (step == "manifest" and not plan):
            os._exit(9)
        return replace(path, *arguments, **named)  # type: ignore[arg-type]

    def keep(path: Path, missing_ok: bool = False) -> None:
        if step == "replaced" and path.suffix == ".plan":
            os._exit(9)
        unlink(path, missing_ok=missing_ok)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(Path, "replace", stop)
        monkeypatch.setattr(Path, "unlink", keep)
        install_engine(target, PASSPORT, b"second")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    Bundle.open(target)
    last = install_engine(target, PASSPORT, b"third")
    assert Bundle.open(target).manifest.engines == [last]
    assert [f"engines/{name}" for name in entries(target / "engines")] == [last.file]
    assert ".part" not in " ".join(entries(target))


def test_two_processes_that_install_engines_lose_none(tmp_path: Path) -> None:
    target = tmp_path / "me.pflx"
    write(target)
    children = []
    for graph in list(Bundle.open(target).manifest.graphs)[:4]:
        child = os.fork()
        if child == 0:
            for turn in range(5):
                source = sha256(b"graph " + graph.encode()).hexdigest()
                passport = msgspec.structs.replace(
                    PASSPORT, graph=graph, onnx_sha256=source, backend=BACKENDS[turn % 2]
                )
                install_engine(target, passport, f"{graph} {turn}".encode())
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(Bundle.open(target).manifest.engines) == 8
