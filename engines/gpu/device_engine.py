"""The engine of every GPU backend: arrays on the GPU in and out, calls captured as CUDA graphs and replayed."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np

from pflx.engines.gpu.array import DeviceArray
from pflx.engines.gpu.device import Device
from pflx.engines.gpu.streams import Stream
from pflx.engines.graphs.protocol import (
    Array,
    DeviceLostError,
    DeviceMemoryError,
    EngineError,
    TensorSpec,
    check_feeds,
)

log = logging.getLogger(__name__)

_PROGRAMS = 16
"""Captured calls that one engine keeps, each with buffers of its own; the one that was not used longest goes."""

GROWING = "history"
"""The dimension of a state that grows: to prepare for each of its sizes would take longer than the calls."""

Sizes = Mapping[str, int]
Arrays = Mapping[str, DeviceArray]


class ExecutionContext(Protocol):
    """A graph of one backend on one stream of a GPU; it only ever puts work on that stream."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """What the graph takes, by name."""
        ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """What it returns, by name."""
        ...

    def enqueue(self, feeds: Arrays, results: Arrays) -> None:
        """Put one run on the stream, without waiting for it.

        Args:
            feeds: contiguous, readable on the stream.
            results: contiguous, to be written there.

        Raises:
            EngineError: the backend failed.
        """
        ...

    def for_capture(self) -> ExecutionContext:
        """A context for one captured call alone, closed after it: what the call holds is not changed or freed."""
        ...

    def require_capturable(self) -> None:
        """Check, after a run in the same shapes, that the next one can be captured.

        Raises:
            EngineError: it cannot.
        """
        ...

    def close(self) -> None:
        """Release the graph and its memory."""
        ...


class DeviceEngine:
    """A graph on a GPU behind the `Engine` protocol.

    It takes arrays of numpy, of pflx and of other libraries on the same GPU, and returns `DeviceArray`s, which belong
    to the caller: nothing overwrites them. No call waits for the GPU.

    A call of the same shapes is captured as a CUDA graph when it comes for the second time, and replayed from then on.
    A graph reads and writes buffers that it owns, into which the feeds are copied unless they are the very arrays of
    the last replay: so no address in it can go stale, whatever becomes of the caller's arrays.

    Args:
        name: of the graph, for messages.
        context: the graph on `stream`.
        device: the GPU.
        stream: that the work is put on.
        capture: False never captures.

    Attributes:
        inputs: what `run` takes.
        outputs: what it returns.
        captures: how often a call was captured.
        replays: how often a captured one was launched.
    """

    def __init__(
        self, name: str, context: ExecutionContext, device: Device, stream: Stream, *, capture: bool = True
    ) -> None:
        self.name = name
        self.inputs, self.outputs = dict(context.inputs), dict(context.outputs)
        self.captures = self.replays = 0
        self._context: ExecutionContext | None = context
        self._device, self._stream = device, stream
        self._capture = capture
        self._seen: OrderedDict[_Key, None] = OrderedDict()
        self._programs: OrderedDict[_Key, _Program] = OrderedDict()
        _require_known_sizes(name, self.inputs, self.outputs)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the graph once; see `Engine.run`."""
        return self.loop(feeds, {}, [{}])

    def loop(
        self, feeds: Mapping[str, Any], carried: Mapping[str, str], steps: Sequence[Mapping[str, Array]]
    ) -> dict[str, Any]:
        """Run the graph once per step, all steps in one CUDA graph; see `run_loop`."""
        given: dict[str, Any] = {
            name: self._device.adopt(feed) if _is_foreign(feed) else feed for name, feed in feeds.items()
        }
        sizes = check_feeds(self.inputs, {**given, **steps[0]})
        for step in steps[1:]:
            check_feeds(self.inputs, {**given, **step})
        with self._explained():
            placed = {name: _contiguous(self._device.place(feed)) for name, feed in given.items()}
            program = self._program(placed, sizes, carried, steps) if self._capture else None
            return program.replay(placed, steps) if program else self._run_each(placed, sizes, carried, steps)

    def place(self, arrays: Mapping[str, Array]) -> dict[str, Any]:
        """Bring arrays to the GPU; see `placed`."""
        with self._explained():
            return {name: self._device.place(array) for name, array in arrays.items()}

    def close(self) -> None:
        """Drop the graph; a later `run` raises EngineError."""
        self._drop_programs()
        if self._context is not None:
            self._context.close()
        self._context = None

    def _program(
        self, placed: Arrays, sizes: Sizes, carried: Mapping[str, str], steps: Sequence[Mapping[str, Array]]
    ) -> _Program | None:
        """What replays this call; None where it is new, or could not be captured."""
        key = (tuple(sorted(sizes.items())), len(steps), tuple(carried))
        if key in self._programs:
            self._programs.move_to_end(key)
            self.replays += 1
            return self._programs[key]
        if key not in self._seen:
            self._seen[key] = None
            while len(self._seen) > 4 * _PROGRAMS:
                self._seen.popitem(last=False)
            return None
        try:
            program = _Program(self._device, self._stream, self._opened(), placed, sizes, carried, steps)
        except (DeviceLostError, DeviceMemoryError):
            raise
        except EngineError as error:
            self._capture = False
            log.warning("Graph '%s' cannot be captured and runs call by call: %s", self.name, error)
            return None
        self.captures += 1
        self.replays += 1
        self._programs[key] = program
        while len(self._programs) > _PROGRAMS:
            self._programs.popitem(last=False)[1].close()
        return program

    def _run_each(
        self, placed: Arrays, sizes: Sizes, carried: Mapping[str, str], steps: Sequence[Mapping[str, Array]]
    ) -> dict[str, DeviceArray]:
        current, made = dict(placed), dict[str, DeviceArray]()
        for step in steps:
            feeds = {**current, **{name: self._device.upload(value) for name, value in step.items()}}
            made = _new_results(self._device, self._stream, self.outputs, sizes)
            for feed in feeds.values():
                feed.use_on(self._stream)
            self._opened().enqueue(feeds, made)
            current |= {name: made[output] for name, output in carried.items()}
        done = self._stream.mark()
        return {name: result.written(done) for name, result in made.items()}

    def _opened(self) -> ExecutionContext:
        if self._context is None:
            raise EngineError(f"Graph '{self.name}' is closed; open a new engine.")
        return self._context

    def _drop_programs(self) -> None:
        while self._programs:
            self._programs.popitem()[1].close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Name the graph in an error, and give captured buffers back where memory is short."""
        self._opened()
        try:
            yield
        except (DeviceMemoryError, DeviceLostError) as error:
            if isinstance(error, DeviceMemoryError):
                self._drop_programs()
            if str(error).startswith("Graph '"):  # the backend has named it
                raise
            raise type(error)(f"Graph '{self.name}': {error}") from error


_Key = tuple[tuple[tuple[str, int], ...], int, tuple[str, ...]]
"""Sizes of the dimensions, number of steps, what is carried: with the engine, what a captured call is made for."""


class _Program:
    """A captured call, or loop of calls, and the buffers whose addresses are in it."""

    def __init__(
        self,
        device: Device,
        stream: Stream,
        context: ExecutionContext,
        placed: Arrays,
        sizes: Sizes,
        carried: Mapping[str, str],
        steps: Sequence[Mapping[str, Array]],
    ) -> None:
        self._device, self._stream = device, stream
        self._feeds = {name: device.empty(feed.shape, feed.dtype, stream) for name, feed in placed.items()}
        # An array for each step, and not a row of one for all: backends want their addresses aligned.
        self._steps = [
            {name: device.empty(value.shape, value.dtype, stream) for name, value in step.items()} for step in steps
        ]
        self._copied: dict[str, DeviceArray] = {}
        self._step_values: list[dict[str, Array]] = [{} for _ in steps]
        # Two sets in turn: a step reads what the step before wrote.
        sets = [_new_results(device, stream, context.outputs, sizes) for _ in range(min(len(steps), 2))]
        calls = []
        for index in range(len(steps)):
            before = sets[(index - 1) % 2] if index else {}
            looped = {name: before[output] for name, output in carried.items()} if index else {}
            calls.append(({**self._feeds, **looped, **self._steps[index]}, sets[index % 2]))
        self._results = sets[(len(steps) - 1) % 2]
        self._context = context.for_capture()
        try:
            self._fill(placed, steps)
            self._context.enqueue(*calls[0])  # once as it is: backends allocate in the first run on new addresses
            self._context.require_capturable()
            self._graph: int | None = _captured(device, stream, self._context, calls)
        except BaseException:
            self._context.close()
            raise

    def replay(self, placed: Arrays, steps: Sequence[Mapping[str, Array]]) -> dict[str, DeviceArray]:
        """Launch it on new feeds; results are copies of its own."""
        assert self._graph is not None, "closed"
        self._fill(placed, steps)
        self._device.cuda.launch(self._graph, self._stream.handle)
        made = {}
        for name, result in self._results.items():
            made[name] = self._device.empty(result.shape, result.dtype, self._stream)
            self._device.overwrite(made[name], result, self._stream)
        done = self._stream.mark()
        return {name: result.written(done) for name, result in made.items()}

    def close(self) -> None:
        """Drop it; what was launched still runs."""
        if self._graph is not None:
            with suppress(EngineError):  # a lost GPU has nothing to give back
                self._stream.synchronize()  # the graph may be running
                self._device.cuda.destroy_graph(self._graph)
            self._context.close()
        self._graph = None

    def _fill(self, placed: Arrays, steps: Sequence[Mapping[str, Array]]) -> None:
        for name, feed in placed.items():
            if self._copied.get(name) is not feed:
                self._device.overwrite(self._feeds[name], feed, self._stream)
                self._copied[name] = feed
        for placed_step, known, step in zip(self._steps, self._step_values, steps, strict=True):
            for name, value in step.items():
                if name not in known or not np.array_equal(value, known[name]):
                    self._device.overwrite(placed_step[name], self._device.upload(value), self._stream)
                    known[name] = np.array(value)


def _captured(device: Device, stream: Stream, context: ExecutionContext, calls: Sequence[tuple[Arrays, Arrays]]) -> int:
    device.cuda.begin_capture(stream.handle)
    try:
        for feeds, results in calls:
            context.enqueue(feeds, results)
    except BaseException:
        try:
            device.cuda.destroy_graph(device.cuda.end_capture(stream.handle))
        except EngineError:
            log.debug("The broken capture ended.", exc_info=True)
        raise
    return device.cuda.end_capture(stream.handle)


def _new_results(
    device: Device, stream: Stream, outputs: Mapping[str, TensorSpec], sizes: Sizes
) -> dict[str, DeviceArray]:
    return {
        name: device.empty([sizes[a] if isinstance(a, str) else a for a in spec.shape], spec.dtype, stream)
        for name, spec in outputs.items()
    }


def _is_foreign(feed: Any) -> bool:
    """Whether it is an array, and another library's; what is none is refused with all other wrong feeds."""
    return hasattr(feed, "shape") and not isinstance(feed, np.ndarray)


def _contiguous(array: DeviceArray) -> DeviceArray:
    return array if array.is_contiguous else array.copy()


def _require_known_sizes(name: str, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
    known = {axis for spec in inputs.values() for axis in spec.shape if isinstance(axis, str)}
    for output, spec in outputs.items():
        for axis in spec.shape:
            if isinstance(axis, str) and axis not in known:
                raise EngineError(
                    f"Graph '{name}': the size of '{axis}' of output '{output}' follows from no input, so no memory "
                    "can be laid out for it. Export it with outputs that have the dimensions of inputs."
                )
