"""What waits in a live session, and how old it is, when somebody is too slow, too fast, or one of several."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.fakes import REGION, fake_listener, frames_of
from support.live.live_sessions import (
    FRAME,
    MS,
    START,
    assert_bounded,
    captured,
    contents,
    costly,
    declared,
    iterate,
    offline,
    run,
    speaker,
    trail_ms,
    watchdog,  # noqa: F401
)

from pflx.engines import FeedError
from pflx.runtime import (
    IterableSource,
    Ledger,
    ListenerFrame,
    LiveSession,
    LiveSettings,
    Policy,
    Rung,
    SessionStats,
    SpeakerSettings,
    StreamError,
    Timed,
)
from pflx.runtime.live.clock import VirtualClock

# Queues


@pytest.mark.parametrize("samples", [1, 2])
def test_a_sink_ten_times_too_slow_sees_young_frames_and_nothing_piles_up(samples: int) -> None:
    clock = VirtualClock(START)
    result = run(
        speaker(300),
        clock=clock,
        render=1,
        generate=5,
        samples=samples,
        show=lambda session, frame: clock.sleep(400 * MS // samples),
    )
    assert_bounded(result.stats)
    assert 25 * samples < len(result.frames) < 40 * samples
    assert max(trail_ms(ledger, result.begin) for ledger in result.shown()) <= declared(3) / MS + 400
    assert result.last.emitted + result.last.dropped == 300 * samples


SLOW = {
    Policy.LATEST: 200.0,
    Policy.DROP_OLDEST: 200.0,
    Policy.BLOCK: 1000.0,
}
"""How long a frame may have waited at most when it is taken: the queue's capacity, or `stale_ms`."""


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_viewer_ten_times_too_slow_gets_young_frames_and_nothing_piles_up(policy: Policy, asynchronous: bool) -> None:
    clock = VirtualClock(START)
    stats: list[SessionStats] = []
    taken: list[tuple[Ledger, int]] = []

    def take(frame: ListenerFrame) -> None:
        taken.append((frame.ledger, clock()))
        stats.append(session.stats)
        clock.sleep(400 * MS)
        stats.append(session.stats)

    listener = fake_listener(costly(clock, render=1, generate=5), lookahead=3)
    with listener.live(speaker(300), clock=clock, settings=LiveSettings(policy=policy, block_ms=5000)) as session:
        begin = clock()
        if asynchronous:
            asyncio.run(iterate(session, clock, take))
        else:
            for frame in session:
                take(frame)
    assert_bounded(stats)
    assert 25 < len(taken) < 40
    while_it_ran = [(ledger, now) for ledger, now in taken if now <= begin + 300 * FRAME]
    waited = [(now - (ledger.emitted or 0)) / MS for ledger, now in while_it_ran]
    assert max(waited) <= SLOW[policy] + 5
    assert max(trail_ms(ledger, begin, now) for ledger, now in while_it_ran) <= declared(3) / MS + 1000 + 400
    numbers = [ledger.frame for ledger, _ in taken]
    assert numbers == sorted(set(numbers))


def test_with_the_policy_latest_the_newest_frame_is_never_dropped() -> None:
    clock = VirtualClock(START)
    with fake_listener().live(
        speaker(100), clock=clock, settings=LiveSettings(policy=Policy.LATEST, queue_ms=40)
    ) as session:
        waited = []
        for frame in session:
            waited.append(clock() - (frame.ledger.emitted or 0))
            clock.sleep(390 * MS)
    assert max(waited[:-1]) <= FRAME  # the last one waits, for nothing comes after it


def test_with_the_policy_block_a_frame_waits_to_be_taken_for_as_long_as_was_said() -> None:
    def emitted_of(block_ms: float) -> int:
        clock = VirtualClock(START)
        options: dict[str, Any] = {"policy": Policy.BLOCK, "block_ms": block_ms, "queue_ms": 40}
        with fake_listener().live(speaker(100), clock=clock, settings=LiveSettings(**options)) as session:
            clock.sleep(3000 * MS)
            return session.stats.emitted

    free = emitted_of(0)
    assert free == pytest.approx((3000 - declared(0) / MS) / 40, abs=2)
    assert emitted_of(200) == pytest.approx((3000 - declared(0) / MS) / 200, abs=2)
    assert emitted_of(60_000) == 2


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("setting", ["playout_ms", "stale_ms", "queue_ms", "block_ms"])
def test_a_setting_that_would_make_a_queue_endless_is_refused(setting: str, bad: float) -> None:
    options: dict[str, Any] = {setting: bad}
    with pytest.raises(FeedError, match=setting):
        LiveSettings(**options)


