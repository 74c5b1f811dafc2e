"""A data set: rows that are not done yet are made, one by one or by several processes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pflx.engines import Bundle, FeedError, PflxError
from pflx.engines.files.writer import OutputError, OutputExistsError, write_whole
from pflx.runtime.builtin import builtin_bundle
from pflx.runtime.cluster.ray_session import check_address, require_ray
from pflx.runtime.dataset.maker import INDEX, Job
from pflx.runtime.dataset.row_task import Places, made_rows
from pflx.runtime.dataset.rows import Row, RowError, check_rows, shard_of
from pflx.runtime.dataset.seal import DatasetSettings, Seal, difference, read_seal, settings_seal
from pflx.runtime.frames.coefficients import check_lookahead, check_samples
from pflx.runtime.persons import read_person

_SCHEMA = 1


class SealError(OutputExistsError):
    """Rows are there that were made otherwise."""


@dataclass(frozen=True)
class RowResult:
    """What became of a row.

    Attributes:
        row: which.
        status: `made`; `there`, if it had been made before; or `failed`.
        file: of its coefficients.
        error: why it failed.
        done: rows so far, this one included.
        total: rows in all.
    """

    row: Row
    status: Literal["made", "there", "failed"]
    file: Path
    error: str | None
    done: int
    total: int


@dataclass(frozen=True)
class Index:
    """What a data set's folder is to hold.

    Attributes:
        rows: all of them, in order.
        seal: what they have in common.
    """

    rows: Sequence[Row]
    seal: Seal


def react_dataset(
    rows: Sequence[Row],
    folder: str | Path,
    *,
    bundle: str | Path | Bundle | None = None,
    portrait: str | Path | None = None,
    settings: DatasetSettings | None = None,
    workers: int | None = None,
    ray: str | None = None,
    shard: tuple[int, int] = (1, 1),
    redo: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[RowResult, None, None]:
    """React to many speakers: one file of coefficients for each row, and a video for each reaction if wanted.

    Every file is there whole or not at all, and holds what it was made with. A row that is done is not made again, so
    that the same call goes on where another one ended. What comes out does not depend on workers, shards, order or
    other rows. A row that cannot be made is noted in `ID.failed.json`, and tried again by the next call.

    With more than one worker, a script has to have its calls behind `if __name__ == "__main__":`, for each worker is a
    process that loads it again.

    Args:
        rows: of `read_rows` or `read_react`, or your own.
        folder: where `ID.npz` and `ID.mp4` or `ID-0.mp4` and so on are written; it is made.
        bundle: see `Listener.open`.
        portrait: of rows that have none; needed only where pictures are rendered.
        settings: how all rows are made.
        workers: processes, of which each has its share of the cores unless `settings.engines` says how many threads.
            None is one; with `ray`, as many as there is room for.
        ray: makes the workers actors of a Ray cluster: its HOST:PORT, "auto" for the one that this machine belongs to,
            or "local" for a Ray of its own here. Rows, bundle and folder have to lie where all nodes see them. See
            docs/datasets.md.
        shard: (i, n) makes rows i, i + n, i + 2n … alone, counted from 1, for n machines that share the folder.
        redo: make rows again that were made otherwise, instead of refusing.
        should_stop: asked between rows; once it says so, those that run are the last.

    Returns:
        Results as they come, those first that are there. Closed early, it drops the rows that run.

    Raises:
        RowError: there is no row, or ids that cannot be.
        FeedError: a setting out of range, no address of a cluster, or no portrait for a row.
        SealError: the folder holds rows that were made otherwise, or of other rows.
        OutputError: the folder cannot be written, or is of something else.
        BundleError, HubError: there is no such bundle.
        PersonError: the person cannot be read.
        BackendMissingError: Ray is asked for and not installed.
        ClusterError, WorkerError: later, by the results: nobody answers at the address; workers cannot work.
    """
    settings = settings or DatasetSettings()
    check_rows(rows)
    mine = shard_of(rows, *shard)
    places = Places(workers, ray)
    _check_settings(settings, places)
    opened = bundle if isinstance(bundle, Bundle) else builtin_bundle() if bundle is None else Bundle.open(bundle)
    person = None if settings.person is None else read_person(settings.person)
    settings = places.shared_among(replace(settings, person=person))
    seal = settings_seal(opened, settings)
    place = Path(folder)
    job = Job(
        folder=place,
        bundle=opened,
        portrait=None if portrait is None else Path(portrait),
        settings=settings,
        seal=seal,
    )
    if settings.video and job.portrait is None and (bare := next((row for row in rows if not row.portrait), None)):
        raise FeedError(f"Row '{bare.id}' has no portrait, and pictures are wanted. Give one for all rows, or for it.")
    _check_folder(place, rows, redo)
    there = [row for row in mine if _is_there(job, row, redo)]
    new = [path for path in (place / INDEX, place) if not path.exists()]
    _make_folder(place)
    write_whole(place / INDEX, _encoded(rows, seal))
    return _results(job, mine, there, places, should_stop, new)


def read_index(folder: Path) -> Index:
    """What a data set's folder is to hold.

    Raises:
        RowError: it is no such folder.
    """
    path = folder / INDEX
    try:
        found = json.loads(path.read_text())
        if found["schema"] != _SCHEMA:
            raise RowError(
                f"{path} is of schema {found['schema']}, this pflx reads {_SCHEMA}. Take the pflx that wrote it."
            )
        return Index([_decoded(row) for row in found["rows"]], dict(found["seal"]))
    except FileNotFoundError as error:
        raise RowError(f"{folder} has no {INDEX}. Give a folder that `pflx batch` wrote.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, RowError):
            raise
        raise RowError(f"{path} is damaged ({error}). Run `pflx batch` once more, which writes it anew.") from error


def _results(
    job: Job,
    rows: Sequence[Row],
    there: Sequence[Row],
    places: Places,
    should_stop: Callable[[], bool],
    new: Sequence[Path],
) -> Generator[RowResult, None, None]:
    known = {row.id for row in there}
    for done, row in enumerate(there, 1):
        yield RowResult(row, "there", job.place(row), None, done, len(rows))
    missing = [row for row in rows if row.id not in known]
    if not missing or should_stop():
        return
    made = made_rows(job, missing, places, should_stop)
    with _taken_back(job.folder, new):
        for done, (row, error) in enumerate(made, len(there) + 1):
            yield RowResult(row, "failed" if error else "made", job.place(row), error, done, len(rows))


@contextmanager
def _taken_back(folder: Path, new: Sequence[Path]) -> Iterator[None]:
    """After an error before the first row, nothing stays of a folder that was begun: neither index nor folder."""
    try:
        yield
    except PflxError:
        with suppress(OSError):
            if [path.name for path in folder.iterdir()] == [INDEX]:
                for path in new:
                    path.rmdir() if path.is_dir() else path.unlink()
        raise


def _is_there(job: Job, row: Row, redo: bool) -> bool:
    """Whether a row is done; one that was made otherwise is refused, or counts as not done."""
    found = read_seal(job.place(row))
    if found is None:
        return False
    otherwise = difference(found, job.row_seal(row))
    if otherwise is not None and not redo:
        raise SealError(
            f"{job.place(row)} {otherwise}. Choose another folder, or have what was made otherwise made again: --redo, "
            "in Python redo=True."
        )
    return otherwise is None and all(video.is_file() for video in job.videos(row))


def _check_settings(settings: DatasetSettings, places: Places) -> None:
    check_samples(settings.samples)
    places.check()
    check_lookahead(settings.lookahead)
    if settings.seed < 0:
        raise FeedError(f"seed is {settings.seed}; take 0 or more.")
    if settings.duration_s is not None and not 0 < settings.duration_s < math.inf:
        raise FeedError(f"A clip cannot be cut to {settings.duration_s} s. Give a number above 0.")
    if places.ray is not None:
        check_address(places.ray)
        require_ray()
        if settings.device not in ("cpu", "cuda"):
            raise FeedError(f"With ray, device is cpu or cuda, not {settings.device}: Ray deals out the GPUs.")


def _check_folder(folder: Path, rows: Sequence[Row], redo: bool) -> None:
    """Refuse a folder of something else, or of rows that are none of these."""
    try:
        if not any(not path.name.startswith(".") for path in folder.iterdir()):
            return
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{folder} is no folder that can be read: {error.strerror}. Choose another.") from error
    if not (folder / INDEX).is_file():
        raise OutputError(f"{folder} holds other files. Choose a new folder, or one that `pflx batch` wrote.")
    now = {row.id for row in rows}
    gone = [row.id for row in read_index(folder).rows if row.id not in now]
    if gone and not redo:
        raise SealError(
            f"{folder} is of {len(gone)} rows that are not among these, like '{gone[0]}'. Choose another folder, or "
            "take these rows in their place: --redo, in Python redo=True."
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"{folder} is a file. Choose another name.") from error
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made: {error.strerror}. Choose another place.") from error


def _encoded(rows: Sequence[Row], seal: Seal) -> bytes:
    listed = [{name: _plain(value) for name, value in vars(row).items() if value not in (None, ())} for row in rows]
    return json.dumps({"schema": _SCHEMA, "seal": seal, "rows": listed}, indent=1).encode("ascii") + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _decoded(row: Mapping[str, Any]) -> Row:
    paths = {name: Path(value) for name, value in row.items() if name not in ("id", "seed", "listener")}
    listener = tuple(map(Path, row.get("listener", ())))
    return Row(id=str(row["id"]), seed=row.get("seed"), listener=listener, **paths)
