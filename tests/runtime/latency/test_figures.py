"""Figures are computed from ledgers alone, and refused where there are too few of them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.latency.planted import MS, on_time, plain

from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.latency.percentiles import Figures, FiguresError, figures

HOP = 4
GRANTED = 100.0


def of(ledgers: list[Ledger], *, lookahead: int = 0, samples: int = 1, playout_ms: float = GRANTED) -> Figures:
    return figures(ledgers, hop=HOP, algorithmic_ms=(HOP + lookahead) * 40, playout_ms=playout_ms, samples=samples)


def changed(ledgers: list[Ledger], changes: Mapping[int, Mapping[str, Any]]) -> list[Ledger]:
    """The ledgers of some frames are others."""
    return [replace(ledger, **changes.get(ledger.frame, {})) for ledger in ledgers]


def held(ledger: Ledger, picture: int, newest: int | None = None) -> Ledger:
    """The frame's own picture was not made; another one is shown once more."""
    bare = Ledger(ledger.frame, ledger.sample, None, picture, Rung.HOLD, ledger.time_s)
    return replace(bare, deadline=ledger.deadline, emitted=ledger.deadline, newest=newest)


def late(ledger: Ledger, by_ms: float) -> Ledger:
    assert ledger.deadline is not None
    ready = ledger.deadline + round(by_ms * MS)
    return replace(ledger, on_host=ready, emitted=ready)


# A run that keeps its deadlines


def test_a_run_in_time_gives_the_figures_worked_out_by_hand() -> None:
    got = of(on_time(10, playout_ms=GRANTED))
    assert (got.frames, got.segments, got.samples, got.duration_s, got.fps_shown) == (40, 10, 1, 1.6, 25.0)
    assert (got.algorithmic_ms, got.playout_ms) == (160, 100)
    assert (got.dmr, got.missed, got.longest_miss_run, got.freeze_ms_per_min, got.dropped) == (0, 0, 0, 0, 0)
    assert got.rungs == {"FULL": 40, "FEWER_STEPS": 0, "HALF_RATE": 0, "WARPED": 0, "HOLD": 0}
    constant = {
        "turnaround": (10, 10 + 2 + 5 + 1),
        "real_time_factor": (10, (10 + 2 + 4 * 5) / 160),
        "generator": (10, 10),
        "posnet": (10, 2),
        "render": (40, 5),
        "host_copy": (40, 1),
        "hop_work": (10, 10 + 2 - 2),  # counted from the planted `closed`, 2 ms after the segment's end
        "frame_work": (40, 5 + 1),
        "trail": (40, 160 + 100),
        "lateness": (40, 0),
        "jitter_border": (9, 0),
        "jitter_inside": (30, 0),
        "emit_delay": (40, 0),
    }
    for name, (count, value) in constant.items():
        found = getattr(got, name)
        assert (found.count, found.max, found.p50.value) == (count, pytest.approx(value), pytest.approx(value)), name
    # Deadlines of a segment: 100 ms after its end, and 40 ms apart.
    assert got.age is not None
    assert (got.age.count, got.age.max) == (40, 100 + 3 * 40)
    assert got.age.p50 is not None
    assert got.age.p50.value == 140
    assert (got.jitter_std, got.drift_ms_per_h, got.av_offset_ms, got.av_slope_ms_per_h) == (0, 0, 0, 0)
    # The first frame of a segment has the least time: it is ready 18 ms after the segment's end.
    assert (got.smallest_playout_ms, got.smallest_playout_note) == (18, "")


def test_work_that_depends_on_look_ahead_is_not_waiting_for_it() -> None:
    got = of(on_time(30, lookahead=6), lookahead=6)
    assert got.algorithmic_ms == (4 + 6) * 40
    assert got.turnaround is not None
    assert got.turnaround.p50 is not None
    assert got.turnaround.p50.value == got.turnaround.max == 18


def test_the_turnaround_of_a_first_segment_that_is_cut_off_is_left_out() -> None:
    whole = on_time(30, lookahead=6)
    got = of([ledger for ledger in whole if ledger.segment is not None and ledger.segment >= 3], lookahead=6)
    assert got.turnaround is not None
    assert got.turnaround.max == 18


def test_samples_are_rendered_one_after_the_other_and_told_apart() -> None:
    got = of(on_time(10, samples=3), samples=3)
    assert (got.frames, got.segments, got.duration_s, got.fps_shown) == (120, 10, 1.6, 25.0)
    assert got.real_time_factor is not None
    assert got.real_time_factor.max == pytest.approx((10 + 2 + 12 * 5) / 160)
    assert got.jitter_border is not None
    assert got.jitter_inside is not None
    assert (got.jitter_border.count, got.jitter_inside.count) == (27, 90)
    assert got.generator is not None
    assert got.generator.count == 10
    assert got.smallest_playout_ms == 12 + 3 * 6


