"""Counters of a server, as Prometheus reads them, and the questions of whoever keeps it running."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.live.live_sessions import watchdog  # noqa: F401
from support.serve.scene import PORTRAIT, Scene, play, told_figures
from support.serve.serve_client import (
    PORT,
    WISH,
    Answer,
    loopback_only,  # noqa: F401
    serving,
    until,
)
from support.serve.serve_listener import nodding_listener, slow

from pflx.runtime.serve import ServeSettings
from pflx.runtime.serve.lobby import Lobby

TOKEN = "a token of some length"


async def scraped(here: Scene) -> dict[tuple[str, str], float]:
    """Every value of the server's own, by its name and its label beside the replica."""
    answer = await here.browser.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            if sample.name.startswith("pflx_"):
                assert sample.labels.pop("replica") == "blue"
                found[sample.name, next(iter(sample.labels.values()), "")] = sample.value
    return found


def replica(**settings: Any) -> Mapping[str, Any]:
    return {"replica": "blue", **settings}


def test_who_is_here_who_came_and_who_was_turned_away() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        for _ in range(2):
            assert (await here.visitor().come()).kind == "full"
        assert (await here.visitor().come(WISH | {"listener": 7})).kind == "wish"
        found = await scraped(here)
        assert found["pflx_serve_sessions", ""] == found["pflx_serve_sessions_limit", ""] == 1
        assert found["pflx_serve_joins_total", ""] == 1
        assert found["pflx_serve_refusals_total", "full"] == 2
        assert found["pflx_serve_refusals_total", "request"] == 1
        await visitor.ask("leave")
        await here.seated()
        found = await scraped(here)
        assert (found["pflx_serve_sessions", ""], found["pflx_serve_joins_total", ""]) == (1, 2)

    play(act, **replica(max_sessions=1))


def test_frames_are_those_of_all_sessions_also_of_such_as_have_ended() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated(pictures=20)
        (peer,) = here.lobby.peers.values()
        first = peer.session
        assert first is not None
        await visitor.ask("tune", wish=WISH | {"samples": 2})
        second = peer.session
        assert second is not None
        await until(lambda: second.stats.emitted > 40)
        await visitor.ask("leave")
        assert first is not second
        done = [session.stats for session in (first, second)]
        found = await scraped(here)
        frames = {rung: value for (name, rung), value in found.items() if name == "pflx_serve_frames_total"}
        assert frames == {rung: sum(stats.rungs[rung] for stats in done) for rung in done[0].rungs}
        assert sum(frames.values()) > 60
        assert found["pflx_serve_frames_missed_total", ""] == sum(stats.missed for stats in done)

    play(act, nodding_listener(PORTRAIT), **replica())


def test_every_reaction_is_counted_once_and_lies_where_the_panel_says() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        await until(lambda: told_figures(visitor).get("frames", 0) >= 100)
        (peer,) = here.lobby.peers.values()
        slots = sum(ledger.frame % 3 == 0 for ledger in peer.panel.ledgers())
        found = await scraped(here)
        count, total_s = (found[f"pflx_serve_reaction_seconds_{name}", ""] for name in ("count", "sum"))
        assert 0.5 * slots < count <= slots
        figures = told_figures(visitor)
        assert total_s / count * 1000 == pytest.approx(figures["reaction_ms"], rel=0.5)

    play(act, nodding_listener(PORTRAIT), **replica())


def test_reactions_that_are_asked_for_again_and_again_are_those_of_all_at_once() -> None:
    async def act(here: Scene) -> None:
        await here.seated(pictures=50)
        (peer,) = here.lobby.peers.values()
        await peer.close()
        assert peer.session is not None
        ledgers, generator = peer.panel.ledgers(), nodding_listener(PORTRAIT).generator
        whole, parts = type(peer.panel)(1), type(peer.panel)(1)
        found = []
        for ledger in ledgers:
            whole.record(ledger)
            parts.record(ledger)
            found += parts.fresh_reactions(peer.session, generator)
        at_once = whole.fresh_reactions(peer.session, generator)
        assert len(at_once) > 10
        assert found == at_once
        assert whole.fresh_reactions(peer.session, generator) == []

    play(act, nodding_listener(PORTRAIT), **replica())


