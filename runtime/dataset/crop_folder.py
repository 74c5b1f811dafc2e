"""Many clips cropped: which, where to, what is done already, and what came of each. Begin with `crop_clips`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pflx.engines import OutputError, PflxError
from pflx.engines.bundle.bundle import file_info
from pflx.engines.files.writer import clear_leftovers
from pflx.runtime.cluster.crew import Tell
from pflx.runtime.cluster.pool import Lost, in_turn, shared_out
from pflx.runtime.cluster.processes import Processes
from pflx.runtime.dataset.crop import RELEASED, CropError, CropSettings, crop_clip
from pflx.runtime.dataset.crop_record import (
    CropRecord,
    CropRow,
    CropSetup,
    add_rows,
    begin_index,
    read_record,
    record_of,
    row_of,
    write_record,
)
from pflx.runtime.media.clip import CLIPS, open_speaker
from pflx.runtime.speaker.faces import BlazeFace, FaceDetector

Progress: TypeAlias = Callable[[str, float, float | None], None]
"""What is being done, clips done and what is done of those that are under way, clips in all."""


@dataclass(frozen=True)
class CropJob:
    """A clip and the video to make of it.

    Attributes:
        source: the clip.
        video: where to, in the folder of crops.
        name: of the video, from that folder on.
    """

    source: Path
    video: Path
    name: str


@dataclass(frozen=True)
class CropTask:
    """How each clip is cropped. It is sent to other processes.

    Attributes:
        setup: what is asked for.
        detector: opens what finds the faces, in each process once.
        leave_out_outliers: make no videos of those.
        redo: also what is done already.
        is_alone: whether it may take all cores.
    """

    setup: CropSetup
    detector: Callable[[], FaceDetector]
    leave_out_outliers: bool
    redo: bool
    is_alone: bool

    @contextmanager
    def opened(self) -> Iterator[Callable[[CropJob, Tell], Cropping]]:
        """What crops one clip after the other."""
        if not self.is_alone:
            import cv2

            cv2.setNumThreads(1)
        detector = self.detector()
        yield lambda job, tell: self._crop(job, detector, tell)

    def _crop(self, job: CropJob, detector: FaceDetector, tell: Tell) -> Cropping:
        try:
            sha256 = _hash(job.source)
            found = None if self.redo else read_record(job.video)
            if found is not None and self._is_done(found, job, sha256):
                return Cropping(job.name, row_of(found), is_new=False)
            return Cropping(job.name, row_of(self._cropped(job, detector, sha256, tell)), is_new=True)
        except PflxError as error:
            return Cropping(job.name, CropRow(source=str(job.source), error=str(error)), is_new=True)

    def _is_done(self, record: CropRecord, job: CropJob, sha256: str) -> bool:
        wants_video = not (self.leave_out_outliers and record.outliers)
        return (record.setup, record.source_sha256) == (self.setup, sha256) and (
            job.video.is_file() if wants_video else record.video is None
        )

    def _cropped(self, job: CropJob, detector: FaceDetector, sha256: str, tell: Tell) -> CropRecord:
        clip = open_speaker(job.source).with_threads(1)
        if self.setup.duration_s is not None:
            clip = clip.limited(self.setup.duration_s)
        steps = 2 * max(1, clip.frames or 1)
        crop = crop_clip(clip, self.setup.crop, detector=detector, progress=lambda n: tell(n / steps))
        is_left_out = self.leave_out_outliers and bool(crop.outliers())
        try:
            job.video.parent.mkdir(parents=True, exist_ok=True)
            if is_left_out:
                job.video.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{job.video} cannot be written: {error.strerror}.") from error
        if not is_left_out:
            crop.write(job.video, progress=lambda n: tell(0.5 + n / steps))
        record = record_of(crop, self.setup, sha256, None if is_left_out else job.video.name)
        write_record(job.video, record)
        return record


@dataclass(frozen=True)
class Cropping:
    """What came of a clip.

    Attributes:
        name: of the video, from the folder of crops on.
        row: what the index says of it.
        is_new: whether it was cropped now, and not before.
    """

    name: str
    row: CropRow
    is_new: bool


def crop_clips(
    clips: Sequence[str | Path],
    folder: str | Path,
    settings: CropSettings = RELEASED,
    *,
    duration_s: float | None = None,
    workers: int = 1,
    leave_out_outliers: bool = False,
    redo: bool = False,
    detector: Callable[[], FaceDetector] | None = None,
    progress: Progress = lambda doing, done, total: None,
) -> list[Cropping]:
    """Crop clips, and all clips in folders, into a folder; what is done there already is left as it is.

    Of `a/b.mov` in a folder that is given, the folder gets `a/b.mp4` and, once that is there, `a/b.crop.json` (see
    `CropRecord`); at the end `crop.json` lists all (see `CropIndex`). A clip is done if it was cropped before with the
    same settings and has the same bytes. One that cannot be cropped is noted, and the others go on.

    Args:
        clips: files, and folders of them, searched to the bottom.
        folder: made if it is not there.
        settings: mode, window and size.
        duration_s: only the start of each clip.
        workers: processes side by side, each with one thread; 1 stays in this process.
        leave_out_outliers: make no videos of clips with outliers, and remove those that were made.
        redo: crop all, done or not, whatever the settings of before.
        detector: what opens a detector, a class say; several workers need one that can be pickled. None is `BlazeFace`.
        progress: told what is done, in clips.

    Returns:
        What came of each clip, in the order of `clips`.

    Raises:
        CropError: no clip, two that would become one video, no duration, or other settings than the folder's.
        WorkerError: a worker cannot begin.
        OutputError: the folder cannot be written, or holds something else.
    """
    if duration_s is not None and not 0 < duration_s < math.inf:
        raise CropError(f"A clip cannot be cut to {duration_s} s. Give a number above 0.")
    place = Path(folder)
    jobs = crop_jobs(clips, place)
    opens = detector or BlazeFace
    named: Any = getattr(opens, "func", opens)  # of a functools.partial
    setup = CropSetup(settings, f"{named.__module__}.{named.__qualname__}", duration_s)
    begin_index(place, setup, redo=redo)
    workers = min(workers, len(jobs))
    task = CropTask(setup, opens, leave_out_outliers, redo, is_alone=workers == 1)
    found = _cropped(task, jobs, workers, lambda done: progress("cropping", done, len(jobs)))
    add_rows(place, setup, {each.name: each.row for each in found})
    return found


def _cropped(task: CropTask, jobs: Sequence[CropJob], workers: int, tell: Callable[[float], None]) -> list[Cropping]:
    """What came of each clip, in the order of the jobs."""
    if workers == 1:
        return [found for _, found in in_turn(task, jobs, tell=tell)]
    cropped = shared_out(
        Processes(task),
        jobs,
        workers,
        name=lambda job: job.name,
        clear=lambda job: clear_leftovers(job.video.parent),
        tell=tell,
    )
    found = {}
    with closing(cropped):
        for job, each in cropped:
            row = CropRow(source=str(job.source), error=each.why) if isinstance(each, Lost) else None
            found[job.name] = each if row is None else Cropping(job.name, row, is_new=True)
    return [found[job.name] for job in jobs]


def crop_jobs(clips: Sequence[str | Path], folder: Path) -> list[CropJob]:
    """The clips that are meant, and what they become.

    Raises:
        CropError: see `crop_clips`.
    """
    jobs: dict[str, CropJob] = {}
    for source, root in _sources(clips, folder):
        name = source.relative_to(root).with_suffix(".mp4").as_posix()
        other = jobs.get(name)
        if other is None:
            jobs[name] = CropJob(source, folder / name, name)
        elif source.resolve() != other.source.resolve():
            raise CropError(
                f"{other.source} and {source} would both become {folder / name}. Rename one, or crop them into folders "
                "of their own."
            )
    if not jobs:
        raise CropError(f"There is no clip in {', '.join(map(str, clips))}. Give clips, or a folder of them.")
    return list(jobs.values())


def _sources(clips: Sequence[str | Path], folder: Path) -> Iterator[tuple[Path, Path]]:
    """Each clip with the folder that its name is told from."""
    own = folder.resolve()
    for path in map(Path, clips):
        if own == path.resolve() or (not path.is_dir() and own in path.resolve().parents):
            raise CropError(f"{path} lies where crops are written, {folder}. Choose another place for them.")
        if not path.is_dir():
            yield path, path.parent
            continue
        for each in sorted(path.rglob("*")):
            is_clip = each.suffix.lower() in CLIPS and not each.name.startswith(".") and each.is_file()
            if is_clip and own not in each.resolve().parents:
                yield each, path


def _hash(path: Path) -> str:
    try:
        return file_info(path).sha256
    except OSError:
        return ""  # whoever opens it as a clip says what is there instead
