"""The mean face that coefficients are relative to: from a file, or by a word."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np

from pflx.engines.bundle.manifest import MeanFace
from pflx.engines.files.array_file import read_arrays
from pflx.engines.graphs.protocol import PflxError

_COEFFICIENTS, _PITCH = 58, 52


class MeanFaceError(PflxError, ValueError):
    """There is no mean face, or it is not 58 finite numbers."""


def read_mean_face(given: str | None) -> MeanFace:
    """The mean face, and where it came from.

    Args:
        given: path of a `.npy` with 58 numbers in any shape, "zero", "upright" (no expression, and the half turn by
            which FaceVerse's heads are turned), or None.

    Raises:
        MeanFaceError: none given, no such file, or not 58 finite numbers.
    """
    if given is None:
        raise MeanFaceError(
            "No mean face: trained networks know coefficients relative to it, and a wrong one bends the face. "
            "Pass --mean-face mean_face.npy of the training data, or --mean-face zero to go without."
        )
    if given in ("zero", "upright"):
        values = np.zeros(_COEFFICIENTS, np.float32)
        values[_PITCH] = math.pi if given == "upright" else 0.0
        return MeanFace(source=given, values=values.tolist())
    path = Path(given)
    if not path.exists():
        raise MeanFaceError(f"Mean face {path} does not exist. Give a .npy file, zero or upright.")
    try:
        arrays = read_arrays(path, MeanFaceError)
    except MeanFaceError as error:
        raise MeanFaceError(f"Mean face {error} Pass a .npy file with 58 numbers.") from error
    values = next(iter(arrays.values()), np.zeros(0, np.float32))
    if len(arrays) != 1 or values.size != _COEFFICIENTS or values.dtype.kind not in "fiu":
        held = f"{values.dtype} {list(values.shape)}" if len(arrays) == 1 else f"{len(arrays)} arrays"
        raise MeanFaceError(f"Mean face {path} is {held}, not 58 numbers. Pass the .npy of the training data.")
    if not np.isfinite(values).all():
        raise MeanFaceError(f"Mean face {path} holds NaN or infinite values. Pass the .npy of the training data.")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return MeanFace(source=f"sha256:{digest}", values=values.reshape(-1).astype(np.float32).tolist())
