"""A whole clip cropped as PFL does before training: where the face is, the region of that, the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pflx.engines import PflxError
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.media.clip import SpeakerFile, open_speaker
from pflx.runtime.media.decoder import opened
from pflx.runtime.media.video_writer import VideoWriter
from pflx.runtime.speaker.face_track import LOST_AFTER_FRAMES
from pflx.runtime.speaker.faces import BlazeFace, FaceDetector
from pflx.runtime.speaker.landmarks import FaceMesh
from pflx.runtime.speaker.pfl import (
    Box,
    CropMode,
    Region,
    centre_square,
    choose_released,
    crop,
    fixed_region,
    floating_region,
)

SEVERAL_SHARE = 0.1
"""From this share of frames with more than one face on, the clip counts as one of several faces."""

MOST_WINDOW, MOST_SIZE = 8192, 4096
"""Sides in pixels; larger ones are larger than clips are, and take gigabytes."""

_AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""Of those that AAC holds, the multiples of 25. Source: ISO/IEC 14496-3, table 1.18."""


class CropError(PflxError, ValueError):
    """Something that cannot be cropped, or not like this."""


@dataclass(frozen=True)
class CropSettings:
    """How clips are cropped.

    Attributes:
        pfl: `release` or `paper`, one region for the whole clip, see `fixed_region`; `floating`, one around the nose in
            each frame, see `floating_region`.
        window: side of the region in pixels of the clip; the largest side for `paper`.
        padding: pixels around the mean box (`release` only).
        size: side of the pictures that are made.
        square_pixels: whether pixels of a clip that are not square are made so first; else they are taken as they are
            stored, as OpenCV does.

    Raises:
        CropError: no such mode, or a size that no picture has.
    """

    pfl: CropMode = "release"
    window: int = 256
    padding: int = 20
    size: int = 256
    square_pixels: bool = True

    def __post_init__(self) -> None:
        if self.pfl not in get_args(CropMode):
            raise CropError(f"pfl is '{self.pfl}'; give one of {', '.join(get_args(CropMode))}.")
        limits = {"window": (1, MOST_WINDOW), "size": (16, MOST_SIZE), "padding": (0, MOST_WINDOW)}
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                raise CropError(f"{name} is {getattr(self, name)}; give {least} to {most} pixels.")


RELEASED = CropSettings()
"""What the public training data was cut with."""


@dataclass(frozen=True)
class ClipCrop:
    """A clip, and what is cropped out of it. Iterating gives the pictures, uint8 [size, size, 3] RGB at 25 fps.

    The clip is read anew each time; nothing of its pictures is kept.

    Attributes:
        clip: as it was read.
        settings: of the crop.
        boxes: x, y, width, height in pixels of the face that is followed; None in a frame without any. One for each
            frame at 25 fps.
        faces: how many were found in each frame.
        regions: one for the whole clip, or one for each frame (`floating`).
    """

    clip: SpeakerFile
    settings: CropSettings
    boxes: tuple[Box | None, ...]
    faces: tuple[int, ...]
    regions: tuple[Region, ...]

    @property
    def frames(self) -> int:
        """How many frames the clip has at 25 fps."""
        return len(self.boxes)

    @property
    def region(self) -> Region | None:
        """The one region of the clip; None if it floats."""
        return None if self.settings.pfl == "floating" else self.regions[0]

    def __iter__(self) -> Iterator[UInt8Array]:
        for pictures, _ in self.chunks():
            yield from pictures

    def chunks(self) -> Iterator[tuple[UInt8Array, Float32Array]]:
        """Pictures uint8 [T, size, size, 3], and the sound that belongs to them as the clip gives it, float32 [N].

        Raises:
            MediaError: the file is gone, or is another one by now.
        """
        done = 0
        for chunk in self.clip.chunks():
            yield self._cut(chunk.video, done), chunk.audio
            done += len(chunk.video)

    def outliers(self) -> tuple[str, ...]:
        """What is not as in a clip of one face that is there throughout; nothing for most clips.

        - `no face`: in no frame;
        - `face lost`: for 2 s or longer;
        - `several faces`: in a tenth of the frames or more;
        - `face larger than the window`, on average;
        - `window larger than the frame`;
        - `region leaves the frame`: border pixels are repeated there (`release`, in the cases above).
        """
        found = [box for box in self.boxes if box is not None]
        frame = (self.clip.width, self.clip.height)
        sides = np.array([box[2:] for box in found]).reshape(-1, 2)
        told = {
            "no face": not found,
            "face lost": bool(found) and _longest_gap(self.boxes) >= LOST_AFTER_FRAMES,
            "several faces": sum(count > 1 for count in self.faces) >= SEVERAL_SHARE * self.frames,
            "face larger than the window": bool(found) and sides.mean(axis=0).max() > self.settings.window,
            "window larger than the frame": self.settings.window > min(frame),
            "region leaves the frame": self.region is not None and not _is_inside(self.region, frame),
        }
        return tuple(name for name, holds in told.items() if holds)

    def write(self, path: str | Path, progress: Callable[[int], None] | None = None) -> None:
        """Write the pictures and the clip's sound as an MP4, whole or not at all; see `VideoWriter`.

        The sound is mono, at the clip's own rate if AAC holds it, and stays where it is: the first picture is at 0 s,
        and with it what is heard then.

        Args:
            path: where to; the suffix must be .mp4.
            progress: called with the number of frames written so far.

        Raises:
            CropError: it is the clip itself.
            MediaError: the clip cannot be read any more, or the file not be written.
        """
        if Path(path).exists() and Path(path).samefile(self.clip.path):
            raise CropError(f"{path} is the clip that is cropped, which would be replaced. Choose another place.")
        clip = self.clip.at_rate(_sound_rate(self.clip))
        sized = ClipCrop(clip, self.settings, self.boxes, self.faces, self.regions)
        size, done = (self.settings.size, self.settings.size), 0
        with VideoWriter(path, size, audio=clip.has_audio, sample_rate_hz=clip.sample_rate_hz, threads=1) as writer:
            for pictures, sound in sized.chunks():
                writer.write(pictures)
                if clip.has_audio:
                    writer.write_audio(sound)
                done += len(pictures)
                if progress:
                    progress(done)

    def _cut(self, video: UInt8Array, first: int) -> UInt8Array:
        if self.region is not None:
            return crop(video, self.region, self.settings.size)
        regions = self.regions[first : first + len(video)]
        if len(regions) < len(video):
            raise CropError(f"{self.clip.path} has more frames than when its faces were found. Crop it again.")
        cut = [crop(frame[None], region, self.settings.size) for frame, region in zip(video, regions, strict=True)]
        return np.concatenate(cut)


