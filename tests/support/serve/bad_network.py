"""A network between a visitor and the server that loses, delays, narrows and stops, as tc's netem does, without root.

Both sides are told the relay's addresses in the place of the other's own, so all media goes through it: connectivity
checks, pictures, sound and reports. The page's web socket does not.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

from support.serve.serve_client import Browser, Visitor

_LONGEST_QUEUE_S = 0.3  # of a narrow way: what would wait longer is dropped


@dataclass
class Weather:
    """How bad it is, both ways; may be changed at any time.

    Attributes:
        loss: share of packets that never come.
        delay_s: that all take.
        jitter_s: by which each comes earlier or later, at most; packets may overtake one another.
        kbit_per_s: that fit through; None for any.
        is_down: nothing comes through.
    """

    loss: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    kbit_per_s: float | None = None
    is_down: bool = False


class _Way(asyncio.DatagramProtocol):
    """Packets that come to one side's socket leave by the other's.

    Attributes:
        came: bytes that were sent into it, those that never came out again included.
        crowded_out: packets for which there was no room.
        is_cut: whether nothing comes through this way.
    """

    transport: asyncio.DatagramTransport

    def __init__(self, weather: Weather, seed: int) -> None:
        self.target: tuple[str, int] | None = None
        self.out: _Way | None = None
        self._weather, self._random, self._free_at = weather, random.Random(seed), 0.0
        self.came = self.crowded_out = 0
        self.is_cut = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        weather, now = self._weather, time.monotonic()
        self.came += len(data)
        if weather.is_down or self.is_cut or self._random.random() < weather.loss:
            return
        if weather.kbit_per_s is not None:
            if self._free_at - now > _LONGEST_QUEUE_S:
                self.crowded_out += 1
                return
            self._free_at = max(now, self._free_at) + len(data) * 8 / (weather.kbit_per_s * 1000)
        at = max(now, self._free_at) + weather.delay_s + self._random.uniform(-1, 1) * weather.jitter_s
        asyncio.get_running_loop().call_later(max(0.0, at - now), self._hand_on, data)

    def _hand_on(self, data: bytes) -> None:
        assert self.out is not None
        if self.target is not None and not self.out.transport.is_closing():
            self.out.transport.sendto(data, self.target)


class BadNetwork:
    """One visitor's way to the server and back, in a thread of its own.

    Attributes:
        weather: of the moment.
        up: the visitor's way to the server.
        down: the server's way to the visitor.
    """

    def __init__(self) -> None:
        self.weather = Weather()
        self.up, self.down = _Way(self.weather, 1), _Way(self.weather, 2)
        self.up.out, self.down.out = self.down, self.up
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> BadNetwork:
        self._thread.start()
        for way in (self.up, self.down):
            bound = self._loop.create_datagram_endpoint(lambda way=way: way, local_addr=("127.0.0.1", 0))  # type: ignore[misc]
            asyncio.run_coroutine_threadsafe(bound, self._loop).result(10)
        return self

    def __exit__(self, *failure: object) -> None:
        for way in (self.up, self.down):
            self._loop.call_soon_threadsafe(way.transport.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def clear_up(self) -> None:
        """From now on all comes through at once."""
        vars(self.weather).update(vars(Weather()))

    def cut_uplink(self) -> None:
        """From now on nothing of the visitor's reaches the server."""
        self.up.is_cut = True

    def offered(self, sdp: str) -> str:
        """A visitor's offer as the server gets it: the relay stands in their place."""
        sdp, self.down.target = _redirected(sdp, self.down.transport)
        return sdp

    def answered(self, sdp: str) -> str:
        """The server's answer as the visitor gets it."""
        sdp, self.up.target = _redirected(sdp, self.up.transport)
        return sdp


def _redirected(sdp: str, transport: asyncio.DatagramTransport) -> tuple[str, tuple[str, int]]:
    """A description whose only address is that of a socket, and the first that it had: the bundle's transport's."""
    host, port = transport.get_extra_info("sockname")
    lines, found = list[str](), list[tuple[str, int]]()
    for line in sdp.splitlines():
        words = line.split()
        if line.startswith("a=candidate:"):
            found.append((words[4], int(words[5])))
            words[4:6] = [host, str(port)]
            line = " ".join(words)
        lines.append(line)
    return "\r\n".join([*lines, ""]), found[0]


class FarVisitor(Visitor):
    """A visitor behind a bad network.

    Attributes:
        came: when each picture was there, in s on a monotonic clock.
    """

    def __init__(self, browser: Browser, network: BadNetwork, **options: Any) -> None:
        super().__init__(browser, **options)
        self._network = network
        self.came: list[float] = []
        self.pictures = cast("Any", _Stamped(self.came))

    async def offer(self) -> str:
        return self._network.offered(await super().offer())

    async def accept(self, sdp: str) -> None:
        await super().accept(self._network.answered(sdp))

    def longest_freeze_s(self, since: float) -> float:
        """Between two pictures, of those that came since then, and until now."""
        times = [since, *(time for time in self.came if time > since), time.monotonic()]
        return max(later - earlier for earlier, later in pairwise(times))


class _Stamped(list[Any]):
    def __init__(self, times: list[float]) -> None:
        super().__init__()
        self._times = times

    def append(self, picture: Any) -> None:
        self._times.append(time.monotonic())
        super().append(picture)


@contextmanager
def bad_network() -> Iterator[BadNetwork]:
    """One that is fine at first."""
    with BadNetwork() as network:
        yield network
