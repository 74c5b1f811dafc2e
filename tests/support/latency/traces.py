"""Traces of a session, checked as viewers read them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pflx.runtime.frames.ledger import Ledger
from pflx.runtime.latency.trace import write_trace

WITHIN = 1e-3  # µs: what a float that holds a ns stamp may be off

Event = dict[str, Any]


def trace(folder: Path, ledgers: Iterable[Ledger]) -> list[Event]:
    """The events that are written, after a check of all that holds for any trace."""
    write_trace(folder / "trace.json", ledgers, name="a session")
    content = json.loads((folder / "trace.json").read_bytes())
    events: list[Event] = content["traceEvents"]
    assert content["displayTimeUnit"] == "ms"
    timed = [event for event in events if event["ph"] != "M"]
    assert events[len(events) - len(timed) :] == timed
    stamps = [event["ts"] for event in timed]
    assert stamps == sorted(stamps)
    assert stamps[:1] in ([], [0])
    for event in events:
        assert event["ph"] in "XMbei"
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["name"]
    check_pairs(timed)
    check_rows(events)
    return events


def check_pairs(events: list[Event]) -> None:
    """Every begin has its end, after it."""
    open_spans: dict[tuple[str, str], Event] = {}
    for event in events:
        if event["ph"] == "b":
            assert open_spans.setdefault((event["cat"], event["id"]), event) is event
        elif event["ph"] == "e":
            assert open_spans.pop((event["cat"], event["id"]))["name"] == event["name"]
    assert not open_spans


def check_rows(events: list[Event]) -> None:
    """Every row has a name, and its slices follow one another."""
    named = {event["tid"] for event in events if event["name"] == "thread_name"}
    ends: dict[int, float] = defaultdict(float)
    for event in events:
        if event["ph"] == "X":
            assert event["dur"] >= 0
            assert event["ts"] >= ends[event["tid"]] - WITHIN
            ends[event["tid"]] = event["ts"] + event["dur"]
        if event["ph"] in "Xi":
            assert event["tid"] in named
        assert event["ph"] != "i" or event["s"] == "t"


def incidents(events: list[Event]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if event["ph"] == "i":
            found[event["name"]].append(event["args"]["frame"])
    return dict(found)


def on_row(events: list[Event], row: str) -> list[Event]:
    (tid,) = (e["tid"] for e in events if e["name"] == "thread_name" and e["args"]["name"] == row)
    return [event for event in events if event["tid"] == tid and event["ph"] == "X"]
