"""Networks as they are: packets lost, late or gone for a while; what the visitor sees, and is told."""

from __future__ import annotations

import asyncio
import time

from support.live.live_sessions import watchdog  # noqa: F401
from support.serve.bad_network import FarVisitor, bad_network
from support.serve.scene import PORTRAIT, Scene, play, told_last
from support.serve.serve_client import (
    loopback_only,  # noqa: F401
    until,
)
from support.serve.serve_listener import nodding_listener

LONGEST_FREEZE_S = 0.5
LARGEST_SKEW_MS = 80
"""Between the visitor's sound and picture, as the listener gets them: what lip-sync allows (ITU-R BT.1359-1)."""


def weathered(seconds: float, *, outage_s: float = 0.0, **weather: float) -> None:
    """A visitor on a good network that turns bad, and what must still be so."""
    is_lossy = bool(outage_s) or "loss" in weather

    async def act(here: Scene) -> None:
        with bad_network() as network:
            visitor = FarVisitor(here.browser, network)
            here.visitors.append(visitor)
            network.weather.delay_s = 0.02
            await visitor.come()
            await visitor.see(30)
            (peer,) = here.lobby.peers.values()
            assert peer.session is not None
            for name, value in weather.items():
                setattr(network.weather, name, value)
            if outage_s:
                network.weather.is_down = True
                await asyncio.sleep(outage_s)
                network.weather.is_down = False
            begun, skews_ms = time.monotonic(), [0.0]
            while time.monotonic() < begun + seconds:
                await asyncio.sleep(0.1)
                skews_ms.append(peer.session.stats.av_offset_ms)
            assert visitor.longest_freeze_s(begun) < LONGEST_FREEZE_S
            assert max(map(abs, skews_ms)) < LARGEST_SKEW_MS
            # The panel: of the pictures that it says were sent, none is missing but those of which a packet is.
            network.clear_up()
            panels = len([message for message in visitor.told if message["type"] == "panel"])
            await until(lambda: len([m for m in visitor.told if m["type"] == "panel"]) > panels)
            told, stats = told_last(visitor), peer.session.stats
            assert stats.emitted - 25 <= told["emitted"] <= stats.emitted
            assert told["missed"] <= stats.missed
            lost = await visitor.lost_packets()
            assert is_lossy or not lost
            await until(lambda: len(visitor.pictures) >= told["emitted"] - told["unsent"] - lost)
            assert len(visitor.pictures) <= peer.screen.sent

    play(act, nodding_listener(PORTRAIT))


def test_one_packet_in_twenty_is_lost() -> None:
    weathered(5, loss=0.05)


def test_packets_come_up_to_50_ms_early_or_late_and_overtake_one_another() -> None:
    weathered(5, delay_s=0.06, jitter_s=0.05)


def test_nothing_comes_through_for_two_seconds() -> None:
    weathered(4, outage_s=2.0)


def test_the_panel_says_that_nothing_comes_of_the_visitor() -> None:
    async def act(here: Scene) -> None:
        with bad_network() as network:
            visitor = FarVisitor(here.browser, network)
            here.visitors.append(visitor)
            await visitor.come()
            await visitor.see(10)
            await until(lambda: visitor.told)
            (peer,) = here.lobby.peers.values()
            assert told_last(visitor)["unfed_ms"] < 500
            network.cut_uplink()
            await until(lambda: peer.report()["unfed_ms"] > 1500)
            assert peer.session is not None
            assert peer.session.is_running
            network.weather.is_down = True

    play(act, nodding_listener(PORTRAIT))
