"""How many sessions one listener serves at once before frames come too late."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from pflx.runtime.bench.measure.environment import describe_environment
from pflx.runtime.bench.measure.plan import Plan, make_report, open_listener
from pflx.runtime.bench.measure.realtime import (
    figures_of,
    make_stimulus,
    require_duration,
    start_session,
    without_warm_up,
)
from pflx.runtime.bench.report.report import Report, SessionsRow
from pflx.runtime.bench.report.verdict import MAX_DMR
from pflx.runtime.frames.ledger import Ledger
from pflx.runtime.frames.timing import FPS, FRAME_NS, NS_PER_MS
from pflx.runtime.latency.percentiles import distribution
from pflx.runtime.listener import Listener
from pflx.runtime.live.clock import LiveClock, SystemClock
from pflx.runtime.media.sources import Source, Timed
from pflx.runtime.text_table import count, number, percent


def run_sessions(
    plan: Plan,
    first: int,
    last: int,
    clock: LiveClock | None = None,
    *,
    costs: Mapping[str, int] | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Report:
    """Find the largest number of sessions that is kept, by adding one at a time.

    A number is kept when at most 0.1 % of all their frames miss the deadline, and the p99 of the segment turnaround
    (the largest, where there are too few for a p99) is no longer than a segment.

    Args:
        plan: of each session, which differs in its noise and events. `duration_s` is the time for each number.
        first: number to begin with.
        last: number to end with, at the latest.
        clock: None is the machine's.
        costs: see `open_listener`.
        progress: gets the number that is tried, and the last.

    Raises:
        FeedError: the duration is too short for figures.
        SessionError: a session failed.
        BundleError, DeviceError, EngineError, PortraitError, MediaError: what cannot be opened.
    """
    clock = clock or SystemClock()
    stimulus = make_stimulus(plan)
    environment = describe_environment(plan.device)
    rows: list[SessionsRow] = []
    with open_listener(plan, clock, costs=costs) as listener:
        require_duration(stimulus, listener)
        for sessions in range(first, last + 1):
            progress(sessions, last)
            rows.append(measure_sessions(listener, plan, sessions, clock))
            if not rows[-1].kept:
                break
    return make_report(
        plan,
        "sessions",
        listener.manifest,
        environment,
        source=stimulus.description,
        clock=clock,
        sessions=rows,
        verdict=list(_verdict(rows, listener.generator.hop * FRAME_NS / NS_PER_MS, last)),
    )


def measure_sessions(listener: Listener, plan: Plan, sessions: int, clock: LiveClock) -> SessionsRow:
    """So many at once on one listener, their segments evenly apart.

    They go on beyond the plan's duration, and what comes then is left out: at the end frames no longer wait for their
    look-ahead, those of all sessions are due within a segment, and no session that goes on has to bear that.
    """
    hop = listener.generator.hop
    duration_s = _whole(plan.duration_s, hop)
    beyond_s = _whole((listener.lookahead + 3 * hop) / FPS, hop)
    recorded: list[list[Ledger]] = [[] for _ in range(sessions)]
    gate = _Gate(clock)
    with ExitStack() as running:
        live = []
        for index, ledgers in enumerate(recorded):
            own = replace(plan, seed=plan.seed + index, duration_s=duration_s + beyond_s)
            source = _Held(make_stimulus(own), gate, phase_ns=index * hop * FRAME_NS // sessions)
            live.append(running.enter_context(start_session(own, listener, source, clock, ledgers.append)))
        gate.open()
        for session in live:
            session.wait()
    end = round(duration_s * FPS)
    kept = [[ledger for ledger in without_warm_up(ledgers, hop) if ledger.frame < end] for ledgers in recorded]
    return _row(kept, plan, listener)


def _whole(duration_s: float, hop: int) -> float:
    """Of whole segments: a last one that is shorter follows sooner on the one before, and so waits for it."""
    frames = int(duration_s * FPS + 1e-9)
    return frames // hop * hop / FPS


def _row(recorded: Sequence[Sequence[Ledger]], plan: Plan, listener: Listener) -> SessionsRow:
    each = [figures_of(ledgers, plan, listener) for ledgers in recorded]
    dmr = sum(found.missed or 0 for found in each) / sum(found.frames for found in each)
    turnarounds_ms = [ms for ledgers in recorded for ms in _turnarounds_ms(ledgers)]
    p99 = distribution(turnarounds_ms).p99 if turnarounds_ms else None
    slowest_ms = p99.value if p99 else max(turnarounds_ms, default=math.inf)
    return SessionsRow(
        sessions=len(recorded),
        dmr=dmr,
        turnaround_p99_ms=p99.value if p99 else None,
        kept=dmr <= MAX_DMR and slowest_ms <= listener.generator.hop * FRAME_NS / NS_PER_MS,
    )


def _turnarounds_ms(ledgers: Sequence[Ledger]) -> Iterator[float]:
    """Of one session's segments but the first, which the warm-up may have taken the earliest pictures of."""
    ready: dict[int, int] = {}
    for ledger in ledgers:
        if ledger.on_host is not None and ledger.newest is not None:
            ready[ledger.newest] = min(ledger.on_host, ready.get(ledger.newest, ledger.on_host))
    for newest in sorted(ready)[1:]:
        yield (ready[newest] - newest) / NS_PER_MS


def _verdict(rows: Sequence[SessionsRow], segment_ms: float, last: int) -> Iterator[str]:
    limits = f"at most {percent(MAX_DMR)} of the frames missed, turnaround p99 at most {number(segment_ms)} ms"
    kept = [row.sessions for row in rows if row.kept]
    if not kept:
        yield f"Not even {count(rows[0].sessions, 'session')} at once could be kept ({limits})."
    else:
        yield f"{count(kept[-1], 'session')} at once could be kept ({limits})."
    if rows[-1].kept:
        yield f"More than {last} were not tried."
    if any(row.turnaround_p99_ms is None for row in rows):
        yield "Where there were too few segments for a p99, the longest turnaround had to do. Measure for longer."


class _Gate:
    """Holds speakers back until all sessions are warm, so that none begins while others still make the engines busy.

    Args:
        clock: of the sessions.
    """

    def __init__(self, clock: LiveClock) -> None:
        self._clock = clock
        self._monitor = clock.monitor()
        self._opened: int | None = None

    def open(self) -> None:
        """Let all through, each in its phase."""
        with self._monitor:
            self._opened = self._clock()
            self._monitor.notify()

    def wait(self, phase_ns: int, closed: Callable[[], bool]) -> None:
        """Until it is open for so long, or `closed`."""
        with self._monitor:
            while not closed():
                until = None if self._opened is None else self._opened + phase_ns
                if until is not None and self._clock() >= until:
                    return
                self._monitor.wait(until)

    def look(self) -> None:
        """Have those that wait ask `closed` again."""
        with self._monitor:
            self._monitor.notify()


class _Held:
    """A source that begins when the gate lets it."""

    live = False

    def __init__(self, source: Source, gate: _Gate, phase_ns: int) -> None:
        self._source, self._gate, self._phase_ns = source, gate, phase_ns
        self.sample_rate_hz = source.sample_rate_hz
        self._closed = False

    def tracks(self) -> Sequence[Iterator[Timed]]:
        return [self._begin(track) for track in self._source.tracks()]

    def close(self) -> None:
        self._closed = True
        self._source.close()
        self._gate.look()

    def _begin(self, track: Iterator[Timed]) -> Iterator[Timed]:
        self._gate.wait(self._phase_ns, lambda: self._closed)
        yield from track
