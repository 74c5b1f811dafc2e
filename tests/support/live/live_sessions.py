"""Live sessions on the fake listener: sources, engines that take time, and all that comes out of a run."""

from __future__ import annotations

import asyncio
import faulthandler
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from support.fakes import (
    FUNCTIONS,
    HOP,
    ONE_FACE,
    REGION,
    Failing,
    Function,
    fake_engines,
    fake_listener,
    frames_of,
    sound_of,
)
from support.grouped import grouped

from pflx.engines import Array, Engine
from pflx.runtime import (
    Face,
    IterableSource,
    Ledger,
    Listener,
    ListenerFrame,
    LiveSession,
    Rung,
    SessionStats,
    Timed,
)
from pflx.runtime.live.clock import LiveClock, SystemClock, VirtualClock
from pflx.runtime.live.settings import LiveSettings

MS = 1_000_000
FRAME = 40 * MS
START = 10**9
"""What a virtual clock shows at first."""
FLOORS = [rung for rung in Rung if rung is not Rung.WARPED]
"""Of sessions on a bundle without a preview."""


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    """A session that hangs ends the run, and every thread tells where it was."""
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def speaker(n: int, *, start_s: float = 0.0, sound: bool = True, first: int = 0) -> list[Timed]:
    """Frames `first` to `n` of one speaker at 25 fps, each with its sound."""
    video, audio = frames_of(n), sound_of(n)
    return [
        Timed(start_s + k / 25, video[k], audio[640 * k : 640 * k + 640] if sound else None) for k in range(first, n)
    ]


def taking(clock: LiveClock, graph: str, ms: float | Callable[[], float]) -> Function:
    """A fake graph whose calls take so long on a clock."""

    def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        duration = round((ms if isinstance(ms, float | int) else ms()) * MS)
        if duration:
            clock.sleep(duration)
        return FUNCTIONS[graph](feeds)

    return run


def costly(clock: LiveClock, *, render: float | Callable[[], float] = 0, generate: float = 0) -> dict[str, Engine]:
    """Engines that take so many ms for a picture and for a segment."""
    return fake_engines(
        pirender_frame=taking(clock, "pirender_frame", render),
        reactface_speaker=taking(clock, "reactface_speaker", generate),
    )


@dataclass
class Run:
    """A session that ran to its end."""

    frames: list[ListenerFrame] = field(default_factory=list)
    ledgers: list[Ledger] = field(default_factory=list)
    stats: list[SessionStats] = field(default_factory=list)
    begin: int = 0
    """When the session had started and its source was read for the first time."""

    @property
    def last(self) -> SessionStats:
        return self.stats[-1]

    def shown(self) -> list[Ledger]:
        return [frame.ledger for frame in self.frames]


