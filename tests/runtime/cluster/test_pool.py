"""Jobs shared out to processes, some of which die."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.dataset.dying import Dying, Stillborn

from pflx.runtime.cluster import pool
from pflx.runtime.cluster.crew import Dead, Done, Ready, Told, Word, WorkerError
from pflx.runtime.cluster.pool import Lost, in_turn, shared_out
from pflx.runtime.cluster.processes import Processes

JOBS = ["a", "deadly", "once", "b", "c"]
SAID = "Its worker process ended with exit code -9 each of the 3 times that it was begun."


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_job_that_kills_its_worker_is_begun_three_times_and_the_others_are_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = dict(shared_out(Processes(Dying(tmp_path)), JOBS, 2, name=str, clear=lambda job: None))
    assert found == {"a": "A", "deadly": Lost(SAID), "once": "ONCE", "b": "B", "c": "C"}
    begun = {path.stem: path.read_text() for path in tmp_path.iterdir()}
    assert begun == {"a": "x", "deadly": "xxx", "once": "xx", "b": "x", "c": "x"}
    assert caplog.text.count("its worker process ended with exit code -9; it is begun again.") == 3
    assert not [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_workers_that_die_before_they_can_work_end_it_all() -> None:
    said = "A worker process ended with exit code -9 while it began. If memory ran out, take fewer workers."
    with pytest.raises(WorkerError, match=said):
        list(shared_out(Processes(Stillborn()), JOBS, 2, name=str, clear=lambda job: None))


def test_jobs_in_turn_give_the_same_and_tell_how_far_they_are(tmp_path: Path) -> None:
    told: list[float] = []
    assert list(in_turn(Dying(tmp_path), ["a", "b"], tell=told.append)) == [("a", "A"), ("b", "B")]
    assert told == [0, 1, 2]


@dataclass(frozen=True, eq=False)
class Hired:
    """One of a scripted crew."""

    handed: list[str]

    def hand(self, job: Any) -> None:
        self.handed.append(job)


class Scripted:
    """A crew whose workers, in the order in which they were taken on, say what stands in a list."""

    def __init__(self, words: Sequence[tuple[int, Word]]) -> None:
        self._words, self._hired = [*words], list[Hired]()
        self.handed, self.ended = list[str](), list[bool]()

    @property
    def n_hired(self) -> int:
        return len(self._hired)

    def hire(self) -> Hired:
        self._hired.append(Hired(self.handed))
        return self._hired[-1]

    def listen(self, timeout_s: float) -> list[tuple[Hired, Word]]:
        if not self._words:
            raise KeyboardInterrupt
        number, word = self._words.pop(0)
        return [(self._hired[number], word)]

    def end(self, *, at_once: bool) -> None:
        self.ended.append(at_once)


def test_what_is_done_of_a_job_is_told_and_forgotten_when_its_worker_dies() -> None:
    crew = Scripted([(0, Ready()), (0, Told(0.5)), (0, Dead("fell")), (1, Ready()), (1, Told(0.25)), (1, Done("A"))])
    told, cleared = list[float](), list[str]()
    found = list(shared_out(crew, ["a"], 1, name=str, clear=cleared.append, tell=told.append))
    assert (found, told) == ([("a", "A")], [0, 0.5, 0, 0, 0.25, 1])
    assert (crew.handed, cleared, crew.ended) == (["a", "a"], ["a"], [False])


def test_others_go_on_where_new_workers_die_before_they_are_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_LATER_S", 0.0)
    fallen: list[tuple[int, Word]] = [(number, Dead("fell")) for number in range(1, 6)]
    crew = Scripted([(0, Ready()), *fallen, (0, Done("A")), (0, Done("B")), (0, Done("C"))])
    found = list(shared_out(crew, ["a", "b", "c"], 2, name=str, clear=lambda job: None))
    assert (found, crew.n_hired) == ([("a", "A"), ("b", "B"), ("c", "C")], 7)


def test_once_it_is_to_stop_no_further_job_is_begun() -> None:
    crew, asked = Scripted([(0, Ready()), (0, Done("A"))]), iter([False, False, False, False, True])
    found = list(
        shared_out(crew, ["a", "b"], 1, name=str, clear=lambda job: None, should_stop=lambda: next(asked, True))
    )
    assert (found, crew.handed, crew.ended) == ([("a", "A")], ["a"], [False])


def test_an_interruption_dismisses_all_at_once_and_clears_up_after_the_running_job() -> None:
    crew, cleared = Scripted([(0, Ready()), (0, Done("A")), (0, Told(0.5))]), list[str]()
    found = shared_out(crew, ["a", "b"], 1, name=str, clear=cleared.append)
    assert next(found) == ("a", "A")
    with pytest.raises(KeyboardInterrupt):
        next(found)
    assert (cleared, crew.ended) == (["b"], [True])
