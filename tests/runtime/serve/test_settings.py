from __future__ import annotations

from typing import Any

import pytest

from pflx.runtime.serve import ServeError, ServeSettings

TOKEN = "a token of some length"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.9.1"])
def test_a_loopback_address_needs_no_token(host: str) -> None:
    assert ServeSettings(host=host).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "me.example", "10.0.0.1"])
def test_any_other_address_is_refused_without_a_token(host: str) -> None:
    with pytest.raises(ServeError, match="can be reached by others"):
        ServeSettings(host=host, origins=("https://me.example",))
    assert not ServeSettings(host=host, token=TOKEN, origins=("https://me.example",)).is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.7"])
def test_a_token_that_could_be_guessed_is_refused(host: str) -> None:
    with pytest.raises(ServeError, match="The token has 15 characters; give it 16 or more"):
        ServeSettings(host=host, token="x" * 15)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_all_addresses_at_once_need_the_name_that_browsers_use(host: str) -> None:
    with pytest.raises(ServeError, match="Name it, such as --origin"):
        ServeSettings(host=host, token=TOKEN)


@pytest.mark.parametrize(
    "origin", ["me.example", "https://me.example/path", "https://", "ftp://me.example", "https://me.example:8000/", "*"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ServeError, match="is no origin"):
        ServeSettings(origins=(origin,))


@pytest.mark.parametrize(
    "server",
    [
        "stun.example",
        "http://stun.example",
        "stun:a b",
        "stun:",
        "stun:a:70000",
        "stun:[::1]:3478",
        "stun:a?transport=udp",
    ],
)
def test_what_is_no_ice_server_is_refused(server: str) -> None:
    with pytest.raises(ServeError, match="is no ICE server"):
        ServeSettings(ice_servers=(server,))


@pytest.mark.parametrize("load", [0, -1, float("nan"), float("inf")])
def test_a_load_that_cannot_be_meant_is_refused(load: float) -> None:
    with pytest.raises(ServeError, match="max_load is"):
        ServeSettings(max_load=load)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"}),
        ({"secure": True}, {"https://127.0.0.1:8000", "https://localhost:8000", "https://[::1]:8000"}),
        ({"host": "192.0.2.7", "token": TOKEN}, {"http://192.0.2.7:8000"}),
        ({"host": "2001:db8::1", "token": TOKEN}, {"http://[2001:db8::1]:8000"}),
        (
            {"host": "0.0.0.0", "token": TOKEN, "origins": ("https://Me.example:443", "http://b.example:80")},
            {"https://me.example", "http://b.example"},
        ),
    ],
)
def test_pages_come_from_the_address_itself_and_from_named_origins_only(
    given: dict[str, Any], expected: set[str]
) -> None:
    assert ServeSettings(**given).allowed_origins(8000) == expected


def test_no_ice_server_is_asked_unless_one_is_named() -> None:
    assert ServeSettings().ice_servers == ()
