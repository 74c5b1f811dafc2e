"""Memory that is handed out again and again: after the first rounds of the same work nothing is allocated."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable

from pflx.engines.cuda import Cuda
from pflx.engines.streams import Event, Stream

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


class DeviceMemory:
    """Memory of a GPU. A piece is handed out again only behind the last work that uses it.

    Args:
        cuda: the GPU.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._addresses: list[int] = []
        self._returned: deque[_Returned] = deque()
        self._free: defaultdict[tuple[Stream, int], deque[_Piece]] = defaultdict(deque)
        self.allocated = 0

    def take(self, size: int, stream: Stream) -> Lease:
        """Memory that work on `stream` will write first.

        Raises:
            DeviceMemoryError: there is none left.
        """
        self._collect()
        rounded = _rounded(size)
        free = self._free[stream, rounded]
        if free:
            address, pending = free.popleft()
            for event in pending:
                stream.wait(event)
        else:
            address = self._cuda.malloc(rounded)
            self._addresses.append(address)
            self.allocated += rounded
        return Lease(address, rounded, stream, self._returned.append)

    def close(self) -> None:
        """Free everything, also what is in use."""
        self._returned.clear()
        self._free.clear()
        for address in self._addresses:
            self._cuda.free(address)
        self._addresses.clear()
        self.allocated = 0

    def _collect(self) -> None:
        while self._returned:
            address, size, home, users = self._returned.popleft()
            self._free[home, size].append((address, [user.mark() for user in users if user is not home]))


class PinnedMemory:
    """Page-locked memory of the host. A piece is handed out again when the GPU has done with it.

    Args:
        cuda: the GPU.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._addresses: list[int] = []
        self._returned: deque[_Returned] = deque()
        self._free: defaultdict[int, deque[_Piece]] = defaultdict(deque)
        self._count: defaultdict[int, int] = defaultdict(int)

    def take(self, size: int, stream: Stream) -> Lease:
        """Memory for a copy on `stream`, free now; waits on the host rather than to take more and more of it."""
        self._collect()
        rounded = _rounded(size)
        address = self._idle(rounded)
        if address is None:
            address = self._cuda.malloc_host(rounded)
            self._addresses.append(address)
            self._count[rounded] += 1
        return Lease(address, rounded, stream, self._returned.append)

    def close(self) -> None:
        """Free everything, also what is in use."""
        self._returned.clear()
        self._free.clear()
        for address in self._addresses:
            self._cuda.free_host(address)
        self._addresses.clear()

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

    def _collect(self) -> None:
        while self._returned:
            address, size, _, users = self._returned.popleft()
            self._free[size].append((address, [user.mark() for user in users]))


def _rounded(size: int) -> int:
    return max(1, -(-size // _GRAIN)) * _GRAIN
