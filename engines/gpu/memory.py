"""Memory that is handed out again and again: after the first rounds of the same work nothing is allocated."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator

from pflx.engines.gpu.cuda import Cuda
from pflx.engines.gpu.streams import Event, Stream

_GRAIN = 512  # bytes that sizes are rounded up to; CUDA aligns its memory to no less
_PINNED_OF_A_SIZE = 2  # double-buffered: the host fills one while the GPU reads the other
_SMALL_PINNED = 1 << 16  # bytes that pieces of a small size may take in all: there are many small feeds in a call


class Lease:
    """A piece of memory, in use for as long as anybody holds this.

    Attributes:
        address: where it begins.
        size: in bytes.
        home: the stream whose work may use it again at once.
        users: streams with work that reads or writes it.
    """

    __slots__ = ("_give_back", "address", "home", "size", "users")

    def __init__(self, address: int, size: int, home: Stream, give_back: Callable[[_Returned], None]) -> None:
        self.address, self.size, self.home = address, size, home
        self.users = {home}
        self._give_back = give_back

    def __del__(self) -> None:
        # In whichever thread, perhaps in the middle of something: only remembered here, and sorted in later.
        self._give_back((self.address, self.size, self.home, self.users))


_Returned = tuple[int, int, Stream, set[Stream]]
_Piece = tuple[int, list[Event]]
"""An address, and the moments after which it may be used again."""


class _Memory:
    """Pieces of one kind of memory: allocated one by one, given back by whoever drops them, freed all at once.

    Args:
        allocate: size to address.
        free: undoes it.
    """

    def __init__(self, allocate: Callable[[int], int], free: Callable[[int], None]) -> None:
        self._allocate, self._free_one = allocate, free
        self._addresses: list[int] = []
        self._returned: deque[_Returned] = deque()
        self.allocated = 0

    def close(self) -> None:
        """Free everything, also what is in use."""
        self._returned.clear()
        for address in self._addresses:
            self._free_one(address)
        self._addresses.clear()
        self.allocated = 0

    def _new(self, size: int) -> int:
        address = self._allocate(size)
        self._addresses.append(address)
        self.allocated += size
        return address

    def _lease(self, address: int, size: int, stream: Stream) -> Lease:
        return Lease(address, size, stream, self._returned.append)

    def _take_back(self) -> Iterator[_Returned]:
        while self._returned:
            yield self._returned.popleft()


class DeviceMemory(_Memory):
    """Memory of a GPU. A piece is handed out again only behind the last work that uses it.

    Args:
        cuda: the GPU.
    """

    def __init__(self, cuda: Cuda) -> None:
        super().__init__(cuda.malloc, cuda.free)
        self._free: defaultdict[tuple[Stream, int], deque[_Piece]] = defaultdict(deque)

    def take(self, size: int, stream: Stream) -> Lease:
        """Memory that work on `stream` will write first.

        Raises:
            DeviceMemoryError: there is none left.
        """
        for address, returned, home, users in self._take_back():
            self._free[home, returned].append((address, [user.mark() for user in users if user is not home]))
        rounded = _rounded(size)
        free = self._free[stream, rounded]
        if not free:
            return self._lease(self._new(rounded), rounded, stream)
        address, pending = free.popleft()
        for event in pending:
            stream.wait(event)
        return self._lease(address, rounded, stream)


class PinnedMemory(_Memory):
    """Page-locked memory of the host. A piece is handed out again when the GPU has done with it.

    Args:
        cuda: the GPU.
    """

    def __init__(self, cuda: Cuda) -> None:
        super().__init__(cuda.malloc_host, cuda.free_host)
        self._free: defaultdict[int, deque[_Piece]] = defaultdict(deque)
        self._count: defaultdict[int, int] = defaultdict(int)

    def take(self, size: int, stream: Stream) -> Lease:
        """Memory for a copy on `stream`, free now; waits on the host rather than to take more and more of it."""
        for address, returned, _, users in self._take_back():
            self._free[returned].append((address, [user.mark() for user in users]))
        rounded = _rounded(size)
        idle = self._idle(rounded)
        if idle is None:
            idle = self._new(rounded)
            self._count[rounded] += 1
        return self._lease(idle, rounded, stream)

    def _idle(self, size: int) -> int | None:
        free = self._free[size]
        for index, (address, pending) in enumerate(free):
            if all(event.is_done for event in pending):
                del free[index]
                return address
        if not free or self._count[size] < max(_PINNED_OF_A_SIZE, _SMALL_PINNED // size):
            return None
        address, pending = free.popleft()
        for event in pending:
            event.wait()
        return address


def _rounded(size: int) -> int:
    return max(1, -(-size // _GRAIN)) * _GRAIN
