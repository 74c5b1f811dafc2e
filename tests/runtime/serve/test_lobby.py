"""Who may come in: places, time, and offers that are none."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from support.live.live_sessions import watchdog  # noqa: F401
from support.serve.scene import PORTRAIT, Scene, play, threads
from support.serve.serve_client import (
    WISH,
    Camera,
    loopback_only,  # noqa: F401
    until,
)
from support.serve.serve_listener import nodding_listener, slow

from pflx.runtime.live.errors import ListenerFullError
from pflx.runtime.serve.peer import Peer, Wish


def test_there_are_so_many_places_and_no_more() -> None:
    async def act(here: Scene) -> None:
        first = await here.seated()
        answer = await here.visitor().come()
        assert (answer.status, answer.json["error"]["kind"]) == (503, "full")
        assert "The only place is taken" in answer.json["error"]["message"]
        seen = len(first.pictures)
        await first.see(seen + 5)
        assert (await here.browser.ask("DELETE", f"/api/sessions/{first.id}")).status == 204
        await here.seated()

    play(act, max_sessions=1)


def test_a_visitor_for_whom_there_is_no_time_is_told_so_and_the_others_go_on() -> None:
    async def act(here: Scene) -> None:
        first = await here.seated()
        answer = await here.visitor().come()
        assert (answer.status, answer.json["error"]["kind"]) == (503, "full")
        assert "busy" in answer.json["error"]["message"]
        assert list(here.lobby.peers) == [first.id]
        seen = len(first.pictures)
        await first.see(seen + 5)

    play(act, nodding_listener(PORTRAIT, before=slow(lambda: 0.016)), max_load=0.7)


def test_listeners_of_other_bundles_take_of_the_same_time() -> None:
    async def act(here: Scene) -> None:
        await here.seated()
        answer = await here.visitor().come(WISH | {"listener": 1})
        assert (answer.status, answer.json["error"]["kind"]) == (503, "full")

    busy = [nodding_listener(PORTRAIT, before=slow(lambda: 0.016)) for _ in range(2)]
    play(act, *busy, max_load=0.7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sdp: "nonsense", "Neither camera nor microphone is offered"),
        (lambda sdp: sdp.replace("a=rtpmap:", "a=rtpmap:oops"), "cannot be understood"),
        (lambda sdp: re.sub("a=group:BUNDLE.*", "a=group:BUNDLE 0", sdp), "one transport"),
        (lambda sdp: sdp.replace("a=group:BUNDLE", "a=none"), "one transport"),
        (lambda sdp: sdp[: sdp.index("m=video")] + sdp[sdp.index("m=audio") :], "."),
        (lambda sdp: sdp + sdp[sdp.index("m=video") :], "one camera"),
        (lambda sdp: sdp.replace("m=audio", "m=text"), "one camera"),
        (lambda sdp: sdp.replace("a=ice-ufrag", "a=none"), "."),
        (lambda sdp: sdp.replace("a=fingerprint", "a=none"), "fingerprint"),
    ],
)
def test_an_offer_that_is_none_is_refused_and_leaves_nothing(change: Callable[[str], str], message: str) -> None:
    async def act(here: Scene) -> None:
        sdp = change(await here.visitor().offer())
        answer = await here.browser.ask("POST", "/api/sessions", {"sdp": sdp, "wish": WISH})
        assert (answer.status, answer.json["error"]["kind"]) == (422, "offer")
        assert message in answer.json["error"]["message"]
        assert not here.lobby.peers
        assert not threads()

    play(act)


@pytest.mark.parametrize("lacking", ["places", "time"])
def test_offers_that_nobody_comes_for_keep_nobody_out(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    monkeypatch.setattr("pflx.runtime.serve.lobby.GRACE_S", 0.0)
    tune = Peer.tune

    async def act(here: Scene) -> None:
        async def tune_two(peer: Peer, wish: Wish) -> None:
            if len(here.lobby.peers) > 2:
                raise ListenerFullError(2.0, 1.0)
            await tune(peer, wish)

        if lacking == "time":
            monkeypatch.setattr(Peer, "tune", tune_two)
        first = await here.seated()
        for _ in range(4):
            sdp = await here.visitor().offer()
            answer = await here.browser.ask("POST", "/api/sessions", {"sdp": sdp, "wish": WISH})
            assert answer.status == 201
        second = await here.seated()
        await first.see(len(first.pictures) + 5)
        assert set(here.lobby.peers) == {first.id, second.id}

    play(act, max_sessions=2 if lacking == "places" else 9)


def test_who_was_let_in_has_some_seconds_to_come() -> None:
    async def act(here: Scene) -> None:
        answer = await here.browser.ask("POST", "/api/sessions", {"sdp": await here.visitor().offer(), "wish": WISH})
        assert answer.status == 201
        assert (await here.visitor().come()).status == 503

    play(act, max_sessions=1)


def test_a_camera_that_is_too_large_ends_the_session() -> None:
    async def act(here: Scene) -> None:
        visitor = here.visitor(camera=Camera((1984, 64)))
        await visitor.come()
        await until(lambda: visitor.told and visitor.told[-1]["type"] == "ended")
        assert "1984x64" in visitor.told[-1]["reason"]
        await until(lambda: not here.lobby.peers)

    play(act)


def test_a_session_is_known_to_its_own_page_only() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        for method, body in (("DELETE", b""), ("PATCH", WISH)):
            answer = await here.browser.ask(method, f"/api/sessions/{visitor.id[:-1]}", body)
            assert (answer.status, answer.json["error"]["kind"]) == (404, "gone")
        assert len(visitor.id) >= 24
        assert (await here.browser.ask("GET", "/api/sessions")).status == 405

    play(act)