@pytest.mark.parametrize(("setting", "bad"), [("policy", "latest"), ("floor", 3)])
def test_a_setting_that_is_no_member_of_its_kind_is_refused_with_all_members(setting: str, bad: object) -> None:
    options: dict[str, Any] = {setting: bad}
    with pytest.raises(FeedError, match=rf"{setting} is {bad!r}; give one of \w+\.\w+, \w+"):
        LiveSettings(**options)


def test_a_source_may_write_every_picture_into_the_same_array() -> None:
    def shown(reuse: bool) -> list[bytes]:
        picture = np.zeros_like(frames_of(1)[0])
        frames: list[ListenerFrame] = []

        def items() -> Iterator[Timed]:
            for item in speaker(48):
                assert item.video is not None
                picture[:] = item.video
                yield replace(item, video=picture) if reuse else item
                picture[:] = 0

        clock = VirtualClock(START)
        with fake_listener(clock=clock).live(
            items(), frames.append, clock=clock, speaker=SpeakerSettings(region=REGION)
        ) as session:
            session.wait()
        return [frame.image.tobytes() for frame in frames]

    assert shown(reuse=True) == shown(reuse=False)


def test_an_iterable_that_could_be_read_at_once_is_played_at_its_pace() -> None:
    read = 0

    ahead: list[float] = []

    def flat_out() -> Iterator[Timed]:
        nonlocal read
        for item in speaker(200):
            yield item
            read += 1

    result = run(flat_out(), show=lambda session, frame: ahead.append(read - frame.ledger.frame))
    assert_bounded(result.stats)
    assert max(ahead) <= declared(3) / FRAME + 1
    assert contents(result.frames) == contents(offline(speaker(200)))


@pytest.mark.parametrize("fps", [250, 1000])
def test_a_camera_ten_times_too_fast_fills_no_queue(fps: int) -> None:
    clock = VirtualClock(START)
    result = run(IterableSource(captured(clock, 4 * fps, fps=fps), live=True), clock=clock, render=5, generate=20)
    assert_bounded(result.stats)
    assert len(result.frames) == 101  # the last pictures are nearest to the slot after the last
    assert {trail_ms(ledger, result.begin) for ledger in result.shown()} == {declared(3) / MS}
    assert result.last.missed == 0


def test_a_camera_whose_stamps_run_ten_times_too_fast_fills_no_queue_either() -> None:
    clock = VirtualClock(START)
    stats: list[SessionStats] = []

    def camera() -> Iterator[Timed]:
        for item in captured(clock, 1000, fps=250, rate=10):
            stats.extend(session.stats for session in sessions)
            yield item

    sessions: list[LiveSession] = []
    with fake_listener().live(IterableSource(camera(), live=True), print, clock=clock) as session:
        sessions.append(session)
        session.wait()
    assert_bounded(stats)
    assert clock() < START + 10 * 10**9


# Several at once


def test_sessions_of_one_listener_side_by_side_show_what_each_shows_alone() -> None:
    clock = VirtualClock(START)
    listener = fake_listener(costly(clock, render=2, generate=10), lookahead=3)
    shown: list[list[ListenerFrame]] = [[], [], []]
    sessions = [
        listener.live(
            speaker(60, start_s=10 * seed),
            shown[seed].append,
            seed=seed,
            clock=clock,
            speaker=SpeakerSettings(region=REGION),
        )
        for seed in range(3)
    ]
    for session in sessions:
        with session:
            session.wait()
    for seed in range(3):
        assert contents(shown[seed]) == contents(offline(speaker(60), seed=seed))
        assert {frame.degraded for frame in shown[seed]} == {Rung.FULL}


def test_sessions_that_ask_for_too_much_together_get_equal_shares() -> None:
    clock = VirtualClock(START)
    listener = fake_listener(costly(clock, render=25, generate=60), lookahead=3)
    shown: list[list[ListenerFrame]] = [[], [], []]
    sessions = [
        listener.live(speaker(200), shown[i].append, seed=i, clock=clock, speaker=SpeakerSettings(region=REGION))
        for i in range(3)
    ]
    for session in sessions:
        with session:
            session.wait()
    pictures = [len({frame.ledger.picture for frame in frames}) for frames in shown]
    assert min(pictures) > 0.6 * max(pictures), pictures


def test_a_session_with_a_sink_cannot_be_iterated_over() -> None:
    clock = VirtualClock(START)
    with fake_listener().live(speaker(8), print, clock=clock) as session:
        with pytest.raises(StreamError, match="sink"):
            iter(session)
        session.close()
