"""Where in a portrait the person is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pflx.engines import Engine
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.speaker.faces import open_packaged

MODEL_PATH = Path(__file__).parent / "data" / "silhouette.onnx"
MODEL_SHA256 = "7c075ee8a18dc29694803875e00de03d3d3c4e13b40129cebb3cf5f21e7f86e8"
SIDE = 256
"""Side in pixels of the picture that the network looks at."""


class Silhouette:
    """MediaPipe's selfie segmentation on the CPU, one thread.

    Args:
        engine: runs the model; by default ONNX Runtime on the file that comes with pflx.

    Raises:
        DetectorFileError: the model file is missing or its SHA-256 is wrong.

    Source: MediaPipe Selfie Segmentation, general model (Apache-2.0).
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self._engine = engine if engine is not None else open_packaged(MODEL_PATH, MODEL_SHA256)

    def find(self, picture: UInt8Array) -> Float32Array:
        """How likely each pixel is the person's.

        Args:
            picture: uint8 [S, S, 3] RGB.

        Returns:
            float32 [S, S] in 0..1, smooth over a few pixels at the outline.
        """
        import cv2

        size = len(picture)
        how = cv2.INTER_AREA if size > SIDE else cv2.INTER_LINEAR
        seen = np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=how), np.uint8)
        person = self._engine.run({"picture": seen[None]})["person"][0]
        return np.asarray(cv2.resize(person, (size, size), interpolation=cv2.INTER_LINEAR), np.float32).clip(0, 1)
