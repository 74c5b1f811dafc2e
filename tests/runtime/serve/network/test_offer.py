"""An offer is a stranger's text: how much the server does for it."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.serve.scene import Scene, play
from support.serve.serve_client import (
    loopback_only,  # noqa: F401
)

from pflx.runtime.serve.offer import MOST_ADDRESSES, OfferError, checked_offer

OFFER = [
    "v=0",
    "a=group:BUNDLE 0 1",
    "m=audio 9 UDP/TLS/RTP/SAVPF 96",
    "a=mid:0",
    "a=fingerprint:sha-256 AB",
    "m=video 9 UDP/TLS/RTP/SAVPF 97",
    "a=mid:1",
]
KINDS = ("host", "srflx", "relay", "prflx", "host")


def candidate(number: int, kind: str = "host", transport: str = "udp") -> str:
    return f"a=candidate:{number} 1 {transport} {1000 - number} 192.0.2.{number} 9 typ {kind}"


def test_a_plain_offer_stays_as_it_is() -> None:
    lines = [*OFFER[:4], *(candidate(n, kind) for n, kind in enumerate(KINDS[:3])), *OFFER[4:], candidate(9)]
    assert checked_offer("\r\n".join(lines)).split("\r\n") == [*lines, ""]


def test_of_many_addresses_the_first_of_each_kind_are_tried() -> None:
    many = [candidate(n, KINDS[n % 5]) for n in range(100)]
    kept = checked_offer("\r\n".join([*OFFER, *many])).splitlines()[len(OFFER) :]
    for kind, most in MOST_ADDRESSES.items():
        of_kind = [line for line in many if line.endswith(kind)]
        assert [line for line in kept if line.endswith(kind)] == of_kind[:most]
    assert len(kept) == sum(MOST_ADDRESSES.values())


def test_addresses_that_no_packet_goes_to_take_no_place() -> None:
    lines = [candidate(n, transport="tcp") for n in range(50)] + [candidate(60), "a=candidate:", "a=candidate: 1 udp"]
    kept = checked_offer("\r\n".join([*OFFER, *lines])).splitlines()[len(OFFER) :]
    assert kept == [candidate(60)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "camera nor microphone"),
        (OFFER[:5], "camera nor microphone"),
        ([*OFFER, "m=video 9"], "one camera"),
        ([*OFFER, "m=text 9"], "one camera"),
        ([line for line in OFFER if "fingerprint" not in line], "fingerprint"),
        ([line for line in OFFER if "BUNDLE" not in line], "BUNDLE"),
        ([line.replace("BUNDLE 0 1", "BUNDLE 0") for line in OFFER], "BUNDLE"),
    ],
)
def test_what_is_no_offer_is_refused(lines: list[str], message: str) -> None:
    with pytest.raises(OfferError, match=message):
        checked_offer("\n".join(lines))


def test_an_offer_sends_packets_to_few_strangers() -> None:
    """Forty sockets that an offer names, and how many of them anything comes to."""
    strangers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(40)]
    for stranger in strangers:
        stranger.bind(("127.0.0.1", 0))
        stranger.setblocking(False)

    async def act(here: Scene) -> None:
        visitor = here.visitor()
        sdp = await visitor.offer()
        ports = [stranger.getsockname()[1] for stranger in strangers]
        named = [f"a=candidate:{n} 1 udp {n} 127.0.0.1 {port} typ host" for n, port in enumerate(ports)]
        lines = [line for line in sdp.splitlines() if not line.startswith(("a=candidate", "a=end-of"))]
        changed = [more for line in lines for more in ((line, *named) if line.startswith("a=mid") else (line,))]
        answer = await visitor.offered("\r\n".join([*changed, ""]))
        assert not answer.kind, answer.message
        await asyncio.sleep(1.5)

    play(act)
    reached = 0
    for stranger in strangers:
        try:
            stranger.recv(2000)
            reached += 1
        except BlockingIOError:
            pass
        stranger.close()
    assert 0 < reached <= MOST_ADDRESSES["host"]
