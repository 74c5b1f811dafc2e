"""Ledgers as a trace that Perfetto and chrome://tracing open: stages as rows, frames as slices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pflx.engines.files.writer import write_whole
from pflx.runtime.frames.ledger import Ledger, Rung

_PID = 1
_NS_PER_US = 1000
_NS_PER_MS = 1_000_000
_LAST_NS = 40 * _NS_PER_MS  # how long the last frame of a sample is drawn: until the next would have come


class _Event(msgspec.Struct, omit_defaults=True):
    """One event of the format; times are in ns until they are written, in µs.

    Source: "Trace Event Format", Google: complete (X), async (b, e), instant (i) and metadata (M) events.
    """

    ph: str
    name: str
    pid: int
    tid: int
    ts: float
    dur: float | None = None
    cat: str | None = None
    id: str | None = None
    s: str | None = None
    args: dict[str, Any] | None = None


def write_trace(path: Path, ledgers: Iterable[Ledger], *, name: str) -> None:
    """Write a trace, whole or not at all.

    Rows: generator, PosNet, render (one for each sample), copy to host, emitted (one for each sample, a slice as long
    as the frame stays on show). What overlaps, speaker input (due → complete) and waiting for the deadline
    (ready → emitted), is drawn by the viewer in as many lanes as it takes. Missed deadlines, holds and drops are
    instant events on the row of what is emitted. Segments have one slice a stage, pictures one rendering.

    Args:
        path: `.json`.
        ledgers: in any order, of a live session or of a plain stream.
        name: of the session.

    Raises:
        OutputError: it cannot be written.
    """
    events = _events(sorted(ledgers, key=lambda ledger: (ledger.sample, ledger.frame)), name)
    write_whole(path, msgspec.json.encode({"displayTimeUnit": "ms", "traceEvents": events}))


def _events(ledgers: Sequence[Ledger], name: str) -> list[_Event]:
    rows = _rows(1 + max((ledger.sample for ledger in ledgers), default=0))
    events = [*_segments(ledgers, rows), *_pictures(ledgers, rows), *_emissions(ledgers, rows)]
    origin = min((event.ts for event in events), default=0)
    for event in events:
        event.ts = (event.ts - origin) / _NS_PER_US
        if event.dur is not None:
            event.dur /= _NS_PER_US
    return [*_metadata(rows, name), *sorted(events, key=lambda event: event.ts)]


def _rows(samples: int) -> dict[str, int]:
    """Thread numbers by the rows' names, from above."""
    render, emitted = ([_row(stage, sample) for sample in range(samples)] for stage in ("render", "emitted"))
    return {row: tid for tid, row in enumerate(["generator", "PosNet", *render, "copy to host", *emitted], start=1)}


def _row(stage: str, sample: int) -> str:
    return f"{stage}, sample {sample}"


def _metadata(rows: dict[str, int], name: str) -> Iterator[_Event]:
    yield _Event("M", "process_name", _PID, 0, 0, args={"name": name})
    for row, tid in rows.items():
        yield _Event("M", "thread_name", _PID, tid, 0, args={"name": row})
        yield _Event("M", "thread_sort_index", _PID, tid, 0, args={"sort_index": tid})


def _segments(ledgers: Sequence[Ledger], rows: dict[str, int]) -> Iterator[_Event]:
    """What is done once for all frames of a segment."""
    firsts = {ledger.segment: ledger for ledger in reversed(ledgers) if ledger.segment is not None}
    for number, ledger in firsts.items():
        args = {"segment": number, "first_frame": _picture(ledger)}
        yield from _span("speaker input", f"{number}", ledger.scheduled, ledger.closed, args)
        label = f"segment {number}"
        yield from _slice(label, rows["generator"], ledger.generator_start, ledger.generator_end, args)
        yield from _slice(label, rows["PosNet"], ledger.generator_end, ledger.posnet_end, args)


def _pictures(ledgers: Sequence[Ledger], rows: dict[str, int]) -> Iterator[_Event]:
    """What is done once for a picture, however many frames show it."""
    rendered = [ledger for ledger in reversed(ledgers) if ledger.render_end is not None]
    firsts = {(ledger.sample, _picture(ledger)): ledger for ledger in rendered}
    for (sample, number), ledger in firsts.items():
        label, args = f"frame {number}", _arguments(ledger)
        yield from _slice(label, rows[_row("render", sample)], ledger.render_start, ledger.render_end, args)
        yield from _slice(label, rows["copy to host"], ledger.render_end, ledger.on_host, args)


def _emissions(ledgers: Sequence[Ledger], rows: dict[str, int]) -> Iterator[_Event]:
    following: dict[int, int] = {}  # when the sample's next frame is emitted
    for ledger in reversed(ledgers):
        row, args = rows[_row("emitted", ledger.sample)], _arguments(ledger)
        yield from _incident(ledger, row, args)
        if ledger.emitted is None:
            continue
        yield from _span(
            "waiting for deadline", f"{ledger.sample}.{ledger.frame}", ledger.on_host, ledger.emitted, args
        )
        until = following.get(ledger.sample, ledger.emitted + _LAST_NS)
        shows = "" if _picture(ledger) == ledger.frame else f" shows {ledger.picture}"
        yield from _slice(f"frame {ledger.frame}{shows}", row, ledger.emitted, until, args)
        following[ledger.sample] = ledger.emitted


def _incident(ledger: Ledger, row: int, args: dict[str, Any]) -> Iterator[_Event]:
    """What went wrong with a frame that had a deadline, if anything."""
    if ledger.deadline is None:
        return
    if ledger.emitted is None:
        yield _Event("i", "dropped", _PID, row, ledger.deadline, s="t", args=args)
    elif ledger.rung is Rung.HOLD:
        yield _Event("i", "hold", _PID, row, ledger.emitted, s="t", args=args)
    elif args["lateness_ms"]:
        yield _Event("i", "deadline missed", _PID, row, ledger.deadline, s="t", args=args)


def _arguments(ledger: Ledger) -> dict[str, Any]:
    ready = ledger.emitted if ledger.on_host is None else ledger.on_host
    late = None if ready is None or ledger.deadline is None else max(0, ready - ledger.deadline) / _NS_PER_MS
    return {
        "frame": ledger.frame,
        "picture": ledger.picture,
        "segment": ledger.segment,
        "rung": ledger.rung.name,
        "lateness_ms": late,
    }


def _picture(ledger: Ledger) -> int:
    return ledger.frame if ledger.picture is None else ledger.picture


def _slice(name: str, row: int, start: int | None, end: int | None, args: dict[str, Any]) -> Iterator[_Event]:
    if start is not None and end is not None:
        yield _Event("X", name, _PID, row, start, dur=max(0, end - start), args=args)


def _span(name: str, number: str, start: int | None, end: int | None, args: dict[str, Any]) -> Iterator[_Event]:
    """A slice that may overlap its neighbours: a pair of async events, which are told apart by their number."""
    if start is not None and end is not None:
        yield _Event("b", name, _PID, 0, start, cat=name, id=number, args=args)
        yield _Event("e", name, _PID, 0, max(start, end), cat=name, id=number)
