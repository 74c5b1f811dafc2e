"""Who is here, who may come in, and which listeners there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pflx.engines import PflxError
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.listener import Listener
from pflx.runtime.live.errors import ListenerFullError
from pflx.runtime.serve.peer import MAX_PLAYOUT_MS, Peer, Wish
from pflx.runtime.serve.settings import ServeError, ServeSettings
from pflx.runtime.serve.uploads import decode_portrait

_THREADS = 4  # for what takes long beside the event loop: starting and ending sessions, decoding portraits

GRACE_S = 4.0
"""For who was let in to connect, before their place may be given to somebody else."""

Result = TypeVar("Result")


class SeatsTakenError(PflxError, RuntimeError):
    """There are as many visitors as may be."""

    def __init__(self, seats: int) -> None:
        super().__init__(f"All {seats} places are taken." if seats > 1 else "The only place is taken.")


class GoneError(PflxError, LookupError):
    """There is no such visitor, or no longer."""


class WishError(PflxError, ValueError):
    """A visitor wishes for what this server does not offer."""


class Lobby:
    """The listeners of a server, and its visitors.

    Args:
        listeners: by the name that the page shows, in its order.
        portrait: that they show at first, uint8 [H, W, 3] RGB.
        settings: of the server.

    Attributes:
        portrait: see above.
        peers: by id.

    Raises:
        ServeError: there is no listener.
    """

    def __init__(self, listeners: Mapping[str, Listener], portrait: UInt8Array, settings: ServeSettings) -> None:
        if not listeners:
            raise ServeError("There is no bundle to serve. Name one: pflx serve me.pflx --portrait me.png")
        self.portrait, self.settings = portrait, settings
        self.peers: dict[str, Peer] = {}
        self._names, self._listeners = list(listeners), list(listeners.values())
        self._pool = ThreadPoolExecutor(_THREADS, "serve")
        self._admission, self._decoding = asyncio.Lock(), asyncio.Lock()

    def describe(self) -> dict[str, Any]:
        """What a page offers to choose from."""
        settings = self.settings
        return {
            "listeners": [_described(*each) for each in zip(self._names, self._listeners, strict=True)],
            "limits": {"samples": settings.max_samples, "playout_ms": MAX_PLAYOUT_MS},
            "wish": {"listener": 0, "samples": 1, "lookahead": settings.lookahead, "playout_ms": settings.playout_ms},
            "ice_servers": [{"urls": url} for url in settings.ice_servers],
        }

    async def admit(self, sdp: str, wish: Wish) -> tuple[Peer, str]:
        """Let a visitor in, and answer their browser's offer.

        Raises:
            SeatsTakenError, ListenerFullError: no place, or no time, is left.
            OfferError, WishError: they ask for what cannot be had.
        """
        self._check(wish)
        async with self._admission:  # one after the other, for each is measured against those who are here
            try:
                return await self._seat(sdp, wish)
            except (SeatsTakenError, ListenerFullError):
                if not await self._dismiss_absent():
                    raise
                return await self._seat(sdp, wish)

    async def tune(self, peer: Peer, wish: Wish) -> None:
        """Let a visitor go on with other settings; who cannot must leave.

        Raises:
            ListenerFullError: no time is left for it.
            WishError: they ask for what cannot be had.
        """
        self._check(wish)
        async with self._admission:
            try:
                await peer.tune(wish)
            except BaseException:
                await peer.close("There is no time left for these settings.")
                raise

    async def decode(self, data: bytes) -> UInt8Array:
        """A portrait that was sent; see `decode_portrait`. One at a time, for a large one takes 100 MB meanwhile."""
        async with self._decoding:
            return await self.in_thread(decode_portrait, data)

    def peer(self, id: str) -> Peer:
        """A visitor who is here.

        Raises:
            GoneError: there is none of this id.
        """
        peer = self.peers.get(id)
        if peer is None or peer.is_over:
            raise GoneError("This session has ended.")
        return peer

    async def in_thread(self, act: Callable[..., Result], *arguments: Any) -> Result:
        """Run something that takes long beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, act, *arguments)

    async def close(self) -> None:
        """End all sessions. The listeners stay open: they are the caller's."""
        await asyncio.gather(*(peer.close("The server stops.") for peer in [*self.peers.values()]))
        self._pool.shutdown(wait=False)

    async def _seat(self, sdp: str, wish: Wish) -> tuple[Peer, str]:
        if len(self.peers) >= self.settings.max_sessions:
            raise SeatsTakenError(self.settings.max_sessions)
        peer = Peer(
            self.settings,
            listener_of=lambda wish: self._listeners[wish.listener],
            allowed=self._allowed,
            in_thread=self.in_thread,
            gone=self._forget,
        )
        self.peers[peer.id] = peer
        try:
            return peer, await peer.open(sdp, wish)
        except BaseException:
            await peer.close()
            raise

    async def _dismiss_absent(self) -> bool:
        """Take their places from those who were let in and have not come; whether there were any."""
        absent = [peer for peer in self.peers.values() if peer.absent_s > GRACE_S]
        await asyncio.gather(*(peer.close("Others came first. Start again.") for peer in absent))
        return bool(absent)

    def _check(self, wish: Wish) -> None:
        if wish.listener >= len(self._listeners):
            raise WishError("There is no such listener.")
        if wish.samples > self.settings.max_samples:
            raise WishError(f"At most {self.settings.max_samples} listeners are shown side by side.")

    def _allowed(self, listener: Listener) -> float:
        """What is left to a listener of the time that all of them may take: they share the machine."""
        return self.settings.max_load - sum(other.load for other in self._listeners if other is not listener)

    def _forget(self, peer: Peer) -> None:
        self.peers.pop(peer.id, None)


def _described(name: str, listener: Listener) -> dict[str, Any]:
    manifest = listener.manifest
    return {
        "name": name,
        "generator": manifest.generator.name,
        "renderer": manifest.renderer.name,
        "size": manifest.renderer.size,
        "untrained": manifest.untrained is not None,
        "lookahead": listener.chain.renderer.radius,
    }