def crop_clip(
    clip: SpeakerFile | str | Path,
    settings: CropSettings = RELEASED,
    *,
    detector: FaceDetector | None = None,
    progress: Callable[[int], None] | None = None,
) -> ClipCrop:
    """Find the region of a clip: its first reading. The crop that is returned reads it again for the pictures.

    Which of several faces is followed, and what is done without any, is as in the released code (`track_boxes`), to the
    pixel, whatever the mode; so modes differ in nothing but the region. A session of a listener is more careful
    (`session_region`): it begins with the largest face, and fits the window to face and frame.

    Without any face the region is (0, 0, window, window) for `release`, as in the released code, and else the square in
    the middle. A nose that is not found stays where it was.

    Args:
        clip: with pictures; of a `SpeakerFile` that is `limited`, its start.
        settings: mode, window and size.
        detector: finds the faces; by default `BlazeFace`.
        progress: called with the number of frames searched so far.

    Raises:
        CropError: the clip has no pictures.
        MediaError, MediaMemoryError: it cannot be read.

    Source: PFL, Eq. 7-8; PFLPosNet, `PFL/`.
    """
    opened_clip = clip if isinstance(clip, SpeakerFile) else open_speaker(clip)
    opened_clip = opened_clip.with_pixels(square=settings.square_pixels)
    if not opened_clip.has_pictures:
        raise CropError(f"{opened_clip.path} holds sound and no pictures. Give a clip that shows the speaker.")
    search = _Search(detector or BlazeFace(), FaceMesh() if settings.pfl == "floating" else None)
    looks = search.all_of(opened_clip, progress)
    boxes = tuple(look.box for look in looks)
    return ClipCrop(
        clip=opened_clip,
        settings=settings,
        boxes=boxes,
        faces=tuple(look.faces for look in looks),
        regions=_regions(boxes, [look.nose for look in looks], (opened_clip.width, opened_clip.height), settings),
    )


@dataclass(frozen=True)
class _Look:
    """What was seen in one frame."""

    box: Box | None
    faces: int
    nose: tuple[float, float] | None


class _Search:
    """Looks for the face in every frame; for its nose, where there is a mesh."""

    def __init__(self, detector: FaceDetector, mesh: FaceMesh | None) -> None:
        self._detector, self._mesh = detector, mesh

    def all_of(self, clip: SpeakerFile, progress: Callable[[int], None] | None) -> list[_Look]:
        """What is seen in each frame at 25 fps; a picture that is shown again is not looked at again."""
        looks: list[_Look] = []
        shown: UInt8Array | None = None
        previous: Box | None = None
        for chunk in clip.chunks():
            for picture in chunk.video:
                again = shown is not None and np.array_equal(picture, shown)
                looks.append(looks[-1] if again else self._look(picture, previous, len(looks)))
                shown, previous = picture, looks[-1].box or previous
                if progress:
                    progress(len(looks))
        return looks

    def _look(self, picture: UInt8Array, previous: Box | None, index: int) -> _Look:
        boxes = [face.box for face in self._detector.detect(picture) if np.isfinite(face.box).all()]
        box = choose_released(boxes, previous, index)
        nose = None if self._mesh is None or box is None else self._mesh.nose_in(picture, box)
        return _Look(box, len(boxes), nose)


def _regions(
    boxes: tuple[Box | None, ...],
    noses: list[tuple[float, float] | None],
    frame: tuple[int, int],
    settings: CropSettings,
) -> tuple[Region, ...]:
    if settings.pfl != "floating":
        found = [box for box in boxes if box is not None]
        return (fixed_region(found, frame, settings.pfl, settings.window, settings.padding),)
    nose = next((each for each in noses if each is not None), None)
    if nose is None:
        return (centre_square(frame, settings.window),) * len(boxes)
    regions = []
    for each in noses:
        nose = each or nose
        regions.append(floating_region(nose, settings.window))
    return tuple(regions)


def _longest_gap(boxes: tuple[Box | None, ...]) -> int:
    """Frames of the longest stretch without the face."""
    runs = groupby(boxes, key=lambda box: box is None)
    return max((sum(1 for _ in run) for missing, run in runs if missing), default=0)


def _is_inside(region: Region, frame: tuple[int, int]) -> bool:
    return region.left >= 0 and region.top >= 0 and region.right <= frame[0] and region.bottom <= frame[1]


def _sound_rate(clip: SpeakerFile) -> int:
    """The clip's own, if it can be written; else 48 kHz."""
    if clip.audio is None:
        return clip.sample_rate_hz
    with opened(clip.path) as container:
        context: Any = container.streams[clip.audio.index].codec_context
        rate: int = context.sample_rate
    return rate if rate in _AAC_RATES_HZ else 48_000
