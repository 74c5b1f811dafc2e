"""Queues of media: what goes when there is no room, against a list."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pflx.engines import FeedError
from pflx.runtime.live.queues import MediaQueue, Policy, QueueGauge

MS = 1_000_000
ACTIONS = st.lists(st.sampled_from(["put", "take", "drop", "peek", "clear"]), max_size=60)


def queue(policy: Policy = Policy.DROP_OLDEST, capacity_ms: float = 200.0, item_ms: float = 40.0) -> MediaQueue[int]:
    """Of numbers: number n was due at n ms."""
    return MediaQueue("numbers", "worker", policy, capacity_ms, item_ms, lambda number: number * MS)


@given(
    actions=ACTIONS,
    policy=st.sampled_from(Policy),
    places=st.integers(1, 7),
    slack=st.floats(0, 0.99),
    item_ms=st.sampled_from([40.0, 40 / 3, 40 / 7]),
)
@settings(max_examples=200, deadline=None)
def test_a_queue_does_what_a_list_with_so_many_places_does(
    actions: list[str], policy: Policy, places: int, slack: float, item_ms: float
) -> None:
    real = queue(policy, (places + slack) * item_ms, item_ms)
    model: list[int] = []
    dropped = 0
    for number, action in enumerate(actions):
        if action == "put":
            no_room = len(model) == places
            gone = (model if policy is Policy.LATEST else model[:1]) if no_room else []
            assert real.is_full == no_room
            assert real.put(number) == gone
            model = [*model[len(gone) :], number]
            dropped += len(gone)
        elif action == "clear":
            assert real.clear() == model
            dropped, model = dropped + len(model), []
        elif action == "peek":
            assert [real.peek(place) for place in range(places + 1)] == [*model, *[None] * places, None][: places + 1]
        elif model:
            assert (real.take() if action == "take" else real.drop()) == model.pop(0)
            dropped += action == "drop"
        assert list(real) == model
        assert len(real) == len(model) <= places
        assert real.dropped == dropped


@pytest.mark.parametrize("policy", list(Policy))
def test_a_gauge_shows_what_waits_and_how_old_it_is(policy: Policy) -> None:
    numbers = queue(policy)
    assert numbers.gauge(0) == QueueGauge("numbers", "worker", policy, 200.0, 0.0, 0.0, 0)
    for number in (10, 20, 30):
        numbers.put(number)
    assert numbers.gauge(100 * MS) == QueueGauge("numbers", "worker", policy, 200.0, 120.0, 90.0, 0)
    numbers.drop()
    assert numbers.gauge(100 * MS) == QueueGauge("numbers", "worker", policy, 200.0, 80.0, 80.0, 1)


def test_what_lies_in_the_future_has_no_age() -> None:
    numbers = queue()
    numbers.put(50)
    assert numbers.gauge(10 * MS).age_ms == 0


@pytest.mark.parametrize("samples", [1, 2, 3, 7])
def test_parts_of_a_frame_fill_its_room_exactly(samples: int) -> None:
    parts = queue(capacity_ms=40.0, item_ms=40.0 / samples)
    assert [len(parts.put(number)) for number in range(samples + 2)] == [0] * samples + [1, 1]


@pytest.mark.parametrize("capacity_ms", [0.0, 39.9, -1.0, math.nan, math.inf])
def test_a_queue_without_room_or_without_bound_is_refused(capacity_ms: float) -> None:
    with pytest.raises(FeedError, match=r"'numbers' holds (0|39.9|-1|nan|inf) ms; give it a bound of 40 ms"):
        queue(capacity_ms=capacity_ms)


def test_an_empty_queue_has_nothing_to_look_at() -> None:
    assert queue().peek() is None
    assert queue().clear() == []
