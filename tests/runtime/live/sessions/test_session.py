"""Live sessions on a virtual clock: what is shown, when, at which age, and what queues hold meanwhile."""

from __future__ import annotations

import faulthandler
import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, repeat

import numpy as np
import pytest
from support.fakes import FUNCTIONS, HOP, INPUTS, OUTPUTS, REGION, fake_listener, frames_of
from support.live.live_sessions import (
    FLOORS,
    FRAME,
    MS,
    START,
    Run,
    captured,
    contents,
    costly,
    declared,
    offline,
    run,
    speaker,
    watchdog,  # noqa: F401
)

from pflx.engines import Array, FeedError
from pflx.runtime import (
    IterableSource,
    Ledger,
    Listener,
    ListenerFrame,
    LiveSettings,
    Region,
    Rung,
    SpeakerSettings,
    Timed,
)
from pflx.runtime.generators import Generator, Reaction, SpeakerWindow, State
from pflx.runtime.latency.percentiles import figures
from pflx.runtime.live.clock import VirtualClock

# What is shown, and when


@pytest.mark.parametrize("lookahead", [0, 7])
def test_a_session_may_have_a_look_ahead_of_its_own(lookahead: int) -> None:
    clock, items = VirtualClock(START), speaker(45)
    listener = fake_listener(costly(clock), lookahead=3)
    shown: list[ListenerFrame] = []
    with listener.live(
        items,
        shown.append,
        settings=LiveSettings(lookahead=lookahead),
        speaker=SpeakerSettings(region=REGION),
        clock=clock,
    ) as session:
        session.wait()
    assert contents(shown) == contents(offline(items, lookahead=lookahead))
    assert listener.lookahead == 3
    with pytest.raises(FeedError, match="lookahead is 14; it goes from 0 to 13"):
        listener.live(items, settings=LiveSettings(lookahead=14), clock=clock)


@pytest.mark.parametrize("start_s", [0.0, 1000.0, 1.7e9])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("sound", [True, False])
def test_with_time_enough_the_frames_are_those_of_a_stream_bit_for_bit(
    start_s: float, samples: int, sound: bool
) -> None:
    items = speaker(45, start_s=start_s, sound=sound)
    result = run(items, render=1, generate=5, samples=samples, seed=4)
    expected = offline(items, samples=samples, seed=4)
    assert contents(result.frames) == contents(expected)
    assert [frame.time_s for frame in result.frames] == pytest.approx([frame.time_s for frame in expected], abs=1e-6)
    assert result.last.rungs == {"FULL": 45 * samples, "FEWER_STEPS": 0, "HALF_RATE": 0, "WARPED": 0, "HOLD": 0}
    assert result.last.missed == result.last.dropped == 0


@pytest.mark.parametrize("start_s", [0.0, 1000.0, 1.7e9])
@pytest.mark.parametrize("playout_ms", [60.0, 125.5])
def test_every_frame_is_shown_at_its_capture_time_plus_the_declared_delay(start_s: float, playout_ms: float) -> None:
    result = run(speaker(45, start_s=start_s), render=1, generate=5, playout_ms=playout_ms)
    for frame in result.frames:
        due = result.begin + round((frame.time_s - start_s) * 1e9) + declared(3, playout_ms)
        assert frame.ledger.emitted == frame.ledger.deadline == pytest.approx(due, abs=1000)
        assert frame.degraded is Rung.FULL
    assert result.ledgers == result.shown()


def test_a_camera_of_thirty_pictures_a_second_is_shown_at_twenty_five() -> None:
    clock = VirtualClock(START)
    source = IterableSource(captured(clock, 60, fps=29.97, start_s=1000), live=True)
    result = run(source, clock=clock, render=1, generate=5)
    nearest = [min(range(60), key=lambda k: abs(k / 29.97 - slot / 25)) for slot in range(50)]
    video = frames_of(60)[nearest]
    assert len(result.frames) == 50
    assert contents(result.frames) == contents(offline([Timed(slot / 25, video[slot]) for slot in range(50)]))
    for slot, frame in enumerate(result.frames):
        assert frame.time_s == pytest.approx(1000 + slot / 25)
        assert frame.ledger.emitted == pytest.approx(result.begin + slot * FRAME + declared(3), abs=100)


