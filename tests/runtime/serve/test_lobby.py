"""Who may come in: places, time, and offers that are none."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.live.live_sessions import watchdog  # noqa: F401
from support.serve.scene import PORTRAIT, RED, Scene, is_red, play, threads, told_figures
from support.serve.serve_client import (
    PORT,
    WISH,
    Camera,
    loopback_only,  # noqa: F401
    packed,
    until,
)
from support.serve.serve_listener import SIDE, nodding_listener, slow

from pflx.runtime import Listener, load_portrait
from pflx.runtime.live.errors import ListenerFullError
from pflx.runtime.serve import ServeSettings
from pflx.runtime.serve.lobby import Lobby
from pflx.runtime.serve.peer import Peer, Wish


def test_there_are_so_many_places_and_no_more() -> None:
    async def act(here: Scene) -> None:
        first = await here.seated()
        answer = await here.visitor().come()
        assert answer.kind == "full"
        assert "The only place is taken" in answer.message
        seen = len(first.pictures)
        await first.see(seen + 5)
        assert not (await first.ask("leave")).kind
        await here.seated()

    play(act, max_sessions=1)


def test_a_visitor_for_whom_there_is_no_time_is_told_so_and_the_others_go_on() -> None:
    async def act(here: Scene) -> None:
        first = await here.seated()
        answer = await here.visitor().come()
        assert answer.kind == "busy"
        assert "70% are allowed" in answer.message
        assert list(here.lobby.peers) == [first.id]
        seen = len(first.pictures)
        await first.see(seen + 5)

    play(act, nodding_listener(PORTRAIT, before=slow(lambda: 0.016)), max_load=0.7)


def test_who_is_alone_is_let_in_even_where_the_listener_is_too_slow_and_sees_it_at_a_lower_rate() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated(pictures=5)
        await until(lambda: sum(told_figures(visitor).get("rungs", {}).values()) > 25)
        assert told_figures(visitor)["rungs"]["FULL"] < 25
        assert not (await visitor.ask("tune", wish=WISH | {"samples": 2})).kind

    play(act, nodding_listener(PORTRAIT, before=slow(lambda: 0.06)), max_load=0.7)


def test_a_session_takes_the_place_of_the_one_that_its_page_had_before() -> None:
    async def act(here: Scene) -> None:
        first = await here.seated()
        stranger = here.visitor()
        answer = await stranger.come(replaces="a guess of somebody else")
        assert answer.kind == "full"
        second = here.visitor()
        assert not (await second.come(replaces=first.id)).kind
        await second.see(3)
        assert list(here.lobby.peers) == [second.id]

    play(act, max_sessions=1)


def test_stills_are_the_portraits_as_each_listener_shows_them_at_rest() -> None:
    photograph = np.asarray(Image.open(PORTRAIT).convert("RGB").resize((512, 512)))
    photograph = np.pad(photograph, ((0, 0), (400, 60), (0, 0)), mode="edge")  # the face is not in the middle
    with Listener.open(None, photograph) as listener, nodding_listener(photograph) as other:
        settings = ServeSettings(port=PORT)
        lobby = Lobby({"warp": listener, "nodding": other}, {"one": photograph}, settings)
        still, middle = (np.asarray(Image.open(BytesIO(lobby.still(n, 0))), np.float64) for n in (0, 1))
        assert (still.shape, middle.shape) == ((256, 256, 3), (SIDE, SIDE, 3))
        with listener.stream(audio=False) as stream:
            stream.push(video=np.zeros((30, 48, 64, 3), np.uint8))
            first = next(stream.pull()).image.astype(np.float64)
    whole = np.asarray(Image.fromarray(photograph).resize((256, 256)), np.float64)
    assert np.abs(still - first).mean() < 5 < np.abs(whole - first).mean() / 2
    np.testing.assert_array_equal(middle, load_portrait(photograph, SIDE))


def test_what_a_visitors_picture_would_look_like_is_told_before_the_start() -> None:
    async def act(here: Scene) -> None:
        answer = await here.browser.ask("PUT", "/api/stills/0", packed(Image.new("RGB", (300, 200), RED), "PNG"))
        assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
        assert Image.open(BytesIO(answer.body)).size == (SIDE, SIDE)
        assert (await here.browser.ask("PUT", "/api/stills/0", b"no picture")).json["error"]["kind"] == "portrait"
        for method, path in (("GET", "/stills/1/0.png"), ("GET", "/stills/0/9.png"), ("PUT", "/api/stills/1")):
            refused = await here.browser.ask(method, path, packed(Image.new("RGB", (99, 99)), "PNG"))
            assert (refused.status, refused.json["error"]["kind"]) == (422, "wish")
        assert (await here.browser.ask("GET", "/stills/0/0.png")).body == here.lobby.still(0, 0)
        assert not here.lobby.peers

    play(act, nodding_listener(PORTRAIT))


def test_a_portrait_of_the_server_is_chosen_by_its_number() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        assert (await visitor.ask("portrait", number=7)).kind == "wish"
        assert not (await visitor.ask("portrait", number=1)).kind
        await until(lambda: is_red(visitor.pictures[-1]))

    play(act, nodding_listener(PORTRAIT))


def test_a_path_that_there_is_not_is_a_page_for_browsers_and_a_sentence_for_others() -> None:
    async def act(here: Scene) -> None:
        page = await here.browser.ask("GET", "/nowhere", headers={"accept": "text/html,*/*"})
        assert (page.status, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert b"There is no such page" in page.body
        assert (await here.browser.ask("GET", "/nowhere")).json["error"]["kind"] == "path"

    play(act)


def test_listeners_of_other_bundles_take_of_the_same_time() -> None:
    async def act(here: Scene) -> None:
        await here.seated()
        answer = await here.visitor().come(WISH | {"listener": 1})
        assert answer.kind == "busy"

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
        visitor = here.visitor()
        answer = await visitor.offered(change(await visitor.offer()))
        assert answer.kind == "offer"
        assert message in answer.message
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
            visitor = here.visitor()
            assert not (await visitor.offered(await visitor.offer())).kind
        second = await here.seated()
        await first.see(len(first.pictures) + 5)
        assert set(here.lobby.peers) == {first.id, second.id}

    play(act, max_sessions=2 if lacking == "places" else 9)


def test_who_was_let_in_has_some_seconds_to_come() -> None:
    async def act(here: Scene) -> None:
        visitor = here.visitor()
        assert not (await visitor.offered(await visitor.offer())).kind
        assert (await here.visitor().come()).kind == "full"

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
        stranger = here.visitor()
        asked: list[tuple[str, dict[str, Any]]] = [("offer", {"sdp": ""}), ("tune", {"wish": WISH}), ("leave", {})]
        for kind, more in asked:
            stranger.line = await here.browser.line()
            assert (await stranger.ask(kind, **more)).kind == "gone"
        assert list(here.lobby.peers) == [visitor.id]
        assert len(visitor.id) >= 24
        assert (await here.browser.ask("GET", "/api/session")).status == 404

    play(act)
