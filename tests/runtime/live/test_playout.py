"""What is shown at each deadline, against a model that knows all from the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import FUNCTIONS, fake_engines, fake_listener, frames_of

from pflx.engines import Array
from pflx.runtime import FaceState, ListenerFrame
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.timing import FRAME_NS
from pflx.runtime.live.clock import VirtualClock
from pflx.runtime.live.playout import Due, Playout
from pflx.runtime.live.queues import MediaQueue, Policy
from pflx.runtime.live.timeline import Slot
from pflx.runtime.media.sources import IterableSource, Timed

MS = 1_000_000
DELAY = 440 * MS
STALE = 1000 * MS
NOBODY = np.zeros((1, 1, 3), np.uint8)


def slot_of(number: int) -> Slot:
    end = (number + 1) * FRAME_NS
    return Slot(number, number / 25, end, end, NOBODY, np.zeros(640, np.float32), 0)


def due(number: int) -> int:
    return (number + 1) * FRAME_NS + DELAY


def frame_of(number: int, sample: int = 0, rung: Rung = Rung.FULL) -> ListenerFrame:
    image = np.full((1, 1, 3), number, np.uint8)
    ledger = Ledger(number, sample, number // 8, number, rung, number / 25, on_host=due(number) - MS, newest=number)
    numbers = np.full(58, number, np.float32)
    return ListenerFrame(image, numbers, numbers[:6], number / 25, sample, FaceState.LOCKED, ledger)


@dataclass
class Show:
    """A playout and everything that came out of it."""

    samples: int = 1
    floor: Rung = Rung.HOLD
    capacity_ms: float = 10_000.0
    frames: list[ListenerFrame] = field(default_factory=list)
    gone: list[Ledger] = field(default_factory=list)

    def __post_init__(self) -> None:
        queue: MediaQueue[Due] = MediaQueue(
            "frames", "player", Policy.DROP_OLDEST, self.capacity_ms, FRAME_NS / MS, lambda due: due.scheduled
        )
        self.playout = Playout(queue, samples=self.samples, delay_ns=DELAY, floor=self.floor, stale_ns=STALE)

    def expect(self, *numbers: int) -> None:
        for number in numbers:
            self.gone += self.playout.expect(slot_of(number))

    def deliver(self, *numbers: int, samples: Sequence[int] | None = None, fresh: bool = True) -> None:
        for number in numbers:
            for sample in range(self.samples) if samples is None else samples:
                self.playout.deliver(frame_of(number, sample), fresh=fresh)

    def take(self, now: int) -> list[tuple[int, int | None, Rung]]:
        """Slot, picture and rung of what is shown."""
        shown, gone = self.playout.take(now)
        self.frames += shown
        self.gone += gone
        assert [frame.sample for frame in shown] == sorted({frame.sample for frame in shown})
        return [(frame.ledger.frame, frame.ledger.picture, frame.degraded) for frame in shown]


FULL, HOLD = Rung.FULL, Rung.HOLD


def test_a_slot_is_shown_at_its_deadline_and_not_before() -> None:
    show = Show()
    show.expect(0, 1)
    show.deliver(0, 1)
    assert show.playout.next_look() == due(0)
    assert show.take(due(0) - 1) == []
    assert show.take(due(0)) == [(0, 0, FULL)]
    assert show.playout.next_look() == due(1)
    assert show.frames[0].ledger.deadline == due(0)
    assert show.take(due(1)) == [(1, 1, FULL)]
    assert show.playout.next_look() is show.playout.patience() is None
    assert not show.gone


def test_a_slot_without_a_frame_shows_the_last_picture_once_more() -> None:
    show = Show()
    show.expect(0, 1, 2)
    show.deliver(0)
    assert [show.take(due(number))[0] for number in range(3)] == [(0, 0, FULL), (1, 0, HOLD), (2, 0, HOLD)]
    held = show.frames[2]
    assert held.time_s == held.ledger.time_s == 2 / 25
    assert held.image is show.frames[0].image
    assert (held.ledger.newest, held.ledger.deadline, held.ledger.on_host) == (0, due(2), None)


def test_before_the_first_picture_slots_are_dropped() -> None:
    show = Show(samples=2)
    show.expect(0, 1)
    assert show.take(due(0)) == []
    show.deliver(1, samples=[1])
    assert show.take(due(1)) == [(1, 1, FULL)]
    assert [(ledger.frame, ledger.sample, ledger.picture) for ledger in show.gone] == [
        (0, 0, None),
        (0, 1, None),
        (1, 0, None),
    ]
    assert {ledger.deadline for ledger in show.gone} == {due(0), due(1)}


def test_of_several_samples_the_one_that_is_late_is_held() -> None:
    show = Show(samples=3)
    show.expect(0, 1, 2)
    show.deliver(0)
    show.deliver(1, samples=[0])
    show.take(due(0))
    assert show.take(due(1)) == [(1, 1, FULL), (1, 0, HOLD), (1, 0, HOLD)]
    show.deliver(1, samples=[1, 2])  # too late for their slot, in time to be held
    assert show.take(due(2)) == [(2, 1, HOLD), (2, 1, HOLD), (2, 1, HOLD)]
    late, held = show.frames[-1].ledger, show.frames[-3].ledger
    assert (late.on_host, late.segment) == (due(1) - MS, 0)  # shown for the first time: with its story
    assert (held.on_host, held.segment) == (None, None)


def test_a_late_picture_is_never_shown_after_a_newer_one() -> None:
    show = Show()
    show.expect(0, 1, 2, 3)
    show.take(due(0))
    show.deliver(0, 1)
    assert show.take(due(1)) == [(1, 1, FULL)]
    assert show.take(due(2)) == [(2, 1, HOLD)]


def test_a_stale_frame_is_not_shown_and_its_slot_is_given_up() -> None:
    show = Show(floor=FULL)
    show.expect(0, 1, 2)
    show.deliver(0)
    show.take(due(0))
    show.deliver(1, fresh=False)
    assert show.take(due(1)) == [(1, 0, HOLD)]
    assert show.take(due(2)) == []


@pytest.mark.parametrize("floor", [Rung.FULL, Rung.FEWER_STEPS, Rung.HALF_RATE])
def test_above_hold_a_slot_waits_for_its_frames_until_they_are_stale(floor: Rung) -> None:
    show = Show(floor=floor, samples=2)
    show.expect(0, 1, 2)
    show.deliver(0)
    show.take(due(0))
    show.deliver(1, samples=[0])
    assert show.playout.patience() == due(1) + STALE
    assert show.take(due(1) + STALE - 1) == []
    show.deliver(1, samples=[1])
    assert show.take(due(1) + STALE - 1) == [(1, 1, FULL)] * 2
    assert show.take(due(2) + STALE) == [(2, 1, HOLD)] * 2
    assert not show.gone


def test_above_hold_a_slot_that_a_later_frame_has_passed_is_not_waited_for() -> None:
    show = Show(floor=FULL)
    show.expect(0, 1, 2)
    show.deliver(0, 2)
    assert show.take(due(0)) == [(0, 0, FULL)]
    assert show.take(due(1)) == [(1, 0, HOLD)]
    assert show.take(due(2)) == [(2, 2, FULL)]


def test_with_hold_the_newest_slot_that_is_due_takes_the_place_of_older_ones() -> None:
    show = Show()
    show.expect(*range(6))
    show.deliver(0, 1, 2)
    assert show.take(due(4)) == [(4, 2, HOLD)]  # the newest picture that there is
    assert [(ledger.frame, ledger.picture) for ledger in show.gone] == [(0, 0), (1, 1), (2, 2), (3, None)]


def test_above_hold_only_a_finished_slot_takes_the_place_of_an_older_one() -> None:
    show = Show(floor=FULL)
    show.expect(*range(4))
    show.deliver(0, 1)
    assert show.take(due(2)) == [(1, 1, FULL)]
    assert [ledger.frame for ledger in show.gone] == [0]
    assert show.take(due(2)) == []


def test_without_room_the_oldest_slot_goes_with_its_frames() -> None:
    show = Show(capacity_ms=120.0)
    show.expect(0, 1, 2)
    show.deliver(0)
    show.expect(3)
    assert [(ledger.frame, ledger.picture, ledger.deadline) for ledger in show.gone] == [(0, 0, due(0))]


@pytest.mark.parametrize("floor", list(Rung))
def test_what_is_forgotten_is_neither_shown_nor_waited_for(floor: Rung) -> None:
    show = Show(floor=floor)
    show.expect(0, 1, 2, 3)
    show.deliver(0, 1, 2)
    show.take(due(0))
    show.playout.forget()
    assert [show.take(due(number)) for number in (1, 2, 3)] == [[(1, 0, HOLD)], [(2, 0, HOLD)], [(3, 0, HOLD)]]
    show.expect(4)
    show.deliver(4)
    assert show.take(due(4)) == [(4, 4, FULL)]


def test_after_the_end_nothing_is_waited_for() -> None:
    show = Show(floor=FULL)
    show.expect(0, 1)
    show.deliver(0)
    show.take(due(0))
    assert show.take(due(1)) == []
    show.playout.finish()
    assert show.take(due(1)) == [(1, 0, HOLD)]
    assert show.playout.next_look() is None


# Against a model


@given(data=st.data(), samples=st.integers(1, 3), floor=st.sampled_from([Rung.HOLD, Rung.FULL]))
@settings(max_examples=150, deadline=None)
def test_every_slot_has_one_outcome_for_each_sample_and_time_never_goes_back(
    data: st.DataObject, samples: int, floor: Rung
) -> None:
    count = data.draw(st.integers(1, 25), "slots")
    show = Show(samples=samples, floor=floor, capacity_ms=data.draw(st.sampled_from([480.0, 1600.0])))
    made = [
        (number, sample)
        for number in range(count)
        if data.draw(st.booleans() if number % 3 else st.just(True))
        for sample in range(samples)
    ]
    ready, at = [], 0
    for number, sample in made:  # in order, as a stream delivers them
        at = max(at, due(number) + data.draw(st.integers(-300, 200)) * MS)
        ready.append((at, "deliver", number, sample))
    looks = [
        (due(number) + data.draw(st.sampled_from([0, 0, 0, 50, 200])) * MS, "look", number, 0)
        for number in range(count)
    ]
    expects = [((number + 1) * FRAME_NS, "expect", number, 0) for number in range(count)]
    end = max(due(count) + STALE, at)
    looks += [(end + tick, "look", 0, 0) for tick in range(count)]
    for now, what, number, sample in sorted([*expects, *ready, *looks], key=lambda event: event[0]):
        if what == "expect":
            show.expect(number)
        elif what == "deliver":
            show.deliver(number, samples=[sample], fresh=now <= due(number) + STALE)
        else:
            while show.take(now):
                pass
    outcomes = [(ledger.frame, ledger.sample) for ledger in [*show.gone, *(frame.ledger for frame in show.frames)]]
    assert sorted(outcomes) == [(number, sample) for number in range(count) for sample in range(samples)]
    for sample in range(samples):
        mine = [frame.ledger for frame in show.frames if frame.sample == sample]
        assert [ledger.frame for ledger in mine] == sorted(ledger.frame for ledger in mine)
        pictures = [ledger.picture for ledger in mine if ledger.picture is not None]
        assert pictures == sorted(pictures)
        assert len(pictures) == len(mine)
        for ledger in mine:
            assert ledger.deadline == due(ledger.frame)
            assert (ledger.picture == ledger.frame) == (ledger.rung is FULL)


@given(late_ms=st.lists(st.one_of(st.none(), st.integers(-200, 400)), min_size=1, max_size=30))
@settings(max_examples=150, deadline=None)
def test_with_a_player_in_time_each_slot_shows_the_newest_frame_that_is_there(late_ms: list[int | None]) -> None:
    show = Show()
    arrivals: list[tuple[int, int]] = []
    for number, late in enumerate(late_ms):
        if late is not None:
            before = arrivals[-1][0] if arrivals else 0
            arrivals.append((max(before, due(number) + late * MS), number))
    show.expect(*range(len(late_ms)))
    shown: list[tuple[int, int | None, Rung]] = []
    for number in range(len(late_ms)):
        for at, frame in arrivals:
            if (due(number - 1) if number else 0) < at <= due(number):
                show.deliver(frame)
        shown += show.take(due(number))
    expected = []
    for number in range(len(late_ms)):
        there = [frame for at, frame in arrivals if at <= due(number) and frame <= number]
        if there:
            expected.append((number, there[-1], FULL if there[-1] == number else HOLD))
    assert shown == expected


# In a session


def test_the_output_goes_on_while_the_source_stalls_and_the_worker_is_busy() -> None:
    clock = VirtualClock(10**9)
    calls = iter(range(1000))

    def generate(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        clock.sleep(3000 * MS if next(calls) == 7 else 20 * MS)
        return FUNCTIONS["reactface_speaker"](feeds)

    def camera() -> Iterator[Timed]:
        for number, picture in enumerate(frames_of(150)):
            clock.sleep(3000 * MS if number == 50 else 40 * MS)
            yield Timed(clock() / 1e9, video=picture)

    ledgers: list[Ledger] = []
    listener = fake_listener(fake_engines(reactface_speaker=generate))
    source = IterableSource(camera(), live=True)
    with listener.live(source, lambda frame: None, record=ledgers.append, clock=clock) as session:
        session.wait()
    emitted = [ledger.emitted for ledger in ledgers if ledger.emitted is not None]
    assert len(emitted) == len(ledgers) > 220
    assert np.diff(emitted).max() < 50 * MS
