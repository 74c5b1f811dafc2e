"""Coefficients or emotion by a network of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pflx.engines import Engine, OrtEngine, TensorSpec
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.speaker.extractor import SIZES, ExtractorError
from pflx.runtime.speaker.face_track import find_face
from pflx.runtime.speaker.faces import BlazeFace, FaceDetector, bears_threads
from pflx.runtime.speaker.pfl import Box

WIDER = 1.3
"""Side of the square that the network sees, over the longer side of the face's box. Source: FaceVerse v4."""
DEFAULT_SIDE = 224
"""Side in pixels of the square where the graph leaves it open."""


class OnnxExtractor:
    """A regressor in an ONNX file: a picture of the face in, raw numbers out.

    The largest face that the detector finds is cut out as a square, 1.3 times the longer side of its box around the
    box's middle, black where it leaves the picture, and scaled to what the graph takes. The graph itself says which:

    | one input | the square, RGB |
    |---|---|
    | uint8 [1, H, W, 3] or [1, 3, H, W] | 0…255 |
    | float32 [1, H, W, 3] or [1, 3, H, W] | value / 127.5 - 1, from -1 to 1 |

    Other scales belong into the graph, as a Mul and an Add before the first layer. A named first axis is the batch and
    gets 1; named H and W get 224. One output, float32, of [1, n] or [n]: coefficients with the mean face included, as
    FaceVerse gives them, or emotion.

    Args:
        path: the graph.
        need: `coefficients` (n = 58) or `emotion` (n = 25).
        mean_face: [58], the bundle's; subtracted from coefficients.
        detector: finds the face; by default `BlazeFace`.
        threads: CPU threads of the graph.
        engine: runs the graph in place of ONNX Runtime on `path`.

    Raises:
        ExtractorError: the graph has other inputs or outputs.
        EngineError: it cannot be loaded.
    """

    def __init__(
        self,
        path: str | Path,
        need: str,
        mean_face: npt.ArrayLike | None = None,
        *,
        detector: FaceDetector | None = None,
        threads: int = 1,
        engine: Engine | None = None,
    ) -> None:
        self.size = SIZES[need]
        self._engine = engine if engine is not None else OrtEngine(path, threads=threads)
        self._input, self._spec = _only("input", self._engine.inputs, str(path))
        self._output, _ = _only("output", self._engine.outputs, str(path))
        self._first, self._target = _layout(self._spec, str(path))
        self._check_output(str(path))
        subtracts = need == "coefficients" and mean_face is not None
        self._mean_face = np.asarray(mean_face if subtracts else np.zeros(self.size), np.float32)
        self._detector = detector or BlazeFace()
        self.any_thread = engine is None and bears_threads(self._detector)

    def extract(self, picture: UInt8Array, frame: int = 0) -> Float32Array | None:
        """float32 [size]; None without a face. The frame's number does not matter.

        Raises:
            FrameError: the picture is not uint8 [H, W, 3] RGB.
            ExtractorError: the network gave another number of values, or some that are not finite.
        """
        box = find_face(self._detector, picture, None)
        if box is None:
            return None
        raw = self._engine.run({self._input: self._feed(face_square(picture, box, self._target))})
        numbers = np.asarray(raw[self._output], np.float32).reshape(-1)
        if len(numbers) != self.size or not np.isfinite(numbers).all():
            fix = f"It must give {self.size} finite ones."
            raise ExtractorError(f"The regressor gave {len(numbers)} numbers in frame {frame}: {numbers[:3]}… {fix}")
        return np.asarray(numbers - self._mean_face, np.float32)

    def _feed(self, square: UInt8Array) -> npt.NDArray[Any]:
        values = square if self._spec.dtype == np.uint8 else square.astype(np.float32) / np.float32(127.5) - 1
        return np.ascontiguousarray(values.transpose(2, 0, 1) if self._first else values)[None]

    def _check_output(self, path: str) -> None:
        spec = self._engine.outputs[self._output]
        last = spec.shape[-1] if spec.shape else 1
        if spec.dtype != np.float32 or (isinstance(last, int) and last != self.size):
            fix = f"A regressor gives float32 [1, {self.size}]."
            raise ExtractorError(f"{path}: output '{self._output}' is {spec}. {fix}")


def face_square(picture: UInt8Array, box: Box, size: tuple[int, int]) -> UInt8Array:
    """The square around a face as uint8 [height, width, 3], black where it leaves the picture.

    Args:
        picture: uint8 [H, W, 3].
        box: x, y, width, height in pixels.
        size: height and width of the result.
    """
    import cv2

    x, y, width, height = box
    side = WIDER * max(width, height)
    left, top = x + width / 2 - side / 2, y + height / 2 - side / 2
    rows, columns = size
    scale_x, scale_y = side / columns, side / rows
    # Pixel centres lie at whole numbers: the middle of the first pixel is half a pixel inside the square.
    to_picture = np.array([[scale_x, 0, left + scale_x / 2 - 0.5], [0, scale_y, top + scale_y / 2 - 0.5]], np.float32)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(picture, to_picture, (columns, rows), flags=how), np.uint8)


def _only(what: str, specs: Any, path: str) -> tuple[str, TensorSpec]:
    if len(specs) != 1:
        raise ExtractorError(f"{path} has {len(specs)} {what}s ({', '.join(specs)}). A regressor has one.")
    ((name, spec),) = specs.items()
    return name, spec


def _layout(spec: TensorSpec, path: str) -> tuple[bool, tuple[int, int]]:
    """Whether the channels come first, and height and width."""
    shape = spec.shape
    fits = len(shape) == 4 and (shape[0] == 1 or isinstance(shape[0], str)) and spec.dtype in (np.uint8, np.float32)
    if not fits or (shape[1] != 3 and shape[3] != 3):
        fix = "A regressor takes uint8 or float32 [1, H, W, 3] or [1, 3, H, W]."
        raise ExtractorError(f"{path}: the input is {spec}. {fix}")
    first = shape[3] != 3
    height, width = (size if isinstance(size, int) else DEFAULT_SIDE for size in (shape[2:] if first else shape[1:3]))
    return first, (height, width)
