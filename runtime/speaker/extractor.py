"""What tells numbers of the speaker from a picture, and how many."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

from pflx.engines import PflxError
from pflx.runtime.frames.arrays import Float32Array, UInt8Array

SIZES: Mapping[str, int] = {"coefficients": 58, "emotion": 25}
"""Numbers per frame of each need that an extractor gives."""


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

    def extract(self, picture: UInt8Array, frame: int) -> Float32Array | None:
        """float32 [size] of one frame; None where it does not look, or sees no face."""
        return None if frame % self._frames else self._extractor.extract(picture, frame)
