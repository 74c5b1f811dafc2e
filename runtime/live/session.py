"""A listener in real time. The threads of pflx, its queues and its deadlines live here and nowhere else.

    source ─ reader(s) ─▶ timeline ─▶ `speaker` ─ worker ─▶ `frames` ─ player ─▶ sink, or `viewer` ─▶ whoever iterates
             wait for      25 fps      slots      Stream     slots      waits for
             each stamp    slots                             by deadline each deadline

What waits where, and for how long, is in `session_queues.py`. One monitor guards all of it; no engine, source or sink
is ever called while it is held.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from pflx.engines import FeedError
from pflx.runtime.frames.ledger import Ledger
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.timing import FRAME_NS, NS_PER_MS
from pflx.runtime.generators.protocol import delay_frames
from pflx.runtime.live.clock import Thread, Turn, join_all
from pflx.runtime.live.commands import Commands, Steered
from pflx.runtime.live.errors import SessionError
from pflx.runtime.live.playout import Deadlines, Playout
from pflx.runtime.live.scheduler import DeadlinePace, Share, warm_up
from pflx.runtime.live.session_queues import FRAME_MS, frame_queue, speaker_queue
from pflx.runtime.live.settings import LiveSettings
from pflx.runtime.live.stats import SessionStats, Tally
from pflx.runtime.live.timeline import Slot, Timeline
from pflx.runtime.live.viewer import Audience, Viewer
from pflx.runtime.media.sinks import Sink, StopWatching
from pflx.runtime.media.sources import Source, Timed
from pflx.runtime.stream.chain import Chain
from pflx.runtime.stream.inbox import Arrival
from pflx.runtime.stream.stream import Stream

log = logging.getLogger(__name__)

_JOIN_NS = 1_000 * NS_PER_MS  # a session stops within it
_PATIENCE = 50  # slots that nothing was shown for, until it is said


class LiveSession(Steered):
    """A listener that reacts to a source in real time, shown frame by frame at its deadlines.

    Every 40 ms of the speaker are one slot. Slot k is shown at the time of its scheduled arrival plus the declared
    delay: what the algorithm costs, plus `playout_ms`. At each deadline exactly one frame per sample goes to the sink:
    the frame that was rendered for it, or else the last picture once more, which the frame says (`degraded`).
    The output begins with the first picture, or without one where the speaker has no camera (`Timeline`).

    An exception in the source, the chain or the sink stops the session: whoever waits, iterates, or leaves the `with`
    block gets a `SessionError` with the cause. Made, and started, by `Listener.live`.

    Attributes:
        settings: what it was told.
        samples: reactions.
        algorithmic_delay_ms: what the algorithm costs.
    """

    def __init__(
        self,
        chain: Chain,
        stream: Stream,
        source: Source,
        sinks: Sequence[Sink],
        turn: Turn,
        settings: LiveSettings,
        samples: int,
        record: Callable[[Ledger], None] | None = None,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        hop = chain.generator.hop
        self.settings, self.samples = settings, samples
        self.algorithmic_delay_ms = delay_frames(chain.generator, chain.lookahead) * FRAME_MS
        self._chain, self._source, self._turn, self._clock = chain, source, turn, turn.clock
        self._monitor = self._clock.monitor()
        # The player waits on the monitor itself; nobody is woken for what another waits for.
        self._pacing, self._feeding, self._ending = (self._monitor.another() for _ in range(3))
        self._timeline = Timeline(
            live=source.live, first=stream.next_frame, sample_rate_hz=chain.speaker.sample_rate_hz
        )
        self._speaker, self._frames = speaker_queue(hop), frame_queue(self.declared_delay_ms, settings)
        self._audience = Audience(self._clock, self._monitor, settings, samples, sinks)
        delay_ns = round((self.declared_delay_ms - FRAME_MS) * NS_PER_MS)
        self._playout = Playout(
            self._frames, samples=samples, delay_ns=delay_ns, floor=settings.floor, stale_ns=settings.stale_ns
        )
        self._deadlines, self._held = Deadlines(), Share()
        self._pace = DeadlinePace(
            self._clock,
            self._deadlines.of,
            samples=samples,
            lookahead=chain.lookahead,
            floor=settings.floor,
            stale_ns=settings.stale_ns,
            waiting=lambda: len(self._speaker) >= hop,
            crowded=crowded,
        )
        self._tally, self._av_offset_ns = Tally(record, _PATIENCE * samples, settings.stale_ms, self._costs), 0
        super().__init__(self._monitor, Commands(self._feeding, turn), stream)
        self._open_tracks, self._stopping = 0, False
        self._busy: set[str] = set()  # names of the threads that still work
        self._failure: SessionError | None = None
        self._threads: list[Thread] = []

    @property
    def declared_delay_ms(self) -> float:
        """How far the shown frame trails the speaker, always: the algorithm's delay and the playout delay."""
        return self.algorithmic_delay_ms + self.settings.playout_ms

    @property
    def error(self) -> SessionError | None:
        """What has stopped it; None while it is well."""
        return self._failure

    @property
    def stats(self) -> SessionStats:
        """What has happened so far, and what waits where."""
        with self._monitor:
            now = self._clock()
            return self._tally.stats(
                repaired=self._stream.repaired,
                reanchored=self._timeline.clock.reanchored,
                queues=[queue.gauge(now) for queue in (self._speaker, self._frames, self._audience.first)],
                av_offset_ns=self._av_offset_ns,
            )

    def _costs(self) -> dict[str, int]:
        return {"generator": self._pace.step_cost, "render": self._pace.render.predicted}

    @property
    def load(self) -> float:
        """Share of the time that it holds one of the listener's places, or has its engines at work: at most 1.

        What it has cost while it was warmed up, and then what it costs; looking at the speaker is part of it where that
        is done in its turn.
        """
        return max(self._pace.share(self._chain.generator.hop), self._held.at(self._clock()))

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return bool(self._busy)

    def start(self, admit: Callable[[float], None] = lambda load: None) -> Self:
        """Warm the engines up and start; `Listener.live` has done it.

        Args:
            admit: gets the `load` that was measured while warming up; may raise, and then the session does not start.
        """
        try:
            with self._turn:
                warm_up(self._chain, self._pace, self.samples)
            admit(self.load)
            tracks = self._source.tracks()
            self._open_tracks = len(tracks)
            self._start_threads(tracks)
        except BaseException as error:
            self._stop()
            self.close()
            self._audience.close_all(error)
            raise
        return self

    def _start_threads(self, tracks: Sequence[Iterator[Timed]]) -> None:
        """Start all threads, or tell those that run to end."""
        work: list[tuple[str, str, Callable[[], None]]]
        work = [("worker", "chain", self._work), ("player", "sink", self._play)]
        work += [(f"sink-{i}", "sink", partial(self._audience.serve, i)) for i in range(self._audience.served)]
        work += [(f"reader-{i}", "source", partial(self._read, i, track)) for i, track in enumerate(tracks)]
        self._busy.update(name for name, _, _ in work)
        for place, (name, stage, act) in enumerate(work):
            try:
                self._threads.append(self._clock.start(partial(self._run, name, stage, act), f"pflx-{name}"))
            except Exception as error:  # no thread is left
                self._busy.difference_update(missing for missing, _, _ in work[place:])
                self._fail("start", error)
                self.check()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the session has ended; True when it has.

        Args:
            timeout_s: at most so long.

        Raises:
            SessionError: it has failed.
        """
        until = None if timeout_s is None else self._clock() + round(timeout_s * 1000 * NS_PER_MS)
        with self._monitor:
            while self._failure is None and any(name.startswith(("player", "sink")) for name in self._busy):
                if until is not None and self._clock() >= until:
                    return False
                self._ending.wait(until)
        self.check()
        return True

    def __iter__(self) -> Iterator[ListenerFrame]:
        """The frames of all samples as they are due; for a session without a sink. Ends with the session.

        Raises:
            SessionError: it has failed.
            StreamError: it has a sink.
        """
        return iter(self._audience.free())

    def __aiter__(self) -> AsyncIterator[ListenerFrame]:
        """As `for`, in an event loop, which goes on meanwhile."""
        return aiter(self._audience.free())

    def frames(self, sample: int | None = 0, *, latest: bool = False) -> Viewer:
        """A reader of its own: the frames as they are due from now on, by `for` or `async for`, beside any sink.

        There may be any number of readers. Each misses what it does not take within `queue_ms`, and no other does.

        Args:
            sample: which of the reactions; None for all.
            latest: keep nothing but the newest frame for it.

        Raises:
            FeedError: there is no such sample.
        """
        if sample is not None and not 0 <= sample < self.samples:
            raise FeedError(f"sample is {sample}; this session has 0 to {self.samples - 1}.")
        return self._audience.join(sample, latest=latest)

    @property
    def sink_errors(self) -> list[SessionError]:
        """Of the sinks that have failed while others went on."""
        return self._audience.errors[:]

    def close(self) -> None:
        """Stop, from any thread, a sink's `show` included; closing twice is harmless. Frames not due are dropped."""
        self._stop()
        if not join_all(self._threads, self._clock, _JOIN_NS):
            log.warning("A thread of the session is still in its source, sink or engine; it ends when that returns.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        if error is None:
            self.check()
        elif self._failure is not None and error is not self._failure:
            log.error("%s", self._failure)

    # Readers

    def _read(self, track: int, items: Iterator[Timed]) -> None:
        for item in items:
            with self._monitor:
                self._advance()
                self._timeline.observe(track, item, self._clock())
                self._pacing.notify()  # a leap in one track changes when the items of others begin
            if not self._take_in(track, item.copied()):
                return
        with self._monitor:
            self._open_tracks -= 1
            if not self._open_tracks:
                self._timeline.end()
            self._advance()

    def _take_in(self, track: int, item: Timed) -> bool:
        """Add an item as soon as it is its time; False when the session stops."""
        with self._monitor:
            while not self._stopping and not self._source.live and self._clock() < self._timeline.due(track, item):
                self._pacing.wait(self._timeline.due(track, item))
            if self._stopping:
                return False
            self._timeline.add(track, item, self._clock())
            self._advance()
            return True

    def _advance(self) -> None:
        """Hand complete slots on. Called with the monitor held."""
        idle, slots = self._playout.next_look() is None, [*self._timeline.ready(self._clock())]
        for slot in slots:
            self._av_offset_ns = slot.av_offset_ns
            self._speaker.put(slot)
            self._tally.drop(self._playout.expect(slot))
        if slots or not self._open_tracks:
            self._feeding.notify()
            if idle:
                self._monitor.notify()

    # Worker

    def _work(self) -> None:
        while (slot := self._next_slot()) is not None:
            self._push(slot)
            self._pull()
        if not self._stopping:
            self._stream.finish()
            self._pull()
        with self._monitor:
            self._playout.finish()

    def _next_slot(self) -> Slot | None:
        """The next input, after commands were obeyed; None at the end, or when the session stops."""
        while True:
            self._obey()
            with self._monitor:
                if self._stopping:
                    return None
                self._advance()
                self._drop_stale()
                if len(self._speaker):
                    return self._speaker.take()
                if not self._open_tracks:
                    return None
                if not self._commands:
                    self._feeding.wait(self._timeline.next_look())

    def _drop_stale(self) -> None:
        """Leave out input of which nothing could be shown in time; the newest segment always gets its try."""
        hop = self._chain.generator.hop
        step = self._pace.step_cost
        oldest = self._clock() + step - self.settings.stale_ns
        behind = step > hop * FRAME_NS  # then only the newest input is of use, for the rest can never be caught up with
        while (slot := self._speaker.peek(hop)) is not None and (behind or self._playout.deadline(slot) < oldest):
            self._speaker.drop()

    def _push(self, slot: Slot) -> None:
        """Feed the stream slot by slot: what is copied early is not copied while a segment waits."""
        self._deadlines.note(slot.number, self._playout.deadline(slot))
        arrival = Arrival(slot.number, slot.time_s, slot.scheduled, slot.read, slot.av_offset_ns)
        self._stream.push(video=slot.picture[None], audio=slot.sound, arrival=arrival)

    def _pull(self) -> None:
        """Do the work that is due, obeying commands in between."""
        work = self._stream.work(self._pace)
        while not self._stopping:
            with self._turn, self._held.during(self._clock):
                made = next(work, None)
            if made is None:
                return
            if isinstance(made, ListenerFrame):
                self._deliver(made)
            else:
                made.wait()  # for the GPU, or for what looks at the speaker, while other sessions have their turn
            self._obey()

    def _deliver(self, frame: ListenerFrame) -> None:
        with self._monitor:
            late = self._clock() - self._deadlines.of(frame.ledger.frame)
            fresh = late <= self.settings.stale_ns
            self._playout.deliver(frame, fresh=fresh)
            if self._playout.is_due(self._clock()):
                self._monitor.notify()
        if not fresh:
            self._tally.warn_once("A frame came %d ms late and is not shown", late / NS_PER_MS)

    def _flush(self) -> None:
        with self._monitor:
            self._speaker.clear()
            self._playout.forget()
            self._monitor.notify()
        self._stream.flush()

    # Player

    def _play(self) -> None:
        try:
            while self._show_next():
                pass
        except BaseException as error:
            self._fail("sink", error)
        self._audience.close(self._failure)

    def _show_next(self) -> bool:
        """Wait for the next deadline and show what there is; False when all is shown, or the session stops."""
        with self._monitor:
            self._advance()  # in the place of a source that stalls and a worker that is busy
            if self._playout.is_short(self._clock()):
                self._monitor.wait(self._clock())  # what is ready at the very moment of its deadline is in time
            shown, gone = self._playout.take(self._clock())
            self._tally.drop(gone)
            if self._stopping:
                return False
            if not shown:
                look = self._playout.next_look()
                if look is None and "worker" not in self._busy:
                    return False
                if self._playout.is_due(self._clock()):
                    look = self._playout.patience()
                looks = [time for time in (look, self._timeline.next_look()) if time is not None]
                self._monitor.wait(min(looks, default=None))
                return True
        for frame in shown:
            if self._stopping:
                break
            self._emit(frame)
        return True

    def _emit(self, frame: ListenerFrame) -> None:
        frame = replace(frame, ledger=replace(frame.ledger, emitted=self._clock()))
        with self._monitor:
            self._tally.emit(frame.ledger)
        self._audience.show(frame)

    @property
    def _is_worked_on(self) -> bool:
        return "worker" in self._busy

    def _now(self) -> int:
        self._advance()
        return self._timeline.next_slot

    def _run(self, name: str, stage: str, work: Callable[[], None]) -> None:
        """The whole of a thread, whose failure is handed to the caller's."""
        try:
            work()
        except BaseException as error:
            self._fail(stage, error)
        with self._monitor:
            self._busy.discard(name)
            self._wake_all()
        if name == "player":
            self._stop()

    def _wake_all(self) -> None:
        for condition in (self._monitor, self._pacing, self._feeding, self._ending):
            condition.notify()

    def _fail(self, stage: str, error: BaseException) -> None:
        """Stop because of an error, of which the first is told, or because nobody watches."""
        with self._monitor:
            if self._failure is None and not isinstance(error, StopWatching):
                self._failure = error if isinstance(error, SessionError) else SessionError(stage, error)
        self._stop()

    def _stop(self) -> None:
        with self._monitor:
            self._stopping = True
            self._audience.end(self._failure)
            self._wake_all()
        try:
            self._source.close()
        except Exception as error:  # the session ends all the same
            log.warning("The source could not be closed: %s", error)

    def check(self) -> None:
        """Raise the `SessionError` that has stopped it, if one has."""
        if self._failure is not None:
            raise self._failure
