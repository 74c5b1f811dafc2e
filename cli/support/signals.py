"""Stopping the command from outside: Ctrl-C, SIGTERM, and a terminal that is closed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from types import FrameType

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Not every system has all of them."""

_ONE_WISH_S = 2.0
"""Presses of Ctrl-C within this time are one wish to stop: what cleans up after the first is not interrupted."""


@dataclass
class Stop:
    """What asked the command to end.

    Attributes:
        number: of the signal; None as long as there was none.
    """

    number: int | None = None
    _at: float = 0.0

    def raise_once(self, number: int, _: FrameType | None) -> None:
        """Raise KeyboardInterrupt, so that all that is open closes and nothing half-written stays."""
        if self.number is not None and monotonic() - self._at < _ONE_WISH_S:
            return
        self.number, self._at = self.number or number, monotonic()
        raise KeyboardInterrupt

    @property
    def code(self) -> int:
        """128 and the number, as shells have it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.number or signal.SIGINT)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """While the block lasts, a signal ends it by KeyboardInterrupt; after it, signals do what they did before.

    A signal that whoever started the command has it ignore stays ignored: `nohup` does so with SIGHUP.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be changed
        yield stop
        return
    numbers = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number in numbers if before[number] not in (signal.SIG_IGN, None)]
    try:
        for number in taken:
            signal.signal(number, stop.raise_once)
        yield stop
    finally:
        for number in taken:
            signal.signal(number, before[number])


@contextmanager
def ended_by(name: str, end: Callable[[], None]) -> Iterator[None]:
    """While the block lasts, a signal calls `end`; what it does otherwise, it does when the block is left.

    Args:
        name: of the signal; where there is none such, or it is ignored, nothing changes.
        end: asks what runs in the block to end.
    """
    number: int = getattr(signal, name, 0)
    before = signal.getsignal(number) if number else None
    if before in (signal.SIG_IGN, None) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)
        end()

    signal.signal(number, note)
    try:
        yield
    finally:
        signal.signal(number, before)
    if came:
        signal.raise_signal(number)


@contextmanager
def asked_to_end(answer: str) -> Iterator[Callable[[], bool]]:
    """While the block lasts, the first signal to stop only asks; what it does otherwise, it does after the block.

    The next one, after the time that presses count as one, does at once what it does otherwise.

    Args:
        answer: to the first, on stderr.

    Yields:
        Whether there was one.
    """
    came: list[tuple[int, float]] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    numbers = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number in numbers if callable(before[number])]

    def note(number: int, frame: FrameType | None) -> None:
        if not came:
            came.append((number, monotonic()))
            with suppress(OSError):  # a terminal that is closed takes no more words
                os.write(2, f"\npflx: {answer}\n".encode())
        elif monotonic() - came[0][1] >= _ONE_WISH_S:
            handler = before[number]
            assert callable(handler)
            handler(number, frame)

    try:
        for number in taken:
            signal.signal(number, note)
        yield lambda: bool(came)
    finally:
        for number in taken:
            signal.signal(number, before[number])
    if came:
        signal.raise_signal(came[0][0])