# Deadlines missed


def test_a_moved_picture_does_not_make_rendering_look_cheap() -> None:
    ledgers = on_time(10)
    for index in range(0, 40, 2):
        start = ledgers[index].render_start or 0
        ledgers[index] = replace(ledgers[index], rung=Rung.WARPED, render_end=start + 1, on_host=start + 2)
    got, plain = of(ledgers), of(on_time(10))
    assert got.render is not None
    assert (got.render.count, got.render.p50) == (20, plain.render and plain.render.p50)
    assert got.real_time_factor == plain.real_time_factor
    assert got.missed == 20


def test_late_held_and_dropped_frames_and_gaps_are_missed() -> None:
    ledgers = on_time(10)
    ledgers[5] = late(ledgers[5], 30)
    ledgers[6] = held(ledgers[6], 5)
    ledgers[7] = replace(ledgers[7], picture=None, emitted=None)
    ledgers[8] = replace(ledgers[8], rung=Rung.FEWER_STEPS)
    ledgers[20] = replace(ledgers[20], rung=Rung.HALF_RATE)
    ledgers[21] = replace(ledgers[20], frame=21, rung=Rung.HALF_RATE)  # the same rendering
    for index in (15, 25):  # late by 1 ms in handing out only: it was ready, so it is not missed
        ledgers[index] = replace(ledgers[index], emitted=(ledgers[index].deadline or 0) + MS)
    del ledgers[9]
    got = of(ledgers)
    assert (got.frames, got.missed, got.dmr) == (40, 6 + 1, 7 / 40)
    assert got.longest_miss_run == 5
    assert got.rungs == {"FULL": 34, "FEWER_STEPS": 1, "HALF_RATE": 2, "WARPED": 0, "HOLD": 1}
    assert got.dropped == 1
    assert got.fps_shown == pytest.approx((40 - 1 - 1 - 1 - 1) / 1.6)
    assert got.freeze_ms_per_min == pytest.approx(3 * 40 / (1.6 / 60))
    assert got.lateness is not None
    assert (got.lateness.count, got.lateness.max) == (39, 2 * 40)  # frame 6 was held, and frame 8 is the next shown
    assert got.render is not None
    assert got.render.count == 40 - 2 - 1
    assert got.emit_delay is not None
    assert (got.emit_delay.count, got.emit_delay.max) == (38 - 2, 1)
    assert got.smallest_playout_ms is None
    assert "Not every frame was rendered in full" in got.smallest_playout_note


def test_the_samples_of_a_frame_miss_apart() -> None:
    ledgers = on_time(10, samples=2)
    ledgers = [late(row, 1) if row.sample == 1 and row.frame in (3, 4, 39) else row for row in ledgers]
    ledgers = [late(row, 1) if row.sample == 0 and row.frame == 5 else row for row in ledgers]
    got = of(ledgers, samples=2)
    assert (got.frames, got.missed, got.longest_miss_run) == (80, 4, 2)


def test_a_sample_without_any_ledger_is_missed_throughout() -> None:
    got = of(on_time(10), samples=2)
    assert (got.missed, got.dmr, got.longest_miss_run) == (40, 0.5, 40)
    assert got.freeze_ms_per_min == pytest.approx(30_000)
    assert got.fps_shown == 12.5
    assert got.smallest_playout_ms is None


def test_a_frame_that_was_held_and_then_dropped_as_late_is_missed_once() -> None:
    ledgers = on_time(10)
    ledgers.append(replace(ledgers[9], emitted=None, on_host=(ledgers[9].deadline or 0) + 7 * MS))
    ledgers[9] = held(ledgers[9], 8)
    got = of(ledgers)
    assert (got.missed, got.longest_miss_run, got.dropped, got.freeze_ms_per_min) == (1, 1, 1, 1500)
    assert got.lateness is not None
    assert got.lateness.max == 40  # until frame 10 was shown


def test_a_run_that_showed_nothing_still_has_figures() -> None:
    nothing = [replace(held(row, 0), picture=None, emitted=None) for row in on_time(3)]
    got = of(nothing)
    assert (got.dmr, got.longest_miss_run, got.freeze_ms_per_min, got.fps_shown) == (1, 12, 60_000, 0)
    assert (got.segments, got.dropped) == (0, 12)
    distributions = (
        "turnaround",
        "real_time_factor",
        "generator",
        "posnet",
        "render",
        "host_copy",
        "hop_work",
        "frame_work",
        "trail",
        "lateness",
    )
    rest = ("age", "jitter_border", "jitter_inside", "jitter_std", "emit_delay", "av_offset_ms", "drift_ms_per_h")
    assert [getattr(got, name) for name in (*distributions, *rest)] == [None] * 17


