"""How a motion is likely to go on: linear in its last steps, so that what rests stays at rest."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from pflx.engines import Array, FeedError
from pflx.engines.files.array_file import read_arrays
from pflx.engines.files.writer import write_whole
from pflx.runtime.frames.coefficients import COEFFICIENTS, WINDOW_RADIUS

MOST_STEPS = WINDOW_RADIUS - 1
"""Steps looked back on at most: frames so far behind the last known one are kept whatever is rendered."""


@dataclass(frozen=True)
class Foresight:
    """Foretells the frames that follow a closed segment, each coefficient from its own last steps.

    Attributes:
        weights: float32 [D, 13, n]: frame h + 1 after the last is that one + Σ weights[:, h, i] · step i, of which step
            0 led to the last frame, step 1 to the one before, and so on; n is 1 to 12.
        hop: frames of a segment, at whose ends it foretells.
    """

    weights: Array
    hop: int

    @property
    def reach(self) -> int:
        """Frames that it looks back on."""
        return int(self.weights.shape[2]) + 1

    def after(self, past: Array) -> Array:
        """What follows.

        Args:
            past: float32 [reach, D], the last frames.

        Returns:
            float32 [13, D].
        """
        steps = np.diff(past, axis=0)[::-1]
        on = np.einsum("dhi,id->hd", self.weights, steps)
        return np.asarray(past[-1] + on, np.float32)

    def save(self, path: str | Path) -> None:
        """Write it, .npz.

        Raises:
            OutputError: it cannot be written.
        """
        content = BytesIO()
        np.savez(content, weights=self.weights, hop=self.hop)
        write_whole(path, content.getbuffer())

    @classmethod
    def read(cls, path: str | Path, hop: int) -> Foresight:
        """Read what `pflx calibrate foresight` wrote.

        Args:
            path: of the `.npz`.
            hop: of the generator that it is to be used with.

        Raises:
            FeedError: it is no such file, or was fitted to segments of another length.
        """
        arrays = read_arrays(path, FeedError)
        weights, fitted = arrays.get("weights"), arrays.get("hop")
        again = "Fit one: pflx calibrate foresight."
        if weights is None or fitted is None or fitted.ndim or fitted.dtype.kind not in "iu":
            raise FeedError(f"{path} holds no foresight: it takes weights and a hop. {again}")
        shape = weights.shape
        if weights.ndim != 3 or shape[:2] != (COEFFICIENTS, WINDOW_RADIUS) or not 1 <= shape[2] <= MOST_STEPS:
            raise FeedError(
                f"{path} has weights {list(shape)}, not [{COEFFICIENTS}, {WINDOW_RADIUS}, 1 to {MOST_STEPS}]. {again}"
            )
        if weights.dtype.kind != "f" or not np.isfinite(weights).all():
            raise FeedError(f"{path} has weights that are no finite fractions. {again}")
        if int(fitted) != hop:
            raise FeedError(f"{path} was fitted to segments of {int(fitted)} frames, this bundle's have {hop}. {again}")
        return cls(np.ascontiguousarray(weights, np.float32), hop)
