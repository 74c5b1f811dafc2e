"""A data set on a real Ray: the same numbers though actors are killed; and addresses where there is none."""

from __future__ import annotations

import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import pytest
from support.commands import refusal
from support.dataset.rays import actors, daemons, two_nodes
from support.dataset.sets import PODIUM, files_of, leftovers, manifest_of, some_rows

from pflx.engines import FeedError, OutputError, PflxError
from pflx.runtime.builtin import builtin_bundle, export_builtin
from pflx.runtime.bundle_engines import EngineSettings
from pflx.runtime.cluster import ray_session
from pflx.runtime.cluster.ray_session import require_ray
from pflx.runtime.dataset import ClusterError, DatasetSettings, Row, WorkerError, react_dataset, row_task
from pflx.runtime.dataset.maker import INDEX, Job
from pflx.runtime.dataset.row_task import Places, RowTask
from pflx.runtime.dataset.seal import settings_seal

with_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")

SHORT = DatasetSettings(samples=2, duration_s=0.4)
ROW = Row(id="a", speaker=PODIUM)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, of a user who never had a Ray."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    return tmp_path / "home"


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this process makes temporary folders: one with a short name, for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.mark.slow
@with_ray
def test_twenty_clips_are_made_as_without_ray_though_its_actors_are_killed(
    home: Path, temporary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [Row(id=str(number), speaker=tmp_path / f"{number}.mp4") for number in range(20)]
    for row in rows:
        row.speaker.symlink_to(PODIUM)
    list(react_dataset(rows, tmp_path / "alone", settings=SHORT))
    require_ray()  # which keeps a variable for good
    environment, on_term = dict(os.environ), signal.getsignal(signal.SIGTERM)
    absent = Row(id="absent", speaker=tmp_path / "absent.mp4")
    results = []
    for result in react_dataset([*rows, absent], tmp_path / "out", settings=SHORT, workers=2, ray="local"):
        results.append(result)
        if len(results) == 1:
            assert [path.name[:9] for path in temporary.iterdir()] == ["pflx-ray-"]
            for actor in actors():  # one of which gets the next row; another may not have begun
                os.kill(actor.pid, signal.SIGKILL)
    assert sorted(result.row.id for result in results) == sorted([*(row.id for row in rows), "absent"])
    assert {result.row.id: result.error for result in results if result.error} == {
        "absent": f"{absent.speaker} does not exist. Check the path. (On node {platform.node()}.)"
    }
    assert files_of(tmp_path / "out") == files_of(tmp_path / "alone")
    assert re.search(rf"its worker actor on {platform.node()} died \(Actor\w+Error\); it is begun again", caplog.text)
    assert not leftovers(tmp_path)
    assert not [*actors(), *daemons()]
    assert dict(os.environ.items() ^ environment.items()) == {}
    assert signal.getsignal(signal.SIGTERM) == on_term
    assert not [*home.iterdir(), *temporary.iterdir()]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@with_ray
def test_a_cluster_that_is_there_is_used_and_stays(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    rows = manifest_of(tmp_path / "rows.csv", some_rows(6))
    with two_nodes() as address:
        words = ["batch", str(rows), "-o", str(tmp_path / "out"), "--duration", "0.4", "--ray", address]
        done = subprocess.run([sys.executable, "-m", "pflx", *words], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out'}: made 6, had 0 already, 0 failed.\n"), (
            done.stderr
        )
        assert sum("raylet" in each.name() for each in daemons()) == 2
        assert not actors()
    list(react_dataset(some_rows(6), tmp_path / "alone", settings=DatasetSettings(duration_s=0.4)))
    assert files_of(tmp_path / "out") == files_of(tmp_path / "alone")


@pytest.mark.slow
@with_ray
def test_an_address_that_nobody_answers_is_told(tmp_path: Path) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(ClusterError, match=rf"No Ray cluster answers at {address}: .*refused\. Check `ray status`"):
            list(react_dataset([ROW], tmp_path / "out", ray=address))


@pytest.mark.slow
@with_ray
@pytest.mark.parametrize(
    ("reply", "why"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "what is there is no Ray"), (b"", "timed out")]
)
def test_something_else_at_the_address_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: bytes, why: str
) -> None:
    monkeypatch.setattr(ray_session, "_ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address, taken = f"127.0.0.1:{server.getsockname()[1]}", list[socket.socket]()
        Thread(target=_answer, args=(server, reply, taken), daemon=True).start()
        with pytest.raises(ClusterError, match=f"No Ray cluster answers at {address}: {why}\\. .*not that of the dash"):
            list(react_dataset([ROW], tmp_path / "out", ray=address))
    for each in taken:
        each.close()


def _answer(server: socket.socket, reply: bytes, taken: list[socket.socket]) -> None:
    taken.append(server.accept()[0])
    if reply:
        taken[0].sendall(reply)


@pytest.mark.slow
@with_ray
def test_without_a_cluster_auto_finds_none(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"No Ray cluster answers: .* Check `ray status`"):
        list(react_dataset([ROW], tmp_path / "out", ray="auto"))


@pytest.mark.slow
@with_ray
def test_without_it_ray_is_not_even_loaded(tmp_path: Path) -> None:
    rows = manifest_of(tmp_path / "rows.csv", some_rows(2))
    words = ["pflx", "batch", str(rows), "-o", str(tmp_path / "out"), "--duration", "0.4", "--workers", "2"]
    code = f"import sys; sys.argv = {words}; from pflx.cli import main; main(); sys.exit('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out'}: made 2, had 0 already, 0 failed.\n"), done.stderr


