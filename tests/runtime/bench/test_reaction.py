"""Reaction latency: by the ledgers, by arithmetic, and by what really differs without the event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from support.grouped import grouped
from support.latency.planted import MS, ORIGIN, on_time

from pflx.engines import Array
from pflx.runtime import Ledger, Listener, Rung, VirtualClock
from pflx.runtime.bench.measure.plan import Plan, open_listener
from pflx.runtime.bench.measure.reaction import ReactionError, find_responses, first_differences, measure_reaction
from pflx.runtime.bench.measure.realtime import play
from pflx.runtime.bench.measure.stimulus import Stimulus
from pflx.runtime.generators import Reaction

HOP, T = 8, 40
PLAYOUT = 120
SIZE = (64, 48)


def run(
    lookahead: int, costs: Mapping[str, int] | None = None, **changes: object
) -> tuple[list[Ledger], Listener, Stimulus]:
    given: dict[str, object] = {"stub": True, "duration_s": 30.0, "lookahead": lookahead} | changes
    plan = Plan(**grouped(given, "engines"))
    clock = VirtualClock()
    stimulus = Stimulus(plan.duration_s, plan.seed, size=SIZE)
    listener = open_listener(plan, clock, costs=costs)
    ledgers: list[Ledger] = []
    play(plan, listener, stimulus, clock, record=ledgers.append)
    return ledgers, listener, stimulus


def expected_ms(time_s: float, *, own: bool, lookahead: int) -> float:
    """The segment of the event closes, and the frame that waits for it is due a playout delay later."""
    slot = int(time_s * 25)
    closed_ms = (slot // HOP + 1) * HOP * T
    return closed_ms + (lookahead * T if own else 0) + PLAYOUT - 1000 * time_s


@pytest.mark.parametrize("lookahead", [0, 2, 13])
def test_the_reaction_of_a_chain_without_cost_is_the_algorithms_delay(lookahead: int) -> None:
    ledgers, _, stimulus = run(lookahead)
    declared = (HOP + lookahead) * T * MS + PLAYOUT * MS
    found = list(find_responses(ledgers, stimulus.impulse_times_s, declared))
    assert len(found) >= len(stimulus.impulse_times_s) - 1
    for response in found:
        time_s = stimulus.impulse_times_s[response.impulse]
        assert response.picture == response.slot // HOP * HOP - lookahead
        assert response.latency_ms == pytest.approx(expected_ms(time_s, own=False, lookahead=lookahead), abs=1e-5)
        assert response.coefficients_ms == pytest.approx(expected_ms(time_s, own=True, lookahead=lookahead), abs=1e-5)


@pytest.mark.parametrize("lookahead", [0, 2, 13])
def test_the_first_picture_that_differs_is_the_one_that_the_ledgers_name(lookahead: int) -> None:
    ledgers, listener, stimulus = run(lookahead)
    declared = (HOP + lookahead) * T * MS + PLAYOUT * MS
    found = list(find_responses(ledgers, stimulus.impulse_times_s, declared))
    assert list(first_differences(found, stimulus, listener, seed=0)) == [response.picture for response in found]


def test_a_chain_that_takes_its_time_within_the_playout_delay_reacts_no_later() -> None:
    free, slow = (run(2, costs)[0] for costs in (None, {"reactface_speaker": 50 * MS, "pirender_frame": 10 * MS}))
    times_s = Stimulus(30, 0, size=SIZE).impulse_times_s
    declared = (HOP + 2) * T * MS + PLAYOUT * MS
    assert list(find_responses(free, times_s, declared)) == list(find_responses(slow, times_s, declared))


def test_impulses_are_checked_and_counted() -> None:
    ledgers, listener, stimulus = run(2)
    found = measure_reaction(ledgers, stimulus, listener, playout_ms=PLAYOUT, seed=0)
    assert found
    assert found.coefficients_latency
    assert found.impulses == found.latency.count == found.coefficients_latency.count
    assert 0.6 * found.impulses < found.checked <= min(20, found.impulses)
    assert (found.algorithmic_mean_ms, found.algorithmic_worst_ms, found.note) == (160, 320, "")
    assert found.latency.max <= found.algorithmic_worst_ms + PLAYOUT


def test_ledgers_that_claim_too_new_an_input_are_caught() -> None:
    ledgers, listener, stimulus = run(2)
    lying = [replace(ledger, newest=(ledger.newest or 0) + HOP * T * MS) for ledger in ledgers]
    with pytest.raises(ReactionError, match=r"By the ledgers picture .* without it, it is .*"):
        measure_reaction(lying, stimulus, listener, playout_ms=PLAYOUT, seed=0)


def test_a_network_that_ignores_the_event_is_caught() -> None:
    ledgers, listener, stimulus = run(2)

    class Deaf:
        hop, window, opening, lead, noise_size, steps, needs = HOP, HOP, HOP, 0, 128, (), ("video", "audio")
        is_joined = False

        def start(self, samples: int) -> dict[str, Array]:
            return {}

        def step(self, *_: object) -> tuple[Reaction, dict[str, Array]]:
            return Reaction(np.zeros((1, HOP, 58), np.float32)), {}

    listener._chain = replace(listener.chain, generator=Deaf())
    with pytest.raises(ReactionError, match="it is None"):
        measure_reaction(ledgers, stimulus, listener, playout_ms=PLAYOUT, seed=0)


def test_a_run_that_left_something_out_is_not_checked_and_says_so() -> None:
    ledgers, listener, stimulus = run(2)
    held = [replace(ledgers[0], rung=Rung.HALF_RATE), *ledgers[1:]]
    dropped = [replace(ledgers[0], emitted=None), *ledgers[1:]]
    for some, note in ((held, "not all frames were made in full"), (dropped, "input or frames were dropped")):
        found = measure_reaction(some, stimulus, listener, playout_ms=PLAYOUT, seed=0)
        assert found
        assert (found.checked, found.note) == (0, note)


def test_events_that_nothing_came_of_are_left_out() -> None:
    ledgers = on_time(10, hop=HOP, playout_ms=PLAYOUT)
    declared = HOP * T * MS + PLAYOUT * MS
    assert ledgers[0].deadline == ORIGIN + declared
    assert [response.slot for response in find_responses(ledgers, [-1.0, 0.05, 3.1, 3.3], declared)] == [1, 77]
    nothing = [replace(ledger, emitted=None) for ledger in ledgers]
    assert not list(find_responses(nothing, [0.05], declared))


def test_a_picture_that_came_late_is_the_answer_when_it_is_shown() -> None:
    ledgers = on_time(10, hop=HOP, playout_ms=PLAYOUT)
    late = [replace(ledger, emitted=(ledger.emitted or 0) + 300 * MS) for ledger in ledgers]
    declared = HOP * T * MS + PLAYOUT * MS
    (in_time,), (after,) = (list(find_responses(some, [1.0], declared)) for some in (ledgers, late))
    assert (in_time.picture, after.picture) == (24, 24)
    assert in_time.latency_ms == pytest.approx(expected_ms(1.0, own=False, lookahead=0))
    assert after.latency_ms == pytest.approx(in_time.latency_ms + 300)
