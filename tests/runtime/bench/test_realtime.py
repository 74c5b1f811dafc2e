"""The open-loop measurement on stub networks and a virtual clock: plans, the made-up speaker, live runs, long runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.fakes import write_fake_bundle
from support.grouped import grouped
from support.latency.planted import on_time
from support.places import MEDIA

from pflx.engines import FeedError
from pflx.runtime import BlazeFace, Ledger, LiveSettings, VirtualClock
from pflx.runtime.bench.measure.drawing import draw_face
from pflx.runtime.bench.measure.plan import Plan, open_listener
from pflx.runtime.bench.measure.realtime import run_realtime
from pflx.runtime.bench.measure.soak import run_soak
from pflx.runtime.bench.measure.stimulus import Stimulus
from pflx.runtime.bench.measure.stub import stub_engines
from pflx.runtime.bench.measure.stub_shapes import stub_manifest
from pflx.runtime.bench.report.report import MAX_POINTS, Report, decode_report, encode_report
from pflx.runtime.bench.report.series import make_series
from pflx.runtime.bench.report.summary import report_lines
from pflx.runtime.bundle_engines import CALL_SIZES
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.latency.percentiles import figures

MS = 1_000_000
SMALL = (64, 48)


def plan(**changes: object) -> Plan:
    given: dict[str, object] = {"stub": True, "duration_s": 6.0, "lookahead": 2} | changes
    return Plan(**grouped(given, "engines"))


@pytest.fixture(scope="module")
def run() -> tuple[Report, list[Ledger]]:
    ledgers: list[Ledger] = []
    return run_realtime(plan(), VirtualClock(), record=ledgers.append), ledgers


# Plans


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stub": False}, "There is no bundle"),
        ({"samples": 0}, "samples is 0"),
        ({"duration_s": 0.0}, "duration is 0.0 s"),
        ({"duration_s": float("inf")}, "duration is inf s"),
    ],
)
def test_a_plan_that_cannot_be_measured_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(FeedError, match=message):
        plan(**changes)


def test_a_run_no_longer_than_its_warm_up_is_refused() -> None:
    with pytest.raises(FeedError, match=r"duration is 1 s; the warm-up alone takes 1\.36 s"):
        run_realtime(plan(duration_s=1.0), VirtualClock())


def test_stubs_stand_in_for_the_graphs_of_a_bundle(tmp_path: Path) -> None:
    write_fake_bundle(tmp_path / "me.pflx")
    report = run_realtime(plan(bundle=tmp_path / "me.pflx"), VirtualClock())
    assert (report.setup.bundle, report.setup.size, report.setup.untrained) == ("me.pflx", 64, 7)
    assert (report.setup.stub, report.setup.graphs) == (True, {})


# Stubs


def test_every_input_of_a_stub_reaches_every_output() -> None:
    manifest = stub_manifest(size=32)
    sizes = {**CALL_SIZES, "samples": 2}
    rng = np.random.default_rng(0)
    for name, engine in stub_engines(manifest).items():
        graph = manifest.graphs[name]
        feeds = {
            feed: rng.integers(0, 2, [sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape]).astype(
                spec.dtype
            )
            for feed, spec in graph.inputs.items()
        }
        before = {output: value.copy() for output, value in engine.run(feeds).items()}
        again = engine.run(feeds)
        assert all(np.array_equal(before[output], again[output]) for output in before)
        for feed, value in feeds.items():
            after = engine.run({**feeds, feed: 1 - value if value.dtype != np.bool_ else ~value})
            assert all(not np.array_equal(before[output], after[output]) for output in before), (name, feed)


def test_a_stub_takes_the_time_it_is_told_to() -> None:
    clock = VirtualClock()
    with open_listener(plan(), clock, costs={"pirender_frame": 7 * MS}) as listener, listener.stream() as stream:
        stream.push(video=np.zeros((16, 48, 64, 3), np.uint8), audio=np.zeros(16 * 640, np.float32))
        before = clock()
        next(stream.pull())
        assert clock() - before == 7 * MS


# The made-up speaker


def test_the_drawn_face_and_the_made_up_speaker_are_found_by_the_face_detector() -> None:
    detector = BlazeFace()
    assert len(detector.detect(draw_face())) == 1
    items = [item.video for item in Stimulus(4, 0).tracks()[0] if item.video is not None]
    assert all(len(detector.detect(picture)) == 1 for picture in items[::6])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), frame=st.integers(0, 149))
def test_an_event_changes_the_sound_from_its_sample_and_the_pictures_from_the_next_one_on(
    seed: int, frame: int
) -> None:
    stimulus = Stimulus(6, seed, size=SMALL)
    slots = list(stimulus.slots())
    for index, time_s in enumerate(stimulus.impulse_times_s):
        with_event, without = (stimulus.alter(frame, *slots[frame], without=left_out) for left_out in (None, index))
        differs = np.flatnonzero(with_event[1] != without[1])
        first = int(np.ceil(time_s * 16_000)) - frame * 640
        assert list(differs) == list(range(max(0, first), 640))
        assert np.array_equal(with_event[0], without[0]) == (frame / 25 < time_s)


def test_the_same_seed_gives_the_same_events_at_random_phases() -> None:
    times_s = Stimulus(600, 3, size=SMALL).impulse_times_s
    assert times_s == Stimulus(600, 3, size=SMALL).impulse_times_s
    assert times_s != Stimulus(600, 4, size=SMALL).impulse_times_s
    pauses = np.diff(times_s)
    assert 1.2 <= pauses.min() <= pauses.max() <= 1.8
    phases = np.histogram(np.mod(times_s, 0.32), bins=4, range=(0, 0.32))[0]
    assert phases.min() > 0.15 * len(times_s)


def test_a_clip_is_looped_until_the_time_is_over() -> None:
    from pflx.runtime import open_speaker

    clip = open_speaker(MEDIA / "podium_speech_8s.mp4").limited(0.4)
    stimulus = Stimulus(1, 0, clip=clip)
    pictures = [picture for picture, _ in stimulus.slots()]
    assert len(pictures) == 25
    assert np.array_equal(pictures[0], pictures[10])


# A run


def test_a_picture_that_was_ready_and_shown_a_moment_later_missed_nothing(run: tuple[Report, list[Ledger]]) -> None:
    ledgers = [dataclasses.replace(ledger, emitted=(ledger.emitted or 0) + 400_000) for ledger in run[1]]
    found = run[0].figures
    assert found
    series = make_series(ledgers, found, hop=8)
    assert max(late for late in series.lateness_ms if late is not None) <= 0.0
    assert {trail for trail in series.trail_ms if trail is not None} == {500.4}  # the sink was late, not the picture


def test_a_run_that_costs_nothing_has_the_delays_of_the_algorithm_alone(run: tuple[Report, list[Ledger]]) -> None:
    found = run[0].figures
    assert found
    assert (found.frames, found.missed, found.smallest_playout_ms) == (150 - 24, 0, 0)
    assert found.trail
    assert found.trail.max == found.algorithmic_ms + found.playout_ms == 400 + 100
    for sample in (found.hop_work, found.frame_work, found.turnaround, found.emit_delay):
        assert sample
        assert sample.max == 0
    first = run[0].first_frame
    assert first
    assert (first.warm_ms, first.cold_ms, first.idle_ms) == (500, None, None)


def test_a_run_is_the_same_when_it_is_run_again(run: tuple[Report, list[Ledger]]) -> None:
    again = run_realtime(plan(), VirtualClock())
    for part in ("setup", "figures", "reaction", "first_frame", "series", "verdict"):
        assert getattr(again, part) == getattr(run[0], part), part


def test_all_ledgers_are_told_and_those_of_the_warm_up_left_out(run: tuple[Report, list[Ledger]]) -> None:
    report, ledgers = run
    assert [ledger.frame for ledger in ledgers] == list(range(150))
    assert any("first 3 segments, 24 frames" in sentence for sentence in report.verdict)


def test_the_report_of_a_run_is_whole(run: tuple[Report, list[Ledger]]) -> None:
    assert decode_report(encode_report(run[0]), "run") == run[0]
    assert any(line.startswith("  reaction, by impulses") for line in report_lines(run[0]))
    assert run[0].series
    assert sum(run[0].series.histogram_counts) == len(run[0].series.frame_s) == 126


def test_a_long_run_is_measured_after_idling_too() -> None:
    clock = VirtualClock()
    report = run_realtime(plan(duration_s=30.0), clock)
    assert report.first_frame
    assert report.first_frame.idle_ms == 0
    assert clock() > 40e9


def test_progress_is_told_up_to_the_end() -> None:
    told: list[tuple[float, float]] = []
    run_realtime(plan(), VirtualClock(), progress=lambda done_s, total_s: told.append((done_s, total_s)))
    assert told == sorted(told)
    assert told[-1] == (6.0, 6.0)


def test_a_thinned_series_keeps_the_worst_frame() -> None:
    ledgers = on_time(2000)
    worst = ledgers[4321]
    ledgers[4321] = _late(worst, 700)
    found = figures(ledgers, hop=4, algorithmic_ms=160, playout_ms=100, samples=1)
    series = make_series(ledgers, found, hop=4)
    assert len(series.frame_s) == MAX_POINTS
    assert max(late for late in series.lateness_ms if late is not None) == 700
    assert sum(series.histogram_counts) == 8000
    assert series.stages == {"crop": 0, "generator": 2.5, "PosNet": 0.5, "rendering": 5, "copy to host": 1}


def test_of_many_frames_the_missed_ones_are_drawn() -> None:
    ledgers = on_time(2000)
    ledgers[4321] = dataclasses.replace(ledgers[4321], rung=Rung.WARPED)
    series = make_series(ledgers, figures(ledgers, hop=4, algorithmic_ms=160, playout_ms=100, samples=1), hop=4)
    assert series.rung.count(Rung.WARPED) == 1


def test_pictures_that_were_ready_in_time_are_left_of_the_deadline() -> None:
    ledgers = on_time(100)
    for late in (50, 150):
        ledgers[late] = _late(ledgers[late], 3)
    series = make_series(ledgers, figures(ledgers, hop=4, algorithmic_ms=160, playout_ms=100, samples=1), hop=4)
    edges, counts = series.histogram_edges_ms, series.histogram_counts
    assert 260.0 in edges
    deadline = edges.index(260.0)
    assert (sum(counts[:deadline]), sum(counts[deadline:])) == (398, 2)
    assert sum(map(bool, counts)) > 4  # of four frames a segment, each is ready at another time


def test_one_stall_does_not_make_one_bar_of_the_rest() -> None:
    ledgers = on_time(500)
    ledgers[777] = _late(ledgers[777], 60_000)
    series = make_series(ledgers, figures(ledgers, hop=4, algorithmic_ms=160, playout_ms=100, samples=1), hop=4)
    assert max(series.histogram_counts) < 1000
    assert series.histogram_edges_ms[-1] < 1000


def _late(ledger: Ledger, by_ms: int) -> Ledger:
    assert ledger.deadline is not None
    late = ledger.deadline + by_ms * MS
    return dataclasses.replace(ledger, on_host=late, emitted=late)


# Long runs


def test_a_long_run_has_a_row_for_each_minute_and_the_figures_of_all_of_it() -> None:
    ledgers: list[Ledger] = []
    report = run_soak(plan(duration_s=130.0, samples=2), VirtualClock(), record=ledgers.append)
    assert [(row.minute, row.frames, row.dmr, row.drift_ms) for row in report.minutes] == [
        (0, 2 * (1500 - 24), 0, 0),
        (1, 2 * 1500, 0, 0),
        (2, 2 * 250, 0, 0),
    ]
    assert all(row.rss_mb > 10 for row in report.minutes)
    kept = [ledger for ledger in ledgers if ledger.frame >= 24]
    assert report.figures
    expected = figures(kept, hop=8, algorithmic_ms=400, playout_ms=100, samples=2)
    assert replace(report.figures, drift_ms_per_h=0.0) == replace(expected, drift_ms_per_h=0.0)
    assert report.figures.drift_ms_per_h == pytest.approx(0, abs=1e-6)


def test_a_short_run_has_one_row() -> None:
    report = run_soak(plan(live=LiveSettings(stale_ms=5000)), VirtualClock())
    assert [(row.minute, row.frames) for row in report.minutes] == [(0, 126)]