@pytest.mark.parametrize("leap_s", [100.0, -50.0, 1.7e9])
def test_after_a_leap_of_the_stamps_frames_trail_their_capture_as_before(leap_s: float) -> None:
    clock = VirtualClock(START)

    def leaping() -> Iterator[Timed]:
        for item in captured(clock, 100, start_s=60):
            yield item if item.time_s < 62 else Timed(item.time_s + leap_s, item.video)

    result = run(IterableSource(leaping(), live=True), clock=clock, render=1, generate=5)
    assert result.last.reanchored == 1
    assert len({frame.ledger.frame for frame in result.frames}) == len(result.frames)
    leapt = [abs(frame.time_s - 62 - leap_s) < 5 for frame in result.frames]
    assert leapt == [False] * 50 + [True] * 50
    for frame, has_leapt in zip(result.frames, leapt, strict=True):
        captured_s = frame.time_s - 60 - has_leapt * leap_s
        assert frame.ledger.emitted == pytest.approx(result.begin + captured_s * 1e9 + declared(3), abs=1000)


@pytest.mark.parametrize("lookahead", range(14))
def test_the_algorithmic_delay_is_what_remains_with_engines_that_cost_nothing(lookahead: int) -> None:
    items = speaker(40)
    free = run(items, lookahead=lookahead, playout_ms=0)
    assert free.last.missed == 0
    assert contents(free.frames) == contents(offline(items, lookahead=lookahead))
    assert {ledger.emitted for ledger in free.ledgers} == {
        free.begin + k * FRAME + declared(lookahead, 0) for k in range(40)
    }
    costing = run(items, lookahead=lookahead, playout_ms=0, generate=0.001, floor=Rung.FULL)
    assert costing.last.missed > 0  # there is no slack in it


def test_a_session_tells_its_declared_delay() -> None:
    clock = VirtualClock(START)
    with fake_listener(lookahead=13).live([], settings=LiveSettings(playout_ms=80), clock=clock) as session:
        assert (session.algorithmic_delay_ms, session.declared_delay_ms) == (840, 920)


def test_the_same_run_twice_leaves_the_same_ledgers() -> None:
    def once() -> list[Ledger]:
        return run(speaker(80), render=Jitter(5, 50), generate=70, samples=2).ledgers

    first = once()
    assert {ledger.rung for ledger in first} >= {Rung.HALF_RATE, Rung.HOLD}
    assert first == once()


# The ladder


class Jitter:
    """A duration in ms that varies from call to call, the same in every run."""

    def __init__(self, low: float, high: float, seed: int = 0) -> None:
        self._random, self._low, self._high = np.random.default_rng(seed), low, high

    def __call__(self) -> float:
        return float(self._random.uniform(self._low, self._high))


class Stepped:
    """The fake listener's generator, as one of denoising steps."""

    steps = (12, 6, 3)

    def __init__(self, generator: Generator, clock: VirtualClock, step_ms: float) -> None:
        self.window, self.hop, self.noise_size = generator.window, generator.hop, generator.noise_size
        self.is_joined = generator.is_joined
        self.lead, self.opening, self.needs = generator.lead, generator.opening, generator.needs
        self.taken: list[int] = []
        self.start = generator.start
        self._generator, self._clock, self._step_ns = generator, clock, round(step_ms * MS)

    def step(
        self, speaker: SpeakerWindow, state: State, noise: Array, steps: int | None = None
    ) -> tuple[Reaction, State]:
        self.taken.append(steps or self.steps[0])
        self._clock.sleep(self._step_ns * self.taken[-1])
        return self._generator.step(speaker, state, noise)


