"""Traces keep to the Trace Event Format, so that viewers open them as they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.latency.planted import MS, STEP, on_time, plain
from support.latency.traces import incidents, on_row, trace
from support.sessions import FRAMES, listener, whole

from pflx.engines.files.writer import OutputError
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.latency.trace import write_trace


def test_stages_are_rows_and_frames_are_slices(tmp_path: Path) -> None:
    events = trace(tmp_path, on_time(5, samples=2, playout_ms=150))
    names = {e["name"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {"process_name": "a session"}
    rows = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    render, emitted = ([f"{stage}, sample 0", f"{stage}, sample 1"] for stage in ("render", "emitted"))
    assert rows == ["generator", "PosNet", *render, "copy to host", *emitted]
    counts = {row: len(on_row(events, row)) for row in rows}
    assert counts == dict.fromkeys(rows, 20) | {"generator": 5, "PosNet": 5, "copy to host": 40}
    spans = Counter(event["name"] for event in events if event["ph"] == "b")
    assert spans == {"speaker input": 5, "waiting for deadline": 40}
    assert not incidents(events)


def test_times_are_in_microseconds_from_the_first(tmp_path: Path) -> None:
    events = trace(tmp_path, on_time(2))
    assert [(e["name"], e["ts"], e["dur"]) for e in on_row(events, "generator")] == [
        ("segment 0", 0.0, 10_000.0),
        ("segment 1", 160_000.0, 10_000.0),
    ]
    first = on_row(events, "render, sample 0")[0]
    assert (first["name"], first["ts"], first["dur"]) == ("frame 0", 12_000.0, 5_000.0)
    assert first["args"] == {"frame": 0, "picture": 0, "segment": 0, "rung": "FULL", "lateness_ms": 0.0}
    shown = on_row(events, "emitted, sample 0")
    assert [event["dur"] for event in shown] == [40_000.0] * 8


def test_what_went_wrong_is_marked(tmp_path: Path) -> None:
    ledgers = on_time(5)
    deadlines = [ledger.deadline or 0 for ledger in ledgers]
    ledgers[5] = replace(ledgers[5], on_host=deadlines[5] + MS, emitted=deadlines[5] + MS)
    ledgers[6] = replace(Ledger(6, 0, None, 5, Rung.HOLD, 6 / 25), deadline=deadlines[6], emitted=deadlines[6])
    ledgers[7] = replace(Ledger(7, 0, None, None, Rung.HOLD, 7 / 25), deadline=deadlines[7])
    ledgers[9] = replace(ledgers[8], frame=9, deadline=deadlines[9], emitted=deadlines[9], rung=Rung.HALF_RATE)
    events = trace(tmp_path, ledgers)
    assert incidents(events) == {"deadline missed": [5], "hold": [6], "dropped": [7]}
    assert len(on_row(events, "render, sample 0")) == 20 - 3
    shown = {event["name"]: event["dur"] for event in on_row(events, "emitted, sample 0")}
    assert len(shown) == 19
    assert shown["frame 6 shows 5"] == 2 * STEP / 1000
    assert "frame 9 shows 8" in shown


def test_a_picture_that_came_late_is_drawn_as_rendered_where_it_was(tmp_path: Path) -> None:
    ledgers = on_time(5)
    slot = replace(ledgers[8], frame=11, rung=Rung.HOLD, deadline=ledgers[11].deadline, emitted=ledgers[11].emitted)
    events = trace(tmp_path, [*ledgers[:8], slot, *ledgers[12:]])
    rendered = on_row(events, "render, sample 0")[8]
    assert rendered["name"] == "frame 8"
    assert "frame 11 shows 8" in [event["name"] for event in on_row(events, "emitted, sample 0")]
    assert incidents(events) == {"hold": [11]}


def test_ledgers_without_a_live_session_have_stages_only(tmp_path: Path) -> None:
    events = trace(tmp_path, plain(on_time(5)))
    assert len(on_row(events, "render, sample 0")) == 20
    assert not on_row(events, "emitted, sample 0")
    assert {event["name"] for event in events if event["ph"] == "b"} == {"speaker input"}
    assert not incidents(events)


def test_the_ledgers_of_a_stream_are_taken(tmp_path: Path) -> None:
    frames = whole(listener(), samples=2, seed=1)
    events = trace(tmp_path, [frame.ledger for frame in frames])
    assert len(on_row(events, "generator")) == len({frame.ledger.segment for frame in frames})
    assert len(on_row(events, "render, sample 1")) == FRAMES
    assert len(on_row(events, "copy to host")) == 2 * FRAMES


@given(
    segments=st.integers(1, 5),
    samples=st.integers(1, 3),
    lookahead=st.integers(0, 6),
    costs=st.lists(st.integers(0, 90), min_size=7, max_size=7),
    fates=st.lists(st.sampled_from("kkkhd"), min_size=60, max_size=60),
    order=st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_session_gives_a_trace_that_a_viewer_can_draw(
    tmp_path: Path, segments: int, samples: int, lookahead: int, costs: list[int], fates: list[str], order: Any
) -> None:
    rows = on_time(segments, samples=samples, lookahead=lookahead, render=lambda frame: costs[frame % 7] * MS)
    ledgers = []
    for row, fate in zip(rows, fates, strict=False):
        bare = Ledger(row.frame, row.sample, None, None, Rung.HOLD, row.time_s)
        if fate == "h":
            row = replace(bare, picture=max(0, row.frame - 1), deadline=row.deadline, emitted=row.emitted)
        elif fate == "d":
            row = replace(bare, deadline=row.deadline)
        ledgers.append(row)
    order.shuffle(ledgers)
    events = trace(tmp_path, ledgers)
    shown = sum(ledger.emitted is not None for ledger in ledgers)
    assert sum(len(on_row(events, f"emitted, sample {sample}")) for sample in {row.sample for row in ledgers}) == shown
    assert len(incidents(events).get("dropped", [])) == len(ledgers) - shown


def test_a_trace_of_nothing_is_an_empty_one(tmp_path: Path) -> None:
    assert {event["ph"] for event in trace(tmp_path, [])} == {"M"}


def test_a_trace_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_trace(tmp_path / "none" / "trace.json", on_time(1), name="x")
    assert not list(tmp_path.iterdir())