def test_a_picture_that_came_after_its_slot_is_new_when_it_is_shown_and_late_by_its_own_deadline() -> None:
    ledgers = on_time(10)
    frame_9 = late(ledgers[9], 95)
    for number, picture in ((9, 8), (10, 8), (11, 8)):
        ledgers[number] = held(ledgers[number], picture)
    # Picture 9 was ready 95 ms after its deadline, 15 ms after that of frame 11: frame 12 shows it, frame 13 again.
    ledgers[12] = replace(
        frame_9, frame=12, rung=Rung.HOLD, deadline=ledgers[12].deadline, emitted=ledgers[12].deadline
    )
    ledgers[13] = held(ledgers[13], 9)
    got = of(ledgers)
    assert (got.missed, got.longest_miss_run, got.dropped) == (5, 5, 0)
    assert got.fps_shown == (40 - 4) / 1.6
    assert got.freeze_ms_per_min == pytest.approx(4 * 40 / (1.6 / 60))
    assert got.render is not None
    assert got.render.count == 40 - 4
    # Frame 9 is shown 3 frames late; for frames 10 to 13 one waits until frame 14.
    assert got.lateness is not None
    assert (got.lateness.count, got.lateness.max) == (40, 4 * 40)
    assert got.trail is not None
    assert got.trail.max == 260 + 4 * 40
    assert got.jitter_border is not None
    assert (got.jitter_border.count, got.jitter_border.max) == (9, 0)


def test_a_stall_is_charged_to_every_frame_that_should_have_been_shown_meanwhile() -> None:
    ledgers = on_time(100)
    for number in range(200, 213):
        ledgers[number] = held(ledgers[number], 199)
    stalled, calm = of(ledgers), of(on_time(100))
    assert calm.lateness is not None
    assert stalled.lateness is not None
    assert stalled.lateness.p99 is not None
    assert (calm.lateness.max, stalled.lateness.count) == (0, 400)
    assert stalled.lateness.max == 13 * 40
    assert stalled.lateness.p99.value == (13 - 4) * 40  # the fifth of 400 values


def test_frames_that_nothing_newer_was_made_for_are_late_until_the_end() -> None:
    ledgers = on_time(10)
    for number in range(30, 40):
        ledgers[number] = held(ledgers[number], 29)
    got = of(ledgers)
    assert got.lateness is not None
    assert got.lateness.max == 9 * 40


# Playout delay, jitter, slopes


@given(
    st.lists(st.integers(1, 60), min_size=12, max_size=12),
    st.integers(0, 5),
    st.integers(1, 2),
    st.integers(0, 3000),
)
@settings(max_examples=40, deadline=None)
def test_with_the_smallest_playout_delay_no_deadline_is_missed_and_with_1_ms_less_one_is(
    costs: list[int], lookahead: int, samples: int, playout_ms: int
) -> None:
    def run(granted_ms: float) -> Figures:
        ledgers = on_time(
            9,
            lookahead=lookahead,
            samples=samples,
            playout_ms=granted_ms,
            render=lambda frame: costs[frame % 12] * MS,
        )
        return of(ledgers, lookahead=lookahead, samples=samples, playout_ms=granted_ms)

    smallest = run(playout_ms).smallest_playout_ms
    assert smallest is not None
    assert run(smallest).missed == 0
    assert run(smallest).smallest_playout_ms == pytest.approx(smallest)
    assert run(smallest - 1).missed != 0


def test_jitter_at_the_border_and_inside_of_segments_are_told_apart() -> None:
    shifts = {4: 3, 8: 5, 10: 1}  # ms after the deadline; frames 4 and 8 begin segments
    ledgers = [replace(row, emitted=(row.deadline or 0) + shifts.get(row.frame, 0) * MS) for row in on_time(10)]
    got = of(ledgers)
    assert got.jitter_border is not None
    assert got.jitter_inside is not None
    assert (got.jitter_border.count, got.jitter_border.max) == (9, 5)
    assert (got.jitter_inside.count, got.jitter_inside.max) == (30, 5)
    assert got.jitter_inside.p90 is not None
    assert got.jitter_inside.p90.value == 1
    assert got.jitter_std == pytest.approx(np.std([3, -3, 5, -5, 1, -1, *[0] * 33]))


def test_a_gap_in_the_frames_is_no_jitter() -> None:
    ledgers = on_time(10)
    del ledgers[10:13]
    got = of(ledgers)
    assert got.jitter_inside is not None
    assert (got.jitter_inside.max, got.jitter_std, got.missed) == (0, 0, 3)