def stepped(clock: VirtualClock, *, render: float | Callable[[], float], step_ms: float) -> tuple[Listener, Stepped]:
    listener = fake_listener(costly(clock, render=render), lookahead=3)
    generator = Stepped(listener.generator, clock, step_ms)
    listener._chain = replace(listener._chain, generator=generator)
    return listener, generator


@pytest.mark.parametrize("floor", FLOORS)
def test_no_frame_is_worse_than_the_floor(floor: Rung) -> None:
    """Nine pictures take 100 ms each: then frames come late, or the session steps down as far as it may."""
    clock = VirtualClock(START)
    durations = chain([10.0] * 20, [100.0] * 9, repeat(10.0))
    listener, generator = stepped(clock, render=lambda: next(durations), step_ms=10)
    result = run(speaker(160), clock=clock, listener=listener, floor=floor, stale_ms=60_000)
    assert max(frame.degraded for frame in result.frames) is floor
    assert (min(generator.taken) < 12) == (floor >= Rung.FEWER_STEPS)
    assert len(result.ledgers) == 160
    if floor < Rung.HALF_RATE:  # of a pair that is late, the second alone is shown
        assert len(result.frames) == 160


@pytest.mark.parametrize(("render", "worst"), [(10, Rung.FULL), (60, Rung.HALF_RATE), (90, Rung.HOLD)])
def test_the_ladder_goes_down_as_far_as_it_must(render: float, worst: Rung) -> None:
    result = run(speaker(80), render=render, generate=20)
    assert max(frame.degraded for frame in result.frames) is worst


def test_fewer_steps_are_taken_where_they_suffice() -> None:
    clock = VirtualClock(START)
    listener, generator = stepped(clock, render=10, step_ms=25)
    result = run(speaker(96), clock=clock, listener=listener, playout_ms=240)
    warm, taken = generator.taken[:4], generator.taken[4:]
    assert warm == [12] * 4
    assert set(taken) == {6}
    assert {frame.degraded for frame in result.frames} == {Rung.FEWER_STEPS}
    assert result.last.rungs["FEWER_STEPS"] == result.last.missed == 96
    assert contents(result.frames) == contents(offline(speaker(96)))  # the fake ignores the steps


def test_rungs_are_counted_and_told_in_the_frame() -> None:
    result = run(speaker(120), render=Jitter(20, 90), generate=60)
    counted = Counter(frame.degraded.name for frame in result.frames)
    assert len(counted) >= 3
    assert result.last.rungs == {rung.name: counted[rung.name] for rung in Rung}
    assert result.last.held == counted["HOLD"]
    assert result.last.emitted == len(result.frames)
    not_in_full = sum(frame.degraded is not Rung.FULL for frame in result.frames)
    assert result.last.missed == not_in_full + result.last.dropped
    assert [ledger for ledger in result.ledgers if ledger.emitted is not None] == result.shown()
    assert len(result.ledgers) == result.last.emitted + result.last.dropped == 120


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("floor", FLOORS)
def test_under_any_load_pictures_never_go_back_and_none_is_shown_before_its_deadline(seed: int, floor: Rung) -> None:
    most, samples = [30.0, 60.0, 120.0, 250.0, 700.0, 2000.0][seed], 1 + seed % 2
    result = run(
        speaker(100), render=Jitter(0, most, seed), generate=most / 2, floor=floor, samples=samples, stale_ms=600
    )
    for sample in range(samples):
        shown = [frame.ledger for frame in result.frames if frame.sample == sample]
        assert [ledger.frame for ledger in shown] == sorted({ledger.frame for ledger in shown})
        pictures = [ledger.picture for ledger in shown if ledger.picture is not None]
        assert pictures == sorted(pictures)
    assert len({(ledger.frame, ledger.sample) for ledger in result.ledgers}) == len(result.ledgers)
    for ledger in result.shown():
        assert ledger.emitted is not None
        assert ledger.deadline is not None
        assert ledger.deadline <= ledger.emitted <= ledger.deadline + 600 * MS
        if floor is Rung.HOLD:
            assert ledger.emitted == ledger.deadline


