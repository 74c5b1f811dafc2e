"""What looks at speakers for several sessions at once, made safe where it is not by itself."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TypeAlias

from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.speaker.extractor import Extractor, Place, follow
from pflx.runtime.speaker.faces import Face, FaceDetector, bears_threads

Lock: TypeAlias = AbstractContextManager[object]


def safe_extractor(extractor: Extractor, lock: Lock) -> Extractor:
    """The same for several threads; one that does not bear them is used by one at a time, under the lock."""
    return extractor if bears_threads(extractor) else _OneExtractor(extractor, lock)


def safe_detector(detector: FaceDetector, lock: Lock) -> FaceDetector:
    """Likewise."""
    return detector if bears_threads(detector) else _OneDetector(detector, lock)


class _OneExtractor:
    any_thread = True

    def __init__(self, extractor: Extractor, lock: Lock) -> None:
        self._extractor, self._lock = extractor, lock
        self.size = extractor.size

    def extract(self, picture: UInt8Array, frame: int) -> Float32Array | None:
        with self._lock:
            return self._extractor.extract(picture, frame)

    def follow(self, picture: UInt8Array, frame: int, place: Place) -> tuple[Float32Array | None, Place]:
        with self._lock:
            return follow(self._extractor, picture, frame, place)


class _OneDetector:
    any_thread = True

    def __init__(self, detector: FaceDetector, lock: Lock) -> None:
        self._detector, self._lock = detector, lock

    def detect(self, frame_rgb: UInt8Array) -> list[Face]:
        with self._lock:
            return self._detector.detect(frame_rgb)
