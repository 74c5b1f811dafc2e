"""What a page may say on its web socket, and what comes of anything else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.live.live_sessions import watchdog  # noqa: F401
from support.serve.lines import Line
from support.serve.scene import Scene, play
from support.serve.serve_client import (
    WISH,
    Browser,
    loopback_only,  # noqa: F401
    serving,
    until,
)

from pflx.runtime.serve.lobby import Lobby
from pflx.runtime.serve.page_socket import MAX_TEXT
from pflx.runtime.serve.uploads import MAX_BYTES


def talk(act: Callable[[Line], Awaitable[Any]]) -> Any:
    """Act on a line to a server."""

    async def run() -> Any:
        async with serving() as (browser, _):
            return await act(await browser.line())

    return asyncio.run(run())


async def refused(line: Line, message: str | bytes) -> str:
    """Say something that is no question; what kind of refusal comes, and that the server hangs up."""
    await line.send(message)
    await until(lambda: line.closed is not None)
    assert line.closed == 1000
    kind: str = line.told[-1]["error"]["kind"]
    return kind


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("", "request"),
        ("{", "request"),
        ("[]", "request"),
        ('{"type": "begin"}', "request"),
        ('{"type": "end", "ask": 1}', "request"),
        ('{"type": "begin", "ask": 1, "seed": 3}', "request"),
        (json.dumps({"type": "begin", "ask": 1, "replaces": "x" * 65}), "request"),
        (json.dumps({"type": "ping", "ping": "x" * 65}), "request"),
        ("x" * (MAX_TEXT + 1), "large"),
        (b"a picture", "request"),
    ],
)
def test_what_is_no_question_is_refused_and_ends_it(message: str | bytes, kind: str) -> None:
    assert talk(lambda line: refused(line, message)) == kind


def test_nothing_can_be_asked_before_there_is_a_place_and_a_place_only_once() -> None:
    async def act(here: Scene) -> None:
        stranger = await here.browser.line()
        assert (await stranger.ask("own_portrait", b"")).kind == "gone"
        visitor = here.visitor()
        assert not (await visitor.begin()).kind
        assert (await visitor.begin()).kind == "full"  # another page; the first keeps its place
        (peer,) = here.lobby.peers.values()
        assert peer.session is None

    play(act, max_sessions=1)


def test_a_place_is_asked_for_once_on_a_line_and_so_is_an_answer() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        assert (await visitor.ask("begin", wish=WISH)).kind == "gone"
        assert (await visitor.ask("offer", sdp="")).kind == "gone"
        seen = len(visitor.pictures)
        await visitor.see(seen + 3)
        assert list(here.lobby.peers) == [visitor.id]

    play(act)


def test_a_page_that_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pflx.runtime.serve.page_socket.BEGIN_S", 0.1)

    async def silent(line: Line) -> str:
        await until(lambda: line.closed is not None)
        kind: str = line.told[-1]["error"]["kind"]
        return kind

    assert talk(silent) == "slow"


def test_a_portrait_that_is_too_large_or_never_comes_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        assert (await visitor.ask("own_portrait", bytes(MAX_BYTES + 1))).kind == "large"
        monkeypatch.setattr("pflx.runtime.serve.page_socket.BEGIN_S", 0.1)
        assert (await visitor.ask("own_portrait")).kind == "slow"
        seen = len(visitor.pictures)
        await visitor.see(seen + 3)

    play(act)


def test_who_hangs_up_before_their_offer_leaves_the_place_to_others() -> None:
    async def act(here: Scene) -> None:
        visitor = here.visitor()
        assert not (await visitor.begin()).kind
        assert visitor.line is not None
        await visitor.line.close()
        assert not here.lobby.peers
        await here.seated()

    play(act, max_sessions=1)


def test_an_error_of_the_server_tells_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(Lobby, "admit", fail)
    reply = talk(lambda line: line.ask("begin"))
    assert reply.kind == "server"
    assert "secret" not in reply.message


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"host": "evil.example"}])
def test_another_site_opens_no_line_and_learns_nothing(headers: dict[str, str]) -> None:
    async def run() -> None:
        async with serving() as (browser, lobby):
            line = await browser.line(headers)
            assert (await line.ask("begin")).kind == "closed"
            assert (line.closed, line.told) == (1008, [])
            assert not lobby.peers

    asyncio.run(run())


def test_a_line_is_bound_by_the_limits_on_sessions() -> None:
    async def act(here: Scene) -> None:
        visitor = await here.seated()
        kinds = [(await visitor.ask("portrait", number=0)).kind for _ in range(14)]
        assert kinds == [""] * 11 + ["rate"] * 3  # one was for opening it

    play(act)


def test_only_the_path_of_sessions_is_a_line() -> None:
    async def run() -> int | None:
        async with serving() as (browser, _):
            line = await Browser(browser.app).line(path="/api/choices")
            await until(lambda: line.closed is not None)
            return line.closed

    assert asyncio.run(run()) is not None
