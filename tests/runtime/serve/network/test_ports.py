"""UDP ports of a range, and another address in the answer: what a firewall and a NAT ask for."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import pytest
from support.serve.scene import Scene, scene
from support.serve.serve_client import PORT, Visitor, serving
from support.serve.turn_server import turn_server
from support.serve.window import STATE, Server, Window

from pflx.runtime.serve import ServeError, ServeSettings, TurnServer
from pflx.runtime.serve.network.ports import NoAddressError, NoPortError, reachable, run_within

FIRST = 21_000 + os.getpid() % 2000 * 4
LAST = FIRST + 3
"""Where the system gives no ports of its own accord, and of this process alone."""

SERVER, ELSEWHERE = "127.0.0.1", "127.0.0.2"
OUTSIDE = "203.0.113.7"
ANSWER = [
    "v=0",
    "m=video 50700 UDP/TLS/RTP/SAVPF 97",
    "c=IN IP4 10.0.0.2",
    "a=candidate:a 1 udp 2130706431 10.0.0.2 50700 typ host",
    "a=candidate:b 1 udp 2130706431 172.17.0.1 50701 typ host",
    "a=candidate:c 1 udp 2130706431 fd00::2 50702 typ host",
    "a=candidate:d 1 udp 1694498815 198.51.100.1 50700 typ srflx raddr 10.0.0.2 rport 50700",
    "a=candidate:e 1 udp 16777215 198.51.100.9 49160 typ relay raddr 198.51.100.1 rport 50703",
    "a=end-of-candidates",
]


_here = [SERVER]


@pytest.fixture(autouse=True)
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Server and visitors run in one loop, which gives both ports of the range: each of an address of its own."""
    offer = Visitor.offer

    async def from_elsewhere(visitor: Visitor) -> str:
        _here[:] = [ELSEWHERE]
        try:
            return await offer(visitor)
        finally:
            _here[:] = [SERVER]

    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda **_: [*_here])
    monkeypatch.setattr(Visitor, "offer", from_elsewhere)


def play_within(act: Callable[[Scene], Awaitable[None]], **settings: Any) -> None:
    """Act in a scene whose event loop keeps to the range."""

    async def run() -> None:
        async with scene(udp_ports=(FIRST, LAST), **settings) as here:
            await act(here)

    run_within((FIRST, LAST), run())