def test_a_frame_costs_what_the_engines_are_busy_for_it() -> None:
    async def act(here: Scene) -> None:
        await here.seated()
        await until(lambda: len(here.lobby.peers) == 1)
        found = await scraped(here)
        assert 0.005 < found["pflx_serve_frame_cost_seconds", ""] < 0.04
        assert found["pflx_serve_load", ""] == pytest.approx(found["pflx_serve_frame_cost_seconds", ""] * 25, rel=0.2)
        assert found["pflx_serve_load_limit", ""] == 10

    play(act, nodding_listener(PORTRAIT, before=slow(lambda: 0.005)), **replica())


# Who may ask


def asked(*requests: Any, ready: bool = True, **settings: Any) -> list[Answer]:
    """Answers of a server, each to (path, headers)."""

    async def run() -> list[Answer]:
        async with serving(settings=ServeSettings(port=PORT, **settings)) as (browser, lobby):
            if ready:
                await warmed(lobby)
            return [await browser.ask("GET", path, b"", headers) for path, headers in requests]

    return asyncio.run(run())


async def warmed(lobby: Lobby) -> None:
    lobby.readiness.warm_up()
    await until(lambda: lobby.readiness.state == "ready")


def test_probes_are_answered_whatever_the_server_is_called_there() -> None:
    elsewhere = {"host": "10.1.2.3:8000"}
    alive, ready = asked(("/healthz", elsewhere), ("/readyz", elsewhere), token=TOKEN)
    assert (alive.status, alive.body) == (200, b"alive\n")
    assert (ready.status, ready.body) == (200, b"ready\n")


def test_it_is_not_ready_before_its_listeners_have_run() -> None:
    alive, ready = asked(("/healthz", {}), ("/readyz", {}), ready=False)
    assert (alive.status, ready.status, ready.body) == (200, 503, b"warming\n")


def test_who_is_full_is_ready_and_who_is_about_to_end_is_not() -> None:
    async def act(here: Scene) -> None:
        await warmed(here.lobby)
        await here.seated()
        assert (await here.visitor().come()).kind == "full"
        assert (await here.browser.ask("GET", "/readyz")).status == 200
        draining = asyncio.ensure_future(here.lobby.drain())
        await until(lambda: here.lobby.readiness.state == "draining")
        answer = await here.browser.ask("GET", "/readyz")
        assert (answer.status, answer.body) == (503, b"draining\n")
        assert (await here.browser.ask("GET", "/healthz")).status == 200
        await draining

    play(act, max_sessions=1, drain_s=0.2)


def test_metrics_are_for_who_knows_the_token() -> None:
    elsewhere = {"host": "10.1.2.3:8000"}
    answers = asked(
        ("/metrics", elsewhere | {"authorization": f"Bearer {TOKEN}"}),
        ("/metrics", {}),
        ("/metrics", elsewhere),
        ("/api/choices", {"authorization": f"Bearer {TOKEN}"}),
        *[("/metrics", {"authorization": f"Bearer guess {n}"}) for n in range(6)],
        ("/metrics", {"authorization": f"Bearer {TOKEN}"}),
        token=TOKEN,
    )
    assert [answer.status for answer in answers] == [200, 401, 421, 401, 401, 401, 401, 401, 401, 429, 200]


def test_without_a_token_they_are_for_this_machine() -> None:
    here, bent, lying = asked(
        ("/metrics", {}), ("/metrics", {"host": "evil.example"}), ("/metrics", {"authorization": "Bearer "})
    )
    assert (here.status, bent.status, lying.status) == (200, 421, 401)
