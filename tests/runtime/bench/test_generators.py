"""Every generator on stub networks: what is measured is what its window, hop and lead say, computed by hand."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from support.exported import all_recipes

from pflx.engines import FeedError
from pflx.runtime import GeneratorOptions, Ledger, Listener, VirtualClock
from pflx.runtime.bench.measure.engine import engines_verdict, run_engines
from pflx.runtime.bench.measure.plan import LATE_INSTEAD, Plan, open_listener
from pflx.runtime.bench.measure.reaction import (
    find_responses,
    first_differences,
    first_different,
    hears,
    measure_reaction,
)
from pflx.runtime.bench.measure.realtime import play, run_realtime, without_warm_up
from pflx.runtime.bench.measure.single_stream import run_single_stream
from pflx.runtime.bench.measure.stimulus import Stimulus
from pflx.runtime.bench.measure.stub import StubExtractor
from pflx.runtime.bench.measure.stub_shapes import KINDS, stub_manifest
from pflx.runtime.bench.measure.usage import graph_uses
from pflx.runtime.bench.report.report import STUB_EXTRACTOR, decode_report, encode_report
from pflx.runtime.bench.report.summary import report_lines
from pflx.runtime.bench.report.verdict import verdict

MS, T = 1_000_000, 40
PLAYOUT = 120
HOPS = {"reactface": 8, "perfrdiff": 25, "transvae": 8, "belfusion": 50, "backchannel": 8}
AHEAD = {"reactface": 0, "perfrdiff": 25, "transvae": 0, "belfusion": 50, "backchannel": 8}
SECONDS = {"reactface": 11.0, "perfrdiff": 14.0, "transvae": 11.0, "belfusion": 20.0, "backchannel": 11.0}
SOUNDLESS = ("belfusion",)
SLOW = {
    "reactface": {"reactface_speaker": 40, "reactface_listener": 10},
    "perfrdiff": {"perfrdiff_condition": 20, "perfrdiff_denoise": 1},
    "transvae": {"transvae_first": 50, "transvae_next": 50},
    "belfusion": {"belfusion": 60},
    "backchannel": {},
}


def test_stubs_have_the_shapes_of_the_exported_graphs() -> None:
    recipes = all_recipes()
    for kind in KINDS:
        for name, graph in stub_manifest(kind).graphs.items():
            if name != "posnet" or HOPS[kind] == 8:
                assert graph.inputs == dict(recipes[name].inputs), name
                assert graph.outputs == dict(recipes[name].outputs), name


@cache
def run(kind: str, lookahead: int, slow: bool = False) -> tuple[list[Ledger], Listener, Stimulus]:
    costs = {**SLOW[kind], "pirender_frame": 5} if slow else {}
    plan = Plan(
        stub=True,
        kind=kind,
        duration_s=SECONDS[kind],
        lookahead=lookahead,
        live=dataclasses.replace(LATE_INSTEAD, playout_ms=PLAYOUT),
    )
    clock = VirtualClock()
    listener = open_listener(plan, clock, costs={graph: ms * MS for graph, ms in costs.items()})
    stimulus = Stimulus(plan.duration_s, 0, size=(64, 48), sample_rate_hz=listener.sample_rate_hz)
    ledgers: list[Ledger] = []
    play(plan, listener, stimulus, clock, record=ledgers.append)
    return without_warm_up(ledgers, listener.generator.hop), listener, stimulus


def answered_ms(kind: str, time_s: float, lookahead: int) -> float:
    """When the first picture that shows an event is due, on the media clock."""
    hop = HOPS[kind]
    frame = math.ceil(25 * time_s) if kind in SOUNDLESS else int(25 * time_s)
    complete = (frame // hop + 1) * hop  # speaker frames that are there when a segment is made of that frame
    # Without a look-ahead the first frame of a segment that lies ahead is the speaker's next: it waits for its slot.
    waits = 1 if AHEAD[kind] and not lookahead else 0
    return (complete + waits) * T + PLAYOUT


@pytest.mark.parametrize(("lookahead", "slow"), [(0, False), (5, True), (13, False)])
@pytest.mark.parametrize("kind", KINDS)
def test_the_reaction_is_as_late_as_the_algorithm_says(kind: str, lookahead: int, slow: bool) -> None:
    ledgers, listener, stimulus = run(kind, lookahead, slow)
    times_s = stimulus.impulse_times_s
    declared = round((listener.algorithmic_delay_ms + PLAYOUT) * MS)
    found = list(find_responses(ledgers, times_s, declared, hears=hears(listener.generator)))
    found = [response for response in found if response.first < stimulus.frames - 2 * HOPS[kind]]
    assert len(found) >= 4
    for response in found:
        time_s = times_s[response.impulse]
        due_ms = answered_ms(kind, time_s, lookahead)
        assert response.latency_ms == pytest.approx(due_ms - 1000 * time_s, abs=1e-3)
        assert response.coefficients_ms == pytest.approx(due_ms + lookahead * T - 1000 * time_s, abs=1e-3)
    # Of the last slot that a segment hears, some sound alone is altered: MFCC may not show it.
    sure = [response for response in found if kind in SOUNDLESS or (response.first + 1) % HOPS[kind]]
    for response, number in zip(sure, first_differences(sure, stimulus, listener, seed=0), strict=True):
        assert number in first_different(response, listener)
        assert first_different(response, listener)[0] == response.picture


@pytest.mark.parametrize(
    ("kind", "lookahead", "mean_ms", "worst_ms"),
    [
        ("perfrdiff", 13, 500, 1000),
        ("perfrdiff", 0, 540, 1040),
        ("belfusion", 13, 1040, 2040),
        ("belfusion", 0, 1080, 2080),
    ],
)
def test_what_the_algorithm_leaves_of_a_reaction_is_told(
    kind: str, lookahead: int, mean_ms: float, worst_ms: float
) -> None:
    ledgers, listener, stimulus = run(kind, lookahead)
    found = measure_reaction(ledgers, stimulus, listener, playout_ms=PLAYOUT, seed=0)
    assert found
    assert (found.algorithmic_mean_ms, found.algorithmic_worst_ms) == (mean_ms, worst_ms)
    assert worst_ms - 600 < found.latency.max <= worst_ms + PLAYOUT
    assert found.checked >= 0.5 * found.impulses


def test_the_report_says_what_the_generator_read_and_how_far_its_segments_lie_ahead() -> None:
    plan = Plan(stub=True, kind="belfusion", duration_s=16.0, lookahead=5)
    report = run_realtime(plan, VirtualClock())
    assert decode_report(encode_report(report), "it") == report
    setup = report.setup
    assert (setup.generator, setup.window, setup.hop, setup.lead) == ("belfusion", 50, 50, 50)
    assert (setup.sample_rate_hz, setup.extractors) == (16_000, {"emotion": STUB_EXTRACTOR})
    assert (setup.steps, setup.solver, setup.history) == (None, None, None)
    assert report.figures
    assert report.figures.algorithmic_ms == 200
    assert report.figures.missed == 0
    said = "\n".join(report_lines(report))
    assert "window 50, hop 50, lead 50, look-ahead 5 frames" in said
    assert f"emotion from {STUB_EXTRACTOR}" in said
    assert "200 ms = (50 of a segment - 50 that it lies ahead + 5 of look-ahead) x 40 ms" in said
    real = replace(report.setup, stub=False)
    assert "The speaker's emotion came from a stub" in verdict(report.figures, real)[0]


def test_without_a_look_ahead_what_lies_ahead_costs_one_frame() -> None:
    report = run_realtime(Plan(stub=True, kind="belfusion", duration_s=9.0, lookahead=0), VirtualClock())
    assert report.figures
    assert report.figures.algorithmic_ms == 40
    assert any("40 ms = one frame" in line for line in report_lines(report))


def test_the_history_and_the_rate_of_the_sound_are_in_the_report() -> None:
    options = GeneratorOptions(history=16)
    plan = Plan(stub=True, kind="transvae", duration_s=3.0, options=options)
    report = run_realtime(plan, VirtualClock())
    assert (report.setup.history, report.setup.sample_rate_hz) == (16, 44_100)
    assert run_engines(Plan(stub=True, kind="transvae", duration_s=0.001)).setup.history == 64
    assert any("history of 16 frames" in line for line in report_lines(report))


def test_events_that_a_recorded_speaker_cannot_show_are_not_waited_for(tmp_path: Path) -> None:
    np.save(tmp_path / "emotion.npy", np.zeros((300, 25), np.float32))
    extractors = {"emotion": str(tmp_path / "emotion.npy")}
    plan = Plan(stub=True, kind="belfusion", duration_s=9.0, extractors=extractors)
    report = run_realtime(plan, VirtualClock())
    assert report.reaction is None
    assert report.setup.extractors == {"emotion": "emotion.npy"}
    assert any("recorded before" in sentence for sentence in report.verdict)


@pytest.mark.parametrize("kind", KINDS)
def test_the_service_time_of_a_segment_is_that_of_its_graphs_and_one_picture(kind: str) -> None:
    costs = {graph: ms * MS for graph, ms in {**SLOW[kind], "posnet": 2, "pirender_frame": 3}.items()}
    plan = Plan(stub=True, kind=kind, duration_s=4.0, lookahead=5)
    figures = run_single_stream(plan, VirtualClock(), costs=costs).figures
    assert figures
    assert figures.turnaround
    assert figures.generator
    generator_ms = {"reactface": 50, "perfrdiff": 20 + 49, "transvae": 50, "belfusion": 60, "backchannel": 0}[kind]
    assert figures.generator.max == pytest.approx(generator_ms)
    posnet_ms = 0 if kind == "backchannel" else 2  # its segments join
    assert figures.turnaround.max == pytest.approx(generator_ms + posnet_ms + 3)


@pytest.mark.parametrize(
    ("kind", "options", "calls"),
    [
        ("reactface", {}, {"reactface_speaker": 1, "reactface_listener": 1, "pirender_frame": 16}),
        ("perfrdiff", {}, {"perfrdiff_condition": 1, "perfrdiff_denoise": 49, "pirender_frame": 50}),
        ("perfrdiff", {"steps": 10, "solver": "dpm++"}, {"perfrdiff_condition": 1, "perfrdiff_denoise": 10}),
        ("transvae", {}, {"transvae_first": 0, "transvae_next": 1, "posnet": 1}),
        ("belfusion", {}, {"belfusion": 1, "pirender_portrait": 0, "pirender_frame": 100}),
        ("backchannel", {}, {"posnet": 0, "pirender_portrait": 0, "pirender_frame": 16}),
    ],
)
def test_the_calls_of_a_segment_are_counted(kind: str, options: dict[str, int], calls: dict[str, int]) -> None:
    uses = graph_uses(stub_manifest(kind), 2, GeneratorOptions(**options))  # type: ignore[arg-type]
    assert {graph: uses[graph].per_segment for graph in calls} == calls
    assert {use.sizes.get("samples", 2) for use in uses.values()} == {2}


def test_a_history_is_measured_as_long_as_it_gets() -> None:
    assert graph_uses(stub_manifest("transvae"), 1)["transvae_next"].sizes["history"] == 64
    short = graph_uses(stub_manifest("transvae"), 1, GeneratorOptions(history=24))
    assert short["transvae_next"].sizes["history"] == 24


def test_the_calls_of_a_segment_are_in_the_report_and_in_its_verdict() -> None:
    report = run_engines(Plan(stub=True, kind="perfrdiff", duration_s=0.001))
    calls = {figures.graph: figures.per_segment for figures in report.engines}
    assert calls == {
        "perfrdiff_condition": 1,
        "perfrdiff_denoise": 49,
        "posnet": 1,
        "pirender_portrait": 0,
        "pirender_frame": 25,
    }
    assert (report.setup.steps, report.setup.solver) == (49, "ddim")
    said = "\n".join(report_lines(report))
    assert "perfrdiff_denoise: 49 calls a segment" in said
    assert "49 denoising steps of ddim" in said


def test_a_graph_that_only_runs_once_is_no_part_of_a_segment() -> None:
    manifest = stub_manifest("transvae")
    uses = graph_uses(manifest, 1)
    report = run_engines(Plan(stub=True, kind="transvae", duration_s=0.001))
    assert {figures.graph: figures.per_segment for figures in report.engines} == {
        graph: use.per_segment for graph, use in uses.items()
    }
    assert "generator (1 transvae_next call), PosNet and 8 renderings" in engines_verdict(report.engines, manifest)[0]


def test_a_generator_without_a_graph_is_told_so() -> None:
    report = run_engines(Plan(stub=True, kind="backchannel", duration_s=0.001))
    said = engines_verdict(report.engines, stub_manifest("backchannel"))[0]
    assert "generator (no graph), PosNet and 8 renderings" in said


def test_a_stub_extractor_tells_pictures_apart_and_is_a_function_of_them() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)
    for size in (25, 58):
        extractor = StubExtractor(size)
        first, second = (extractor.extract(picture, 0) for picture in pictures)
        assert first.shape == (size,)
        assert first.dtype == np.float32
        assert not np.array_equal(first, second)
        np.testing.assert_array_equal(first, extractor.extract(pictures[0], 7))
        assert not np.array_equal(first, extractor.extract(pictures[0][:, ::-1], 0))


def test_what_there_is_no_stub_of_is_refused() -> None:
    with pytest.raises(
        FeedError, match=r"no stub of 'x'\. Take reactface, perfrdiff, transvae, belfusion, backchannel"
    ):
        stub_manifest("x")
    with pytest.raises(FeedError, match="window of belfusion is fixed"):
        stub_manifest("belfusion", window=8)
    with pytest.raises(FeedError, match="has a generator of its own"):
        Plan(bundle=Path("me.pflx"), stub=True, kind="belfusion")
