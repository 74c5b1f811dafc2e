"""A long run, minute by minute: whether anything grows, drifts or wears out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from operator import attrgetter
from typing import Any

import numpy as np
from msgspec.structs import replace

from pflx.runtime.bench.measure.environment import describe_environment, resident_mb
from pflx.runtime.bench.measure.plan import Plan, make_report, open_listener
from pflx.runtime.bench.measure.realtime import (
    WARM_UP_SEGMENTS,
    Progress,
    figures_of,
    make_stimulus,
    play,
    require_duration,
)
from pflx.runtime.bench.report.report import Minute, Report
from pflx.runtime.bench.report.scalars import memory_slope_mb_per_h
from pflx.runtime.bench.report.series import make_series
from pflx.runtime.bench.report.verdict import verdict
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.timing import FPS, NS_PER_MS, NS_PER_S
from pflx.runtime.live.clock import LiveClock, SystemClock
from pflx.runtime.text_table import number

_NONE = np.iinfo(np.int64).min
_NAMES = [*(field.name for field in fields(Ledger) if field.name != "time_s"), "time_s"]
_values = attrgetter(*_NAMES)
_PER_MINUTE = 60 * FPS
_PER_LOOK = 5 * FPS  # from one look at the memory to the next


def run_soak(
    plan: Plan,
    clock: LiveClock | None = None,
    *,
    progress: Progress | None = None,
    record: Callable[[Ledger], None] | None = None,
) -> Report:
    """Measure a long live session, as `run_realtime` does, without its impulses' figures.

    Ledgers are kept in memory that is laid out before the session starts, so that what grows is the session's.

    Args:
        plan: what to measure.
        clock: what it runs on; None is the machine's clock, which engines that compute need.
        progress: is told how far it is.
        record: gets every ledger; if it keeps them, memory grows.

    Raises:
        FeedError, SessionError, BundleError, DeviceError, EngineError, PortraitError, MediaError: as `run_realtime`.
    """
    clock = clock or SystemClock()
    stimulus = make_stimulus(plan)
    environment = describe_environment(plan.device)
    with open_listener(plan, clock) as listener:
        require_duration(stimulus, listener)
        hop = listener.generator.hop
        log = _Log(stimulus.frames * plan.samples, WARM_UP_SEGMENTS * hop, record)
        play(plan, listener, stimulus, clock, record=log.add, progress=progress)
        ledgers = list(log.ledgers())
        found = figures_of(ledgers, plan, listener)
    report = make_report(
        plan,
        "soak",
        listener.manifest,
        environment,
        source=stimulus.description,
        clock=clock,
        figures=found,
        minutes=log.minutes(plan.samples),
        series=make_series(ledgers, found, hop=hop),
    )
    return replace(report, verdict=[*verdict(found, report.setup), *_trends(report.minutes)])


def _trends(minutes: list[Minute]) -> Iterator[str]:
    slope = memory_slope_mb_per_h(minutes)
    if slope is not None:
        yield f"The trend of the memory is {number(slope)} MB an hour."
    yield f"Emission moved by {number(max(abs(row.drift_ms) for row in minutes))} ms at most from the media clock."


class _Log:
    """All ledgers of a session as rows of numbers, and the memory at the end of each minute.

    Ledgers come in the order of their frames, for shown and dropped ones leave one queue.

    Args:
        capacity: ledgers that are expected.
        first: the first frame after the warm-up; what is before it is left out.
        record: gets every ledger too.
    """

    def __init__(self, capacity: int, first: int, record: Callable[[Ledger], None] | None) -> None:
        self._rows = np.full((capacity, len(_NAMES)), _NONE, np.int64)  # written to, and so resident from the start
        self._count = 0
        self._first, self._record = first, record
        self._rss_mb: dict[int, float] = {}  # by minute

    def add(self, ledger: Ledger) -> None:
        """Take a ledger."""
        if self._record is not None:
            self._record(ledger)
        if ledger.frame < self._first:
            return
        minute = ledger.frame // _PER_MINUTE
        if minute not in self._rss_mb or (ledger.sample == 0 and ledger.frame % _PER_LOOK == 0):
            self._rss_mb[minute] = resident_mb()
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.full_like(self._rows, _NONE)])
        *values, time_s = _values(ledger)
        row = [_NONE if value is None else value for value in values]
        self._rows[self._count] = [*row, round(time_s * NS_PER_S)]
        self._count += 1

    def ledgers(self) -> Iterator[Ledger]:
        """All of them, once the session has ended."""
        for *row, time_ns in self._rows[: self._count].tolist():
            values: dict[str, Any] = dict(
                zip(_NAMES, (None if value == _NONE else value for value in row), strict=False)
            )
            yield Ledger(**values | {"rung": Rung(values["rung"]), "time_s": time_ns / NS_PER_S})

    def minutes(self, samples: int) -> list[Minute]:
        """One row a minute; the last one may be shorter. A frame without a ledger counts as missed."""
        columns = dict(zip(_NAMES, self._rows[: self._count].T, strict=True))
        frame, emitted = columns["frame"], columns["emitted"]
        shown = emitted != _NONE
        in_time = shown & (columns["rung"] == Rung.FULL) & (columns["on_host"] <= columns["deadline"])
        trail_ms = (emitted - columns["time_s"]) / NS_PER_MS
        last, rows, origin_ms = int(frame.max()), [], None
        for minute in range(last // _PER_MINUTE + 1):
            mine = frame // _PER_MINUTE == minute
            due = (min(last + 1, (minute + 1) * _PER_MINUTE) - max(self._first, minute * _PER_MINUTE)) * samples
            mean_ms = float(trail_ms[mine & shown].mean()) if (mine & shown).any() else None
            origin_ms = mean_ms if origin_ms is None else origin_ms
            rows.append(
                Minute(
                    minute=minute,
                    dmr=1 - int((mine & in_time).sum()) / due,
                    rss_mb=self._rss_mb[minute],
                    drift_ms=0.0 if mean_ms is None or origin_ms is None else mean_ms - origin_ms,
                    frames=due,
                )
            )
        return rows
