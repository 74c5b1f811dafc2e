"""Looking at the numbers of a segment, and holding the last good ones where they are not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pflx.engines import Array
from pflx.engines.gpu.placement import Fetching, fetch

SMALL = 1 << 16
"""Bytes up to which an array of a state is brought from a GPU to be looked at."""


@dataclass(frozen=True)
class Draft:
    """The segment made last, as long as nobody has looked at its numbers.

    Attributes:
        index: of the segment.
        generated: float32 [M, hop, 58], before PosNet, on its way to the host.
        is_seam: whether PosNet had a seam to close before it.
        generator_after: numbers of the generator's state after it, on their way to the host.
        is_all: whether these are all numbers of that state.
        generator_before: the generator's state before it.
        smoother_after: numbers of PosNet's state after it, on their way to the host.
        smoother_before: PosNet's state before it.
        begun: when its work began.
        steps: denoising steps it was made with.
        is_late: whether its numbers were not here yet when it was closed.
    """

    index: int
    generated: Fetching
    is_seam: bool
    generator_after: Mapping[str, Fetching]
    is_all: bool
    generator_before: Mapping[str, Array]
    smoother_after: Mapping[str, Fetching]
    smoother_before: Mapping[str, Array]
    begun: int
    steps: int | None
    is_late: bool


def to_check(state: Mapping[str, Array]) -> tuple[dict[str, Fetching], bool]:
    """The numbers of a state that are looked at, on their way to the host, and whether these are all.

    A state on a GPU may be large. What is spoilt in the large part of it shows in the segment that is made of it.
    """
    numbers = {name: array for name, array in state.items() if array.dtype.kind == "f"}
    small = {name: array for name, array in numbers.items() if _is_here(array) or array.nbytes <= SMALL}
    return {name: fetch(array) for name, array in small.items()}, len(small) == len(numbers)


def _is_here(array: Array) -> bool:
    return isinstance(array, np.ndarray)


def hold_good(coefficients: Array, last: Array) -> tuple[Array, int]:
    """Replace frames that are not finite by the last good ones.

    Args:
        coefficients: float32 [M, T, 58].
        last: float32 [M, 58], good, for a first frame that is not.

    Returns:
        The coefficients, and how many frames were replaced.
    """
    bad = np.asarray(~np.isfinite(coefficients).all(axis=-1, keepdims=True))
    if not bad.any():
        return coefficients, 0
    held = coefficients.copy()
    for row in range(coefficients.shape[1]):
        last = np.where(bad[:, row], last, coefficients[:, row])
        held[:, row] = last
    return held, int(bad.sum())


def is_finite(arrays: Mapping[str, Fetching]) -> bool:
    """Whether all numbers are finite."""
    return all(bool(np.isfinite(array.wait()).all()) for array in arrays.values())
