"""Several processes: the same numbers, and what becomes of a row whose worker dies."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from support.dataset.sets import PODIUM, files_of, leftovers, some_rows

from pflx.runtime.cluster.pool import Lost
from pflx.runtime.dataset import DatasetSettings, Row, WorkerError, react_dataset, row_task

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

TWO_SECONDS = DatasetSettings(duration_s=2.0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "out"
    list(react_dataset(some_rows(6), folder, settings=TWO_SECONDS))
    return folder


def test_two_workers_give_the_same_files_bit_for_bit_though_one_is_killed(
    alone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen = []
    for result in react_dataset(some_rows(6), tmp_path / "out", settings=TWO_SECONDS, workers=2):
        seen.append(result.row.id)
        if len(seen) == 1:
            victim = next(each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline()))
            os.kill(victim.pid, signal.SIGKILL)
    assert sorted(seen) == sorted(row.id for row in some_rows(6))
    assert files_of(tmp_path / "out") == files_of(alone)
    assert not leftovers(tmp_path)
    assert "worker process ended with exit code -9; it is begun again." in caplog.text
    assert not [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]


def test_workers_that_are_no_longer_wanted_end_at_once(tmp_path: Path) -> None:
    rows = [Row(id=str(index), speaker=PODIUM) for index in range(8)]
    results = react_dataset(rows, tmp_path / "out", settings=TWO_SECONDS, workers=2)
    next(results)
    results.close()
    assert not [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]
    assert not leftovers(tmp_path)
    assert 1 <= len(files_of(tmp_path / "out")) < 8


def test_a_row_whose_workers_died_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_task, "shared_out", lambda crew, rows, *_, **__: ((row, Lost("It died.")) for row in rows))
    (result,) = react_dataset([Row(id="a", speaker=PODIUM)], tmp_path / "out", workers=2)
    assert (result.status, result.error) == ("failed", "It died.")
    assert (tmp_path / "out" / "a.failed.json").read_text() == '{\n  "error": "It died."\n}\n'


def test_what_a_worker_cannot_open_is_told_as_here(tmp_path: Path) -> None:
    settings = DatasetSettings(extractors={"coefficients": "nonsense"})
    with pytest.raises(WorkerError, match="'nonsense' is no coefficients source"):
        list(react_dataset(some_rows(3), tmp_path / "out", settings=settings, workers=2))