@pytest.mark.parametrize("floor", [Rung.FULL, Rung.HOLD])
def test_the_smallest_playout_that_figures_tell_misses_nothing_and_one_less_does(floor: Rung) -> None:
    def with_playout(playout_ms: float) -> Run:
        return run(speaker(160), render=Jitter(5, 25), generate=40, playout_ms=playout_ms, floor=floor)

    told = figures(with_playout(300).ledgers, hop=HOP, algorithmic_ms=(HOP + 3) * 40, playout_ms=300, samples=1)
    smallest = told.smallest_playout_ms
    assert smallest is not None
    assert 40 < smallest < 300
    assert with_playout(smallest - 1).last.missed > 0
    if floor is Rung.FULL:  # lower floors step down earlier, to be on the safe side
        assert with_playout(smallest).last.missed == 0


# A long time


class Instant:
    """An engine that returns the same zeros at once, and looks at nothing."""

    def __init__(self, graph: str) -> None:
        self.inputs, self.outputs = INPUTS[graph], OUTPUTS[graph]
        self._zeros: dict[str, Array] = {
            name: np.zeros([size if isinstance(size, int) else 1 for size in spec.shape], spec.dtype)
            for name, spec in self.outputs.items()
        }

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self._zeros

    def close(self) -> None:
        pass


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    """What is there already is neither counted nor looked through by the garbage collector."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


HOUR = pytest.mark.skipif("PFLX_TEST_AN_HOUR" not in os.environ, reason="takes half a minute; set PFLX_TEST_AN_HOUR")


@pytest.mark.usefixtures("frozen_heap")
@pytest.mark.parametrize(("minutes", "ppm"), [(6, 1000), pytest.param(60, 100, marks=HOUR)])
def test_in_a_long_time_nothing_drifts_or_grows(minutes: int, ppm: int) -> None:
    """The source's clock is fast: by the end it runs ahead by 360 ms, and the listener with it."""
    faulthandler.cancel_dump_traceback_later()  # it may take longer than the others
    clock = VirtualClock(START)
    frames, picture = 1500 * minutes, np.zeros((16, 16, 3), np.uint8)
    listener = fake_listener({graph: Instant(graph) for graph in FUNCTIONS}, lookahead=3)
    objects: list[int] = []
    trail_ms: list[float] = []
    capture_ns: list[int] = []

    def camera() -> Iterator[Timed]:
        begin = clock()
        for k in range(frames):
            capture_ns.append(begin + round(k * FRAME / (1 + ppm / 1e6)))
            clock.sleep(capture_ns[-1] - clock())
            yield Timed(k / 25, picture)

    def show(frame: ListenerFrame) -> None:
        assert frame.ledger.emitted is not None
        if frame.ledger.frame % (frames // 12) == 0:
            trail_ms.append((frame.ledger.emitted - capture_ns[round(frame.time_s * 25)]) / MS)
            gc.collect()
            objects.append(len(gc.get_objects()))

    with listener.live(
        IterableSource(camera(), live=True),
        show,
        clock=clock,
        speaker=SpeakerSettings(region=Region(0, 0, 16, 16)),
        settings=LiveSettings(playout_ms=80),
    ) as session:
        clock.sleep((60 * minutes + 10) * 1000 * MS)  # a wait would wake up with every frame
        session.wait()
        stats = session.stats
    assert len(trail_ms) == 12
    assert trail_ms[0] == pytest.approx(520, abs=0.1)
    assert max(abs(trail - trail_ms[0]) for trail in trail_ms) < 5 * minutes / 60
    assert max(objects[1:]) - min(objects[1:]) < 100
    assert (stats.emitted, stats.missed, stats.dropped, stats.reanchored) == (frames, 0, 0, 0)
