"""Sessions that go on from one server to another, which share a vault; without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from PIL import Image
from support.fakes import fake_listener
from support.live.live_sessions import watchdog  # noqa: F401
from support.serve.keeping import NearVault
from support.serve.scene import GREY, RED, Scene, is_red, plain, scene, told_last
from support.serve.serve_client import (
    WISH,
    Visitor,
    loopback_only,  # noqa: F401
    packed,
    until,
)
from support.serve.serve_listener import nodding_listener

from pflx.runtime import Listener
from pflx.runtime.cluster.vault import Vault

DIALS = WISH | {"samples": 2, "playout_ms": 160}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions are kept five times a second."""
    monkeypatch.setattr("pflx.runtime.serve.lobby.KEEP_S", 0.2)


@asynccontextmanager
async def two_servers(one: Listener, other: Listener, **settings: Any) -> AsyncIterator[tuple[Scene, Scene, NearVault]]:
    vault = NearVault()
    async with scene(one, keeper=vault, **settings) as here, scene(other, keeper=vault, **settings) as there:
        yield here, there, vault


def play_on_two(
    act: Callable[[Scene, Scene, NearVault], Awaitable[None]], other: Listener | None = None, **settings: Any
) -> None:
    async def run() -> None:
        servers = two_servers(nodding_listener(plain(GREY)), other or nodding_listener(plain(GREY)), **settings)
        async with servers as (here, there, vault):
            await act(here, there, vault)

    asyncio.run(run())


def frame_of(visitor: Visitor) -> int:
    """Number of the frame that was shown last; -1 before the first."""
    panels = [message["frame"] for message in visitor.told if message["type"] == "panel"]
    return -1 if not panels or panels[-1] is None else int(panels[-1])


async def kept(vault: NearVault, visitor: Visitor, frame: int) -> None:
    """Wait until a snapshot was kept after a frame was shown."""
    await until(lambda: frame_of(visitor) >= frame)
    before = len(vault.kept)
    await until(lambda: len(vault.kept) > before + 1)


def test_the_motion_goes_on_on_another_server_with_the_portrait_and_the_dials() -> None:
    async def act(here: Scene, there: Scene, vault: NearVault) -> None:
        visitor = await here.seated(DIALS)
        assert visitor.begun["epoch"] == 1
        await visitor.ask("own_portrait", packed(Image.new("RGB", (300, 300), RED), "PNG"))
        await kept(vault, visitor, 60)
        again = there.visitor()
        answer = await again.come(None, replaces=visitor.id)
        assert not answer.kind, answer.message
        assert (again.id, again.begun["epoch"], again.begun["wish"]) == (visitor.id, 2, DIALS)
        await again.see(1)
        assert is_red(again.pictures[0])
        await until(lambda: frame_of(again) > 60)
        numbers = [each["frame"] for each in again.told if each["type"] == "panel" and each["frame"] is not None]
        assert numbers[0] > 30
        assert told_last(again)["playout_ms"] == 160
        await until(lambda: visitor.told[-1] == {"type": "ended", "reason": "You went on in another place."})
        assert not here.lobby.peers

    play_on_two(act)


def test_what_a_visitor_chooses_anew_counts_more_than_what_was_kept() -> None:
    async def act(here: Scene, there: Scene, vault: NearVault) -> None:
        visitor = await here.seated(DIALS)
        await kept(vault, visitor, 60)
        again = there.visitor()
        assert not (await again.come(WISH, replaces=visitor.id)).kind
        assert again.begun["wish"] == WISH
        await until(lambda: 0 <= frame_of(again) < 60)  # another number of listeners begins anew

    play_on_two(act)


def test_where_the_vault_was_lost_a_session_begins_anew_under_another_name() -> None:
    async def act(here: Scene, there: Scene, vault: NearVault) -> None:
        visitor = await here.seated()
        await kept(vault, visitor, 60)
        await visitor.leave()
        await until(lambda: not here.lobby.peers)
        vault.vault = Vault()
        again = there.visitor()
        assert not (await again.come(replaces=visitor.id)).kind
        assert again.id != visitor.id
        assert again.begun["epoch"] == 1
        await until(lambda: 0 <= frame_of(again) < 60)

    play_on_two(act)


def test_on_another_bundle_the_motion_begins_anew_and_the_dials_stay(caplog: pytest.LogCaptureFixture) -> None:
    async def act(here: Scene, there: Scene, vault: NearVault) -> None:
        visitor = await here.seated(DIALS)
        assert not (await visitor.ask("portrait", number=1)).kind
        await kept(vault, visitor, 60)
        again = there.visitor()
        assert not (await again.come(None, replaces=visitor.id)).kind
        assert again.begun["wish"] == DIALS
        await again.see(1)
        await until(lambda: 0 <= frame_of(again) < 60)

    play_on_two(act, fake_listener())


def test_who_has_left_for_good_is_forgotten() -> None:
    async def act(here: Scene, there: Scene, vault: NearVault) -> None:
        visitor = await here.seated()
        await kept(vault, visitor, 10)
        assert not (await visitor.ask("leave")).kind
        await until(lambda: len(vault.vault) == 0)

    play_on_two(act)


def test_who_finds_no_place_elsewhere_keeps_the_one_there_is() -> None:
    async def act(here: Scene, there: Scene, vault: NearVault) -> None:
        visitor = await here.seated()
        await there.seated()
        await kept(vault, visitor, 10)
        refused = await there.visitor().come(replaces=visitor.id)
        assert (refused.kind, refused.message) == ("full", "The only place is taken.")
        before = len(visitor.pictures)
        await visitor.see(before + 30)
        assert list(here.lobby.peers) == [visitor.id]

    play_on_two(act, max_sessions=1)


def test_a_portrait_is_kept_once_and_snapshots_again_and_again() -> None:
    async def act(here: Scene, there: Scene, vault: NearVault) -> None:
        visitor = await here.seated()
        await visitor.ask("own_portrait", packed(Image.new("RGB", (300, 300), RED), "PNG"))
        await kept(vault, visitor, 60)
        assert sum("portrait" in parts for parts in vault.kept) == 1
        assert sum("snapshot" in parts for parts in vault.kept) > 3

    play_on_two(act)
