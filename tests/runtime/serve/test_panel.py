"""The latency panel of a visitor on a real connection."""

from __future__ import annotations

import pytest
from support.live.live_sessions import watchdog  # noqa: F401
from support.serve.scene import PORTRAIT, Scene, play, told_figures, told_last
from support.serve.serve_client import (
    WISH,
    loopback_only,  # noqa: F401
    until,
)
from support.serve.serve_listener import nodding_listener, slow

from pflx.runtime.serve.panel import panel_figures


def test_the_panel_says_what_the_ledgers_say() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated(WISH | {"samples": 2, "lookahead": 3})
        (peer,) = here.lobby.peers.values()
        await until(lambda: told_figures(visitor).get("frames", 0) >= 100)
        figures, before = told_figures(visitor), len(visitor.told)
        assert peer.session is not None
        ledgers = peer.panel.ledgers()
        delays = {"algorithmic_ms": peer.session.algorithmic_delay_ms, "playout_ms": 100.0}
        first = ledgers[0].frame
        same = [ledger for ledger in ledgers if ledger.frame < first + figures["frames"] // 2]
        expected = panel_figures(same, hop=8, hears=True, samples=2, **delays)
        assert figures["age_ms"] == pytest.approx(expected.age_ms, abs=1)
        assert figures["reaction_ms"] == pytest.approx(expected.reaction_ms, abs=41)
        assert figures["rungs"] == expected.rungs
        assert (figures["missed"], figures["rung"]) == (expected.missed, expected.rung)
        assert told_last(visitor)["algorithmic_ms"] == (8 + 3) * 40
        await until(lambda: len(visitor.told) > before)
        assert told_last(visitor)["emitted"] >= 100

    play(act)


def test_frames_that_are_late_are_counted_and_their_rung_is_told() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        await until(lambda: told_figures(visitor).get("missed", 0) > 10)
        assert told_figures(visitor)["rungs"]["FULL"] < told_figures(visitor)["frames"]
        assert told_last(visitor)["cost_ms"]["render"] > 80

    play(act, nodding_listener(PORTRAIT, before=slow(lambda: 0.1)))


def test_a_ping_is_answered() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        await visitor.say({"type": "ping", "ping": "12.5"})
        await until(lambda: any(message["type"] == "pong" for message in visitor.told))
        assert [message for message in visitor.told if message["type"] == "pong"] == [{"type": "pong", "ping": "12.5"}]

    play(act)


def test_pings_are_not_answered_without_end() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        for number in range(60):
            await visitor.say({"type": "ping", "ping": str(number)})
        seen = len(visitor.pictures)
        await visitor.see(seen + 10)
        assert 1 <= sum(message["type"] == "pong" for message in visitor.told) <= 20

    play(act)


def test_the_frame_that_is_shown_is_told() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        await until(lambda: told_figures(visitor).get("frames", 0) >= 50)
        assert told_last(visitor)["frame"] in range(49, 200)

    play(act)
