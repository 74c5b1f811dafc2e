"""Finding faces in a frame, and watching over a stream whether the face is still there."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

from pflx.engines import Engine, OrtEngine, PflxError
from pflx.runtime.frames.arrays import Float32Array, UInt8Array

MODEL_PATH = Path(__file__).parent / "data" / "blazeface_short_range.onnx"
MODEL_SHA256 = "f3c5b51d1f4ada6f1136ec723a12bff6577b6245c7d11a05a827bf9c312e01e5"
SIDE = 128
"""Side in pixels of the square the network looks at."""


_OVERLAP = 0.3  # MediaPipe, face_detection.pbtxt: min_suppression_threshold
_FINE_SCORE = 0.85
_NEIGHBOUR_SCORE = 0.5  # candidates that count in a weighted box; MediaPipe min_score_thresh


class FrameError(PflxError, ValueError):
    """What was given is not an RGB frame."""


class DetectorFileError(PflxError, OSError):
    """The model file that comes with pflx is missing or was changed."""


@dataclass(frozen=True)
class Face:
    """One face in one frame.

    Attributes:
        box: x, y, width, height in pixels of the frame, inside the frame.
        score: the detector's confidence, 0..1.
    """

    box: tuple[float, float, float, float]
    score: float


class FaceDetector(Protocol):
    """Anything that finds faces. The same frame gives the same faces; nothing is remembered between calls.

    Any detector fits in a few lines; the released pipeline's Haar cascade, for one:

        class Haar:
            def __init__(self, cascade: str) -> None:
                self._cascade = cv2.CascadeClassifier(cascade)

            def detect(self, frame_rgb):
                grey = cv2.cvtColor(frame_rgb, cv2.COLOR_RGB2GRAY)
                boxes = self._cascade.detectMultiScale(grey, 1.1, 6, minSize=(60, 60))
                return [Face(tuple(map(float, box)), 1.0) for box in boxes]
    """

    def detect(self, frame_rgb: UInt8Array) -> list[Face]:
        """Faces in uint8 [H, W, 3] RGB, best first."""
        ...


def bears_threads(looks: object) -> bool:
    """Whether several threads may use a detector or extractor at once: by its attribute `any_thread`, if it has one."""
    return bool(getattr(looks, "any_thread", False))


class BlazeFace:
    """MediaPipe's short-range face detector on the CPU, one thread.

    The whole frame is looked at first. Only when that finds nothing, up to two finer looks follow:
    overlapping squares of the frame's shorter side, then of half of it (while a square has at least 128
    px), so that in a 1280x720 frame a face of 50 px is found. A frame without any face costs all of them,
    about 25 times the first look; one of a single colour, as of a speaker without a camera, costs none.

    Args:
        min_score: faces below are not reported. The finest look, with its many squares, asks for 0.85
            at least: small faces score higher, and what is no face reached 0.84 there.
        engine: runs the model; by default ONNX Runtime on the file that comes with pflx.

    Raises:
        DetectorFileError: the model file is missing or its SHA-256 is wrong.

    Source: BlazeFace (Bazarevsky et al., 2019); MediaPipe `face_detection_short_range` (Apache-2.0), its
    anchors and its weighted suppression.
    """

    def __init__(self, *, min_score: float = 0.7, engine: Engine | None = None) -> None:
        self._engine = engine if engine is not None else open_packaged(MODEL_PATH, MODEL_SHA256)
        self.any_thread = engine is None
        self._min_score = min_score

    def detect(self, frame_rgb: UInt8Array) -> list[Face]:
        """Faces in uint8 [H, W, 3] RGB, best first.

        Raises:
            FrameError: not such an array.
        """
        check_frame(frame_rgb)
        if _is_one_colour(frame_rgb):
            return []
        short, long = sorted(frame_rgb.shape[:2])
        looks = [
            (long, self._min_score),
            (short, self._min_score),
            (short // 2, max(self._min_score, _FINE_SCORE)),
        ]
        for side, min_score in looks:
            if side != long and side < SIDE:
                continue
            if faces := self._look(frame_rgb, side, min_score):
                return faces
        return []

    def _look(self, frame: UInt8Array, side: int, min_score: float) -> list[Face]:
        height, width = frame.shape[:2]
        corners = [(x, y) for y in _starts(height, side) for x in _starts(width, side)]
        found = self._engine.run({"images": np.stack([_square(frame, x, y, side) for x, y in corners])})
        candidates = found["scores"] >= min(_NEIGHBOUR_SCORE, min_score)
        boxes = found["boxes"][candidates] * np.float32(side / SIDE)
        boxes[:, :2] += np.array(corners, np.float32)[np.nonzero(candidates)[0]]
        merged = _merged(boxes, found["scores"][candidates], min_score)
        return [Face(_inside(box, width, height), score) for box, score in merged]


@cache
def open_packaged(path: Path, sha256: str) -> Engine:
    """A model that comes with pflx, on the CPU, one thread a call: one of it in a process, for all of its threads.

    Raises:
        DetectorFileError: the file is missing or its SHA-256 is wrong.
    """
    try:
        intact = hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    except OSError as error:
        raise DetectorFileError(f"Cannot read {path}: {error.strerror}. Reinstall pflx.") from error
    if not intact:
        raise DetectorFileError(f"{path} is not the file pflx was released with. Reinstall pflx.")
    return OrtEngine(path, threads=1, pooled=False)


def check_frame(frame: UInt8Array) -> None:
    """Refuse what is no picture.

    Raises:
        FrameError: not uint8 [H, W, 3].
    """
    shape, dtype = getattr(frame, "shape", None), getattr(frame, "dtype", type(frame).__name__)
    if shape is None or dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise FrameError(f"A frame is uint8 [H, W, 3] RGB, got {dtype} {list(shape or ())}. Convert it first.")


def _is_one_colour(frame: UInt8Array) -> bool:
    """Whether all pixels are the same; most pictures show in a few that they are not."""
    first = frame[0, 0]
    return bool((frame[::16, ::16] == first).all() and (frame == first).all())


def _starts(length: int, side: int) -> list[int]:
    """Where squares of `side` begin to cover 0..length, overlapping by half; negative for a larger square."""
    if length <= side:
        return [-((side - length) // 2)]
    steps = math.ceil((length - side) / (side / 2))
    return [round(i * (length - side) / steps) for i in range(steps + 1)]


def _square(frame: UInt8Array, x: int, y: int, side: int) -> UInt8Array:
    """The square at (x, y), black where it leaves the frame, scaled to uint8 [128, 128, 3]."""
    import cv2

    cut = frame[max(0, y) : y + side, max(0, x) : x + side]
    offset_x, offset_y = max(0, -x) * SIDE // side, max(0, -y) * SIDE // side
    width = min(SIDE - offset_x, max(1, round(cut.shape[1] * SIDE / side)))
    height = min(SIDE - offset_y, max(1, round(cut.shape[0] * SIDE / side)))
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    smaller = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
    scaled = cv2.resize(cut, (width, height), interpolation=smaller)
    square[offset_y : offset_y + height, offset_x : offset_x + width] = scaled
    return square


def _merged(boxes: Float32Array, scores: Float32Array, min_score: float) -> list[tuple[Float32Array, float]]:
    """Weighted suppression: each best box becomes the score-weighted mean of those that overlap it."""
    merged = []
    order = np.argsort(-scores, kind="stable")
    while len(order) and scores[order[0]] >= min_score:
        near = _overlap(boxes[order[0]], boxes[order]) > _OVERLAP
        near[0] = True
        group = order[near]
        mean = np.average(boxes[group], axis=0, weights=scores[group]).astype(np.float32)
        merged.append((mean, float(scores[order[0]])))
        order = order[~near]
    return merged


def _overlap(box: Float32Array, boxes: Float32Array) -> Float32Array:
    """Intersection over union of one box with each of [N, 4]."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    union = box[2] * box[3] + boxes[:, 2] * boxes[:, 3] - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float32).tiny), np.float32)


def _inside(box: Float32Array, width: int, height: int) -> tuple[float, float, float, float]:
    left, right = np.clip([box[0], box[0] + box[2]], 0, width).tolist()
    top, bottom = np.clip([box[1], box[1] + box[3]], 0, height).tolist()
    return left, top, right - left, bottom - top