def run(
    source: Any,
    *,
    render: float | Callable[[], float] = 0,
    generate: float = 0,
    lookahead: int = 3,
    show: Callable[[LiveSession, ListenerFrame], object] = lambda session, frame: None,
    clock: VirtualClock | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> Run:
    """A whole session on a virtual clock; `show` is called with every frame, and its statistics are kept."""
    clock = clock or VirtualClock(START)
    listener = listener or fake_listener(costly(clock, render=render, generate=generate), lookahead=lookahead)
    result, sessions = Run(), list[LiveSession]()

    def sink(frame: ListenerFrame) -> None:
        result.frames.append(frame)
        result.stats.append(sessions[0].stats)
        show(sessions[0], frame)

    given: dict[str, Any] = {"region": REGION, "record": result.ledgers.append} | options
    with listener.live(source, sink, clock=clock, **grouped(given, "speaker", "settings")) as session:
        sessions.append(session)
        result.begin = clock()
        session.wait()
        result.stats.append(session.stats)
    return result


def offline(items: Sequence[Timed], *, lookahead: int = 3, **options: Any) -> list[ListenerFrame]:
    """What a stream makes of the same speaker, given all at once."""
    video = np.stack([item.video for item in items if item.video is not None])
    sound = [item.audio for item in items if item.audio is not None]
    audio = np.concatenate(sound) if sound else np.zeros(640 * len(video), np.float32)
    given: dict[str, Any] = {"region": REGION, "start_s": items[0].time_s} | options
    with fake_listener(lookahead=lookahead).stream(**grouped(given, "speaker")) as stream:
        stream.push(video=video, audio=audio)
        stream.finish()
        return list(stream.pull())


def content(frame: ListenerFrame) -> tuple[Any, ...]:
    """What a frame shows; its time apart, for it is a float."""
    arrays = (frame.image, frame.coefficients, frame.generated_pose)
    return (frame.sample, frame.face, *(array.tobytes() for array in arrays))


def contents(frames: Iterable[ListenerFrame]) -> list[tuple[Any, ...]]:
    return [content(frame) for frame in frames]


def captured(
    clock: LiveClock,
    n: int,
    *,
    fps: float = 25,
    start_s: float = 0.0,
    rate: float = 1.0,
    size: tuple[int, int] = (48, 40),
) -> Iterator[Timed]:
    """A camera without sound: pictures as they are captured, by a clock that runs `rate` times as fast."""
    video, begin = frames_of(min(n, 100), size=size), clock()
    for k in range(n):
        clock.sleep(begin + round(k / fps * 1e9) - clock())
        yield Timed(start_s + k / fps * rate, video[k % len(video)])


async def iterate(session: LiveSession, clock: LiveClock, take: Callable[[ListenerFrame], object]) -> None:
    """All frames of a session by `async for`, in an event loop that lets a virtual clock go on."""

    async def go_on() -> None:
        while True:
            clock.sleep(5 * MS if isinstance(clock, VirtualClock) else 0)
            await asyncio.sleep(0)

    beside = asyncio.create_task(go_on())
    try:
        async for frame in session:
            take(frame)
    finally:
        beside.cancel()


def assert_bounded(stats: Iterable[SessionStats]) -> None:
    """No queue ever held more than fits."""
    for moment in stats:
        for queue in moment.queues:
            assert 0 <= queue.waiting_ms <= queue.capacity_ms < 3000, queue


def trail_ms(ledger: Ledger, begin: int, now: int | None = None) -> float:
    """Age of what is shown, of a source whose frame k begins at `begin` + 40 k ms: captured when, shown when."""
    now = ledger.emitted if now is None else now
    assert now is not None
    assert ledger.picture is not None
    return (now - begin) / MS - 40 * ledger.picture


def still(seconds: float) -> bool:
    """Whether a thread of a session is there after so many seconds."""
    until = time.monotonic() + seconds
    while any(thread.name.startswith("pflx-") for thread in threading.enumerate()):
        if time.monotonic() > until:
            return True
        time.sleep(0.005)
    return False


def declared(lookahead: int, playout_ms: float = LiveSettings.playout_ms) -> int:
    return round(((HOP + lookahead) * 40 + playout_ms) * MS)


CLOCKS: dict[str, Callable[[], LiveClock]] = {"virtual": lambda: VirtualClock(START), "real": SystemClock}
PATIENCE_S = 5.0


@pytest.fixture(name="clock", params=CLOCKS)
def each_clock(request: pytest.FixtureRequest) -> LiveClock:
    return CLOCKS[request.param]()


class BrokenError(Exception):
    """What is raised in the middle of a session."""


def endless(clock: LiveClock, *, fail_at: int | None = None) -> Iterator[Timed]:
    """A speaker that goes on for ever; or fails."""
    video = frames_of(50)
    for k, item in enumerate(captured(clock, 10_000)):
        if k == fail_at:
            raise BrokenError("source")
        yield Timed(item.time_s, video[k % 50], np.full(640, 0.1, np.float32))


class Detector:
    """Sees a face, until it fails."""

    def __init__(self, fail_at: int | None = None) -> None:
        self._calls, self._fail_at = 0, fail_at

    def detect(self, frame_rgb: Array) -> list[Face]:
        self._calls += 1
        if self._calls == self._fail_at:
            raise BrokenError("detector")
        return ONE_FACE.detect(frame_rgb)


class Show:
    """A sink that may fail, block, or close the session; it keeps what it was told."""

    def __init__(self, act: Callable[[int], object] = lambda n: None, *, close: Exception | None = None) -> None:
        self.frames: list[ListenerFrame] = []
        self.closed: list[BaseException | None] = []
        self._act, self._close = act, close

    def show(self, frame: ListenerFrame) -> None:
        self.frames.append(frame)
        self._act(len(self.frames))

    def close(self, error: BaseException | None) -> None:
        self.closed.append(error)
        if self._close is not None:
            raise self._close


def failing(at: int, name: str) -> Callable[[int], None]:
    def act(n: int) -> None:
        if n == at:
            raise BrokenError(name)

    return act


# The n-th call that fails; the first four of each (two of PosNet and the renderer) are the warm-up.
GRAPHS = {"reactface_speaker": 6, "reactface_listener": 6, "posnet": 4, "pirender_frame": 8}
STAGES = [*GRAPHS, "detector", "source", "record", "show"]
NAMES = dict.fromkeys([*GRAPHS, "detector"], "chain") | {"source": "source", "record": "record", "show": "sink"}


def broken(stage: str, clock: LiveClock, *, sink: bool, **options: Any) -> LiveSession:
    """A session in which one stage fails after about half a second."""
    engines = fake_engines()
    if stage in GRAPHS:
        engines[stage] = Failing(engines[stage], at=GRAPHS[stage])
    listener = fake_listener(engines, detector=Detector(20 if stage == "detector" else None), lookahead=3)
    ledgers: list[Ledger] = []

    def record(ledger: Ledger) -> None:
        ledgers.append(ledger)
        failing(6, "record")(len(ledgers) if stage == "record" else 0)

    source = IterableSource(endless(clock, fail_at=14 if stage == "source" else None), live=True)
    shown = Show(failing(6, "show") if stage == "show" else lambda n: None) if sink else None
    given: dict[str, Any] = {"playout_ms": 40, "record": record} | options
    return listener.live(source, shown, clock=clock, **grouped(given, "speaker", "settings"))


def watch(session: LiveSession) -> None:
    """The whole of a session that ends by itself."""
    with session:
        assert session.wait(PATIENCE_S)


def assert_over(session: LiveSession, clock: LiveClock) -> None:
    """All threads have ended, within a second of the session's clock."""
    before = clock()
    session.close()
    assert clock() - before < 1000 * MS
    assert not still(PATIENCE_S)


def unseen(frame: ListenerFrame) -> None:
    """A sink that looks at nothing."""
