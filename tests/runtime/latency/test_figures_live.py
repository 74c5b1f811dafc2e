"""Figures and traces of live sessions on a virtual clock: engines that cost time, and nobody who waits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.fakes import FUNCTIONS, Function, fake_engines, fake_listener, frames_of, sound_of
from support.latency.traces import incidents, on_row, trace

from pflx.engines import Array
from pflx.runtime import LiveSettings, Timed
from pflx.runtime.frames.ledger import Ledger
from pflx.runtime.latency.percentiles import Figures, figures
from pflx.runtime.live.clock import VirtualClock

MS = 1_000_000
FRAMES = 100


def costing(clock: VirtualClock, graph: str, cost_ms: float, stall_at: int | None = None) -> Function:
    """The fake of a graph that takes its time, 500 ms more in one call."""
    calls = iter(range(10**9))

    def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        clock.sleep(round((cost_ms + 500 * (next(calls) == stall_at)) * MS))
        return FUNCTIONS[graph](feeds)

    return run


def session(
    *, render_ms: float, lookahead: int = 0, playout_ms: float = 120.0, samples: int = 1, stall_at: int | None = None
) -> tuple[list[Ledger], Figures]:
    """The ledgers of a session of 4 s, and its figures, which agree with what it counted itself."""
    clock = VirtualClock()
    engines = fake_engines(
        pirender_frame=costing(clock, "pirender_frame", render_ms, stall_at),
        reactface_listener=costing(clock, "reactface_listener", 20),
    )
    video, sound = frames_of(FRAMES), sound_of(FRAMES)
    speaker = (Timed(k / 25, video=video[k], audio=sound[640 * k : 640 * k + 640]) for k in range(FRAMES))
    ledgers: list[Ledger] = []
    with fake_listener(engines, lookahead=lookahead, clock=clock).live(
        speaker,
        lambda _: None,
        settings=LiveSettings(playout_ms=playout_ms),
        samples=samples,
        record=ledgers.append,
        clock=clock,
    ) as live:
        live.wait()
        counted = live.stats
    got = figures(ledgers, hop=8, algorithmic_ms=(8 + lookahead) * 40, playout_ms=playout_ms, samples=samples)
    assert (got.frames, got.missed, got.dropped) == (FRAMES * samples, counted.missed, counted.dropped)
    assert got.rungs == counted.rungs
    return ledgers, got


@pytest.mark.parametrize("lookahead", [0, 5, 13])
def test_a_session_in_time_costs_what_its_engines_cost(lookahead: int) -> None:
    _, got = session(render_ms=10, lookahead=lookahead)
    assert (got.missed, got.fps_shown) == (0, 25)
    assert got.drift_ms_per_h == pytest.approx(0, abs=1e-6)
    assert got.turnaround is not None
    assert got.turnaround.p50 is not None
    assert got.turnaround.p50.value == pytest.approx(20 + 10)
    assert got.real_time_factor is not None
    assert got.real_time_factor.max == pytest.approx((20 + 8 * 10) / 320)
    assert got.trail is not None
    assert got.trail.max == pytest.approx(got.algorithmic_ms + got.playout_ms)
    assert got.smallest_playout_ms == pytest.approx(20 + 10)


def test_the_smallest_playout_delay_is_what_the_session_can_do_with() -> None:
    _, got = session(render_ms=10)
    assert got.smallest_playout_ms is not None
    assert session(render_ms=10, playout_ms=got.smallest_playout_ms + 1)[1].missed == 0
    assert session(render_ms=10, playout_ms=got.smallest_playout_ms - 1)[1].missed != 0


def test_a_stall_is_a_run_of_misses_and_moves_the_age_and_the_lateness(tmp_path: Path) -> None:
    ledgers, got = session(render_ms=10, stall_at=60)
    assert got.missed is not None
    assert got.longest_miss_run == got.missed >= 9
    assert got.freeze_ms_per_min is not None
    assert got.freeze_ms_per_min > 0
    for stalled, calm in ((got.lateness, 0), (got.age, 400), (got.trail, 440)):
        assert stalled is not None
        assert stalled.max > calm + 100
    events = trace(tmp_path, ledgers)
    assert len(incidents(events)["hold"]) == got.rungs["HOLD"]


def test_renderers_too_slow_for_any_frame_show_what_they_can(tmp_path: Path) -> None:
    ledgers, got = session(render_ms=400, samples=2)
    assert (got.dmr, got.rungs["FULL"]) == (1, 0)
    assert got.fps_shown is not None
    assert 0 < got.fps_shown < 2.5
    assert got.real_time_factor is not None
    assert got.real_time_factor.max == pytest.approx((20 + 16 * 400) / 320)
    events = trace(tmp_path, ledgers)
    assert len(on_row(events, "render, sample 1")) >= got.fps_shown * 4 - 1
    assert len(incidents(events)["dropped"]) == got.dropped
