"""A page served by several processes on a real Ray Serve, some of which are killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.serve.chromium import Chromium, Page, chromium, find_chromium
from support.serve.lines import Reply
from support.serve.recordings import fake_devices
from support.serve.scene import is_red, told_last
from support.serve.serve_client import WISH, Visitor, until
from support.serve.sites import PATIENCE_S, Grounds, grounds, kill, processes, server_of
from support.serve.turn_server import find_turn_server, turn_server, without_a_way_but, without_ports
from support.serve.window import IS_LIVE, SHOWN, STATE

from pflx.runtime.serve import TurnServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Ray's own
    pytest.mark.skipif(find_spec("ray") is None or find_spec("grpc") is None, reason="Ray Serve is not installed"),
]

SECRET = "a secret shared with the relay"
DIALS = WISH | {"samples": 2, "playout_ms": 160}


@pytest.fixture(scope="module")
def place() -> Iterator[Grounds]:
    """Two servers with one place each."""
    with grounds() as begun:
        yield begun


def frames_of(visitor: Visitor) -> list[int]:
    """Numbers of the frames that were shown, twice a second."""
    return [message["frame"] for message in visitor.told if message.get("frame") is not None]


def frame_of(visitor: Visitor) -> int:
    """Number of the frame that was shown last; -1 before the first."""
    return [-1, *frames_of(visitor)][-1]


async def shown(visitor: Visitor, frame: int) -> None:
    await until(lambda: frame_of(visitor) >= frame, PATIENCE_S)


async def gone(visitor: Visitor) -> None:
    """The server has gone, or hung up."""
    assert visitor.line is not None
    line = visitor.line
    await until(lambda: line.closed is not None, 60)
    await visitor.connection.close()


def server(visitor: Visitor) -> int:
    """The process that serves a visitor."""
    return server_of(visitor.connection.remoteDescription.sdp).pid


def serving() -> set[int]:
    """The processes of servers, those that drain included."""
    return {each.pid for each in processes("ServeReplica:")}


def test_two_visitors_have_a_server_each_and_a_third_is_told_that_it_is_full(place: Grounds) -> None:
    async def act() -> None:
        with urlopen(place.origin, timeout=60) as page:
            assert b"<title>" in page.read()
        one, other = await place.seated(), await place.seated()
        assert server(one) != server(other)
        third, refused = await place.come()
        assert (refused.kind, refused.message) == ("full", "The only place is taken.")
        assert third.connection.iceGatheringState == "new"  # nothing was offered
        for visitor in (one, other, third):
            await visitor.leave()

    asyncio.run(act())


def by_replica(place: Grounds, metric: str) -> dict[str, float]:
    """What Ray puts out for Prometheus, by the server that it is of."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(place.exported()):
        for sample in family.samples:
            if sample.name == f"ray_pflx_serve_{metric}":
                replica = sample.labels["replica"]
                found[replica] = found.get(replica, 0.0) + sample.value
    return found


def test_ray_puts_out_the_figures_of_each_server(place: Grounds) -> None:
    async def act() -> None:
        visitor = await place.seated()
        await shown(visitor, 50)
        deadline = time.monotonic() + 60
        while sorted(by_replica(place, "sessions").values()) != [0, 1]:
            assert time.monotonic() < deadline, place.exported()
            await asyncio.sleep(1)
        (own,) = (replica for replica, count in by_replica(place, "sessions").items() if count)
        assert own.startswith("blue-")
        assert by_replica(place, "sessions_limit")[own] == 1
        assert by_replica(place, "joins_total")[own] >= 1
        while by_replica(place, "frames_total").get(own, 0) < 50:
            assert time.monotonic() < deadline, place.exported()
            await asyncio.sleep(1)
        await visitor.leave()

    asyncio.run(act())


def test_a_server_is_killed_and_its_visitor_goes_on_with_portrait_dials_and_motion(
    place: Grounds, record_property: Callable[[str, object], None]
) -> None:
    async def act() -> None:
        visitor, bystander = await place.seated(DIALS), await place.seated()
        assert not (await visitor.ask("portrait", number=1)).kind
        await shown(bystander, 1)
        await shown(visitor, 200)
        killed_at = time.monotonic()
        kill(server_of(visitor.connection.remoteDescription.sdp))
        await gone(visitor)
        came_back = await place.seated(None, replaces=visitor.id)
        record_property("next_picture_s", round(time.monotonic() - killed_at, 2))
        assert (came_back.id, came_back.begun["epoch"]) == (visitor.id, visitor.begun["epoch"] + 1)
        assert came_back.begun["wish"] == DIALS
        assert is_red(came_back.pictures[0])
        await until(lambda: frame_of(came_back) >= 0)
        assert frames_of(came_back)[0] > 100  # which a motion that begins anew is not at for four seconds
        await no_frame_is_lost(bystander)
        for each in (came_back, bystander):
            await each.leave()

    asyncio.run(act())