def test_slopes_are_those_that_were_planted() -> None:
    ledgers = [
        replace(row, emitted=(row.deadline or 0) + row.frame * 1000, av_offset_ns=-(row.segment or 0) * 4000)
        for row in on_time(50)
    ]
    got = of(ledgers)
    per_hour = 3600 * 25  # frames
    assert got.drift_ms_per_h == pytest.approx(1e-3 * per_hour)
    assert got.av_slope_ms_per_h == pytest.approx(-1e-3 * per_hour)
    assert got.av_offset_ms == pytest.approx(49 * 4e-3)


def test_the_age_is_that_of_the_speaker_frame_the_picture_depends_on() -> None:
    ledgers = on_time(10)
    assert ledgers[9].emitted is not None
    ledgers[9] = held(ledgers[9], 3, newest=ledgers[3].newest)
    got = of(ledgers)
    assert got.age is not None
    assert got.age.max == (9 * 40 + 160 + 100) - 160


# Without a live session


def test_a_plain_stream_has_stage_times_and_no_deadlines() -> None:
    got = of(plain(on_time(10)))
    for name in ("fps_shown", "dmr", "missed", "longest_miss_run", "freeze_ms_per_min", "trail", "lateness", "age"):
        assert getattr(got, name) is None
    assert (got.emit_delay, got.smallest_playout_ms, got.drift_ms_per_h, got.dropped) == (None, None, None, 0)
    assert got.smallest_playout_note == "No frame had a deadline."
    assert got.rungs["FULL"] == got.frames == 40
    assert got.real_time_factor is not None
    assert got.real_time_factor.max == pytest.approx(0.2)
    assert got.turnaround is not None


# Any ledgers


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Ledger], int]:
    """Ledgers of a session in which anything went wrong, and its samples."""
    samples = draw(st.integers(1, 3))
    rows = on_time(draw(st.integers(1, 6)), lookahead=draw(st.integers(0, 6)), samples=samples)
    rows = rows or on_time(1)
    fates = draw(st.lists(st.sampled_from("okkkldhg"), min_size=len(rows), max_size=len(rows)))
    kept: list[Ledger] = []
    for row, fate in zip(rows, fates, strict=True):
        if fate == "l":
            kept.append(late(row, draw(st.integers(1, 300))))
        elif fate == "d":
            kept.append(replace(row, picture=None, emitted=None))
        elif fate == "h":
            kept.append(held(row, max(0, row.frame - 1)))
        elif fate != "g":
            kept.append(row)
    return kept or rows, samples


@given(runs(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_ledgers_does_not_matter(run: tuple[list[Ledger], int], shuffle: random.Random) -> None:
    ledgers, samples = run
    shuffled = list(ledgers)
    shuffle.shuffle(shuffled)
    assert of(shuffled, samples=samples) == of(ledgers, samples=samples)


@given(runs())
@settings(deadline=None)
def test_misses_agree_with_a_count_frame_by_frame(run: tuple[list[Ledger], int]) -> None:
    ledgers, samples = run
    kept = {
        (row.sample, row.frame)
        for row in ledgers
        if row.rung is Rung.FULL and row.emitted is not None and (row.on_host or 0) <= (row.deadline or 0)
    }
    numbers = range(min(row.frame for row in ledgers), max(row.frame for row in ledgers) + 1)
    longest = missed = 0
    for sample in range(samples):
        length = 0
        for number in numbers:
            length = 0 if (sample, number) in kept else length + 1
            missed, longest = missed + (length > 0), max(longest, length)
    got = of(ledgers, samples=samples)
    assert (got.missed, got.longest_miss_run) == (missed, longest)
    assert got.dmr == missed / (len(numbers) * samples)


@given(runs(), st.integers(-(2**61), 2**61))
@settings(deadline=None)
def test_the_zero_of_the_clock_means_nothing(run: tuple[list[Ledger], int], offset: int) -> None:
    ledgers, samples = run
    optional = [name for name, kind in Ledger.__annotations__.items() if kind == "int | None"]
    stamps = [name for name in optional if name not in ("segment", "picture")]

    def move(row: Ledger) -> Ledger:
        known = {name: getattr(row, name) for name in stamps if getattr(row, name) is not None}
        changes: dict[str, Any] = {name: at + offset for name, at in known.items()}
        return replace(row, **changes)

    moved = [move(row) for row in ledgers]
    assert of(moved, samples=samples) == of(ledgers, samples=samples)


def test_figures_go_through_json() -> None:
    got = of(on_time(10))
    assert msgspec.json.decode(msgspec.json.encode(got), type=Figures) == got


def test_no_ledgers_and_an_unknown_sample_are_refused() -> None:
    with pytest.raises(FiguresError, match=r"no ledgers .* Let the session run for longer"):
        of([])
    with pytest.raises(FiguresError, match=r"of sample 1; there are 1"):
        of(on_time(1, samples=2))
