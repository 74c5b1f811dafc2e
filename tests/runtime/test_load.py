"""How many live sessions a listener has time for: its load, and who is refused."""

from __future__ import annotations

from typing import Any

import pytest
from support.fakes import REGION, fake_listener
from support.grouped import grouped
from support.live.live_sessions import (
    MS,
    START,
    contents,
    costly,
    offline,
    speaker,
    still,
    unseen,
    watchdog,  # noqa: F401
)

from pflx.runtime import ListenerFrame, LiveSettings, SpeakerSettings
from pflx.runtime.live.clock import VirtualClock
from pflx.runtime.live.errors import ListenerFullError

QUARTER = {"render": 5.0, "generate": 40.0}
"""Of 320 ms of a segment, a session takes 40 for its coefficients and 8 times 5 for its pictures."""


def test_the_load_is_what_the_running_sessions_cost() -> None:
    clock = VirtualClock(START)
    listener = fake_listener(costly(clock, **QUARTER), lookahead=3)
    assert listener.load == 0
    first = listener.live(
        speaker(25), unseen, clock=clock, speaker=SpeakerSettings(region=REGION), settings=LiveSettings(playout_ms=400)
    )
    assert listener.load == first.load == pytest.approx(0.25)
    second = listener.live(
        speaker(50),
        unseen,
        clock=clock,
        speaker=SpeakerSettings(region=REGION),
        samples=2,
        settings=LiveSettings(playout_ms=400),
    )
    assert second.load == pytest.approx(0.375)  # twice the pictures
    assert listener.load == pytest.approx(0.625)
    first.wait()
    clock.sleep(200 * MS)
    assert (first.is_running, second.is_running) == (False, True)
    assert listener.load == second.load > 0
    second.wait()
    clock.sleep(200 * MS)
    assert listener.load == 0
    first.close()
    second.close()
    assert not still(5)


def test_a_session_for_which_there_is_no_time_is_refused_and_the_running_ones_go_on() -> None:
    clock = VirtualClock(START)
    listener = fake_listener(costly(clock, **QUARTER), lookahead=3)
    given: dict[str, Any] = {"clock": clock, "region": REGION, "playout_ms": 400, "max_load": 0.6}
    shown: list[list[ListenerFrame]] = [[], []]
    running = [
        listener.live(speaker(45), shown[seed].append, seed=seed, **grouped(given, "speaker", "settings"))
        for seed in range(2)
    ]
    refused = Sink()
    with pytest.raises(ListenerFullError, match=r"busy 75% of the time, allowed is 60%\. End one") as caught:
        listener.live(speaker(45), refused, **grouped(given, "speaker", "settings"))
    assert caught.value.load == pytest.approx(0.75)
    assert caught.value.max_load == 0.6
    assert refused.closed == [caught.value]
    assert listener.load == pytest.approx(0.5)
    for seed, session in enumerate(running):
        with session:
            session.wait()
            assert session.stats.missed == 0
        assert contents(shown[seed]) == contents(offline(speaker(45), seed=seed))
    with listener.live(speaker(10), unseen, **grouped(given, "speaker", "settings")) as session:  # there is time again
        session.wait()
    assert refused.frames == []
    assert not still(5)


@pytest.mark.parametrize(("max_load", "admitted"), [(None, True), (0.26, True), (0.24, False), (0.0, False)])
def test_the_first_session_too_must_fit(max_load: float | None, admitted: bool) -> None:
    clock = VirtualClock(START)
    listener = fake_listener(costly(clock, **QUARTER), lookahead=3)
    if not admitted:
        with pytest.raises(ListenerFullError, match="busy 25% of the time"):
            listener.live(speaker(9), unseen, clock=clock, settings=LiveSettings(max_load=max_load))
        assert listener.load == 0
    else:
        with listener.live(speaker(9), unseen, clock=clock, settings=LiveSettings(max_load=max_load)) as session:
            assert session.wait()
    assert not still(5)


class Sink:
    """Keeps what it is shown and what it is closed with."""

    def __init__(self) -> None:
        self.frames: list[ListenerFrame] = []
        self.closed: list[BaseException | None] = []

    def show(self, frame: ListenerFrame) -> None:
        self.frames.append(frame)

    def close(self, error: BaseException | None) -> None:
        self.closed.append(error)
