"""Rows made: in this process, by several on this machine, or by a Ray cluster's."""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from pflx.engines import Bundle, FeedError, OutputError
from pflx.engines.files.writer import clear_leftovers
from pflx.engines.graphs.threads import most_threads, usable_cores
from pflx.runtime.builtin import builtin_bundle, builtin_path
from pflx.runtime.cluster.crew import Crew, Tell, WorkerError
from pflx.runtime.cluster.pool import Lost, in_turn, shared_out
from pflx.runtime.cluster.processes import Processes
from pflx.runtime.cluster.ray_actors import RayActors
from pflx.runtime.cluster.ray_session import LOCAL, RaySession
from pflx.runtime.dataset.maker import INDEX, Job, RowMaker, write_note
from pflx.runtime.dataset.rows import Row
from pflx.runtime.dataset.seal import DatasetSettings, settings_seal


@dataclass(frozen=True)
class Places:
    """Where rows are made.

    Attributes:
        workers: how many at a time; None is one, or as many as a cluster has room for.
        ray: the cluster; None for this machine without Ray.
    """

    workers: int | None
    ray: str | None

    def check(self) -> None:
        """Refuse no workers, and more than this machine has a use for.

        Raises:
            FeedError: they are out of range.
        """
        if self.workers is None or (self.workers >= 1 and self.ray not in (None, LOCAL)):
            return
        if not 1 <= self.workers <= most_threads():
            raise FeedError(f"workers is {self.workers}; give 1 to {most_threads()} on this machine.")

    def shared_among(self, settings: DatasetSettings) -> DatasetSettings:
        """The same, with the cores that a worker has of its machine."""
        if settings.engines.threads is not None or (self.ray is None and self.workers in (None, 1)):
            return settings
        share = max(1, usable_cores() // self.workers) if self.workers and self.ray in (None, LOCAL) else 1
        return replace(settings, engines=replace(settings.engines, threads=share))


@dataclass(frozen=True)
class RowTask:
    """What makes rows, in a form that can be sent to another process.

    Attributes:
        job: what they are made with.
        is_far: whether that process may be on another machine, with other files.
        is_builtin: whether the bundle is the one that comes with pflx, which lies elsewhere there.
    """

    job: Job
    is_far: bool = False
    is_builtin: bool = False

    @contextmanager
    def opened(self) -> Iterator[Callable[[Row, Tell], str | None]]:
        """What makes a row: why it could not, or None; see `RowMaker`.

        Raises:
            OutputError, WorkerError: far away the folder is not seen, or what would be made is something else.
        """
        with RowMaker(self._job_there(), platform.node()) if self.is_far else RowMaker(self.job) as maker:
            yield lambda row, _: maker.make(row)

    def _job_there(self) -> Job:
        folder, settings = self.job.folder, self.job.settings
        if not (folder / INDEX).is_file():
            raise OutputError(f"{folder} is not seen here. Take a folder that all nodes share, at the same path.")
        bundle = builtin_bundle() if self.is_builtin else Bundle.open(self.job.bundle.path)
        seal = settings_seal(bundle, settings)
        if odd := next((name for name in seal if seal[name] != self.job.seal[name]), None):
            raise WorkerError(
                f"Its {odd} is {seal[odd]}, that of the command {self.job.seal[odd]}. Take one {odd} on all nodes."
            )
        return replace(self.job, bundle=bundle)


def made_rows(
    job: Job, rows: Sequence[Row], places: Places, should_stop: Callable[[], bool]
) -> Generator[tuple[Row, str | None], None, None]:
    """Make rows.

    Args:
        job: what they are made with.
        rows: which.
        places: where.
        should_stop: asked now and then; once it says so, no further row is begun.

    Yields:
        Every row that was begun, in the order in which they are done, and why it could not be made, or None. A row
        whose worker dies is begun again, twice at most.

    Raises:
        WorkerError: a worker cannot open the listener, or cannot write.
        ClusterError: there is no such cluster.
    """
    if places.ray is None and places.workers in (None, 1):
        yield from in_turn(RowTask(job), rows, should_stop=should_stop)
        return
    crew, count = _crew(job, places)
    made = shared_out(
        crew,
        rows,
        count,
        name=lambda row: row.id,
        clear=lambda row: clear_leftovers(job.place(row).parent),
        should_stop=should_stop,
    )
    with closing(made):
        for row, error in made:
            if isinstance(error, Lost):
                write_note(job.note(row), error.why)
            yield row, error.why if isinstance(error, Lost) else error


def _crew(job: Job, places: Places) -> tuple[Crew, int]:
    """Who makes the rows, and how many of them."""
    if places.ray is None:
        assert places.workers
        return Processes(RowTask(job)), places.workers
    threads = job.settings.engines.threads or 1
    needs = {"CPU": float(threads)} | ({"GPU": 1.0} if job.settings.device == "cuda" else {})
    cores = max(usable_cores(), threads * (places.workers or 1))
    session = RaySession(places.ray, cpus=cores, wants_gpu="GPU" in needs)
    task = RowTask(job, is_far=True, is_builtin=job.bundle.path == builtin_path())
    return RayActors(task, session, needs), places.workers or session.room(needs)
