"""Media by way of a TURN server, where there is no other way: coturn, aiortc and a browser."""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.serve.scene import Scene, play
from support.serve.serve_client import (
    loopback_only,  # noqa: F401
    serving,
)
from support.serve.turn_server import Turn, turn_server, without_a_way_but, without_ports
from support.serve.window import IS_LIVE, SHOWN, STATE, Server, Window

from pflx.runtime.serve import ServeError, ServeSettings, TurnServer
from pflx.runtime.serve.network.ice import LIFETIME_S, ice_servers

SECRET = "a secret shared with the relay"
USER, PASSWORD = "guest", "a password of the relay"
TOKEN = "a token of some length"
URL = "turn:turn.example:3478"
_NO_RELAYS = (
    *("t.example", "stun:t.example", "turn:", "turn://t.example", "turn:a b", "turn:[::1]:3478", "turn:user@t.example"),
    *("turn:t.example:0", "turn:t.example:70000", "turn:t.example?transport=sctp", "turns:t.example?transport=udp"),
)
_KEEP_PEERS = """
window.peers = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...given) { super(...given); peers.push(this); }
};
"""
_SELECTED = """
(async () => {
  const report = await peers.at(-1).getStats(), entries = [...report.values()];
  const { selectedCandidatePairId } = entries.find((entry) => entry.type === 'transport');
  const pair = report.get(selectedCandidatePairId);
  return [report.get(pair.localCandidateId).candidateType, pair.bytesReceived];
})()
"""


@pytest.fixture(scope="module")
def by_secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Turn]:
    with turn_server(tmp_path_factory.mktemp("turn"), "use-auth-secret", f"static-auth-secret={SECRET}") as turn:
        yield turn


@pytest.fixture(scope="module")
def by_password(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Turn]:
    with turn_server(tmp_path_factory.mktemp("turn"), "lt-cred-mech", f"user={USER}:{PASSWORD}") as turn:
        yield turn


def sees_by_the_relay_of_the_server(turn: TurnServer, caplog: pytest.LogCaptureFixture) -> None:
    """A visitor is given no address of the server but that of its relay, and sees pictures."""
    caplog.set_level(logging.DEBUG)

    async def act(here: Scene) -> None:
        visitor = here.visitor()
        answer = await visitor.offered(without_ports(await visitor.offer()))
        assert not answer.kind, answer.message
        by_relay = without_a_way_but(answer.ok["sdp"], "relay")
        assert "a=candidate" in by_relay
        await visitor.accept(by_relay)
        await visitor.see(5)
        assert "lets this server not in" not in caplog.text

    play(act, turn=turn)


def test_the_server_takes_a_relay_that_shares_a_secret(by_secret: Turn, caplog: pytest.LogCaptureFixture) -> None:
    before = by_secret.users()
    sees_by_the_relay_of_the_server(TurnServer((by_secret.url,), secret=SECRET), caplog)
    (user,) = by_secret.users() - before
    expires, _, name = user.partition(":")
    assert abs(int(expires) - time.time() - LIFETIME_S) < 60
    assert name
    assert SECRET not in caplog.text


def test_the_server_takes_a_relay_with_a_user_and_a_password(
    by_password: Turn, caplog: pytest.LogCaptureFixture
) -> None:
    sees_by_the_relay_of_the_server(TurnServer((by_password.url,), user=USER, password=PASSWORD), caplog)
    assert by_password.users() == {USER}
    assert PASSWORD not in caplog.text


