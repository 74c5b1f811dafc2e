"""Arrays on a GPU that know when they are ready."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod
from types import EllipsisType
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from pflx.engines.gpu import dlpack
from pflx.engines.gpu.cuda import Cuda
from pflx.engines.gpu.memory import Lease
from pflx.engines.gpu.streams import Event, Stream, Streams
from pflx.engines.graphs.protocol import FeedError

Index: TypeAlias = int | slice | EllipsisType | None


class ArrayDevice(Protocol):
    """What an array asks of the GPU that it lies on; `Device` in every case."""

    @property
    def cuda(self) -> Cuda:
        """The GPU."""
        ...

    @property
    def streams(self) -> Streams:
        """Its streams."""
        ...

    def concatenate(self, parts: Sequence[Any], axis: int, stream: Stream | None = None) -> DeviceArray:
        """See `Device`."""
        ...

    def fetch(self, array: DeviceArray) -> Fetched:
        """See `Device`."""
        ...


class DeviceArray:
    """An array in the memory of a GPU. It is never written again once it is made, and ends with its device.

    Slices, new axes and `reshape` are views. `np.asarray` copies it to the host, and waits. PyTorch, CuPy and others
    take it without a copy, by `__dlpack__` or `__cuda_array_interface__`.

    Attributes:
        device: where it lies.
        shape: as numpy's.
        dtype: as numpy's.
        strides: as numpy's, in bytes.
        address: of its first element. Ask `use_on` before any work that reads it.
    """

    __slots__ = ("_lease", "_written", "address", "device", "dtype", "shape", "strides")

    def __init__(
        self,
        device: ArrayDevice,
        lease: Lease,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        strides: tuple[int, ...] | None = None,
        *,
        address: int | None = None,
        written: Event | None = None,
    ) -> None:
        self.device, self._lease, self.shape, self.dtype = device, lease, shape, dtype
        self.address = lease.address if address is None else address
        self.strides = contiguous_strides(shape, dtype.itemsize) if strides is None else strides
        self._written = written

    @property
    def ndim(self) -> int:
        """As numpy's."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """As numpy's."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """As numpy's."""
        return self.size * self.dtype.itemsize

    @property
    def home(self) -> Stream:
        """The stream that its memory was taken for."""
        return self._lease.home

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements lie one behind the other, the last axis fastest."""
        return not self.size or self.strides == contiguous_strides(self.shape, self.dtype.itemsize)

    def use_on(self, stream: Stream) -> int:
        """Its address, for work that is put on `stream` from now on; the stream waits for what writes the array."""
        if self._written is not None:
            stream.wait(self._written)
        self._lease.users.add(stream)
        return self.address

    def written(self, event: Event) -> DeviceArray:
        """State the moment from which it may be read, by whoever fills it; returns the array."""
        self._written = event
        return self

    def copy(self) -> DeviceArray:
        """A contiguous array of its own."""
        return self.device.concatenate([self[None]], 0)[0]

    def reshape(self, *shape: int) -> DeviceArray:
        """The same elements in another shape, without a copy.

        Raises:
            FeedError: it is not contiguous, or of another size.
        """
        known = prod(size for size in shape if size != -1)
        wanted = tuple(self.size // max(1, known) if size == -1 else size for size in shape)
        if not self.is_contiguous or prod(wanted) != self.size:
            raise FeedError(f"An array of shape {list(self.shape)} is no view of shape {list(shape)}; copy it first.")
        return self._view(self.address, wanted, contiguous_strides(wanted, self.dtype.itemsize))

    def fetch(self) -> Fetched:
        """Start to copy it to the host, on the stream for that."""
        return self.device.fetch(self)

    def __getitem__(self, key: Index | tuple[Index, ...]) -> DeviceArray:
        keys = key if isinstance(key, tuple) else (key,)
        if not all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in keys):
            raise FeedError("An array on a GPU takes whole numbers, slices and new axes as an index, nothing else.")
        # numpy works out the view of an array of this shape that is never read; the ellipsis keeps it an array.
        whole = np.lib.stride_tricks.as_strided(np.empty(1, self.dtype), self.shape, self.strides)
        view = whole[keys if Ellipsis in keys else (*keys, ...)]
        offset = view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        return self._view(self.address + (offset if view.size else 0), view.shape, view.strides)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        values = self.fetch().wait()
        return values if dtype is None else values.astype(dtype, copy=False)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.use_on(self.home), True),
            "strides": None if self.is_contiguous else self.strides,
            "stream": self.home.handle,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device.cuda.kind, self.device.cuda.ordinal

    def __dlpack__(self, *, stream: Any = None, **_: Any) -> object:
        """A DLPack capsule.

        Args:
            stream: of the consumer, which waits for the array; None is the default stream, -1 does not wait.
        """
        if stream != -1:
            self.use_on(self.device.streams.foreign(stream or 0))
        return dlpack.give(
            dlpack.Tensor(self.address, self.shape, self.strides, self.dtype, self.__dlpack_device__(), self)
        )

    def _view(self, address: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> DeviceArray:
        return DeviceArray(self.device, self._lease, shape, self.dtype, strides, address=address, written=self._written)


class Fetched:
    """An array on its way to the host.

    Args:
        pinned: page-locked memory that it is copied to.
        arrived: when the copy is there.
        shape: of the array.
        dtype: of the array.
    """

    def __init__(self, pinned: Lease, arrived: Event, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._pinned: Lease | None = pinned
        self._arrived, self._shape, self._dtype = arrived, shape, dtype
        self._values: npt.NDArray[Any] = np.empty(0, dtype)

    @property
    def is_done(self) -> bool:
        """Whether `wait` returns at once."""
        return self._pinned is None or self._arrived.is_done

    def wait(self) -> npt.NDArray[Any]:
        """The array, as soon as it is there; the same one in every call."""
        if self._pinned is not None:
            self._arrived.wait()
            self._values = host_view(self._pinned.address, self._shape, self._dtype).copy()
            self._pinned = None
        return self._values


def contiguous_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of an array whose elements lie one behind the other."""
    strides = [itemsize]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides)) if shape else ()


def host_view(address: int, shape: Sequence[int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The host memory at an address as an array, which does not keep it alive."""
    memory = (ctypes.c_uint8 * max(1, prod(shape) * dtype.itemsize)).from_address(address)
    return np.ndarray(tuple(shape), dtype, memoryview(memory))


def row_copies(
    shape: Sequence[int], target: Sequence[int], source: Sequence[int], itemsize: int
) -> list[tuple[int, int, int, int, int, int]]:
    """How to copy an array into another of the same shape and other strides, row by row.

    Returns:
        Copies of rows, each an offset and a pitch in the target, the same in the source, the bytes of a row, and how
        many rows there are; as few as there can be without looking at overlaps.
    """
    axes = [(size, to, of) for size, to, of in zip(shape, target, source, strict=True) if size != 1]
    width = itemsize
    while axes and axes[-1][1:] == (width, width):
        width *= axes.pop()[0]
    rows, to, of = axes.pop() if axes else (1, width, width)
    copies = [(0, 0)]
    for size, outer_to, outer_of in axes:
        copies = [(a + i * outer_to, b + i * outer_of) for a, b in copies for i in range(size)]
    return [(at, to, begin, of, width, rows) for at, begin in copies]
