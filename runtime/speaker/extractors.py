"""Where the speaker's coefficients and emotion come from: a file, face landmarks, or a network of your own."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy.typing as npt

from pflx.engines import FeedError
from pflx.runtime.frames.timing import FPS
from pflx.runtime.media.clip import SpeakerFile
from pflx.runtime.speaker.extractor import SIZES, Every, Extractor, ExtractorError, Extractors, NeedError
from pflx.runtime.speaker.landmarks import LandmarkExtractor
from pflx.runtime.speaker.recorded import RECORDED, Recorded, read_recorded
from pflx.runtime.speaker.regressor import OnnxExtractor

log = logging.getLogger(__name__)

LANDMARKS = "landmarks"
"""What stands for `LandmarkExtractor` where a file could be named."""

_EVERY = re.compile(rf"{LANDMARKS}/([1-9]\d*)")
"""`landmarks/5`: the face is looked at in every fifth frame."""


def open_extractor(text: str | Path, need: str, mean_face: npt.ArrayLike) -> Extractor:
    """What a user named: `landmarks`, a file of numbers, or a network.

    Args:
        text: `landmarks` (for coefficients; `landmarks/5` looks at every fifth frame only), a `.npy`, `.npz` or `.csv`
            for `read_recorded`, or an `.onnx` for `OnnxExtractor`.
        need: `coefficients` or `emotion`.
        mean_face: [58], the bundle's.

    Raises:
        ExtractorError: none of these, or one that does not fit.
        EngineError: a graph that cannot be loaded.
    """
    every = _EVERY.fullmatch(str(text))
    if every or str(text) == LANDMARKS:
        if need != "coefficients":
            raise ExtractorError(f"Landmarks give coefficients, no {need}. Give a file or an ONNX regressor.")
        extractor = LandmarkExtractor(mean_face)
        return Every(extractor, int(every[1])) if every else extractor
    kind = Path(text).suffix.lower()
    if kind in RECORDED:
        return read_recorded(text, need, mean_face)
    if kind == ".onnx":
        return OnnxExtractor(text, need, mean_face)
    raise ExtractorError(f"'{text}' is no {need} source. Give {_ways(need)}.")


def source_name(text: str | Path) -> str:
    """What a report calls what a user named: a file by its name alone, landmarks as they are."""
    return str(text) if _EVERY.fullmatch(str(text)) else Path(text).name


def open_extractors(given: Extractors, mean_face: Sequence[float]) -> dict[str, Extractor]:
    """The same with all opened that are named by a file or a word; see `open_extractor`."""
    return {
        need: open_extractor(each, need, mean_face) if isinstance(each, str | Path) else each
        for need, each in given.items()
    }


def require_needs(generator: str, needs: Sequence[str], extractors: Mapping[str, Extractor]) -> None:
    """Check that everything a generator reads of the speaker is given.

    Args:
        generator: its name, for the message.
        needs: what it reads, pictures and sound included.
        extractors: what is given, by need.

    Raises:
        NeedError: something is missing, or an extractor gives another number of values.
    """
    for need in (need for need in needs if need in SIZES):
        if need not in extractors:
            raise NeedError(
                f"{generator} reads the speaker's {need}, and there is no source of {need}. With --speaker-{need}, or "
                f"in Python with SpeakerSettings(extractors={{'{need}': …}}), give {_ways(need)}."
            )
        if extractors[need].size != SIZES[need]:
            raise NeedError(
                f"{generator} reads {SIZES[need]} numbers of {need}, the extractor gives {extractors[need].size}. "
                f"Give one of {SIZES[need]}."
            )


def check_voice_alone(
    generator: str,
    needs: Sequence[str],
    extractors: Mapping[str, Extractor],
    dispensable: Collection[str],
    clip: Path,
) -> None:
    """Check that a generator can do without pictures of the speaker: that all it reads is heard, or recorded.

    A note says then that nobody is seen.

    Args:
        generator: its name, for the message.
        needs: what it reads, pictures and sound included.
        extractors: what is given, by need.
        dispensable: needs that it can do without.
        clip: of sound alone, for the message.

    Raises:
        NeedError: it reads pictures, or something told from them.
    """
    recorded = {need for need, extractor in extractors.items() if isinstance(extractor, Recorded)}
    for need in needs:
        if need == "video" or (need in SIZES and need not in recorded and need not in dispensable):
            what = "pictures" if need == "video" else need
            raise NeedError(
                f"{generator} reads the speaker's {what}, and {clip} holds sound alone. Give a clip that shows the "
                "speaker."
            )
    log.warning("%s holds sound and no pictures: a speaker whom nobody sees.", clip)


def check_clip(
    generator: str,
    needs: Sequence[str],
    extractors: Mapping[str, Extractor],
    dispensable: Collection[str],
    clip: SpeakerFile,
    *,
    is_live: bool,
) -> None:
    """Check that a clip has what a generator reads, and that recorded numbers last as long.

    Args:
        generator: its name, for the message.
        needs: what it reads, pictures and sound included.
        extractors: what is given, by need.
        dispensable: needs that it can do without.
        clip: of the speaker.
        is_live: whether it is played as long as somebody likes; the last numbers are held then.

    Raises:
        NeedError: see `check_voice_alone`.
        FeedError: see `check_recorded`.
    """
    if not clip.has_pictures:
        check_voice_alone(generator, needs, extractors, dispensable, clip.path)
    if not is_live and clip.frames is not None:
        check_recorded(extractors, clip.frames)


def check_recorded(extractors: Mapping[str, Extractor], frames: int) -> None:
    """Check that what was recorded is of so many frames, or of one less, as rounding makes of a clip's end.

    Raises:
        FeedError: there is less.
    """
    for need, extractor in extractors.items():
        if isinstance(extractor, Recorded) and extractor.frames < frames - 1:
            raise FeedError(
                f"The speaker's {need} are recorded for {extractor.frames} frames, and the clip has {frames}. "
                f"Give those of this clip at {FPS} fps, or cut the clip."
            )


def _ways(need: str) -> str:
    network = f"your own network REGRESSOR.onnx (picture in, {SIZES[need]} numbers out)"
    if need == "coefficients":
        return f"a file of [T, 58] FILE.npy or .npz, '{LANDMARKS}' to tell them from face landmarks, or {network}"
    return f"a file of [T, 25] FILE.npy, .npz or .csv, {network}, or in Python any object with `size` and `extract`"
