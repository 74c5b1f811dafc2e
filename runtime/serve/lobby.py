"""Who is here, who may come in, and which listeners there are."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import msgspec

from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.frames.timing import FPS
from pflx.runtime.listener import Listener
from pflx.runtime.live.errors import ListenerFullError
from pflx.runtime.persons import Person, PersonError
from pflx.runtime.rendering.picture_file import PortraitError
from pflx.runtime.rendering.renderers import shown_portrait
from pflx.runtime.serve.errors import BusyError, GoneError, SeatsTakenError, ServeError, WishError
from pflx.runtime.serve.keeping import KEEP_S, Claim, Keeper, Kept, identity
from pflx.runtime.serve.operation.draining import ClosingError
from pflx.runtime.serve.operation.journal import tell
from pflx.runtime.serve.operation.metrics import Room, ServerMetrics
from pflx.runtime.serve.operation.readiness import Readiness
from pflx.runtime.serve.peer import MAX_PLAYOUT_MS, Peer, Say, Wish
from pflx.runtime.serve.refusals import reason_of
from pflx.runtime.serve.settings import ServeSettings
from pflx.runtime.serve.uploads import decode_portrait, encode_portrait
from pflx.runtime.speaker.landmarks import FaceMesh

_THREADS = 4  # for what takes long beside the event loop: starting and ending sessions, decoding portraits

GRACE_S = 6.0
"""For who was let in to make an offer, and then to connect, before their place may be given to somebody else."""

_OF_MOTION = ("listener", "samples", "lookahead", "person")
"""Of a wish, what a motion is not gone on with when it changes."""

Result = TypeVar("Result")


class Lobby:
    """The listeners of a server, and its visitors.

    Args:
        listeners: by the name that the page shows, in its order.
        portraits: to choose from, by the name that the page shows, uint8 [H, W, 3] RGB. The first is the one that the
            listeners were opened with.
        settings: of the server.
        persons: whose weights listeners may have, each of those that it was made for.
        keeper: keeps what sessions go on from on another server; None where there is no other.

    Attributes:
        settings: see above.
        peers: by id.
        metrics: of the server.
        readiness: whether visitors may be sent here.

    Raises:
        ServeError: there is no listener, or no portrait.
        PersonError: no listener takes a person.
        PortraitError: a listener can do nothing with a portrait.
    """

    def __init__(
        self,
        listeners: Mapping[str, Listener],
        portraits: Mapping[str, UInt8Array],
        settings: ServeSettings,
        persons: Sequence[Person] = (),
        keeper: Keeper | None = None,
    ) -> None:
        if not listeners or not portraits:
            raise ServeError("There is no bundle or no portrait to serve: pflx serve me.pflx --portrait me.png")
        self.settings = settings
        self.peers: dict[str, Peer] = {}
        self.metrics = ServerMetrics(self._room, settings.replica)
        self._names, self._listeners = list(listeners), list(listeners.values())
        self._persons = _taken_by(self._listeners, persons)
        self._portrait_names, self._portraits = list(portraits), list(portraits.values())
        self._mesh = FaceMesh()  # the listeners' own are in use by their sessions
        self._stills = [[self._first_cut(*each, n) for each in portraits.items()] for n in range(len(self._listeners))]
        self._pool = ThreadPoolExecutor(_THREADS, "serve")
        self._keeper, self._identities = keeper, [identity(listener.manifest) for listener in self._listeners]
        self._keeping = ThreadPoolExecutor(settings.max_sessions, "keep")  # each waits for the end of a hop
        self._admission, self._decoding = asyncio.Lock(), asyncio.Lock()
        self.readiness = Readiness(self._listeners, self._admission, self.in_thread)

    def describe(self) -> dict[str, Any]:
        """What a page offers to choose from."""
        settings = self.settings
        return {
            "listeners": [_described(*each) for each in zip(self._names, self._listeners, self._persons, strict=True)],
            "portraits": self._portrait_names,
            "limits": {"samples": settings.max_samples, "playout_ms": MAX_PLAYOUT_MS},
            "wish": {
                "listener": 0,
                "samples": 1,
                "lookahead": settings.lookahead,
                "playout_ms": settings.playout_ms,
                "person": 0,
            },
        }

    async def admit(self, wish: Wish | None, replaces: str | None, say: Say) -> Peer:
        """Give a visitor a place, which is theirs while their browser makes its offer.

        Args:
            wish: what they choose; None is what they had before, or what a page begins with.
            replaces: id of a session of theirs that they go on with: its place is theirs, on this server or another. Of
                one that is not known, nothing comes.
            say: sends their page a message.

        Raises:
            SeatsTakenError, BusyError, ClosingError: no place, no time, or not enough of it, is left.
            WishError: they ask for what cannot be had.
        """
        with self._refusals_counted():
            if self.readiness.is_draining:
                raise ClosingError
            if wish is not None:
                self._check(wish)
            async with self._admission:  # one after the other, for each is measured against those who are here
                if replaces is not None and (old := self.peers.get(replaces)) is not None:
                    await old.close("You went on in another place.")
                if len(self.peers) >= self.settings.max_sessions and not await self._dismiss_absent():
                    raise SeatsTakenError(self.settings.max_sessions)
                return await self._seat(wish, replaces, say)

    async def connect(self, peer: Peer, sdp: str) -> str:
        """Answer the offer of a visitor who has a place.

        Args:
            peer: the visitor.
            sdp: of their browser.

        Raises:
            BusyError: no time is left.
            NoPortError, NoAddressError: their browser could not reach the server.
            OfferError: they offer what cannot be taken.
            GoneError: they have left meanwhile, or have connected already.
        """
        if peer.session is not None or peer.is_over:
            raise GoneError("This session has begun already, or ended.")
        with self._refusals_counted():
            try:
                await peer.take_offer(sdp)
                async with self._admission:
                    with _told_as_busy():
                        await self._begin(peer)
                answer = await peer.answer()
            except BaseException:
                await peer.close()
                raise
        self.metrics.joined()
        tell("session.joined", peer.name, epoch=peer.epoch, **msgspec.to_builtins(peer.wished))
        if self._keeper is not None:
            peer.spawn(self._keep(self._keeper, peer))
        return answer

    async def tune(self, peer: Peer, wish: Wish) -> None:
        """Let a visitor go on with other settings; who cannot goes on as before, or must leave.

        Raises:
            BusyError: no time is left for it.
            WishError: they ask for what cannot be had.
        """
        self._check(wish)
        async with self._admission:
            try:
                with _told_as_busy():
                    await peer.tune(wish)
                tell("session.tuned", peer.name, **msgspec.to_builtins(wish))
            except BaseException:
                if peer.session is None or not peer.session.is_running:
                    await peer.close("There is no time left for these settings.")
                raise

    async def show_portrait(self, peer: Peer, number: int) -> None:
        """Show a visitor one of the portraits.

        Raises:
            WishError: there is none of this number.
        """
        await peer.show_portrait(self.portrait(number), number)

    async def show_own_portrait(self, peer: Peer, data: bytes) -> None:
        """Show a visitor a picture of their own.

        Raises:
            PortraitError: nothing can be done with it; the old one stays.
        """
        picture = await self.decode(data)
        file = b"" if self._keeper is None else await self.in_thread(encode_portrait, picture)
        await peer.show_portrait(picture, file)

    async def leave(self, peer: Peer) -> None:
        """Free everything of a visitor who has ended it; nobody goes on with it."""
        await peer.close()
        if self._keeper is not None:
            await self._keeper.forget(peer.id, peer.epoch)

    def portrait(self, number: int) -> UInt8Array:
        """One of the portraits, uint8 [H, W, 3] RGB.

        Raises:
            WishError: there is none of this number.
        """
        if not 0 <= number < len(self._portraits):
            raise WishError("There is no such portrait.")
        return self._portraits[number]

    def still(self, listener: int, portrait: int) -> bytes:
        """A portrait as a listener shows it at rest, as PNG.

        Raises:
            WishError: there is no such listener or portrait.
        """
        self._check_listener(listener)
        self.portrait(portrait)
        return self._stills[listener][portrait]

    async def cut(self, picture: UInt8Array, listener: int) -> bytes:
        """Likewise, a picture of a visitor's.

        Args:
            picture: uint8 [H, W, 3] RGB.
            listener: its number.

        Raises:
            WishError: there is no such listener.
            PortraitError: it can do nothing with the picture.
        """
        self._check_listener(listener)
        async with self._decoding:
            return await self.in_thread(self._cut, picture, listener)

    async def decode(self, data: bytes) -> UInt8Array:
        """A portrait that was sent; see `decode_portrait`. One at a time, for a large one takes 100 MB meanwhile."""
        async with self._decoding:
            return await self.in_thread(decode_portrait, data)

    async def in_thread(self, act: Callable[..., Result], *arguments: Any) -> Result:
        """Run something that takes long beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, act, *arguments)

    async def drain(self) -> None:
        """Let nobody new in, and wait until all have left, or for as long as they may stay."""
        await self.readiness.drain(self.peers, self.settings.drain_s)

    async def close(self) -> None:
        """End all sessions. The listeners stay open: they are the caller's."""
        await self.readiness.close()
        await asyncio.gather(*(peer.close("The server stops.") for peer in [*self.peers.values()]))
        self._pool.shutdown(wait=False)
        self._keeping.shutdown(wait=False)

    @contextmanager
    def _refusals_counted(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            reason = reason_of(error)
            self.metrics.refused(reason)
            tell("session.refused", reason=reason)
            raise

    async def _seat(self, wish: Wish | None, replaces: str | None, say: Say) -> Peer:
        claim = Claim(1, None)
        if self._keeper is not None and replaces is not None:
            claim = await self._keeper.claim(replaces)
        known = replaces is not None and claim.kept is not None
        kept = claim.kept or Kept()
        peer = Peer(
            replaces if known and replaces is not None else secrets.token_urlsafe(18),
            self.settings,
            wish or self._wish_of(kept),
            listener_of=lambda wish: self._listeners[wish.listener],
            person_of=lambda wish: self._persons[wish.listener][wish.person - 1] if wish.person else None,
            allowed=lambda listener: self._allowed(peer, listener),
            in_thread=self.in_thread,
            metrics=self.metrics,
            say=say,
            gone=self._forget,
            epoch=claim.epoch if known else 1,
        )
        self.peers[peer.id] = peer
        if known:
            await self._take_up(peer, kept)
        return peer

    def _wish_of(self, kept: Kept) -> Wish:
        """What a visitor had before, as far as this server offers it; else what a page begins with."""
        with suppress(msgspec.ValidationError, WishError):
            wish = msgspec.convert(kept.wish, Wish)
            self._check(wish)
            return wish
        return msgspec.convert(self.describe()["wish"], Wish)

    async def _take_up(self, peer: Peer, kept: Kept) -> None:
        """Let a visitor go on where they were, as far as it is the same listener."""
        shown = kept.portrait
        picture: UInt8Array | None = None
        if isinstance(shown, bytes):
            picture = await self.decode(shown)
        elif shown is not None and shown < len(self._portraits):
            picture = self._portraits[shown]
        fits = (
            kept.bundle == self._identities[peer.wished.listener]
            and kept.wish is not None
            and all(kept.wish.get(name) == getattr(peer.wished, name) for name in _OF_MOTION)
        )
        peer.go_on_from(kept.snapshot if fits else None, shown if picture is not None else None, picture)

    async def _begin(self, peer: Peer) -> None:
        try:
            await peer.tune(peer.wished)
        except ListenerFullError:
            if not await self._dismiss_absent(peer):
                raise
            await peer.tune(peer.wished)

    async def _keep(self, keeper: Keeper, peer: Peer) -> None:
        """Have kept what a visitor's session goes on from, as long as it is here and nowhere else."""
        told: int | bytes | None = None
        while not peer.is_over:
            begun, shown = asyncio.get_running_loop().time(), peer.shown
            taken = await peer.snapshot(self._at_boundary)
            if taken is not None:
                wish, arrays = taken
                parts: dict[str, Any] = {
                    "wish": msgspec.to_builtins(wish),
                    "bundle": self._identities[wish.listener],
                    "snapshot": arrays,
                }
                if shown is not told:  # which may be large
                    parts["portrait"] = shown
                if not await keeper.keep(peer.id, peer.epoch, parts):
                    await peer.close("You went on in another place.")
                told = shown
            await asyncio.sleep(max(0.0, begun + KEEP_S - asyncio.get_running_loop().time()))

    async def _at_boundary(self, act: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._keeping, act)

    async def _dismiss_absent(self, but: Peer | None = None) -> bool:
        """Take their places from those who were let in and have not come; whether there were any."""
        absent = [peer for peer in self.peers.values() if peer.absent_s > GRACE_S and peer is not but]
        await asyncio.gather(*(peer.close("Others came first. Start again.") for peer in absent))
        return bool(absent)

    def _cut(self, picture: UInt8Array, listener: int) -> bytes:
        return encode_portrait(shown_portrait(self._listeners[listener].manifest.renderer, picture, self._mesh))

    def _first_cut(self, name: str, picture: UInt8Array, listener: int) -> bytes:
        try:
            return self._cut(picture, listener)
        except PortraitError as error:
            raise PortraitError(f"{name}, for {self._names[listener]}: {error}") from error

    def _check_listener(self, number: int) -> None:
        if not 0 <= number < len(self._listeners):
            raise WishError("There is no such listener.")

    def _check(self, wish: Wish) -> None:
        self._check_listener(wish.listener)
        if wish.samples > self.settings.max_samples:
            raise WishError(f"At most {self.settings.max_samples} listeners are shown side by side.")
        if wish.person > len(self._persons[wish.listener]):
            raise WishError("There is no such person.")

    def _allowed(self, peer: Peer, listener: Listener) -> float | None:
        """What is left to a listener, for a visitor, of the time that all of them may take: they share the machine.

        None for who is alone: too slow for others is a listener at half the rate, not nobody.
        """
        if all(other is peer or other.session is None for other in self.peers.values()):
            return None
        return self.settings.max_load - sum(other.load for other in self._listeners if other is not listener)

    def _room(self) -> Room:
        wishes = [peer.wish for peer in self.peers.values() if peer.wish is not None]
        return Room(
            sessions=len(self.peers),
            most_sessions=self.settings.max_sessions,
            load=sum(listener.load for listener in self._listeners),
            most_load=self.settings.max_load,
            frames_per_s=sum(wish.samples for wish in wishes) * FPS,
        )

    def _forget(self, peer: Peer) -> None:
        if self.peers.get(peer.id) is peer:
            del self.peers[peer.id]


def _taken_by(listeners: Sequence[Listener], persons: Sequence[Person]) -> list[list[Person]]:
    """For each listener the persons that it takes.

    Raises:
        PersonError: none takes one of them.
    """
    taken: list[list[Person]] = [[] for _ in listeners]
    for person in persons:
        refusals = []
        for listener, its in zip(listeners, taken, strict=True):
            try:
                listener.persons.check(person)
            except PersonError as error:
                refusals.append(error)
            else:
                its.append(person)
        if len(refusals) == len(listeners):
            raise refusals[0]
    return taken


@contextmanager
def _told_as_busy() -> Iterator[None]:
    try:
        yield
    except ListenerFullError as error:
        raise BusyError(error) from error


def _described(name: str, listener: Listener, persons: Sequence[Person]) -> dict[str, Any]:
    manifest = listener.manifest
    return {
        "name": name,
        "generator": manifest.generator.name,
        "renderer": manifest.renderer.name,
        "size": manifest.renderer.size,
        "untrained": manifest.untrained is not None,
        "lookahead": listener.chain.renderer.radius,
        "persons": [person.name for person in persons],
    }
