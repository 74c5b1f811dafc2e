"""What other systems are known to fail at: each of these hung them, or made their pictures older and older."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fakes import REGION, Faces, Failing, fake_engine, fake_engines, fake_listener
from support.live.live_sessions import (
    MS,
    START,
    assert_bounded,
    captured,
    contents,
    costly,
    declared,
    offline,
    run,
    speaker,
    still,
    trail_ms,
    watchdog,  # noqa: F401
)
from support.places import MEDIA, TESTS

from pflx.engines import EngineError
from pflx.runtime import (
    IterableSource,
    Ledger,
    ListenerFrame,
    LiveSession,
    LiveSettings,
    Rung,
    SessionError,
    SpeakerSettings,
    StreamError,
    SystemClock,
    open_speaker,
)
from pflx.runtime.live.clock import LiveClock, VirtualClock

CAP_MS = declared(3) / MS + 1000
"""Declared delay of these sessions, and `stale_ms`."""


# A stage fails while queues are full


@pytest.mark.parametrize("real", [False, True])
def test_a_stage_that_fails_while_every_queue_is_full_ends_the_session(real: bool) -> None:
    """A sink takes 200 ms for every frame, the renderer fails: all threads end, and the cause is told."""
    clock: LiveClock = SystemClock() if real else VirtualClock(START)
    engines = fake_engines(pirender_frame=Failing(fake_engine("pirender_frame"), at=25).run)
    source = IterableSource(captured(clock, 10_000), live=True)
    session = fake_listener(engines, lookahead=3).live(source, lambda frame: clock.sleep(200 * MS), clock=clock)
    with pytest.raises(SessionError, match="chain failed: once") as caught, session:
        session.wait(10)
    assert isinstance(caught.value.__cause__, EngineError)
    assert not still(5)


# A handler that is too slow


def test_a_slow_handler_of_a_webcam_sees_pictures_within_the_cap_and_none_piles_up() -> None:
    """30 pictures of 640x480 a second, 200 ms in the handler, 12 s."""
    clock = VirtualClock(START)
    source = IterableSource(captured(clock, 360, fps=30, size=(640, 480)), live=True)
    result = run(source, clock=clock, render=5, generate=20, show=lambda session, frame: clock.sleep(200 * MS))
    assert_bounded(result.stats)
    trails = [trail_ms(ledger, result.begin) for ledger in result.shown()]
    assert max(trails) <= declared(3) / MS + 200
    assert max(trails[-10:]) <= max(trails[:10]) + 40
    assert len(result.frames) == pytest.approx(60, abs=4)


# Input that is faster than the model


@pytest.mark.parametrize(("render", "generate"), [(200, 20), (20, 1000), (100, 800)])
@pytest.mark.parametrize("floor", [Rung.HOLD, Rung.FULL])
def test_a_model_five_times_too_slow_shows_pictures_that_do_not_grow_older(
    render: float, generate: float, floor: Rung
) -> None:
    """25 frames a second come, the model makes 5 to 7, for a minute."""
    clock = VirtualClock(START)
    source = IterableSource(captured(clock, 1500), live=True)
    result = run(source, clock=clock, render=render, generate=generate, floor=floor)
    assert_bounded(result.stats)
    new = [ledger for ledger in result.shown() if ledger.on_host is not None]
    trails = [trail_ms(ledger, result.begin) for ledger in new]
    early, late = trails[5 : len(trails) // 2], trails[len(trails) // 2 :]
    assert max(trails) <= CAP_MS
    assert max(late) <= max(early) + render
    assert len(new) >= 60_000 / (generate + 8 * render) - 8
    assert result.last.emitted + result.last.dropped == 1500
    assert result.last.frame == 1499


@pytest.mark.parametrize("floor", [Rung.HOLD, Rung.FULL])
def test_a_model_slower_than_the_cap_says_so_and_nothing_stale_is_shown(
    floor: Rung, caplog: pytest.LogCaptureFixture
) -> None:
    clock = VirtualClock(START)
    source = IterableSource(captured(clock, 250), live=True)
    result = run(source, clock=clock, render=2000, generate=3000, floor=floor)
    assert_bounded(result.stats)
    assert result.frames == []
    assert result.last.dropped == 250
    assert caplog.text.count("a segment takes 3000 ms, a picture 2000 ms; stale_ms is 1000") == 1


# A bad box in the middle


def _raise() -> list[tuple[float, float, float, float]]:
    raise ZeroDivisionError("box")


NAN = float("nan")
BOXES: dict[str, Callable[[], list[tuple[float, float, float, float]]]] = {
    "no face": list,
    "empty": lambda: [(10.0, 6.0, 0.0, 0.0)],
    "negative": lambda: [(10.0, 6.0, -16.0, -16.0)],
    "outside": lambda: [(1000.0, 1000.0, 16.0, 16.0)],
    "huge": lambda: [(-1e9, -1e9, 2e9, 2e9)],
    "not a number": lambda: [(NAN, NAN, NAN, NAN)],
    "infinite": lambda: [(0.0, 0.0, float("inf"), float("inf"))],
    "raises": _raise,
}


@pytest.mark.parametrize("at", [3, 12, 74])  # while the region is calibrated, and when the frozen one is watched
@pytest.mark.parametrize("box", BOXES)
def test_a_bad_box_stops_the_session_with_its_cause_or_is_got_over(box: str, at: int) -> None:
    good = [(10.0, 6.0, 16.0, 16.0)]
    detector = Faces(lambda index: BOXES[box]() if index == at else good)
    clock = VirtualClock(START)
    listener = fake_listener(detector=detector, lookahead=3)
    shown: list[ListenerFrame] = []
    session = listener.live(speaker(80), shown.append, clock=clock)
    if box == "raises":
        with pytest.raises(SessionError, match="chain failed: box") as caught, session:
            session.wait()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    else:
        with session:
            session.wait()
        assert len(shown) == 80
        assert {frame.degraded for frame in shown} == {Rung.FULL}
    assert not still(5)


# Sessions that move to another process

RESUME = """
import sys
import numpy as np
from support.fakes import REGION, fake_listener
from support.live.live_sessions import START, speaker
from pflx.runtime.live.clock import VirtualClock

