"""Arrays on the host or on a GPU: what code needs that works with either.

`Array` stands for both in signatures, as numpy's array, whose part a `DeviceArray` plays; where it matters which, the
code is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pflx.engines.gpu.array import DeviceArray
from pflx.engines.graphs.protocol import Array


class Fetching(Protocol):
    """An array on its way to the host."""

    @property
    def is_done(self) -> bool:
        """Whether `wait` returns at once."""
        ...

    def wait(self) -> npt.NDArray[Any]:
        """The array, as soon as it is there; the same one in every call."""
        ...


class Here:
    """An array that is on the host already.

    Args:
        values: the array.
    """

    is_done = True

    def __init__(self, values: Array) -> None:
        self._values = values

    def wait(self) -> npt.NDArray[Any]:
        """The array itself."""
        return self._values


class Part:
    """A part of an array that is on its way to the host.

    Args:
        whole: the array.
        key: which part, as numpy's index.
    """

    def __init__(self, whole: Fetching, key: Any) -> None:
        self._whole, self._key = whole, key

    @property
    def is_done(self) -> bool:
        """Whether `wait` returns at once."""
        return self._whole.is_done

    def wait(self) -> npt.NDArray[Any]:
        """The part, as soon as the array is there."""
        part: npt.NDArray[Any] = self._whole.wait()[self._key]
        return part


def fetch(array: Any) -> Fetching:
    """Start to bring an array to the host."""
    return array.fetch() if isinstance(array, DeviceArray) else Here(array)


def kept(array: Any) -> Any:
    """What an engine returned, so that its next call cannot overwrite it."""
    return array if isinstance(array, DeviceArray) else array.copy()


def concatenate(parts: Sequence[Any], axis: int) -> Any:
    """Parts one behind the other, as a new array: on a GPU, if any of them is there."""
    on_gpu = next((part for part in parts if isinstance(part, DeviceArray)), None)
    return np.concatenate(parts, axis) if on_gpu is None else on_gpu.device.concatenate(parts, axis, on_gpu.home)
