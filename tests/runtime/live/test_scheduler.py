"""The ladder under deadlines: single decisions, and a worker in simulated time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import FUNCTIONS, HOP, REGION, fake_engines, fake_listener, frames_of, sound_of

from pflx.engines import Array
from pflx.runtime import ListenerFrame, SpeakerSettings
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.frames.timing import FRAME_NS
from pflx.runtime.live.scheduler import Cost, DeadlinePace
from pflx.runtime.stream.inbox import Arrival

MS = 1_000_000
FULL, HALF, WARPED, HOLD = Rung.FULL, Rung.HALF_RATE, Rung.WARPED, Rung.HOLD


# Single decisions


@given(st.lists(st.integers(0, 10**10), max_size=100))
def test_a_cost_is_predicted_by_the_95th_percentile_of_the_last_calls(calls: list[int]) -> None:
    cost = Cost()
    assert cost.predicted == 0
    for call in calls:
        cost.add(call)
    last = calls[-64:]
    if last:
        assert sum(call <= cost.predicted for call in last) >= 0.95 * len(last)
        assert sum(call < cost.predicted for call in last) < 0.95 * len(last)


def test_one_slow_call_in_twenty_is_no_reason_to_expect_another() -> None:
    cost = Cost()
    for call in [10] * 19 + [5000]:
        cost.add(call)
    assert cost.predicted == 10


def pace(
    *,
    left_ms: float,
    render_ms: float = 10,
    step_ms: float | Mapping[int | None, float] = 20,
    floor: Rung = HOLD,
    samples: int = 1,
    waiting: bool = False,
    lookahead: int = 0,
) -> DeadlinePace:
    """Frame 0 has so much time left, and each further frame 40 ms more."""
    made = DeadlinePace(
        lambda: 0,
        lambda frame: round(left_ms * MS) + frame * FRAME_NS,
        samples=samples,
        lookahead=lookahead,
        floor=floor,
        stale_ns=1000 * MS,
        waiting=lambda: waiting,
    )
    made.rendered(round(render_ms * MS))
    for steps, cost in (step_ms if isinstance(step_ms, Mapping) else {None: step_ms}).items():
        made.generated(steps, round(cost * MS))
    return made


@pytest.mark.parametrize(
    ("situation", "ahead", "expected"),
    [
        ({"left_ms": 100}, 7, FULL),
        ({"left_ms": 10}, 0, FULL),  # 10 + 10 and 20 of generation before the next frame is due in 50 ms
        ({"left_ms": 10, "step_ms": 31}, 0, HALF),  # the next segment's frame would be late
        ({"left_ms": 9}, 0, FULL),  # late, but the newest
        ({"left_ms": 9}, 1, WARPED),  # late, and a newer one is at hand
        ({"left_ms": 0}, 1, HOLD),  # too late for that, too
        ({"left_ms": 9, "waiting": True, "step_ms": 9}, 0, WARPED),  # a newer segment is quicker to come by
        ({"left_ms": 9, "waiting": True, "step_ms": 11}, 0, FULL),
        ({"left_ms": 100, "render_ms": 50, "step_ms": 100}, 7, HALF),  # 9 * 50 + 100 in 100 + 8 * 40
        ({"left_ms": 130, "render_ms": 50, "step_ms": 0}, 7, FULL),
        ({"left_ms": 100, "render_ms": 50, "samples": 2}, 7, HALF),
        ({"left_ms": 99, "render_ms": 50, "samples": 2}, 7, WARPED),
        ({"left_ms": -1001}, 0, HOLD),  # stale
        ({"left_ms": -1000}, 0, FULL),
        ({"left_ms": -995}, 1, HOLD),  # stale when it is made
        ({"left_ms": -995}, 0, FULL),  # perhaps, but then what is newer is even later
        ({"left_ms": 9, "floor": HALF}, 7, HALF),
        ({"left_ms": -900, "floor": HALF}, 7, HALF),
        ({"left_ms": -1001, "floor": HALF}, 0, HOLD),
        ({"left_ms": 9, "floor": WARPED}, 0, WARPED),
        ({"left_ms": -900, "floor": WARPED}, 7, WARPED),
        ({"left_ms": 9, "floor": FULL}, 7, FULL),
        ({"left_ms": -900, "floor": Rung.FEWER_STEPS}, 7, FULL),
        ({"left_ms": -1001, "floor": FULL}, 0, HOLD),
    ],
)
def test_the_rung_fits_the_time_that_is_left(situation: dict[str, Any], ahead: int, expected: Rung) -> None:
    assert pace(**situation).rung(0, ahead=ahead) is expected


@pytest.mark.parametrize(
    ("situation", "available", "expected"),
    [
        ({"left_ms": 200, "step_ms": {50: 100}}, (50, 25, 10), 50),
        ({"left_ms": 80, "step_ms": {50: 100}}, (50, 25, 10), 25),  # in proportion: 50 ms, and 10 of rendering
        ({"left_ms": 59, "step_ms": {50: 100}}, (50, 25, 10), 10),
        ({"left_ms": 59, "step_ms": {50: 100, 25: 49}}, (50, 25, 10), 25),  # as it was measured
        ({"left_ms": 1, "step_ms": {50: 100}}, (50, 25, 10), 10),  # the fewest, whatever comes of it
        ({"left_ms": 80, "step_ms": {50: 100}, "floor": FULL}, (50, 25, 10), None),
        ({"left_ms": 80, "step_ms": {50: 100}, "floor": Rung.FEWER_STEPS}, (50, 25, 10), 25),
        ({"left_ms": 1, "step_ms": {50: 100}}, (50,), None),
        ({"left_ms": 1}, (), None),
        ({"left_ms": 200, "step_ms": {50: 100}, "lookahead": 3}, (50, 25, 10), 25),  # wanted 120 ms earlier
    ],
)
def test_as_many_steps_are_taken_as_there_is_time_for(
    situation: dict[str, Any], available: tuple[int, ...], expected: int | None
) -> None:
    assert pace(**situation).steps(0, available) == expected


# A worker in simulated time


@dataclass
class Worker:
    """A stream fed in real time, as a session's worker does it: what it made, and when."""

    render_ms: Callable[[int], float]  # of the n-th picture
    generate_ms: Callable[[int], float] = lambda call: 20.0  # of the n-th segment
    floor: Rung = HOLD
    playout_ms: float = 120.0
    stale_ms: float = 1000.0
    samples: int = 1
    now: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    frames: list[ListenerFrame] = field(default_factory=list)
    made: list[int] = field(default_factory=list)

    def deadline(self, frame: int) -> int:
        return (frame + 1 + HOP - 1) * FRAME_NS + round(self.playout_ms * MS)

    def _taking(
        self, graph: str, cost_ms: Callable[[int], float]
    ) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
        def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            call = self.calls[graph] = self.calls.get(graph, 0) + 1
            self.now += round(cost_ms(call) * MS)
            return FUNCTIONS[graph](feeds)

        return run

    def run(self, seconds: float) -> Worker:
        n_slots = round(seconds * 25)
        engines = fake_engines(
            pirender_frame=self._taking("pirender_frame", self.render_ms),
            reactface_speaker=self._taking("reactface_speaker", self.generate_ms),
        )
        waiting: list[int] = []
        arrived = 0

        def arrive() -> None:
            nonlocal arrived
            while arrived < n_slots and (arrived + 1) * FRAME_NS <= self.now:
                waiting.append(arrived)
                arrived += 1

        def is_input_waiting() -> bool:
            arrive()
            return len(waiting) >= HOP

        pace = DeadlinePace(
            lambda: self.now, self.deadline, samples=self.samples, lookahead=0, floor=self.floor,
            stale_ns=round(self.stale_ms * MS), waiting=is_input_waiting,
        )  # fmt: skip
        pace.rendered(round(self.render_ms(1) * MS))  # as after warming up
        pace.generated(None, round(self.generate_ms(1) * MS))
        stream = fake_listener(engines, clock=lambda: self.now, lookahead=0).stream(
            samples=self.samples, speaker=SpeakerSettings(region=REGION)
        )
        video, sound = frames_of(HOP, size=(48, 40)), sound_of(HOP)
        while arrived < n_slots:
            arrive()
            if len(waiting) < HOP:
                self.now = (arrived + 1) * FRAME_NS
                continue
            oldest = self.now + pace.step_cost - round(self.stale_ms * MS)
            while len(waiting) > HOP and (
                pace.step_cost > HOP * FRAME_NS or self.deadline(waiting[HOP]) < oldest
            ):  # as a session leaves out what is stale
                del waiting[0]
            slots, waiting[:] = waiting[:HOP], waiting[HOP:]
            for slot in slots:
                arrival = Arrival(slot, slot / 25, (slot + 1) * FRAME_NS, (slot + 1) * FRAME_NS)
                row = slots.index(slot)
                stream.push(video=video[row : row + 1], audio=sound[640 * row : 640 * row + 640], arrival=arrival)
            for frame in stream.pull(pace):
                self.frames.append(frame)
                self.made.append(self.now)
        return self

    def rungs(self, after_s: float = 1.0) -> list[Rung]:
        return [frame.degraded for frame in self.frames if frame.time_s >= after_s]

    def in_time(self, after_s: float = 1.0) -> list[bool]:
        pairs = zip(self.frames, self.made, strict=True)
        return [made <= self.deadline(frame.ledger.frame) for frame, made in pairs if frame.time_s >= after_s]

    def longest_gap_s(self, after_s: float = 0.0) -> float:
        """Between new pictures."""
        news = [
            self.made[k]
            for k, f in enumerate(self.frames)
            if f.ledger.picture == f.ledger.frame and f.time_s >= after_s
        ]
        return float(np.diff(news).max()) / 1e9


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8, 0.9])
@pytest.mark.parametrize("samples", [1, 2])
def test_with_time_enough_every_frame_is_made_in_full_and_in_time(share: float, samples: int) -> None:
    work = Worker(lambda call: share * 36 / samples, lambda call: share * 20, samples=samples).run(20)
    assert len(work.frames) == 62 * HOP * samples
    assert set(work.rungs(after_s=0.0)) == {FULL}
    assert all(work.in_time(after_s=0.0))