snapshot, first = dict(np.load(sys.argv[1], allow_pickle=False)), int(sys.argv[3])
frames = []
with fake_listener(lookahead=3).live(
    speaker(120, first=first), frames.append, clock=VirtualClock(START), seed=3, samples=2, snapshot=snapshot
) as session:
    session.wait()
fields = ("image", "coefficients", "generated_pose", "time_s", "sample")
results = {field: np.array([getattr(frame, field) for frame in frames]) for field in fields}
np.savez(sys.argv[2], numbers=np.array([frame.ledger.frame for frame in frames]), **results)
"""


def test_a_snapshot_in_mid_stream_goes_on_in_a_new_process_as_if_flushed_there(tmp_path: Path) -> None:
    """The new session shows, of the same input, the very frames that the old one shows after a flush."""
    snapshots: list[dict[str, Any]] = []
    asked: list[int] = []
    clock = VirtualClock(START)

    def show(session: LiveSession, frame: ListenerFrame) -> None:
        if frame.ledger.frame == 45 and frame.sample == 0:
            snapshots.append(dict(session.snapshot()))
            session.flush()
            asked.append(clock())

    listener = fake_listener(lookahead=3)
    result = run(speaker(120), clock=clock, listener=listener, show=show, seed=3, samples=2)
    after = [frame for frame in result.frames if (frame.ledger.closed or 0) >= asked[0]]
    first = after[0].ledger.frame
    np.savez(tmp_path / "snapshot.npz", **snapshots[0])
    paths = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    files = (str(tmp_path / "snapshot.npz"), str(tmp_path / "frames.npz"))
    command = [sys.executable, "-c", RESUME, *files, str(first)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, check=True, timeout=60)
    with np.load(tmp_path / "frames.npz") as resumed:
        for field in ("image", "coefficients", "generated_pose", "sample"):
            np.testing.assert_array_equal(resumed[field], np.array([getattr(frame, field) for frame in after]))
        np.testing.assert_allclose(resumed["time_s"], [frame.time_s for frame in after], rtol=1e-12)
        numbers = resumed["numbers"].tolist()
    assert numbers == sorted(numbers)
    assert numbers[0] > 45
    # PosNet's fake begins a segment with the very pose that the last one ended with.
    joined = snapshots[0]["smoother.last_pose"] + listener.manifest.mean_face.values[52:]
    np.testing.assert_allclose([frame.coefficients[52:] for frame in after[:2]], joined, atol=1e-6)


@pytest.mark.parametrize("how", ["closed", "over", "failed"])
def test_a_snapshot_after_the_end_goes_on_too(how: str) -> None:
    clock = VirtualClock(START)
    listener = fake_listener(lookahead=3)
    first: list[ListenerFrame] = []

    def show(frame: ListenerFrame) -> None:
        first.append(frame)
        if how == "failed" and len(first) == 20:
            raise ZeroDivisionError

    session = listener.live(speaker(30), show, clock=clock, speaker=SpeakerSettings(region=REGION))
    clock.sleep((1000 if how == "closed" else 5000) * MS)
    session.close()
    second: list[ListenerFrame] = []
    with listener.live(
        speaker(60, first=30),
        second.append,
        clock=clock,
        speaker=SpeakerSettings(region=REGION),
        snapshot=session.snapshot(),
    ) as session:
        session.wait()
    assert len(second) == 30
    assert [frame.time_s for frame in second] == pytest.approx([k / 25 for k in range(30, 60)])
    assert second[0].ledger.frame > first[-1].ledger.frame
    assert second[0].ledger.segment is not None
    assert second[0].ledger.segment >= 1


def test_a_snapshot_of_something_else_is_refused_at_once() -> None:
    clock = VirtualClock(START)
    with fake_listener().live([], print, clock=clock, samples=2) as session:
        snapshot = session.snapshot()
    with pytest.raises(StreamError, match="2 samples, the stream 1"):
        fake_listener().live([], print, clock=clock, snapshot=snapshot)
    with pytest.raises(StreamError, match="no snapshot"):
        fake_listener().live([], print, clock=clock, snapshot={})
    assert not still(5)


# Several at once, in real time


def test_sessions_of_one_listener_run_at_once_in_real_time() -> None:
    listener = fake_listener(lookahead=3)
    shown: list[list[ListenerFrame]] = [[], []]
    sessions = [
        listener.live(speaker(25), shown[seed].append, seed=seed, speaker=SpeakerSettings(region=REGION))
        for seed in range(2)
    ]
    for session in sessions:
        with session:
            assert session.wait(10)
    for seed in range(2):
        expected = contents(offline(speaker(25), seed=seed))
        assert len(shown[seed]) > 15
        for frame in shown[seed]:
            if frame.degraded is Rung.FULL:
                assert contents([frame]) == [expected[frame.ledger.frame]]
    assert not still(5)


# Files


def test_a_clip_becomes_a_playable_file_of_its_own_length(tmp_path: Path) -> None:
    clip = open_speaker(MEDIA / "podium_speech_8s.mp4")
    n_frames = sum(len(chunk.video) for chunk in clip.chunks())
    path = tmp_path / "listener.mp4"
    clock = VirtualClock(START)
    with fake_listener(costly(clock, render=10, generate=20)).live(clip.path, path, clock=clock) as session:
        session.wait()
        assert session.stats.missed == 0
    written = open_speaker(path)
    assert sum(len(chunk.video) for chunk in written.chunks()) == n_frames
    assert (written.width, written.height) == (64, 64)


def test_a_clip_plays_in_real_time_into_a_function() -> None:
    ledgers: list[Ledger] = []
    clip = MEDIA / "webcam_cap12_12s.mp4"
    with fake_listener().live(
        clip, lambda frame: ledgers.append(frame.ledger), settings=LiveSettings(playout_ms=60)
    ) as session:
        assert not session.wait(1.2)
    assert 5 < len(ledgers) < 30
    assert not still(5)
