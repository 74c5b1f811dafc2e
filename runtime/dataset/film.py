"""Videos of a reaction to a clip, with the speaker's sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from pflx.engines import Array
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.timing import samples_per_frame
from pflx.runtime.media.clip import SpeakerFile
from pflx.runtime.media.pictures import fit_picture
from pflx.runtime.media.video_writer import VideoWriter


class Film:
    """The videos of a reaction: one per sample, or one with the speaker on the left. Opened before any work is done.

    Args:
        paths: of the videos.
        clip: of the speaker, whose sound they get.
        size: side of a frame in pixels.
        samples: reactions.
        side_by_side: whether all of them are in one video.
    """

    def __init__(self, paths: list[Path], clip: SpeakerFile, size: int, samples: int, side_by_side: bool) -> None:
        self._paths = paths
        self._clip, self._size, self._samples, self._side_by_side = clip, size, samples, side_by_side

    def __enter__(self) -> Self:
        with ExitStack() as opened:  # closes the first ones where a later one cannot be opened
            self._writers = [opened.enter_context(self._writer(path)) for path in self._paths]
            self._stack = opened.pop_all()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._stack.__exit__(*failure)

    def shoot(self, frames: Iterator[ListenerFrame], report: Callable[[str, int, int | None], None]) -> None:
        """Write every frame as it comes, with the speaker's sound.

        Args:
            frames: sample by sample within a frame.
            report: what is being done, frames done, frames in all.
        """
        for index, (picture, sound) in enumerate(_speaker_frames(self._clip)):
            reactions = [frame.image for frame in islice(frames, self._samples)]
            images = [self._beside(picture, reactions)] if self._side_by_side else reactions
            for writer, image in zip(self._writers, images, strict=True):
                writer.write(image[None])
                if self._clip.has_audio:
                    writer.write_audio(sound)
            report("rendering", index + 1, self._clip.frames)

    def _writer(self, path: Path) -> VideoWriter:
        width = self._size * (1 + self._samples) if self._side_by_side else self._size
        return VideoWriter(
            path,
            size=(width, self._size),
            audio=self._clip.has_audio,
            sample_rate_hz=self._clip.sample_rate_hz,
            generated=True,
        )

    def _beside(self, picture: Array, reactions: list[Array]) -> Array:
        """The speaker, fitted into a square, and every reaction to the right of it."""
        return np.concatenate([fit_picture(picture, (self._size, self._size)), *reactions], axis=1)


def _speaker_frames(clip: SpeakerFile) -> Iterator[tuple[Array, Array]]:
    """Picture and sound of every frame of the clip."""
    for chunk in clip.chunks():
        yield from zip(chunk.video, chunk.audio.reshape(-1, samples_per_frame(clip.sample_rate_hz)), strict=True)
