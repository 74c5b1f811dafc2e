"""Jobs shared out to processes, some of which die."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.dataset.dying import Dying, Stillborn

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


class Scripted:
    """A crew of one, who says what stands in a list."""

    def __init__(self, words: list[Word]) -> None:
        self.words, self.handed, self.ended = words, list[str](), list[bool]()

    def hire(self) -> Scripted:
        return self

    def hand(self, job: Any) -> None:
        self.handed.append(job)

    def listen(self, timeout_s: float) -> list[tuple[Scripted, Word]]:
        if not self.words:
            raise KeyboardInterrupt
        return [(self, self.words.pop(0))]

    def end(self, *, at_once: bool) -> None:
        self.ended.append(at_once)


def test_what_is_done_of_a_job_is_told_and_forgotten_when_its_worker_dies() -> None:
    words: list[Word] = [Ready(), Told(0.5), Dead("fell"), Ready(), Told(0.25), Done("A")]
    crew, told, cleared = Scripted(words), list[float](), list[str]()
    found = list(shared_out(crew, ["a"], 1, name=str, clear=cleared.append, tell=told.append))
    assert (found, told) == ([("a", "A")], [0, 0.5, 0, 0, 0.25, 1])
    assert (crew.handed, cleared, crew.ended) == (["a", "a"], ["a"], [False])


def test_once_it_is_to_stop_no_further_job_is_begun() -> None:
    crew, asked = Scripted([Ready(), Done("A")]), iter([False, False, False, False, True])
    found = list(
        shared_out(crew, ["a", "b"], 1, name=str, clear=lambda job: None, should_stop=lambda: next(asked, True))
    )
    assert (found, crew.handed, crew.ended) == ([("a", "A")], ["a"], [False])


def test_an_interruption_dismisses_all_at_once_and_clears_up_after_the_running_job() -> None:
    crew, cleared = Scripted([Ready(), Done("A"), Told(0.5)]), list[str]()
    found = shared_out(crew, ["a", "b"], 1, name=str, clear=cleared.append)
    assert next(found) == ("a", "A")
    with pytest.raises(KeyboardInterrupt):
        next(found)
    assert (cleared, crew.ended) == (["b"], [True])