def test_a_relay_that_refuses_is_told_in_the_log_and_visitors_see_without_it(
    by_secret: Turn, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(here: Scene) -> None:
        await here.seated()
        assert f"{by_secret.url} lets this server not in" in caplog.text

    play(act, turn=TurnServer((by_secret.url,), secret="another secret"))
    assert "another secret" not in caplog.text


@pytest.mark.parametrize("kind", ["secret", "password"])
def test_a_browser_that_may_use_nothing_else_sees_the_listener_by_relay(
    kind: str, window: Window, request: pytest.FixtureRequest
) -> None:
    relay: Turn = request.getfixturevalue(f"by_{kind}")
    given = {"secret": SECRET} if kind == "secret" else {"user": USER, "password": PASSWORD}
    with Server(turn=TurnServer((relay.url,), **given)) as server:
        before = relay.users()
        with Window(server, window.browser).page("#relay", first=_KEEP_PEERS) as page:
            page.click("go")
            page.until(IS_LIVE)
            shown = page.run(SHOWN)
            page.until(f"{SHOWN} > {shown} + 25")
            kind_of_way, received = page.run(_SELECTED)
            assert kind_of_way == "relay"
            assert received > 1000
            assert page.run("location.hash") == "#relay"
        if kind == "secret":
            assert len(relay.users() - before) == 2  # the page, and the server for its side


def test_where_no_relay_is_found_a_page_that_needs_one_says_so(window: Window) -> None:
    with window.page("#relay") as page:
        page.click("go")
        page.until(f"{STATE} === 'failed'")
        assert "this browser has found no relay" in page.text("notice-text")


def test_credentials_reach_who_has_signed_in_and_are_others_each_time() -> None:
    settings = ServeSettings(token=TOKEN, turn=TurnServer((URL,), secret=SECRET), ice_servers=("stun:stun.example",))

    async def run() -> None:
        async with serving(settings=settings) as (browser, _):
            stranger = await browser.line()
            assert (await stranger.ask("begin")).kind == "token"
            assert "turn" not in str(stranger.told)
            signed_in = await browser.ask("POST", "/sign-in", {"token": TOKEN})
            cookie = {"cookie": signed_in.headers["set-cookie"].partition(";")[0]}
            elsewhere = await browser.line(cookie | {"origin": "https://evil.example"})
            assert (await elsewhere.ask("begin")).kind == "closed"
            assert elsewhere.told == []
            choices = await browser.ask("GET", "/api/choices", b"", cookie)
            assert b"turn:" not in choices.body
            answers = []
            for _ in range(2):
                line = await browser.line(cookie)
                answers.append((await line.ask("begin")).ok["ice_servers"])
                await line.close()
            for stun, turn in answers:
                assert stun == {"urls": ["stun:stun.example"]}
                assert turn["urls"] == [URL]
                expected = hmac.new(SECRET.encode(), turn["username"].encode(), "sha1").digest()
                assert base64.b64decode(turn["credential"]) == expected
            assert answers[0][1]["username"] != answers[1][1]["username"]

    asyncio.run(run())


def test_credentials_are_those_of_the_convention(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest was made by: printf %s 1433937152:7ab | openssl dgst -sha1 -hmac north -binary | base64."""
    monkeypatch.setattr(time, "time", lambda: 1_433_937_152 - LIFETIME_S)
    monkeypatch.setattr("secrets.token_hex", lambda _: "7ab")
    assert TurnServer((URL,), secret="north").credentials() == ("1433937152:7ab", "GyuQzTMPvpxj5dI1P4DrzaKVc84=")


def test_what_is_secret_is_in_no_text_of_the_settings() -> None:
    for given in ({"secret": SECRET}, {"user": USER, "password": PASSWORD}):
        assert not re.search(f"{SECRET}|{PASSWORD}", repr(ServeSettings(turn=TurnServer((URL,), **given))))


@pytest.mark.parametrize(
    "url", ["turn:t.example", "turn:192.0.2.1:3478?transport=udp", "turns:t.example:443?transport=tcp"]
)
def test_addresses_of_relays_are_taken(url: str) -> None:
    assert ice_servers((), TurnServer((url,), user=USER, password=PASSWORD)) == [
        {"urls": [url], "username": USER, "credential": PASSWORD}
    ]


@pytest.mark.parametrize("url", _NO_RELAYS)
def test_what_is_no_address_of_a_relay_is_refused(url: str) -> None:
    with pytest.raises(ServeError, match=r"is no TURN server\. Give one such as turn:turn.example:3478"):
        TurnServer((url,), secret=SECRET)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"user": USER},
        {"password": PASSWORD},
        {"secret": ""},
        {"secret": SECRET, "user": USER},
        {"secret": SECRET, "user": USER, "password": PASSWORD},
    ],
)
def test_a_relay_lets_in_by_a_secret_or_by_a_user_and_a_password(given: dict[str, Any]) -> None:
    with pytest.raises(ServeError, match="Give --turn-secret FILE, or both --turn-user NAME and --turn-password FILE"):
        TurnServer((URL,), **given)


@pytest.mark.parametrize("url", [URL, "turns:turn.example"])
def test_a_relay_without_credentials_is_refused_with_what_helps(url: str) -> None:
    with pytest.raises(ServeError, match=f"Give --turn {url} with --turn-secret FILE, or with --turn-user NAME"):
        ServeSettings(ice_servers=(url,))


def test_a_relay_is_not_given_to_whoever_comes() -> None:
    turn = TurnServer((URL,), secret=SECRET)
    with pytest.raises(ServeError, match=r"https://me\.example can be reached by others, who would get credentials of"):
        ServeSettings(origins=("http://localhost:8000", "https://me.example"), turn=turn)
    assert ServeSettings(origins=("http://localhost:8000",), turn=turn).turn is turn
    assert ServeSettings(origins=("https://me.example",), turn=turn, token=TOKEN).turn is turn
