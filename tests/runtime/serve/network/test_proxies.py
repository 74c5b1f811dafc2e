"""Behind a proxy: who asks, under which name, and who is believed when they tell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from support.serve.proxy import Proxy, asked, proxy
from support.serve.window import IS_LIVE, Server, Window

from pflx.runtime.serve import ServeError, ServeSettings
from pflx.runtime.serve.network.proxies import TrustedProxies

TOKEN = "a token of some length"
NAME = "me.example"
ANNA, BERT = "127.0.0.2", "127.0.0.3"
"""Addresses of the loopback network are as many visitors."""


@contextmanager
def behind(before: Proxy, **settings: Any) -> Iterator[Server]:
    """A server that is asked through a proxy."""
    given: dict[str, Any] = {"token": TOKEN, "origins": (f"http://{before.address}", f"https://{NAME}"), **settings}
    with Server(**given) as server:
        before.upstream = server.url.removeprefix("http://").rstrip("/")
        yield server


def guess(address: str, visitor: str, origin: str, **headers: str) -> int:
    """The status of a wrong token."""
    told = {"origin": origin, "host": origin.partition("//")[2], **headers}
    return asked(address, "POST", "/sign-in", json.dumps({"token": "wrong"}), told, visitor=visitor)[0]


@pytest.fixture
def before() -> Iterator[Proxy]:
    with proxy() as running:
        yield running


@pytest.mark.parametrize(
    ("trusted", "second"), [(("127.0.0.1",), 401), (("127.0.0.1/32", "10.0.0.0/8"), 401), ((), 429)]
)
def test_limits_count_visitors_and_not_the_proxy_that_is_trusted(
    before: Proxy, trusted: tuple[str, ...], second: int
) -> None:
    origin = f"http://{before.address}"
    with behind(before, trusted_proxies=trusted):
        assert [guess(before.address, ANNA, origin) for _ in range(7)] == [401] * 5 + [429] * 2
        assert guess(before.address, BERT, origin) == second


def test_who_makes_up_addresses_is_counted_as_who_they_are(before: Proxy) -> None:
    origin = f"http://{before.address}"
    with behind(before, trusted_proxies=("127.0.0.1",)) as server:
        tries = [guess(before.address, ANNA, origin, **{"x-forwarded-for": f"192.0.2.{n}"}) for n in range(7)]
        assert tries == [401] * 5 + [429] * 2
        direct = server.url.removeprefix("http://").rstrip("/")
        tries = [guess(direct, BERT, origin, **{"x-forwarded-for": f"192.0.2.{n}"}) for n in range(7)]
        assert tries == [401] * 5 + [429] * 2


def test_the_name_that_was_asked_for_is_told_by_a_trusted_proxy_alone(before: Proxy) -> None:
    before.inner_name = "inner.example"
    with behind(before, trusted_proxies=("127.0.0.1",), host="127.0.0.1") as server:
        assert asked(before.address, "GET", "/sign-in", headers={"host": NAME}, visitor=ANNA)[0] == 200
        assert asked(before.address, "GET", "/sign-in", headers={"host": "evil.example"}, visitor=ANNA)[0] == 421
        direct = server.url.removeprefix("http://").rstrip("/")
        lie = {"host": "evil.example", "x-forwarded-host": NAME}
        assert asked(direct, "GET", "/sign-in", headers=lie, visitor=ANNA)[0] == 421
        unknown = {"host": NAME, "x-forwarded-host": "evil.example"}  # of no use: it is not a visitor's to tell
        assert asked(direct, "GET", "/sign-in", headers=unknown, visitor=ANNA)[0] == 200
    with behind(before):
        assert asked(before.address, "GET", "/sign-in", headers={"host": NAME}, visitor=ANNA)[0] == 421


@pytest.mark.parametrize(
    ("headers", "origin", "trusted", "secure"),
    [
        ({"x-forwarded-proto": "https"}, "http://both.example", True, True),
        ({"x-forwarded-proto": "http"}, "http://both.example", True, False),
        ({"x-forwarded-proto": "https"}, "http://both.example", False, False),
        ({}, f"https://{NAME}", False, True),
    ],
)
def test_the_cookie_is_for_https_where_the_page_is(
    headers: dict[str, str], origin: str, trusted: bool, secure: bool
) -> None:
    origins = ("http://both.example", "https://both.example", f"https://{NAME}")
    trusts = ("127.0.0.2",) if trusted else ()
    with Server(token=TOKEN, origins=origins, trusted_proxies=trusts) as server:
        told = {"origin": origin, "host": origin.partition("//")[2], **headers}
        direct = server.url.removeprefix("http://").rstrip("/")
        status, came = asked(direct, "POST", "/sign-in", json.dumps({"token": TOKEN}), told, visitor=ANNA)
    assert status == 204
    assert ("; secure" in came["set-cookie"].lower()) == secure


def test_a_page_by_way_of_a_proxy_shows_the_listener(before: Proxy, window: Window) -> None:
    with behind(before, trusted_proxies=("127.0.0.1",), token=None) as server:
        server.url = f"http://{before.address}/"
        with Window(server, window.browser).live() as page:
            page.until(IS_LIVE)
            assert page.run("location.host") == before.address


def seen(client: str, headers: Mapping[str, str] | list[tuple[str, str]], *trusted: str) -> str:
    """The visitor's address."""
    pairs = headers if isinstance(headers, list) else [*headers.items()]
    lines = [(name.encode(), value.encode("latin-1")) for name, value in pairs]
    scope: dict[str, Any] = {"type": "http", "client": (client, 1), "headers": lines}
    return str(TrustedProxies(trusted).seen_through(scope)["client"][0])


