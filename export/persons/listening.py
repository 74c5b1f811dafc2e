"""How somebody listens: coefficients of half a minute, from a file or found in a clip as a live session finds them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pflx.engines import Manifest
from pflx.export.errors import PersonalisationError
from pflx.runtime.frames.arrays import Float32Array
from pflx.runtime.media.clip import SpeakerFile, speaker_for
from pflx.runtime.speaker.extractor import NOWHERE, Every, Extractor, follow
from pflx.runtime.speaker.extractors import open_extractor, source_name
from pflx.runtime.speaker.recorded import Recorded

log = logging.getLogger(__name__)

USUAL = 750
"""Frames that the person encoder was trained with: the first 30 s of a clip. What comes after them is not read."""
LEAST = 250
"""Frames below which a style says more of the length of a clip than of the person in it."""


@dataclass(frozen=True)
class Listening:
    """What a person is made of.

    Attributes:
        coefficients: float32 [T, 58] at 25 fps, mean face subtracted; T is 250 to 750.
        source: what they are from, for the record.

    Raises:
        PersonalisationError: fewer frames.
    """

    coefficients: Float32Array
    source: str

    def __post_init__(self) -> None:
        if (frames := len(self.coefficients)) < LEAST:
            raise PersonalisationError(
                f"{self.source} has {frames} frames of a listener, {frames / 25:.1f} s; {LEAST} are the least, and "
                f"{USUAL} (30 s at 25 fps) are what the person encoder was trained with. Give a longer clip."
            )


def read_listening(path: Path, manifest: Manifest) -> Listening:
    """The coefficients of a listener in a file; what `pflx run --coefficients` takes and writes.

    Args:
        path: `.npy`, `.npz` or `.csv`, [T, 58] at 25 fps, mean face included.
        manifest: of the bundle; its mean face is subtracted.

    Raises:
        ExtractorError: the file cannot be read, or holds something else.
        PersonalisationError: fewer than 250 frames.
    """
    recorded = open_extractor(path, "coefficients", manifest.mean_face.values)
    if not isinstance(recorded, Recorded):
        raise PersonalisationError(f"{path} holds no coefficients. Give a .npy, .npz or .csv, or a clip with --clip.")
    rows = [recorded.extract(None, frame) for frame in range(min(recorded.frames, USUAL))]
    return _told(Listening(np.stack(rows), path.name))


def watch_listening(
    path: Path, by: str, manifest: Manifest, tell: Callable[[str, int, int], None] = lambda _, __, ___: None
) -> Listening:
    """The coefficients of a listener in a clip, from the first frame that shows a face.

    Args:
        path: a clip of the listener.
        by: what finds them: `landmarks`, or the path of a network; see `open_extractor`.
        manifest: of the bundle, whose mean face and pixels count.
        tell: told how far it is.

    Raises:
        MediaError: the clip cannot be read.
        ExtractorError: nothing that finds coefficients in pictures.
        PersonalisationError: no face, or fewer than 250 frames since the first.
    """
    extractor = open_extractor(by, "coefficients", manifest.mean_face.values)
    if isinstance(extractor, Recorded):
        raise PersonalisationError(
            f"{by} holds coefficients already. Leave out --clip, or name what finds them in it: landmarks, or an ONNX "
            "regressor."
        )
    clip = speaker_for(path, manifest)
    if not clip.has_pictures:
        raise PersonalisationError(f"{path} holds sound alone. Give a clip that shows the listener.")
    rows, held = _watch(clip, extractor, lambda frames: tell("looking at the listener", frames, USUAL))
    if not rows:
        raise PersonalisationError(f"{path} shows no face. Give a clip that shows the listener's.")
    if held and not isinstance(extractor, Every):
        log.warning("%s shows no face in %d of %d frames: the last numbers are held.", path, held, len(rows))
    return _told(Listening(np.stack(rows), f"{path.name} by {source_name(by)}"))


def _watch(clip: SpeakerFile, extractor: Extractor, tell: Callable[[int], None]) -> tuple[list[Float32Array], int]:
    """Coefficients from the first face on, and how often there was none since."""
    rows: list[Float32Array] = []
    held, place, frame = 0, NOWHERE, 0
    for chunk in clip.chunks():
        for picture in chunk.video:
            numbers, place = follow(extractor, picture, frame, place)
            frame += 1
            if numbers is not None:
                rows.append(np.asarray(numbers, np.float32))
            elif rows:
                rows.append(rows[-1])
                held += 1
            if len(rows) == USUAL:
                return rows, held
        tell(len(rows))
    return rows, held


def _told(listening: Listening) -> Listening:
    """The same, with a warning where it is short."""
    if (frames := len(listening.coefficients)) < USUAL:
        log.warning(
            "%s has %d frames of a listener. The person encoder was trained with %d, and fewer of the same person "
            "give another style.",
            listening.source,
            frames,
            USUAL,
        )
    return listening
