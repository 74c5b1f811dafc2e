"""A server and visitors on real WebRTC connections, and what a test plays with them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
from support.places import MEDIA
from support.serve.serve_client import PORT, PORTRAITS, WISH, Browser, Visitor, serving
from support.serve.serve_listener import SIDE

from pflx.runtime import Listener, Person
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.serve import ServeSettings
from pflx.runtime.serve.keeping import Keeper
from pflx.runtime.serve.lobby import Lobby

PORTRAIT = MEDIA / "portrait_astronaut_256.png"
GREY, RED = (128, 128, 128), (220, 20, 20)


@dataclass
class Scene:
    """A server, and visitors that leave when it closes."""

    browser: Browser
    lobby: Lobby
    visitors: list[Visitor] = field(default_factory=list)

    def visitor(self, **options: Any) -> Visitor:
        self.visitors.append(Visitor(self.browser, **options))
        return self.visitors[-1]

    async def seated(self, wish: dict[str, Any] = WISH, *, pictures: int = 1, **options: Any) -> Visitor:
        """A visitor who is let in and sees something."""
        visitor = self.visitor(**options)
        answer = await visitor.come(wish)
        assert not answer.kind, answer.message
        await visitor.see(pictures)
        return visitor


@asynccontextmanager
async def scene(
    *listeners: Listener,
    portraits: Mapping[str, UInt8Array] = PORTRAITS,
    persons: Sequence[Person] = (),
    keeper: Keeper | None = None,
    **settings: Any,
) -> AsyncIterator[Scene]:
    """A server with these listeners; its visitors leave at the end."""
    given = ServeSettings(**{"port": PORT, "max_load": 10, **settings})
    async with serving(*listeners, settings=given, portraits=portraits, persons=persons, keeper=keeper) as (
        browser,
        lobby,
    ):
        here = Scene(browser, lobby)
        try:
            yield here
        finally:
            for visitor in here.visitors:
                await visitor.leave()


def play(act: Callable[[Scene], Awaitable[None]], *listeners: Listener, **settings: Any) -> None:
    """Act in a scene."""

    async def run() -> None:
        async with scene(*listeners, **settings) as here:
            await act(here)

    asyncio.run(run())


def plain(colour: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A portrait of one colour."""
    return np.full((SIDE, SIDE, 3), colour, np.uint8)


def colour_of(frame: av.VideoFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Mean red, green and blue of a picture."""
    return np.asarray(frame.to_ndarray(format="rgb24").mean(axis=(0, 1)), np.float64)


def is_red(frame: av.VideoFrame) -> bool:
    """Whether a picture is that of the red portrait."""
    red, green, _ = colour_of(frame)
    return bool(red - green > 100)


def threads() -> list[str]:
    """Names of the threads of sessions."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pflx-")]


def told_last(visitor: Visitor) -> dict[str, Any]:
    """What the panel was told last."""
    return [message for message in visitor.told if message["type"] == "panel"][-1]


def told_figures(visitor: Visitor) -> dict[str, Any]:
    """The figures that came last; empty before the first."""
    return (told_last(visitor)["figures"] or {}) if visitor.told else {}
