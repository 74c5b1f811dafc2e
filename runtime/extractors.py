"""Where the speaker's coefficients and emotion come from: a file, face landmarks, or a network of your own."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pflx.engines import PflxError
from pflx.runtime.frames.arrays import Float32Array, UInt8Array

log = logging.getLogger(__name__)


SIZES: Mapping[str, int] = {"coefficients": 58, "emotion": 25}
"""Numbers per frame of each need that an extractor gives."""

LANDMARKS = "landmarks"
"""What stands for `LandmarkExtractor` where a file could be named."""

_EVERY = re.compile(rf"{LANDMARKS}/([1-9]\d*)")
"""`landmarks/5`: the face is looked at in every fifth frame."""

RECORDED = (".npy", ".npz", ".csv")
"""Suffixes of files of numbers that were made before, whatever the speaker does now."""


class ExtractorError(PflxError, ValueError):
    """A file or network that cannot give what a generator reads of the speaker."""


class NeedError(PflxError, ValueError):
    """A generator reads something of the speaker that nothing gives."""


class Extractor(Protocol):
    """Anything that tells numbers of the speaker from a picture.

    It remembers nothing: equal pictures with equal numbers give equal results, in any order. One extractor serves one
    thread.
    """

    @property
    def size(self) -> int:
        """58 for coefficients with the mean face subtracted, 25 for emotion."""
        ...

    def extract(self, picture: UInt8Array, frame: int) -> Float32Array | None:
        """float32 [size] of one frame, or None if it shows no face: the stream then holds the last numbers.

        Args:
            picture: uint8 [H, W, 3] RGB, the speaker's whole frame.
            frame: its number at 25 fps on the speaker's media clock.
        """
        ...


class Recorded:
    """Numbers that were made before, one row for each frame of the clip. Past the end the last row is held.

    Args:
        values: [T, 58] coefficients with the mean face subtracted, or [T, 25] emotion, at 25 fps.

    Raises:
        ExtractorError: another shape, no rows, or values that are not finite.
    """

    def __init__(self, values: npt.ArrayLike) -> None:
        self._values = _checked(np.asarray(values), "The values", None)
        self._warned = False

    @property
    def size(self) -> int:
        """58 or 25."""
        return int(self._values.shape[1])

    @property
    def frames(self) -> int:
        """How many frames there are numbers for."""
        return len(self._values)

    def extract(self, picture: UInt8Array | None, frame: int) -> Float32Array:
        """float32 [size] of the frame; the picture does not matter."""
        if frame >= self.frames and not self._warned:
            log.warning("The recorded values end after %d frames; the last row is held from there on.", self.frames)
            self._warned = True
        return np.array(self._values[min(max(frame, 0), self.frames - 1)])


class Every:
    """Another extractor that looks at some frames only: between them the stream holds what it told.

    Args:
        extractor: the other one.
        frames: from one look to the next; it looks at the frames whose number is a multiple of it.

    Raises:
        ExtractorError: fewer than one frame.
    """

    def __init__(self, extractor: Extractor, frames: int) -> None:
        if frames < 1:
            raise ExtractorError(f"Every {frames} frames is never. Give 1 or more.")
        self._extractor, self._frames = extractor, frames
        self.size = extractor.size

    def extract(self, picture: UInt8Array, frame: int) -> Float32Array | None:
        """float32 [size] of one frame; None where it does not look, or sees no face."""
        return None if frame % self._frames else self._extractor.extract(picture, frame)


def read_recorded(path: str | Path, need: str, mean_face: npt.ArrayLike | None = None) -> Recorded:
    """Numbers from a file as the data sets ship them.

    Args:
        path: `.npy`, `.npz` (the array named as the need, or the only one), or `.csv` with or without a line of names;
            [T, n], or with one more axis of size 1.
        need: `coefficients` (n = 58, mean face included, as FaceVerse gives them and as `pflx run --coefficients`
            writes them) or `emotion` (n = 25).
        mean_face: [58], subtracted from coefficients; the bundle's (`manifest.mean_face.values`). None subtracts
            nothing.

    Raises:
        ExtractorError: the file cannot be read, or holds something else.
    """
    values = _checked(_loaded(Path(path), need), str(path), need)
    if need == "coefficients" and mean_face is not None:
        values = values - np.asarray(mean_face, np.float32)
    return Recorded(values)


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
        from pflx.runtime.landmarks import LandmarkExtractor

        extractor = LandmarkExtractor(mean_face)
        return Every(extractor, int(every[1])) if every else extractor
    kind = Path(text).suffix.lower()
    if kind in RECORDED:
        return read_recorded(text, need, mean_face)
    if kind == ".onnx":
        from pflx.runtime.regressor import OnnxExtractor

        return OnnxExtractor(text, need, mean_face)
    raise ExtractorError(f"'{text}' is no {need} source. Give {_ways(need)}.")


def source_name(text: str | Path) -> str:
    """What a report calls what a user named: a file by its name alone, landmarks as they are."""
    return str(text) if _EVERY.fullmatch(str(text)) else Path(text).name


def open_extractors(given: Mapping[str, Extractor | str | Path], mean_face: Sequence[float]) -> dict[str, Extractor]:
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
                f"in Python with extractors={{'{need}': …}}, give {_ways(need)}."
            )
        if extractors[need].size != SIZES[need]:
            raise NeedError(
                f"{generator} reads {SIZES[need]} numbers of {need}, the extractor gives {extractors[need].size}. "
                f"Give one of {SIZES[need]}."
            )


def _ways(need: str) -> str:
    network = f"your own network REGRESSOR.onnx (picture in, {SIZES[need]} numbers out)"
    if need == "coefficients":
        return f"a file of [T, 58] FILE.npy or .npz, '{LANDMARKS}' to tell them from face landmarks, or {network}"
    return f"a file of [T, 25] FILE.npy, .npz or .csv, {network}, or in Python any object with `size` and `extract`"


def _loaded(path: Path, need: str) -> npt.NDArray[Any]:
    try:
        if path.suffix.lower() == ".csv":
            return _table(path)
        opened = np.load(path, allow_pickle=False)
        if isinstance(opened, np.ndarray):
            return opened
        with opened as arrays:
            return np.asarray(arrays[_key(list(arrays.files), path, need)])
    except FileNotFoundError as error:
        raise ExtractorError(f"There is no file {path}. Check the path.") from error
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ExtractorError(f"{path} cannot be read ({_first_line(error)}).") from error
    except ValueError as error:
        if isinstance(error, ExtractorError):
            raise
        raise ExtractorError(f"{path} holds no plain numbers ({_first_line(error)}). Save float32.") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _table(path: Path) -> npt.NDArray[Any]:
    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    named = bool(lines) and any(not _is_number(cell) for cell in lines[0].split(","))
    rows = [[float(cell) for cell in line.split(",")] for line in lines[named:]]
    return np.array(rows, np.float32)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _key(keys: list[str], path: Path, need: str) -> str:
    if need in keys:
        return need
    if len(keys) == 1:
        return keys[0]
    raise ExtractorError(f"{path} holds {', '.join(keys) or 'no arrays'}, but no '{need}'. Name one of them so.")


def _checked(values: npt.NDArray[Any], source: str, need: str | None) -> Float32Array:
    """Float32 [T, n] of finite numbers, for the need if one is named."""
    if values.dtype.kind not in "fiu":
        raise ExtractorError(f"{source} holds {values.dtype}, no numbers. Save float32.")
    shape = list(values.shape)
    if values.ndim == 3 and 1 not in shape[:2]:
        fix = "Save one of them: values[0]."
        raise ExtractorError(f"{source} holds {shape}: {shape[0]} series of {shape[1]} frames, where one counts. {fix}")
    if values.ndim == 3:
        values = values.reshape(-1, shape[2])
    widths = [SIZES[need]] if need else sorted(SIZES.values())
    if values.ndim != 2 or values.shape[1] not in widths:
        wanted = " or ".join(f"[T, {width}]" for width in widths)
        raise ExtractorError(f"{source} holds {shape}, where {wanted} is read. Give one row for each frame.")
    if not len(values):
        raise ExtractorError(f"{source} holds {shape}: no frame at all. Give one row for each frame.")
    good = np.isfinite(values).all(axis=1)
    if not good.all():
        frame = int(np.argmin(good))
        raise ExtractorError(f"{source} holds values that are not finite, first in frame {frame}. Repair them first.")
    return np.array(values, np.float32)
