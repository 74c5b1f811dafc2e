"""What tells numbers of the speaker from a picture, and how many."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from pflx.engines import PflxError
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.speaker.faces import bears_threads

SIZES: Mapping[str, int] = {"coefficients": 58, "emotion": 25}
"""Numbers per frame of each need that an extractor gives."""


Place: TypeAlias = npt.NDArray[np.float64]
"""float64 [4]: where an extractor saw the face, in its own terms."""
NOWHERE: Place = np.zeros(4)
"""No face was seen yet, or it was lost."""
NOWHERE.flags.writeable = False


class ExtractorError(PflxError, ValueError):
    """A file or network that cannot give what a generator reads of the speaker."""


class NeedError(PflxError, ValueError):
    """A generator reads something of the speaker that nothing gives."""


class Extractor(Protocol):
    """Anything that tells numbers of the speaker from a picture.

    It remembers nothing: equal pictures with equal numbers give equal results, in any order. One extractor serves one
    thread, unless it has an attribute `any_thread` that is true.
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


class FollowingExtractor(Extractor, Protocol):
    """An extractor that looks first where the face was the last time. What it remembers is handed to it and back."""

    def follow(self, picture: UInt8Array, frame: int, place: Place) -> tuple[Float32Array | None, Place]:
        """What `extract` returns, and where the face is now.

        Args:
            picture: see `extract`.
            frame: see `extract`.
            place: what the last call returned, or `NOWHERE`.
        """
        ...


def follow(extractor: Extractor, picture: UInt8Array, frame: int, place: Place) -> tuple[Float32Array | None, Place]:
    """See `FollowingExtractor.follow`; an extractor of another kind remembers nothing."""
    if hasattr(extractor, "follow"):  # asking a protocol takes longer than cropping a frame
        return cast(FollowingExtractor, extractor).follow(picture, frame, place)
    return extractor.extract(picture, frame), place


Extractors: TypeAlias = Mapping[str, Extractor | str | Path]
"""Need (`coefficients` or `emotion`) to what gives it: an extractor, or what `open_extractor` takes."""


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
        self.any_thread = bears_threads(extractor)

    def extract(self, picture: UInt8Array, frame: int) -> Float32Array | None:
        """float32 [size] of one frame; None where it does not look, or sees no face."""
        return None if frame % self._frames else self._extractor.extract(picture, frame)

    def follow(self, picture: UInt8Array, frame: int, place: Place) -> tuple[Float32Array | None, Place]:
        """See `FollowingExtractor.follow`: where it does not look, the place stays."""
        return (None, place) if frame % self._frames else follow(self._extractor, picture, frame, place)
