"""Live sessions of generators whose segments lie ahead of the speaker, on a virtual clock."""

from __future__ import annotations

import pytest
from support.fakes import frames_of
from support.lagging import BELFUSION, BETWEEN, PERFRDIFF, REGION, TRANSVAE, content, lagging
from support.live.live_sessions import FRAME, MS, START, run, speaker

from pflx.runtime import ListenerFrame, Rung, SpeakerSettings, Timed
from pflx.runtime.live.clock import VirtualClock

TIMINGS = pytest.mark.parametrize("timing", [PERFRDIFF, BELFUSION, TRANSVAE, BETWEEN])
N = 75


def items(n: int = N) -> list[Timed]:
    pictures = frames_of(n, size=(32, 32))
    return [Timed(item.time_s, picture, item.audio) for item, picture in zip(speaker(n), pictures, strict=True)]


@TIMINGS
@pytest.mark.parametrize("lookahead", [0, 3, 13])
def test_every_frame_is_in_time_once_the_first_segment_is_there(timing: tuple[int, ...], lookahead: int) -> None:
    listener = lagging(timing, lookahead)
    result = run(items(), listener=listener, clock=VirtualClock(START), playout_ms=5)
    delay_ns = round(listener.algorithmic_delay_ms * MS) + 5 * MS
    begin = result.frames[0].ledger.frame
    assert begin <= listener.generator.opening
    assert [frame.ledger.frame for frame in result.frames] == list(range(begin, N))
    for frame in result.frames:
        assert frame.ledger.deadline == result.begin + frame.ledger.frame * FRAME + delay_ns
        assert frame.degraded is Rung.FULL or frame.ledger.frame < listener.generator.opening


@TIMINGS
def test_a_live_session_shows_what_the_stream_makes(timing: tuple[int, ...]) -> None:
    speech = items()
    with lagging(timing).stream(speaker=SpeakerSettings(region=REGION)) as stream:
        for item in speech:
            stream.push(video=item.video[None], audio=item.audio)  # type: ignore[index]
        stream.finish()
        expected = {frame.ledger.frame: content(frame) for frame in stream.pull()}
    result = run(speech, listener=lagging(timing), clock=VirtualClock(START))
    for frame in result.frames:
        if frame.degraded is Rung.FULL:
            assert content(frame)[2:] == expected[frame.ledger.frame][2:]
    assert sum(frame.degraded is Rung.FULL for frame in result.frames) >= N - 10


@TIMINGS
def test_after_a_flush_pictures_come_again_at_once(timing: tuple[int, ...]) -> None:
    listener = lagging(timing)
    shown: list[ListenerFrame] = []

    def flush(session: object, frame: ListenerFrame) -> None:
        shown.append(frame)
        if frame.ledger.frame == 30:
            session.flush()  # type: ignore[attr-defined]

    result = run(items(), listener=listener, clock=VirtualClock(START), show=flush)
    frames = [frame.ledger.frame for frame in result.frames]
    assert frames == list(range(frames[0], N))
    held = [frame.ledger.frame for frame in result.frames if frame.degraded is Rung.HOLD and frame.ledger.frame > 30]
    waits = listener.algorithmic_delay_ms / 40 + 3 + listener.generator.hop
    assert len(held) <= waits