@pytest.mark.parametrize("address", ["clips", "node7", "10.0.0.1:http", "ray://10.0.0.1:10001"])
def test_what_is_no_address_is_refused_before_any_work(tmp_path: Path, address: str) -> None:
    with pytest.raises(FeedError, match=rf"^ray is '?{address}"):
        react_dataset([ROW], tmp_path / "out", ray=address)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--ray"], ["--ray", "auto"], ["--ray=10.0.0.1:6379"]])
def test_without_the_extra_the_command_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    rows = manifest_of(tmp_path / "rows.csv", some_rows(2))
    said = refusal("batch", rows, *words, "-o", tmp_path / "out")
    assert said == "pflx: ray is not installed. Install it: pip install 'pflx[ray]'"
    assert not (tmp_path / "out").exists()


def test_a_row_is_made_elsewhere_only_if_it_would_be_the_same_there(tmp_path: Path) -> None:
    bundle = builtin_bundle()
    seal = settings_seal(bundle, SHORT)
    job = Job(folder=tmp_path, bundle=bundle, portrait=None, settings=SHORT, seal=seal)
    own = export_builtin(tmp_path / "own.pflx")
    elsewhere = RowTask(job, is_far=True, is_builtin=True)

    def refused(task: RowTask, kind: type[PflxError], said: str) -> None:
        with pytest.raises(kind, match=said), task.opened():
            pass

    refused(elsewhere, OutputError, f"{tmp_path} is not seen here. Take a folder that all nodes share")
    (tmp_path / INDEX).touch()
    with elsewhere.opened() as make:
        assert make(ROW, lambda share: None) is None
    odd = replace(elsewhere, job=replace(job, seal={**seal, "pflx": "9.9.9"}))
    refused(odd, WorkerError, r"Its pflx is 0\..*, that of the command 9\.9\.9\.")
    refused(
        RowTask(replace(job, bundle=own), is_far=True), WorkerError, "Its bundle is [0-9a-f]{64}, that of the command"
    )


@pytest.mark.parametrize(
    ("workers", "ray", "threads", "each"),
    [
        (None, None, None, None),
        (1, None, None, None),
        (2, None, None, 4),
        (2, None, 3, 3),
        (2, "local", None, 4),
        (None, "local", None, 1),
        (2, "10.0.0.1:6379", None, 1),
        (2, "10.0.0.1:6379", 3, 3),
    ],
)
def test_workers_of_this_machine_share_its_cores_and_actors_elsewhere_have_one(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, ray: str | None, threads: int | None, each: int | None
) -> None:
    monkeypatch.setattr(row_task, "usable_cores", lambda: 8)
    shared = Places(workers, ray).shared_among(replace(SHORT, engines=EngineSettings(threads=threads)))
    assert shared.engines.threads == each
