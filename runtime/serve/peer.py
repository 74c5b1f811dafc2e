"""One visitor: a WebRTC connection, and the live session that it feeds and shows."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcrtpparameters import RTCRtpCodecCapability
from msgspec import Meta

from pflx.engines import Array, PflxError
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.frames.event import Event
from pflx.runtime.frames.timing import NS_PER_MS, NS_PER_S
from pflx.runtime.listener import Listener
from pflx.runtime.live.errors import ListenerFullError
from pflx.runtime.live.push_source import PushSource
from pflx.runtime.live.session import LiveSession
from pflx.runtime.live.settings import LiveSettings
from pflx.runtime.media.mark import SOURCE_TYPE
from pflx.runtime.persons import Person
from pflx.runtime.serve.errors import GoneError
from pflx.runtime.serve.feed import PeerFeed
from pflx.runtime.serve.network.ice import ice_servers
from pflx.runtime.serve.network.narrow import spare_the_line
from pflx.runtime.serve.network.ports import reachable
from pflx.runtime.serve.offer import OfferError, checked_offer
from pflx.runtime.serve.operation.journal import tell
from pflx.runtime.serve.operation.metrics import ServerMetrics, SessionMeter
from pflx.runtime.serve.panel import Panel
from pflx.runtime.serve.screen import ListenerTrack, TrackSink
from pflx.runtime.serve.settings import ServeSettings
from pflx.runtime.stream.chain import any_seed
from pflx.runtime.stream.stream import StreamError

log = logging.getLogger(__name__)

PANEL_S = 0.5
"""Between two sets of figures."""

MAX_PLAYOUT_MS = 1000
"""That a visitor may ask for."""

_NOT_YET = ("new", "connecting")
_EVENTS_KEPT = 16  # between two sets of figures

InThread = Callable[..., Any]
Say = Callable[[Mapping[str, Any]], None]


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a visitor may choose.

    Attributes:
        listener: index of the bundle.
        samples: listeners side by side.
        lookahead: coefficient frames to wait for, 0…13.
        playout_ms: time to work in, on top of what the algorithm costs.
        person: whose weights the listener has: place among those that it takes, from 1 on; 0 is nobody.
    """

    listener: Annotated[int, Meta(ge=0)]
    samples: Annotated[int, Meta(ge=1)]
    lookahead: Annotated[int, Meta(ge=0, le=13)]
    playout_ms: Annotated[float, Meta(ge=0, le=MAX_PLAYOUT_MS)]
    person: Annotated[int, Meta(ge=0)] = 0


