"""Numbers of the speaker that were made before: read from a file, one row for each frame."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pflx.engines.files.array_file import read_arrays
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.speaker.extractor import SIZES, ExtractorError

log = logging.getLogger(__name__)


RECORDED = (".npy", ".npz", ".csv")
"""Suffixes of files of numbers that were made before, whatever the speaker does now."""


class Recorded:
    """Numbers that were made before, one row for each frame of the clip. Past the end the last row is held.

    Args:
        values: [T, 58] coefficients with the mean face subtracted, or [T, 25] emotion, at 25 fps.

    Raises:
        ExtractorError: another shape, no rows, or values that are not finite.
    """

    any_thread = True

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


def _loaded(path: Path, need: str) -> npt.NDArray[Any]:
    arrays = read_arrays(path, ExtractorError)
    return arrays[_key([*arrays], path, need)]


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
