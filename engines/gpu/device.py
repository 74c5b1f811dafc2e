"""One GPU: its streams, its memory, and arrays in it.

The order of streams follows from the data, and no caller states it: whoever reads an array on a stream lets the stream
wait, on the GPU, for the work that writes it; and memory is handed out again only behind the last work that uses it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from pflx.engines.gpu import dlpack
from pflx.engines.gpu.array import DeviceArray, Fetched, host_view, row_copies
from pflx.engines.gpu.cuda import Cuda, open_cuda, parse_device
from pflx.engines.gpu.memory import DeviceMemory, Lease, PinnedMemory
from pflx.engines.gpu.streams import Event, Stream, Streams
from pflx.engines.graphs.protocol import DeviceError, EngineError, FeedError


class Device:
    """One GPU. It is used by one thread at a time.

    Arrays go there on the stream `copy-in` and come back on `copy-out`, so that copies run beside the work of engines.

    Args:
        cuda: the GPU.

    Attributes:
        cuda: the GPU.
        streams: its streams.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.streams = Streams(cuda)
        self._memory, self._pinned = DeviceMemory(cuda), PinnedMemory(cuda)
        self._foreign: deque[tuple[object, set[Stream]]] = deque()
        self._lent: deque[tuple[object, list[Event]]] = deque()
        self._closed = False

    @classmethod
    def open(cls, device: str) -> Device:
        """The GPU `cuda` or `cuda:N` of this machine.

        Raises:
            DeviceError: it is no GPU, or not there.
            BackendMissingError: cuda-bindings are not installed.
        """
        ordinal = parse_device(device)
        if ordinal is None:
            raise DeviceError("The CPU is no GPU; give cuda or cuda:N.")
        return cls(open_cuda(ordinal))

    @property
    def name(self) -> str:
        """Like `cuda:0`."""
        return f"cuda:{self.cuda.ordinal}"

    @property
    def allocated(self) -> int:
        """Bytes of GPU memory that its arrays use or used; engines have their own besides."""
        return self._memory.allocated

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike, stream: Stream) -> DeviceArray:
        """Memory for an array that work on `stream` will fill.

        Raises:
            DeviceMemoryError: there is none left.
        """
        kind, sizes = np.dtype(dtype), tuple(int(size) for size in shape)
        return DeviceArray(self, self._memory.take(prod(sizes) * kind.itemsize, stream), sizes, kind)

    def upload(self, array: npt.NDArray[Any]) -> DeviceArray:
        """A copy of an array of the host, on its way; `array` may be changed at once."""
        stream = self.streams.named("copy-in")
        placed = self.empty(array.shape, array.dtype, stream)
        if placed.nbytes:
            pinned = self._pinned.take(placed.nbytes, stream)
            host_view(pinned.address, array.shape, array.dtype)[...] = array
            self.cuda.copy(placed.address, pinned.address, placed.nbytes, stream.handle)
        return placed.written(stream.mark())

    def fetch(self, array: DeviceArray) -> Fetched:
        """Start to copy an array to the host."""
        stream = self.streams.named("copy-out")
        whole = array if array.is_contiguous else array.copy()
        pinned = self._pinned.take(whole.nbytes, stream)
        if whole.nbytes:
            self.cuda.copy(pinned.address, whole.use_on(stream), whole.nbytes, stream.handle)
        return Fetched(pinned, stream.mark(), whole.shape, whole.dtype)

    def adopt(self, value: Any) -> DeviceArray:
        """Somebody else's array on this GPU, without a copy; nobody may write it while it is in use.

        Args:
            value: of PyTorch, CuPy, pycuda or others, with `__dlpack__` or `__cuda_array_interface__`.

        Raises:
            FeedError: it is no such array, or lies elsewhere.
        """
        self._forget_lent()
        if isinstance(value, DeviceArray):
            self._require_here(value.__dlpack_device__())
            return value
        stream = self.streams.named("copy-in")
        if hasattr(value, "__dlpack__"):
            self._require_here(tuple(value.__dlpack_device__()))
            # The producer lets the stream wait for it.
            given = {"stream": stream.handle} if self.cuda.kind == dlpack.CUDA else {}
            tensor = dlpack.take(value.__dlpack__(**given))
            lease = self._borrow(tensor.owner, tensor.address, stream)
            return DeviceArray(self, lease, tensor.shape, tensor.dtype, tensor.strides, written=stream.mark())
        if hasattr(value, "__cuda_array_interface__"):
            return self._adopt_interface(value, value.__cuda_array_interface__)
        raise FeedError(f"{type(value).__name__} is no array, neither numpy's nor one on {self.name}.")

    def place(self, value: Any) -> DeviceArray:
        """Any array on this GPU: one of numpy is uploaded, one of a GPU adopted."""
        return self.upload(value) if isinstance(value, np.ndarray) else self.adopt(value)

    def concatenate(self, parts: Sequence[Any], axis: int, stream: Stream | None = None) -> DeviceArray:
        """Parts one behind the other along an axis, as a new contiguous array.

        Args:
            parts: arrays here or on the host, of one dtype, the same in all other axes.
            axis: along which.
            stream: that copies; by default the one that the first part's memory belongs to.
        """
        placed = [self.place(part) for part in parts]
        on = stream or placed[0].home
        shape = list(placed[0].shape)
        shape[axis] = sum(part.shape[axis] for part in placed)
        whole = self.empty(shape, placed[0].dtype, on)
        at = whole.address
        for part in placed:
            if part.size:
                self._copy_rows(at, whole.strides, part, on)
            at += part.shape[axis] * whole.strides[axis]
        return whole.written(on.mark())

    def overwrite(self, target: DeviceArray, source: DeviceArray, stream: Stream) -> None:
        """Copy into an array that only work on `stream` uses; both of one shape and contiguous."""
        if source.nbytes:
            self.cuda.copy(target.address, source.use_on(stream), source.nbytes, stream.handle)

    def close(self) -> None:
        """Wait for all work and give everything back; arrays must not be used any more. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        with suppress(EngineError):  # a lost GPU has nothing to give back
            self.streams.synchronize()
            self._memory.close()
            self._pinned.close()
            self.streams.close()
        self._foreign.clear()
        self._lent.clear()

    def _copy_rows(self, at: int, strides: tuple[int, ...], part: DeviceArray, stream: Stream) -> None:
        source = part.use_on(stream)
        for to, pitch, of, source_pitch, width, rows in row_copies(
            part.shape, strides, part.strides, part.dtype.itemsize
        ):
            if rows == 1:
                self.cuda.copy(at + to, source + of, width, stream.handle)
            elif pitch >= width and source_pitch >= width:
                self.cuda.copy_rows(at + to, pitch, source + of, source_pitch, width, rows, stream.handle)
            else:  # an adopted array that repeats or reverses rows
                for row in range(rows):
                    self.cuda.copy(at + to + row * pitch, source + of + row * source_pitch, width, stream.handle)

    def _adopt_interface(self, value: Any, interface: dict[str, Any]) -> DeviceArray:
        """Source: CUDA Array Interface, version 3."""
        stream = self.streams.named("copy-in")
        address, dtype, shape = interface["data"][0], np.dtype(interface["typestr"]), tuple(interface["shape"])
        if (producer := interface.get("stream")) is not None:
            handle = 0 if producer == 1 else producer  # 1 is how the interface writes the default stream
            stream.wait(self.streams.foreign(handle).mark())
        lease = self._borrow(value, address, stream)
        return DeviceArray(self, lease, shape, dtype, interface.get("strides"), written=stream.mark())

    def _borrow(self, owner: object, address: int, stream: Stream) -> Lease:
        """Memory of an owner, who is kept until the GPU has read it."""
        return Lease(address, 0, stream, lambda returned: self._foreign.append((owner, returned[3])))

    def _forget_lent(self) -> None:
        while self._foreign:
            owner, users = self._foreign.popleft()
            self._lent.append((owner, [user.mark() for user in users]))
        while self._lent and all(event.is_done for event in self._lent[0][1]):
            self._lent.popleft()

    def _require_here(self, place: tuple[int, int]) -> None:
        here = (self.cuda.kind, self.cuda.ordinal)
        if place != here:
            raise FeedError(
                f"The array lies on DLPack device {place}, not on {self.name}, {here}. Copy it there, or give numpy's."
            )
