"""One visitor: a WebRTC connection, and the live session that it feeds and shows."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcdatachannel import RTCDataChannel
from aiortc.rtcrtpparameters import RTCRtpCodecCapability
from msgspec import Meta

from pflx.engines import PflxError
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
from pflx.runtime.serve.feed import PeerFeed
from pflx.runtime.serve.guard import RateLimit
from pflx.runtime.serve.network.ice import ice_servers
from pflx.runtime.serve.network.ports import reachable
from pflx.runtime.serve.offer import OfferError, checked_offer
from pflx.runtime.serve.operation.journal import tell
from pflx.runtime.serve.operation.metrics import ServerMetrics, SessionMeter
from pflx.runtime.serve.panel import Panel
from pflx.runtime.serve.screen import ListenerTrack, TrackSink
from pflx.runtime.serve.settings import ServeSettings
from pflx.runtime.stream.chain import any_seed

log = logging.getLogger(__name__)

PANEL_S = 0.5
"""Between two sets of figures."""

MAX_PLAYOUT_MS = 1000
"""That a visitor may ask for."""

_CHANNEL = "panel"
_NOT_YET = ("new", "connecting")
_MAX_MESSAGE = 64  # characters that a page may send at a time: a ping
_MAX_BUFFERED = 16_384  # bytes of figures that wait for the network; then newer ones are left out
_EVENTS_KEPT = 16  # between two sets of figures

InThread = Callable[..., Any]


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
        settings: of the server.
        listener_of: the listener that a wish names.
        person_of: the person that it names.
        allowed: share of its time that a listener may be busy with all its sessions; None for any.
        in_thread: runs something that takes long beside the event loop.
        metrics: of the server.
        gone: called once, when all is freed.

    Attributes:
        id: names the visitor to the server; nobody else can guess it.
        name: names the visitor in the log, where the id would let readers act for them.
        wish: that the session of the moment fulfils; None before the first.
        session: of the moment.
        panel: of that session.
        screen: what the visitor sees.
    """

    def __init__(
        self,
        settings: ServeSettings,
        *,
        listener_of: Callable[[Wish], Listener],
        person_of: Callable[[Wish], Person | None],
        allowed: Callable[[Listener], float | None],
        in_thread: InThread,
        metrics: ServerMetrics,
        gone: Callable[[Peer], None],
    ) -> None:
        self.id, self.name = secrets.token_urlsafe(18), secrets.token_hex(4)
        self.wish: Wish | None = None
        self.session: LiveSession | None = None
        self._loop = asyncio.get_running_loop()
        self.screen = ListenerTrack(self._loop)
        self.panel = Panel(1)
        self._settings, self._allowed = settings, allowed
        self._listener_of, self._person_of = listener_of, person_of
        self._in_thread, self._metrics, self._gone = in_thread, metrics, gone
        self._meter: SessionMeter | None = None
        servers = [RTCIceServer(**each) for each in ice_servers(settings.ice_servers, settings.turn)]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._feed = PeerFeed()
        self._kinds: set[str] = set()
        self._listener: Listener | None = None
        self._portrait: UInt8Array | None = None
        self._channel: RTCDataChannel | None = None
        self._pings = RateLimit(10, 240)
        self._events: deque[dict[str, Any]] = deque(maxlen=_EVENTS_KEPT)
        self._n_events = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending: asyncio.Task[None] | None = None
        self._begun = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether it has begun to end."""
        return self._ending is not None

    @property
    def absent_s(self) -> float:
        """How long the server has been waiting for the browser to connect; 0 for one that did."""
        return time.monotonic() - self._begun if self._connection.connectionState in _NOT_YET else 0.0

    async def open(self, sdp: str, wish: Wish) -> str:
        """Start a session for an offer, and answer it.

        Args:
            sdp: of a browser that sends a camera and, if it has one, a microphone.
            wish: of the visitor.

        Raises:
            OfferError: no such offer.
            ListenerFullError: there is no time left for the session.
            NoPortError, NoAddressError: there is no port left for it, or no network.
        """
        await self._understand(sdp)
        await self.tune(wish)
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        sdp = self._connection.localDescription.sdp
        if self._settings.turn is not None and " typ relay" not in sdp:
            log.warning(
                "%s lets this server not in: is it up, and is that what it lets in by?", self._settings.turn.urls[0]
            )
        sdp = reachable(sdp, self._settings.udp_ports, self._settings.announce)
        self._spawn(self._watch())
        return sdp

    async def tune(self, wish: Wish) -> None:
        """Go on with other settings: another session on the same connection.

        Raises:
            ListenerFullError: there is no time left for it; it goes on as before, if there is time for that.
        """
        await self._in_thread(self._stop)
        try:
            await self._in_thread(self._start, wish)
        except ListenerFullError:
            if self.wish is not None:
                await self._in_thread(self._start, self.wish)
            raise
        self.wish = wish

    async def show_portrait(self, portrait: UInt8Array) -> None:
        """Show another face from the next frame on.

        Args:
            portrait: uint8 [H, W, 3] RGB.

        Raises:
            PortraitError: the renderer can do nothing with it; the old one stays.
        """
        if self.session is not None:
            await self._in_thread(self.session.set_portrait, portrait)
        self._portrait = portrait

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
        panel = Panel(wish.samples)
        self.session = listener.live(
            source,
            TrackSink(self.screen, wish.samples, self._hand_on),
            LiveSettings(playout_ms=wish.playout_ms, lookahead=wish.lookahead, max_load=self._allowed(listener)),
            samples=wish.samples,
            seed=any_seed(self._settings.seed),
            person=self._person_of(wish),
            record=panel.record,
        )
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

    async def _understand(self, sdp: str) -> None:
        sdp = checked_offer(sdp)
        self._connection.on("track", self._on_track)
        self._connection.on("datachannel", self._on_channel)
        self._connection.on("connectionstatechange", self._on_state)
        shown = self._connection.addTransceiver(self.screen, direction="sendrecv")
        shown.setCodecPreferences(_codecs())
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        except Exception as error:  # whatever a parser makes of a stranger's text
            raise OfferError("The browser's offer cannot be understood. Try a newer browser.") from error
        if not self._kinds:
            raise OfferError("Neither camera nor microphone is offered. Allow the camera, and start again.")

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._kinds.add(track.kind)
        self._spawn(self._feed.pump(track))

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if self._channel is not None or channel.label != _CHANNEL:
            channel.close()
            return
        self._channel = channel
        channel.on("message", self._on_message)

    def _on_message(self, message: str | bytes) -> None:
        if isinstance(message, str) and len(message) <= _MAX_MESSAGE and self._pings.allows(self.id):
            self._feed.heard_of = time.perf_counter_ns()
            self._send({"type": "pong", "ping": message})

    def _on_state(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self._spawn(self.close())

    def _send(self, message: dict[str, Any]) -> None:
        channel = self._channel
        if channel is not None and channel.readyState == "open" and channel.bufferedAmount < _MAX_BUFFERED:
            channel.send(msgspec.json.encode(message).decode())

    def tell(self, events: Sequence[Event]) -> None:
        """Tell the page what the listener begins to do: at once, and with the next figures once more."""
        fresh = [{"id": self._n_events + n, **msgspec.to_builtins(event)} for n, event in enumerate(events, 1)]
        self._n_events += len(fresh)
        self._events.extend(fresh)
        self._send({"type": "events", "events": fresh})

    # Watching

    async def _watch(self) -> None:
        while (reason := self._reason_to_end()) is None:
            self._send(self.report())
            self._events.clear()
            if self._meter is not None:
                self._meter.read()
            await asyncio.sleep(PANEL_S)
        self._spawn(self.close(reason))

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
            "waiting_ms": {queue.name: queue.waiting_ms for queue in stats.queues if queue.name != "viewer"},
            "cost_ms": stats.cost_ms,
            "unfed_ms": (time.perf_counter_ns() - self._feed.fed_at) / NS_PER_MS,
            "unsent": self.screen.dropped,
            "unread": 0 if self._feed.source is None else self._feed.source.dropped,
        }

    async def _end(self, reason: str) -> None:
        if reason:
            self._send({"type": "ended", "reason": reason})
        try:
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

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._look_at)

    def _look_at(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            if not isinstance(error, PflxError):
                log.error("A visitor's task has failed", exc_info=error)
            self._spawn(self.close(str(error) if isinstance(error, PflxError) else "The server has failed."))


def _codecs() -> list[RTCRtpCodecCapability]:
    """Video codecs, in the order of what they cost the server: VP8 takes less than half of H.264."""
    known = RTCRtpSender.getCapabilities("video").codecs
    return sorted(known, key=lambda codec: codec.mimeType != "video/VP8")
