"""A GPU made of Python: memory of the host behind real addresses, streams that run as late as they may.

Work that is put on a stream is not done until somebody waits for it, and then only as much as that needs. So a host
that reads too early, or writes into memory that is still to be read, gets wrong numbers, as on a GPU. Besides, every
access is compared with all others to the same bytes: two of them, one a write, that no stream order, event or wait of
the host puts in order, raise RaceError.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pflx.engines.gpu import dlpack
from pflx.engines.graphs.protocol import DeviceMemoryError, EngineError

_ALIGNED = 512  # bytes, as CUDA aligns its memory
Range = tuple[int, int]


class RaceError(AssertionError):
    """Two pieces of work use the same memory in no order."""


@dataclass
class _Work:
    stream: int
    number: int  # on its stream
    run: Callable[[], None]
    clock: dict[int, int]  # the last piece of each stream that comes before this one
    after: list[_Work] = field(default_factory=list)
    is_done: bool = False


@dataclass
class _Access:
    start: int
    end: int
    is_write: bool
    work: _Work


class FakeCuda:
    """Serves `pflx.engines.gpu.cuda.Cuda`.

    Args:
        total: bytes of memory.
        ordinal: which GPU it plays.

    Attributes:
        calls: how often each method was called.
        fail: name of a method to the error that its next call raises.
        events: `(name, stream)` of all work, in the order in which it was put on streams, and of the host's waits.
    """

    kind = dlpack.CPU  # its memory is the host's, so that numpy and PyTorch can take it

    def __init__(self, total: int = 1 << 30, ordinal: int = 0) -> None:
        self.ordinal, self.total = ordinal, total
        self.calls: Counter[str] = Counter()
        self.fail: dict[str, Exception] = {}
        self.events: list[tuple[str, int]] = []
        self.live: dict[int, np.ndarray] = {}
        self.live_host: dict[int, np.ndarray] = {}
        self._accesses: list[_Access] = []
        self._streams: dict[int, list[_Work]] = {0: []}
        self._clocks: dict[int, dict[int, int]] = {0: {}}
        self._host: dict[int, int] = {}
        self._recorded: dict[int, _Work | None] = {}
        self._capturing: dict[int, list[tuple[str, Callable[[], None], list[Range], list[Range]]]] = {}
        self._graphs: dict[int, list[tuple[str, Callable[[], None], list[Range], list[Range]]]] = {}
        self._handles = 1000

    # Memory

    def make_current(self) -> None:
        self._called("make_current")

    def memory(self) -> tuple[int, int]:
        used = sum(block.nbytes for block in self.live.values())
        return self.total - used, self.total

    def malloc(self, size: int) -> int:
        self._called("malloc", allowed_in_capture=False)
        if size > self.memory()[0]:
            raise DeviceMemoryError(f"cuda:{self.ordinal}: cudaMalloc failed with cudaErrorMemoryAllocation.")
        return self._allocate(self.live, size)

    def free(self, address: int) -> None:
        self._called("free", allowed_in_capture=False)
        self._release(self.live, address)

    def malloc_host(self, size: int) -> int:
        self._called("malloc_host", allowed_in_capture=False)
        return self._allocate(self.live_host, size)

    def free_host(self, address: int) -> None:
        self._called("free_host", allowed_in_capture=False)
        self._release(self.live_host, address)

    # Streams and events

    def create_stream(self) -> int:
        self._called("create_stream")
        stream = self._handle()
        self._streams[stream], self._clocks[stream] = [], {}
        return stream

    def destroy_stream(self, stream: int) -> None:
        self._called("destroy_stream")
        self.synchronize(stream)
        del self._streams[stream]

    def synchronize(self, stream: int) -> None:
        self._called("synchronize", allowed_in_capture=False)
        self.events.append(("host waits", stream))
        if self._streams[stream]:
            self._finish(self._streams[stream][-1])

    def create_event(self) -> int:
        self._called("create_event")
        event = self._handle()
        self._recorded[event] = None
        return event

    def destroy_event(self, event: int) -> None:
        self._called("destroy_event")
        del self._recorded[event]

    def record(self, event: int, stream: int) -> None:
        self._called("record")
        assert stream not in self._capturing, "an event of a captured stream means nothing outside"
        self._recorded[event] = self._put("record", stream, lambda: None, [], [])

    def wait(self, stream: int, event: int) -> None:
        self._called("wait")
        assert stream not in self._capturing, "a captured stream must not wait for what is not captured"
        work = self._recorded[event]
        if work is not None:
            waiting = self._put("wait", stream, lambda: None, [], [])
            waiting.after.append(work)
            _merge(self._clocks[stream], {**work.clock, work.stream: work.number})

    def is_done(self, event: int) -> bool:
        self._called("is_done")
        work = self._recorded[event]
        return work is None or work.is_done

    def wait_host(self, event: int) -> None:
        self._called("wait_host", allowed_in_capture=False)
        self.events.append(("host waits", 0))
        work = self._recorded[event]
        if work is not None:
            self._finish(work)

    # Work

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        self._called("copy")

        def run() -> None:
            ctypes.memmove(target, source, size)

        self._put("copy", stream, run, [(source, size)], [(target, size)])

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int, stream: int
    ) -> None:
        self._called("copy_rows")
        assert min(target_pitch, source_pitch) >= width, "as CUDA demands"

        def run() -> None:
            for row in range(rows):
                ctypes.memmove(target + row * target_pitch, source + row * source_pitch, width)

        reads = [(source + row * source_pitch, width) for row in range(rows)]
        writes = [(target + row * target_pitch, width) for row in range(rows)]
        self._put("copy_rows", stream, run, reads, writes)

    def launch_kernel(
        self, run: Callable[[], None], reads: list[Range], writes: list[Range], stream: int, name: str = "kernel"
    ) -> None:
        """What an engine does: put a function on a stream that reads and writes (address, size)."""
        self._called("launch_kernel")
        self._put(name, stream, run, reads, writes)

    # Graphs

    def begin_capture(self, stream: int) -> None:
        self._called("begin_capture")
        assert stream not in self._capturing
        self._capturing[stream] = []

    def end_capture(self, stream: int) -> int:
        graph = self._handle()
        self._graphs[graph] = self._capturing.pop(stream)
        self._called("end_capture")
        return graph

    def launch(self, graph: int, stream: int) -> None:
        self._called("launch")
        for name, run, reads, writes in self._graphs[graph]:
            self._put(name, stream, run, reads, writes)

    def destroy_graph(self, graph: int) -> None:
        self._called("destroy_graph")
        del self._graphs[graph]

    @property
    def graphs(self) -> int:
        """How many there are."""
        return len(self._graphs)

    @property
    def pending(self) -> int:
        """Pieces of work that nobody has waited for yet."""
        return sum(not work.is_done for stream in self._streams.values() for work in stream)

    def drain(self) -> None:
        """Do all work that is left, as a GPU would sooner or later; the host does not learn of it."""
        for stream in list(self._streams.values()):
            if stream:
                self._do(stream[-1])

    def _called(self, name: str, *, allowed_in_capture: bool = True) -> None:
        self.calls[name] += 1
        if name in self.fail:
            raise self.fail.pop(name)
        if self._capturing and not allowed_in_capture:
            raise EngineError(f"cuda:{self.ordinal}: {name} failed with cudaErrorStreamCaptureUnsupported.")

    def _handle(self) -> int:
        self._handles += 1
        return self._handles

    def _allocate(self, store: dict[int, np.ndarray], size: int) -> int:
        room = np.full(size + _ALIGNED, 0xCD, np.uint8)  # nobody may count on zeros
        skipped = -int(room.__array_interface__["data"][0]) % _ALIGNED
        block = room[skipped : skipped + size]
        address = int(block.__array_interface__["data"][0])
        store[address] = block
        return address

    def _release(self, store: dict[int, np.ndarray], address: int) -> None:
        size = store[address].nbytes
        for access in self._accesses:
            if access.start < address + size and address < access.end and not self._host_knows(access.work):
                raise RaceError(f"memory is freed that stream {access.work.stream} still uses")
        self._accesses = [a for a in self._accesses if not (a.start < address + size and address < a.end)]
        del store[address]

    def _put(self, name: str, stream: int, run: Callable[[], None], reads: list[Range], writes: list[Range]) -> _Work:
        if stream in self._capturing:
            self._capturing[stream].append((name, run, reads, writes))
            return _Work(stream, 0, run, {})
        self.events.append((name, stream))
        queue, clock = self._streams[stream], self._clocks[stream]
        _merge(clock, self._host)
        work = _Work(stream, len(queue) + 1, run, dict(clock))
        for ranges, is_write in ((reads, False), (writes, True)):
            for start, size in ranges:
                self._require_memory(start, size)
                self._require_order(start, start + size, is_write, work)
        for ranges, is_write in ((reads, False), (writes, True)):
            self._accesses += [_Access(start, start + size, is_write, work) for start, size in ranges]
        clock[stream] = work.number
        queue.append(work)
        return work

    def _require_memory(self, start: int, size: int) -> None:
        for store in (self.live, self.live_host):
            for address, block in store.items():
                if address <= start and start + size <= address + block.nbytes:
                    return
        raise RaceError(f"work uses {size} bytes that belong to nobody")

    def _require_order(self, start: int, end: int, is_write: bool, work: _Work) -> None:
        kept = []
        for access in self._accesses:
            overlaps = access.start < end and start < access.end
            if overlaps and (is_write or access.is_write):
                before = access.work
                if (
                    before is not work
                    and work.clock.get(before.stream, 0) < before.number
                    and before.stream != work.stream
                ):
                    raise RaceError(
                        f"stream {work.stream} {'writes' if is_write else 'reads'} what stream {before.stream} "
                        f"{'writes' if access.is_write else 'reads'}, in no order"
                    )
                if is_write and start <= access.start and access.end <= end and before is not work:
                    continue  # whoever comes after this write comes after that one too
            kept.append(access)
        self._accesses = kept

    def _host_knows(self, work: _Work) -> bool:
        return self._host.get(work.stream, 0) >= work.number

    def _finish(self, work: _Work) -> None:
        """The host waits for it, and so learns of all before it."""
        self._do(work)
        _merge(self._host, {**work.clock, work.stream: work.number})

    def _do(self, last: _Work) -> None:
        """Do a piece of work after all that comes before it."""
        for work in self._streams[last.stream][: last.number]:
            if not work.is_done:
                for other in work.after:
                    if not other.is_done:
                        self._do(other)
                work.run()
                work.is_done = True


def _merge(clock: dict[int, int], other: dict[int, int]) -> None:
    for stream, number in other.items():
        clock[stream] = max(clock.get(stream, 0), number)
