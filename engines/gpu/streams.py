"""Streams of a GPU, and the moments in their work."""

from __future__ import annotations

from collections import deque
from typing import Any

from pflx.engines.gpu.cuda import Cuda
from pflx.engines.graphs.protocol import EngineError, FeedError


class Event:
    """A moment in the work of a stream; it has come when all work before it is done."""

    __slots__ = ("_streams", "handle", "stream")

    def __init__(self, streams: Streams, handle: int, stream: Stream) -> None:
        self._streams, self.handle, self.stream = streams, handle, stream

    @property
    def is_done(self) -> bool:
        """Whether the moment has come."""
        return self._streams.cuda.is_done(self.handle)

    def wait(self) -> None:
        """Wait for it on the host."""
        self._streams.cuda.wait_host(self.handle)

    def __del__(self) -> None:
        self._streams.idle_events.append(self.handle)


class Stream:
    """A queue of work on a GPU: the work on one stream is done in order.

    Attributes:
        handle: the CUDA stream.
        name: what it is for.
    """

    def __init__(self, streams: Streams, handle: int, name: str) -> None:
        self._streams, self.handle, self.name = streams, handle, name

    def mark(self) -> Event:
        """The moment when all work until now is done."""
        return self._streams.mark(self)

    def wait(self, event: Event) -> None:
        """Let the work from now on wait for an event, on the GPU."""
        if event.stream is not self:
            self._streams.cuda.wait(self.handle, event.handle)

    def synchronize(self) -> None:
        """Wait on the host until all work is done."""
        self._streams.cuda.synchronize(self.handle)

    def __cuda_stream__(self) -> tuple[int, int]:
        """For libraries that take the streams of others."""
        return 0, self.handle

    def __repr__(self) -> str:
        return f"Stream({self.name})"


class Streams:
    """The streams and events of one GPU; each is made when it is first asked for.

    Args:
        cuda: the GPU.

    Attributes:
        cuda: the GPU.
        idle_events: events that nobody holds any more, to be used again.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.idle_events: deque[int] = deque()
        self._named: dict[str, Stream] = {}
        self._foreign: dict[int, Stream] = {}
        self._events: list[int] = []
        self._closed = False

    def named(self, name: str) -> Stream:
        """The stream of a name."""
        if name not in self._named:
            self._require_open()
            self._named[name] = Stream(self, self.cuda.create_stream(), name)
        return self._named[name]

    def foreign(self, stream: Any) -> Stream:
        """Somebody else's stream.

        Args:
            stream: a handle, or an object of cuda-core (`__cuda_stream__`), PyTorch, CuPy or pycuda.

        Raises:
            FeedError: it is none.
        """
        handle = _handle(stream)
        if handle not in self._foreign:
            ours = next((own for own in self._named.values() if own.handle == handle), None)
            self._foreign[handle] = ours or Stream(self, handle, f"foreign {handle}")
        return self._foreign[handle]

    def mark(self, stream: Stream) -> Event:
        """See `Stream.mark`."""
        self._require_open()
        if self.idle_events:
            handle = self.idle_events.popleft()
        else:
            handle = self.cuda.create_event()
            self._events.append(handle)
        event = Event(self, handle, stream)
        self.cuda.record(handle, stream.handle)
        return event

    def synchronize(self) -> None:
        """Wait on the host until all work on all streams is done."""
        for stream in (*self._named.values(), *self._foreign.values()):
            stream.synchronize()

    def close(self) -> None:
        """Drop all streams and events."""
        self._closed = True
        for handle in self._events:
            self.cuda.destroy_event(handle)
        for stream in self._named.values():
            self.cuda.destroy_stream(stream.handle)
        self._events.clear()
        self._named.clear()

    def _require_open(self) -> None:
        if self._closed:
            raise EngineError(f"cuda:{self.cuda.ordinal} was closed; open the listener again.")


def _handle(stream: Any) -> int:
    if isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr", "handle"):  # PyTorch, CuPy, pycuda
        if hasattr(stream, name):
            return int(getattr(stream, name))
    raise FeedError(f"{type(stream).__name__} is no CUDA stream; give its handle, a number.")