@pytest.mark.parametrize("share", [1.1, 1.3, 1.5, 1.7])
def test_with_less_time_most_frames_come_at_half_rate_and_nothing_freezes(share: float) -> None:
    work = Worker(lambda call: share * 40).run(30)
    rungs = work.rungs()
    assert len(rungs) > 28 * 25
    assert rungs.count(HALF) / len(rungs) > min(0.4, 2 * (share - 1))
    assert sum(work.in_time()) / len(rungs) > 0.95
    assert work.longest_gap_s(after_s=1.0) < 0.25


@pytest.mark.parametrize("render_ms", [80, 120, 200, 450, 900])
def test_with_far_too_little_time_pictures_keep_coming(render_ms: float) -> None:
    work = Worker(lambda call: render_ms).run(30)
    assert work.longest_gap_s() < 2 * max(0.4, render_ms / 1000) + 0.1


def test_with_a_slow_generator_pictures_keep_coming() -> None:
    work = Worker(lambda call: 10.0, lambda call: 500.0).run(30)
    assert work.longest_gap_s() < 1.1


@pytest.mark.parametrize("at", [2, 3, 10, 40, 500])
@pytest.mark.parametrize("stage", ["render", "generate"])
def test_one_call_of_5_s_freezes_nothing_for_long(stage: str, at: int) -> None:
    at = at if stage == "render" else max(2, at // 8)

    def outlier(call: int) -> float:
        return 5000.0 if call == at else 10.0

    work = Worker(outlier).run(60) if stage == "render" else Worker(lambda call: 10.0, outlier).run(60)
    gaps = np.sort(np.diff(work.made)) / 1e9
    assert 4.5 < gaps[-1] < 5.5
    assert gaps[-2] < 0.8
    assert set(work.rungs(after_s=40.0)) == {FULL}


def test_with_a_floor_above_hold_frames_come_late_but_not_staler_than_the_cap() -> None:
    work = Worker(lambda call: 100.0, floor=FULL).run(30)
    assert set(work.rungs()) == {FULL}
    late = [made - work.deadline(f.ledger.frame) for f, made in zip(work.frames, work.made, strict=True)]
    assert max(late) <= 1100 * MS
    assert work.longest_gap_s() < 0.6