def places(sdp: str) -> set[tuple[str, int]]:
    """Address and port of every candidate."""
    return {(host, int(port)) for host, port in re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ", sdp)}


async def answered(here: Scene) -> str:
    """The answer to one more visitor, who sees something."""
    visitor = here.visitor()
    answer = await visitor.offered(await visitor.offer())
    assert not answer.kind, answer.message
    sdp: str = answer.ok["sdp"]
    await visitor.accept(sdp.replace(OUTSIDE, SERVER))
    await visitor.see(2)
    return sdp


def test_each_visitor_is_told_one_port_of_the_range() -> None:
    async def act(here: Scene) -> None:
        told = [places(await answered(here)) for _ in range(2)]
        assert all(len(each) == 1 for each in told)
        (one, first), (other, second) = (each.pop() for each in told)
        assert one == other == SERVER
        assert first != second
        assert {first, second} <= {*range(FIRST, LAST + 1)}

    play_within(act)


def test_another_address_is_announced_and_none_of_its_own() -> None:
    async def act(here: Scene) -> None:
        sdp = await answered(here)
        ((host, port),) = places(sdp)
        assert host == OUTSIDE
        assert FIRST <= port <= LAST
        assert SERVER not in re.sub(r"(?m)^o=.*$", "", sdp)

    play_within(act, announce=OUTSIDE)


def occupied(closing: ExitStack, *left: int) -> None:
    """Take every port of the range but these."""
    for port in {*range(FIRST, LAST + 1)} - {*left}:
        taken = closing.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        taken.bind((SERVER, port))


def test_who_comes_when_no_port_is_free_is_told_so_and_let_in_when_one_is() -> None:
    async def act(here: Scene) -> None:
        with ExitStack() as closing:
            occupied(closing, LAST)
            visitor = await here.seated()
            last = here.visitor()
            refused = await last.come()
            assert refused.kind == "full"
            assert refused.message == f"No UDP port is free: all of {FIRST}-{LAST} are in use."
            assert len(here.lobby.peers) == 1
            await visitor.ask("leave")
            assert not (await last.come()).kind
            await last.see(2)

    play_within(act)


def test_a_relay_serves_where_no_port_is_free(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def act(here: Scene) -> None:
        with ExitStack() as closing:
            occupied(closing)
            await here.seated()

    with turn_server(tmp_path_factory.mktemp("turn"), "use-auth-secret", "static-auth-secret=shared") as turn:
        play_within(act, turn=TurnServer((turn.url,), secret="shared"))


def test_a_page_that_finds_no_port_waits_for_one(window: Window) -> None:
    with ExitStack() as closing, Server(udp_ports=(FIRST, LAST)) as server:
        occupied(closing)
        with Window(server, window.browser).page() as page:
            page.click("go")
            page.until(f"{STATE} === 'full'")
            assert "No UDP port is free" in page.text("notice-text")


def test_a_server_without_any_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with scene() as here:
            visitor = here.visitor()
            offer = await visitor.offer()
            monkeypatch.setattr("aioice.ice.get_host_addresses", lambda **_: [])
            answer = await visitor.offered(offer)
            assert answer.kind == "network"
            assert answer.message == "The server has no address in any network."
            assert not here.lobby.peers

    asyncio.run(run())


def test_ports_that_were_asked_for_elsewhere_stay_as_they_are() -> None:
    async def run() -> list[int]:
        loop, ports = asyncio.get_running_loop(), list[int]()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            named = free.getsockname()[1]
        options: list[dict[str, Any]] = [{"local_addr": ("127.0.0.1", named)}, {"remote_addr": ("127.0.0.1", 9)}]
        for given in options:
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, **given)
            ports.append(transport.get_extra_info("sockname")[1])
            transport.close()
        return [ports[0] - named, ports[1]]

    same, any_port = run_within((FIRST, LAST), run())
    assert same == 0
    assert not FIRST <= any_port <= LAST


def test_an_address_that_is_not_of_the_machine_is_no_port_that_is_taken() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("192.0.2.1", 0))

    with pytest.raises(OSError, match="assign requested address"):
        run_within((FIRST, LAST), run())


@pytest.mark.parametrize(
    ("announce", "expected"),
    [
        (OUTSIDE, [("10.0.0.2", OUTSIDE), ("172.17.0.1", OUTSIDE)]),
        ("2001:db8::7", [("fd00::2", "2001:db8::7")]),
        (None, []),
    ],
)
def test_an_announced_address_takes_the_place_of_all_of_its_kind(
    announce: str | None, expected: list[tuple[str, str]]
) -> None:
    text = "\r\n".join([*ANSWER, ""])
    told = reachable(text, None, announce)
    for own, other in expected:
        text = text.replace(own, other)
    assert told == text


@pytest.mark.parametrize(("ports", "error"), [((FIRST, LAST), NoPortError), (None, NoAddressError)])
def test_an_answer_without_an_address_is_none(ports: tuple[int, int] | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        reachable("v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 97\r\n", ports, OUTSIDE)


@pytest.mark.parametrize("ports", [(0, 5), (5, 4), (5, 65_536), (-1, 5)])
def test_what_is_no_range_is_refused(ports: tuple[int, int]) -> None:
    with pytest.raises(ServeError, match="is no range of UDP ports"):
        ServeSettings(udp_ports=ports)


@pytest.mark.parametrize("address", ["me.example", "203.0.113.7:3478", "", "10.0.0.0/8"])
def test_what_is_no_address_is_not_announced(address: str) -> None:
    with pytest.raises(ServeError, match=f"'{address}' is no IP address"):
        ServeSettings(announce=address)


def test_a_range_that_nobody_keeps_to_is_refused_at_the_start() -> None:
    async def run() -> None:
        async with serving(settings=ServeSettings(port=PORT, udp_ports=(FIRST, LAST))) as (browser, _):
            messages = [{"type": "lifespan.startup"}]
            said: list[Any] = []

            async def receive() -> Any:
                return messages.pop()

            async def send(message: Any) -> None:
                said.append(message)

            with pytest.raises(ServeError, match="run_within"):
                await browser.app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
            assert said[0]["type"] == "lifespan.startup.failed"

    asyncio.run(run())
