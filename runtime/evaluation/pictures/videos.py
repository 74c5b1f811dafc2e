"""The videos that show a run: which they are, and their pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from threading import Event, Lock

from pflx.engines import Array, FeedError
from pflx.engines.graphs.threads import usable_cores
from pflx.runtime.evaluation.pictures.flicker import Steps, compare_pictures, summarise
from pflx.runtime.evaluation.predictions import InputError, Predictions
from pflx.runtime.evaluation.results import PictureFigures
from pflx.runtime.media.clip import SpeakerFile, open_speaker
from pflx.runtime.media.video_writer import numbered

Progress = Callable[[str, int, int | None], None]
"""What is being done, steps done, steps in all."""

WHOLE, BESIDE = "the whole picture", "the first reaction, right of the speaker"


def videos_of(place: Path, predictions: Predictions) -> list[Path]:
    """The videos of a run, in the order of its clips and reactions.

    Args:
        place: the video of a run of one clip; or the folder of those that `pflx batch --video` made. Where the
            predictions do not tell what their clips are called, all `.mp4` in it are taken, by name.
        predictions: of the run.

    Raises:
        FeedError: one video, but predictions of several clips.
        InputError: the folder holds another number of videos, or lacks some.
    """
    clips, samples, _ = predictions.shape
    if not place.is_dir():
        if clips > 1:
            raise FeedError(
                f"--video {place} is one clip, {predictions.path} holds {clips}. Give the folder of their videos."
            )
        return [place]
    if predictions.ids:
        named = (numbered(place / f"{name}.mp4", samples) for name in predictions.ids)
        wanted = list(chain.from_iterable(named))
        missing = [path for path in wanted if not path.is_file()]
        if missing:
            raise InputError(
                f"{place} lacks {len(missing)} of the {len(wanted)} videos of {predictions.path}, the first "
                f"{missing[0]}. Render them: pflx batch --video."
            )
        return wanted
    found = sorted(place.rglob("*.mp4"))
    if len(found) not in (clips, clips * samples):
        raise InputError(
            f"{place} holds {len(found)} videos (.mp4); {predictions.path} is of {clips} clips and {samples} reactions "
            "to each. Give the folder of its own videos."
        )
    return found


def judge_videos(
    place: Path, videos: Sequence[Path], predictions: Predictions, *, hop: int | None, progress: Progress
) -> PictureFigures:
    """Tell how steady the videos of a run are, as many at a time as there are cores.

    Args:
        place: for the result.
        videos: as `videos_of` has them.
        predictions: of the run.
        hop: frames of a segment; None where it is not known.
        progress: is called as work goes on.

    Raises:
        UndefinedError: fewer than two frames.
        MediaError: a video cannot be read.
        FeedError: it has another number of frames than the predictions.
    """
    frames, part = predictions.shape[2], WHOLE
    lock, stopped, done = Lock(), Event(), 0

    def steps_of(video: Path) -> Steps:
        nonlocal done, part
        pictures = Shown(video, predictions)
        part = pictures.part

        def counted() -> Iterator[Array]:
            nonlocal done
            for picture in pictures:
                if stopped.is_set():
                    return
                with lock:
                    done += 1
                progress("comparing pictures", done, frames * len(videos))
                yield picture

        return compare_pictures(counted())

    with ThreadPoolExecutor(min(len(videos), usable_cores())) as threads:
        try:
            steps = list(threads.map(steps_of, videos))
        finally:
            stopped.set()  # after an error, or Ctrl-C, nobody needs what the others are at
    return summarise(steps, hop=hop, path=str(place), part=part)


class Shown:
    """The pictures of a reaction in its video, one by one, uint8 [H, W, 3] RGB.

    Args:
        video: alone, or beside the speaker (`pflx run --side-by-side`), of which the first reaction is taken.
        predictions: of the run.

    Raises:
        MediaError: it cannot be read.
    """

    def __init__(self, video: Path, predictions: Predictions) -> None:
        _, samples, self._frames = predictions.shape
        self._predictions = predictions
        self._clip: SpeakerFile = open_speaker(video)
        height = self._clip.height
        beside = predictions.hop is not None and self._clip.width == height * (1 + samples)
        self._edges = slice(height, 2 * height) if beside else slice(None)
        self.part = BESIDE if beside else WHOLE
        self._video = video

    def __iter__(self) -> Iterator[Array]:
        """As many as were predicted.

        Raises:
            FeedError: at the end, if the video has another number.
        """
        shown = 0
        for picture in chain.from_iterable(chunk.video for chunk in self._clip.chunks()):
            shown += 1
            if shown > self._frames and self._predictions.ids:
                return  # of a clip whose first frames alone were collected
            yield picture[:, self._edges]
        if shown != self._frames:
            raise FeedError(
                f"{self._video} has {shown} frames, {self._predictions.path} has {self._frames}: not of one run."
            )