class Peer:
    """A visitor, from being let in until everything of theirs is gone.

    Everything but `_start` and `_stop` runs in the event loop.

    Args:
        id: names the session; nobody else can guess it.
        settings: of the server.
        wished: what the visitor begins with.
        listener_of: the listener that a wish names.
        person_of: the person that it names.
        allowed: share of its time that a listener may be busy with all its sessions; None for any.
        in_thread: runs something that takes long beside the event loop.
        metrics: of the server.
        say: sends the page a message.
        gone: called once, when all is freed.
        epoch: how often the session was begun or taken over, from 1 on.

    Attributes:
        id: see above.
        name: names the visitor in the log, where the id would let readers act for them.
        epoch: see above.
        wished: see above.
        wish: that the session of the moment fulfils; None before the first.
        session: of the moment.
        panel: of that session.
        screen: what the visitor sees.
        shown: the portrait of the visitor's choice, as `Kept` has it; None for the first.
    """

    def __init__(
        self,
        id: str,
        settings: ServeSettings,
        wished: Wish,
        *,
        listener_of: Callable[[Wish], Listener],
        person_of: Callable[[Wish], Person | None],
        allowed: Callable[[Listener], float | None],
        in_thread: InThread,
        metrics: ServerMetrics,
        say: Say,
        gone: Callable[[Peer], None],
        epoch: int = 1,
    ) -> None:
        self.id, self.epoch, self.wished = id, epoch, wished
        self.name = secrets.token_hex(4)
        self.wish: Wish | None = None
        self.session: LiveSession | None = None
        self.shown: int | bytes | None = None
        self._loop = asyncio.get_running_loop()
        self.screen = ListenerTrack(self._loop)
        self.panel = Panel(1)
        self._settings, self._allowed = settings, allowed
        self._listener_of, self._person_of = listener_of, person_of
        self._in_thread, self._metrics, self._say, self._gone = in_thread, metrics, say, gone
        self._meter: SessionMeter | None = None
        servers = [RTCIceServer(**each) for each in ice_servers(settings.ice_servers, settings.turn)]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._feed = PeerFeed()
        self._kinds: set[str] = set()
        self._listener: Listener | None = None
        self._portrait: UInt8Array | None = None
        self._snapshot: Mapping[str, Array] | None = None
        self._changing = asyncio.Lock()
        self._events: deque[dict[str, Any]] = deque(maxlen=_EVENTS_KEPT)
        self._n_events = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending: asyncio.Task[None] | None = None
        self._waits_since: float | None = time.monotonic()
        self._begun = time.monotonic()
        self.spawn(self._watch())

    @property
    def is_over(self) -> bool:
        """Whether it has begun to end."""
        return self._ending is not None

    @property
    def absent_s(self) -> float:
        """How long the server has been waiting for the page's offer, or its browser to connect; 0 for one that did."""
        waits = self._waits_since is not None and self._connection.connectionState in _NOT_YET
        return time.monotonic() - (self._waits_since or 0.0) if waits else 0.0

    def go_on_from(self, snapshot: Mapping[str, Array] | None, shown: int | bytes | None, portrait: Any) -> None:
        """Begin where another server's session was; before the first.

        Args:
            snapshot: of that session, of the same bundle; where it does not fit, the motion begins anew.
            shown: what it showed, as `Kept` has it.
            portrait: the same, uint8 [H, W, 3] RGB; None for the first of the server's.
        """
        self._snapshot, self.shown, self._portrait = snapshot, shown, portrait

    async def take_offer(self, sdp: str) -> None:
        """Take what the visitor's browser offers.

        Args:
            sdp: of a browser that sends a camera and, if it has one, a microphone.

        Raises:
            OfferError: no such offer.
        """
        self._waits_since = None  # it is the server's turn
        sdp = checked_offer(sdp)
        self._connection.on("track", self._on_track)
        self._connection.on("connectionstatechange", self._on_state)
        shown = self._connection.addTransceiver(self.screen, direction="sendrecv")
        shown.setCodecPreferences(_codecs())
        spare_the_line(shown.sender)
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        except Exception as error:  # whatever a parser makes of a stranger's text
            raise OfferError("The browser's offer cannot be understood. Try a newer browser.") from error
        if not self._kinds:
            raise OfferError("Neither camera nor microphone is offered. Allow the camera, and start again.")

    async def answer(self) -> str:
        """The answer to the offer, for whom a session runs.

        Raises:
            NoPortError, NoAddressError: there is no port left for it, or no network.
        """
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        sdp = self._connection.localDescription.sdp
        if self._settings.turn is not None and " typ relay" not in sdp:
            log.warning(
                "%s lets this server not in: is it up, and is that what it lets in by?", self._settings.turn.urls[0]
            )
        self._waits_since = time.monotonic()
        return reachable(sdp, self._settings.udp_ports, self._settings.announce)

    async def tune(self, wish: Wish) -> None:
        """Begin, or go on with other settings: another session on the same connection.

        Raises:
            ListenerFullError: there is no time left for it; it goes on as before, if there is time for that.
            GoneError: the visitor has left meanwhile.
        """
        async with self._changing:
            if self.is_over:
                raise GoneError("This session has ended.")
            await self._in_thread(self._stop)
            try:
                await self._in_thread(self._start, wish)
            except ListenerFullError:
                if self.wish is not None:
                    await self._in_thread(self._start, self.wish)
                raise
            self.wish = wish

    async def show_portrait(self, portrait: UInt8Array, shown: int | bytes) -> None:
        """Show another face from the next frame on.

        Args:
            portrait: uint8 [H, W, 3] RGB.
            shown: the same as `Kept` has it.

        Raises:
            PortraitError: the renderer can do nothing with it; the old one stays.
        """
        if self.session is not None:
            await self._in_thread(self.session.set_portrait, portrait)
        self._portrait, self.shown = portrait, shown

    async def snapshot(self, in_thread: InThread) -> tuple[Wish, Mapping[str, Array]] | None:
        """What the session goes on from elsewhere, at the end of the hop that is under way; None where none runs.

        Args:
            in_thread: runs it beside the event loop, for the rest of a hop.
        """
        async with self._changing:
            session, wish = self.session, self.wish
        if session is None or wish is None or not session.is_running:
            return None
        arrays = await in_thread(partial(session.snapshot, at_boundary=True))
        return (wish, arrays) if session is self.session else None  # which another may have followed

    async def close(self, reason: str = "") -> None:
        """Free everything; the visitor is told why. Closing twice is harmless.

        Args:
            reason: a sentence for the visitor; empty where they have ended it themselves.
        """
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end(reason))
        await asyncio.shield(self._ending)

    # Session

    def _start(self, wish: Wish) -> None:
        listener = self._listener_of(wish)
        sees, hears = "video" in self._kinds, "audio" in self._kinds
        source = PushSource(listener.sample_rate_hz, video=sees, audio=hears, name="A visitor")
        panel, snapshot = Panel(wish.samples), self._snapshot
        begin = partial(
            listener.live,
            source,
            TrackSink(self.screen, wish.samples, self._hand_on),
            LiveSettings(playout_ms=wish.playout_ms, lookahead=wish.lookahead, max_load=self._allowed(listener)),
            samples=wish.samples,
            person=self._person_of(wish),
            record=panel.record,
        )
        try:
            session = begin(snapshot=snapshot, seed=any_seed(self._settings.seed) if snapshot is None else None)
        except StreamError as error:
            log.info("A session goes on with a new motion: %s", error)
            session = begin(seed=any_seed(self._settings.seed))
        self.session, self._snapshot = session, None
        self._listener, self.panel = listener, panel
        fresh = partial(panel.fresh_reactions, self.session, listener.generator)
        self._meter = SessionMeter(self._metrics, self.session, fresh)
        if self._portrait is not None:
            self.session.set_portrait(self._portrait)
        self._feed.source = source

    def _hand_on(self, events: Sequence[Event]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.tell, events)

    def _stop(self) -> None:
        self._feed.source = None
        if self.session is not None:
            self.session.close()
        if self._meter is not None:
            self._meter.read()

    # Connection

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._kinds.add(track.kind)
        self.spawn(self._feed.pump(track))

    def heard(self) -> None:
        """Something came of the page."""
        self._feed.heard_of = time.perf_counter_ns()

    def _on_state(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self.spawn(self.close())

    def tell(self, events: Sequence[Event]) -> None:
        """Tell the page what the listener begins to do: at once, and with the next figures once more."""
        fresh = [{"id": self._n_events + n, **msgspec.to_builtins(event)} for n, event in enumerate(events, 1)]
        self._n_events += len(fresh)
        self._events.extend(fresh)
        self._say({"type": "events", "events": fresh})

    # Watching

    async def _watch(self) -> None:
        while (reason := self._reason_to_end()) is None:
            if self.session is not None:
                self._say(self.report())
                self._events.clear()
            if self._meter is not None:
                self._meter.read()
            await asyncio.sleep(PANEL_S)
        self.spawn(self.close(reason))

    def _reason_to_end(self) -> str | None:
        if self._connection.connectionState in _NOT_YET:
            return "The connection was not made in time." if self.absent_s > self._settings.connect_s else None
        if time.perf_counter_ns() - self._feed.heard_of > self._settings.patience_s * NS_PER_S:
            return "Nothing was heard of this page for a while."
        session = self.session
        if session is not None and session.error is not None:
            log.error("%s", session.error)
            return "The listener has failed. The server's log says why."
        return None

    def report(self) -> dict[str, Any]:
        """The latency panel: what the ledgers of the last ten seconds say, and what waits where."""
        session, listener = self.session, self._listener
        if session is None or listener is None:
            return {"type": "panel"}
        stats = session.stats
        return {
            "type": "panel",
            "digital_source_type": SOURCE_TYPE,
            "figures": self.panel.figures(session, listener.generator),
            "events": [*self._events],
            "algorithmic_ms": session.algorithmic_delay_ms,
            "playout_ms": session.settings.playout_ms,
            "missed": stats.missed,
            "emitted": stats.emitted,
            "dropped": stats.dropped,
            "frame": stats.frame,
            "waiting_ms": {queue.name: queue.waiting_ms for queue in stats.queues if queue.name != "viewer"},
            "cost_ms": stats.cost_ms,
            "unfed_ms": (time.perf_counter_ns() - self._feed.fed_at) / NS_PER_MS,
            "unsent": self.screen.dropped,
            "unread": 0 if self._feed.source is None else self._feed.source.dropped,
        }

    async def _end(self, reason: str) -> None:
        self._say({"type": "ended", "reason": reason})
        try:
            async with self._changing:
                await self._in_thread(self._stop)
            await self._connection.close()
        except Exception as error:  # aiortc, of a connection that was never more than half made
            log.info("A connection could not be closed: %s", error)
        self.screen.stop()
        if self.wish is not None and self.session is not None:  # else they were not let in
            stats, seconds = self.session.stats, round(time.monotonic() - self._begun, 1)
            counts = {"seconds": seconds, "frames": stats.emitted, "missed": stats.missed}
            tell("session.ended", self.name, reason=reason or "The visitor has left.", **counts)
        self._gone(self)
        for task in self._tasks:
            task.cancel()

    def spawn(self, work: Any) -> None:
        """Have something done until the visitor leaves, who is told if it fails."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._look_at)

    def _look_at(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            if not isinstance(error, PflxError):
                log.error("A visitor's task has failed", exc_info=error)
            self.spawn(self.close(str(error) if isinstance(error, PflxError) else "The server has failed."))


def _codecs() -> list[RTCRtpCodecCapability]:
    """Video codecs, in the order of what they cost the server: VP8 takes less than half of H.264."""
    known = RTCRtpSender.getCapabilities("video").codecs
    return sorted(known, key=lambda codec: codec.mimeType != "video/VP8")