@pytest.mark.parametrize(
    ("told", "visitor"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("1.1.1.1, 198.51.100.7", "198.51.100.7"),
        ("198.51.100.7, 10.1.2.3", "198.51.100.7"),  # two proxies, both trusted
        ("1.1.1.1, 198.51.100.7,10.1.2.3 , 127.0.0.1", "198.51.100.7"),
        ("10.0.0.4, 10.0.0.5", "10.0.0.4"),  # a visitor in the proxies' own network
        ("198.51.100.7:4711", "198.51.100.7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("198.51.100.7, unknown", "127.0.0.1"),  # what is no address is passed over with all before it
        ("198.51.100.7, unknown, 10.1.2.3", "10.1.2.3"),
        ("", "127.0.0.1"),
        (",,", "127.0.0.1"),
        ("\xff\x00", "127.0.0.1"),
    ],
)
def test_the_visitor_is_the_last_who_is_not_a_trusted_proxy(told: str, visitor: str) -> None:
    assert seen("127.0.0.1", {"x-forwarded-for": told}, "127.0.0.1", "10.0.0.0/8") == visitor
    assert seen("::ffff:127.0.0.1", {"x-forwarded-for": told}, "127.0.0.1", "10.0.0.0/8") == visitor
    assert seen("192.0.2.1", {"x-forwarded-for": told}, "127.0.0.1", "10.0.0.0/8") == "192.0.2.1"
    assert seen("127.0.0.1", {"x-forwarded-for": told}) == "127.0.0.1"


def test_a_list_may_stand_in_several_lines() -> None:
    lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "198.51.100.7"), ("x-forwarded-for", "10.0.0.1")]
    assert seen("127.0.0.1", lines, "127.0.0.1", "10.0.0.0/8") == "198.51.100.7"


def test_the_other_header_of_the_same_meaning_is_not_believed() -> None:
    assert seen("127.0.0.1", {"forwarded": "for=198.51.100.7"}, "127.0.0.1") == "127.0.0.1"


@pytest.mark.parametrize("given", ["proxy", "10.0.0.1/8", "127.0.0.1:80", "", "1.2.3.4/33"])
def test_what_is_no_address_of_a_proxy_is_refused(given: str) -> None:
    with pytest.raises(ServeError, match=f"'{given}' is no address of a proxy"):
        ServeSettings(trusted_proxies=(given,))


@pytest.mark.parametrize("given", ["0.0.0.0/0", "::/0"])
def test_everybody_is_no_proxy(given: str) -> None:
    with pytest.raises(ServeError, match="is everybody, who could then pass for anybody"):
        ServeSettings(trusted_proxies=(given,))