async def no_frame_is_lost(visitor: Visitor, frames: int = 50) -> None:
    """For so many more: each was shown, or given up by the session for lack of time, and each that was sent came."""
    await shown(visitor, 1)
    samples, after = visitor.begun["wish"]["samples"], told_last(visitor)

    def is_accounted_for(told: dict[str, Any]) -> bool:
        return bool((told["frame"] + 1) * samples == told["emitted"] + told["dropped"])

    await shown(visitor, after["frame"] + frames)
    told = len(visitor.told)
    await until(
        lambda: any(each["type"] == "panel" and is_accounted_for(each) for each in visitor.told[told:]), PATIENCE_S
    )
    now = told_last(visitor)
    await until(lambda: len(visitor.pictures) >= now["emitted"] // samples - now["unsent"], PATIENCE_S)
    stamps = [picture.pts or 0 for picture in visitor.pictures]
    assert all(earlier < later for earlier, later in pairwise(stamps))
    assert await visitor.lost_packets() == 0
    assert visitor.line is not None
    assert visitor.line.closed is None


def test_the_vault_is_killed_and_who_comes_back_begins_anew_while_others_go_on(place: Grounds) -> None:
    async def act() -> None:
        visitor, bystander = await place.seated(), await place.seated()
        await shown(bystander, 1)
        await shown(visitor, 100)
        await visitor.leave()
        (vault,) = processes("Vault")
        kill(vault)
        came_back = await place.seated(replaces=visitor.id)
        assert came_back.id != visitor.id
        assert came_back.begun["epoch"] == 1
        await until(lambda: 0 <= frame_of(came_back) < 100)
        await no_frame_is_lost(bystander)
        for each in (came_back, bystander):
            await each.leave()
        await until(lambda: {each.pid for each in processes("Vault")} - {vault.pid}, 60)

    asyncio.run(act())


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    """One with a camera and a microphone that are files."""
    binary = find_chromium()
    if binary is None:
        pytest.skip("no Chromium is installed (or name one by PFLX_CHROMIUM)")
    with chromium(binary, tmp_path / "profile", ["--allow-loopback-in-peer-connection", *fake_devices(tmp_path)]) as it:
        yield it


def opened(browser: Chromium, place: Grounds) -> Page:
    """The page of a site, from which one can begin."""
    page = browser.new_page()
    page.open(place.origin)
    page.until("document.querySelector('#choice option')")
    return page


def test_a_page_in_a_browser_connects_again_by_itself_when_its_server_is_killed(
    place: Grounds, browser: Chromium
) -> None:
    page = opened(browser, place)
    page.click("go")
    page.until(IS_LIVE, PATIENCE_S)
    known = "import('/scripts/state.js').then(({ state }) => [state.link?.id, state.link?.epoch])"
    id, epoch = page.run(known)
    page.until("document.getElementById('missed').textContent !== '–'", 60)
    answer = "import('/scripts/state.js').then(({ state }) => state.link.peer.remoteDescription.sdp)"
    kill(server_of(page.run(answer)))
    page.until(f"{STATE} !== 'live'", 60)
    page.until(IS_LIVE, PATIENCE_S)
    assert page.run(known) == [id, epoch + 1]
    page.click("go")


def test_a_drain_takes_nobody_new_lets_sessions_go_on_and_ends_them_at_the_grace(place: Grounds) -> None:
    """From two servers to one: nobody loses a frame before the grace is over, and who is elsewhere none then."""

    async def act() -> None:
        visitor, other = await place.seated(DIALS), await place.seated()
        old = {server(visitor), server(other)}
        assert len(old) == 2
        await shown(visitor, 60)
        drained = asyncio.ensure_future(place.change(replicas=(1, 1)))
        await until(lambda: serving() - old, PATIENCE_S)
        await asyncio.gather(no_frame_is_lost(visitor), no_frame_is_lost(other))
        await other.leave()
        await drained
        newcomer = await place.seated()
        assert server(newcomer) not in old
        await gone(visitor)
        await no_frame_is_lost(newcomer)
        await newcomer.leave()
        came_back = await place.seated(None, replaces=visitor.id)
        assert (came_back.id, came_back.begun["wish"]) == (visitor.id, DIALS)
        assert server(came_back) not in old
        await came_back.leave()
        await until(lambda: len(serving()) == 1, 60)
        assert place.begun.is_replaced

    asyncio.run(act())


@pytest.fixture(scope="module")
def roomy(place: Grounds, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    """From here on two servers with two places each, and a relay where coturn is installed."""
    with ExitStack() as stack:
        if find_turn_server():
            relay = turn_server(tmp_path_factory.mktemp("turn"), "use-auth-secret", f"static-auth-secret={SECRET}")
            place.turn = stack.enter_context(relay)
            turn = TurnServer((place.turn.url,), secret=SECRET)
            place.site = replace(place.site, settings=replace(place.site.settings, turn=turn))
        place.site = replace(place.site, settings=replace(place.site.settings, max_sessions=2))
        old = serving()

        async def act() -> None:
            await place.change(replicas=(2, 2))
            await until(lambda: len(serving()) == 2 and not serving() & old, PATIENCE_S)

        asyncio.run(act())
        yield place


def test_four_visitors_see_and_a_fifth_with_a_browser_is_told_that_it_is_full_and_let_in_later(
    roomy: Grounds, browser: Chromium
) -> None:
    page = opened(browser, roomy)

    async def in_the_browser(act: Callable[..., None], *given: object) -> None:
        await asyncio.to_thread(act, *given)  # while the others see

    async def act() -> None:
        visitors = [await roomy.seated() for _ in range(4)]
        assert Counter(server(each) for each in visitors) == dict.fromkeys(map(server, visitors), 2)
        await in_the_browser(page.click, "go")
        await in_the_browser(page.until, f"{STATE} === 'full'", PATIENCE_S)
        assert "All 2 places are taken." in await asyncio.to_thread(page.text, "notice-text")
        await asyncio.gather(*map(no_frame_is_lost, visitors))
        await visitors.pop().leave()
        await in_the_browser(page.until, IS_LIVE, PATIENCE_S)
        await in_the_browser(page.until, f"{SHOWN} > 50", PATIENCE_S)
        await asyncio.gather(*map(no_frame_is_lost, visitors))
        await in_the_browser(page.click, "go")
        for visitor in visitors:
            await visitor.leave()

    asyncio.run(act())


def test_a_visitor_sees_by_way_of_a_relay(roomy: Grounds) -> None:
    """All that the visitor knows of the server is the address of its relay, and the server knows no way to them."""
    turn = roomy.turn
    if turn is None:
        pytest.skip("coturn is not installed (apt-get install coturn)")

    async def come() -> tuple[Visitor, Reply]:
        visitor = Visitor(roomy)
        return visitor, await visitor.offered(without_ports(await visitor.offer()))

    async def act() -> None:
        before = turn.users()
        async with asyncio.timeout(PATIENCE_S):
            visitor, answer = await come()
            while answer.kind == "full":  # of visitors who have just left
                await asyncio.sleep(2)
                visitor, answer = await come()
        assert not answer.kind, answer.message
        await visitor.accept(without_a_way_but(answer.ok["sdp"], "relay"))
        await visitor.see(50, PATIENCE_S)
        assert turn.users() > before
        await visitor.leave()

    asyncio.run(act())


def states() -> dict[str, int]:
    """Servers by what Ray Serve does with them."""
    import ray.serve

    (deployment,) = ray.serve.status().applications["pflx"].deployments.values()
    return {str(state): count for state, count in deployment.replica_states.items() if count}


def test_servers_come_with_visitors_and_go_with_them_and_nobody_loses_a_frame(roomy: Grounds) -> None:
    """With four places a server, of which 2.8 are to be taken: three visitors are too many for one, two are not."""
    roomy.site = replace(roomy.site, settings=replace(roomy.site.settings, max_sessions=4))

    async def act() -> None:
        old = serving()
        await roomy.change(replicas=(1, 2), busy_s=2.0, idle_s=4.0, drain_s=20.0)
        await until(lambda: states() == {"RUNNING": 1} and not serving() & old, PATIENCE_S)
        here = [await roomy.seated() for _ in range(3)]
        (home,) = {server(each) for each in here}
        await until(lambda: states() == {"RUNNING": 2}, PATIENCE_S)
        there = await roomy.seated()
        assert server(there) != home
        stays = here.pop()
        await asyncio.gather(*(each.leave() for each in here))
        await until(lambda: states() == {"RUNNING": 1, "STOPPING": 1}, PATIENCE_S)
        pair = {server(each): each for each in (stays, there)}
        await asyncio.gather(*map(no_frame_is_lost, pair.values()))
        await until(lambda: len(serving()) == 1, PATIENCE_S)
        (left,) = serving()
        kept = pair.pop(left)
        (drained,) = pair.values()
        await gone(drained)
        assert frame_of(drained) > 20 * 25 * 0.9  # it was served until the grace was over
        await no_frame_is_lost(kept)
        came_back = await roomy.seated(None, replaces=drained.id)
        assert (came_back.id, server(came_back)) == (drained.id, left)
        for each in (kept, came_back):
            await each.leave()

    asyncio.run(act())


def test_the_command_serves_the_listener_that_comes_with_pflx_until_it_is_asked_to_end(place: Grounds) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    words = ["serve", "--ray", address, "--port", str(place.site.settings.port), "--drain", "5"]
    with subprocess.Popen(
        [sys.executable, "-m", "pflx", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        try:
            assert command.stdout is not None
            greeting = command.stdout.readline()
            assert re.search(r"Serving at http://127\.0\.0\.1:\d+", greeting), command.stderr and command.stderr.read()
            with urlopen(f"{place.origin}/api/choices", timeout=60) as choices:
                assert b'"backchannel"' in choices.read()
            os.kill(command.pid, signal.SIGINT)
            _, told = command.communicate(timeout=120)
        finally:
            command.kill()
    assert command.returncode == 130
    assert "Nobody new is let in" in told
    assert not serving()
