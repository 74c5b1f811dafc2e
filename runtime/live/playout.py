"""What a live session shows, and when: every slot of the speaker has one deadline and one emission."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pflx.runtime.frames.event import Event
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.timing import FRAME_NS
from pflx.runtime.live.queues import MediaQueue
from pflx.runtime.live.timeline import Slot

_REMEMBERED = 256  # deadlines: those of the slots that a frame may still be made for, and more


@dataclass
class Due:
    """A slot that waits for its deadline.

    Attributes:
        slot: number.
        time_s: on the speaker's media clock.
        scheduled: arrival of the slot's input, in ns.
        deadline: when it is shown, in ns.
        frames: rendered so far, by sample.
        hopeless: whether nothing more will be rendered for it.
    """

    slot: int
    time_s: float
    scheduled: int
    deadline: int
    frames: dict[int, ListenerFrame] = field(default_factory=dict)
    hopeless: bool = False


class Playout:
    """Frames in the order of their deadlines, holding the last picture where there is none in time.

    The session's monitor guards it.

    Args:
        queue: of the slots that wait.
        samples: reactions.
        delay_ns: from a slot's scheduled arrival to its deadline.
        floor: with HOLD a slot is shown at its deadline, whatever there is; above it, as soon as it is rendered.
        stale_ns: how long after its deadline it is given up all the same.
    """

    def __init__(self, queue: MediaQueue[Due], *, samples: int, delay_ns: int, floor: Rung, stale_ns: int) -> None:
        self._queue = queue
        self._samples, self._delay_ns, self._floor, self._stale_ns = samples, delay_ns, floor, stale_ns
        self._shown: dict[int, ListenerFrame] = {}
        self._late: dict[int, ListenerFrame] = {}  # too late for their slot, but newer than what is shown
        self._untold: dict[int, tuple[Event, ...]] = {}  # by sample
        self._over = False

    def expect(self, slot: Slot) -> list[Ledger]:
        """Plan a slot; the ledgers of older ones that had to go for it."""
        due = Due(slot.number, slot.time_s, slot.scheduled, self.deadline(slot))
        return [ledger for gone in self._queue.put(due) for ledger in self._dropped(gone)]

    def deadline(self, slot: Slot) -> int:
        """When a slot is shown, in ns."""
        return slot.scheduled + self._delay_ns

    def deliver(self, frame: ListenerFrame, *, fresh: bool = True) -> None:
        """Take a rendered frame in, unless it is not fresh. Frames come in order: slots before it get no more."""
        self._untold[frame.sample] = self._untold.get(frame.sample, ()) + frame.events
        for due in self._queue:
            if due.slot > frame.ledger.frame:
                break
            if due.slot == frame.ledger.frame and fresh:
                due.frames[frame.sample] = frame
                return
            due.hopeless = True
        if fresh:
            self._late[frame.sample] = frame

    def forget(self) -> None:
        """Drop what is rendered and not shown yet; no more will be rendered for the slots that wait."""
        for due in self._queue:
            due.frames.clear()
            due.hopeless = True
        self._late.clear()
        self._untold.clear()

    def finish(self) -> None:
        """No more frames will come."""
        self._over = True

    def next_look(self) -> int | None:
        """When the oldest slot has to be decided on, in ns; None while there is none."""
        due = self._queue.peek()
        return None if due is None else due.deadline

    def patience(self) -> int | None:
        """Until when the oldest slot, already late, is waited for; None while there is none."""
        due = self._queue.peek()
        return None if due is None else due.deadline + self._stale_ns

    def is_due(self, now: int) -> bool:
        """Whether the oldest slot is due."""
        look = self.next_look()
        return look is not None and look <= now

    def is_short(self, now: int) -> bool:
        """Whether the oldest slot is due and not all of it is rendered."""
        due = self._queue.peek()
        return due is not None and due.deadline <= now and len(due.frames) < self._samples

    def take(self, now: int) -> tuple[list[ListenerFrame], list[Ledger]]:
        """What is to be shown now, one frame per sample, and the ledgers of what is not shown any more."""
        gone: list[Ledger] = []
        while (due := self._queue.peek()) is not None and now >= due.deadline:
            if self._is_overtaken(now):
                passed = self._queue.drop()
                gone += self._dropped(passed)
                self._late |= passed.frames
            elif self._waits(due, now):
                break
            else:
                shown = self._show(self._queue.take())
                gone += self._dropped(due, missing=self._missing(shown))
                if shown:
                    return shown, gone
        return [], gone

    def _is_overtaken(self, now: int) -> bool:
        """Whether the next slot is due as well, and can be shown in place of the oldest."""
        following = self._queue.peek(1)
        if following is None or now < following.deadline:
            return False
        return self._floor is Rung.HOLD or len(following.frames) == self._samples

    def _waits(self, due: Due, now: int) -> bool:
        unfinished = len(due.frames) < self._samples and not due.hopeless and not self._over
        return unfinished and self._floor is not Rung.HOLD and now < due.deadline + self._stale_ns

    def _show(self, due: Due) -> list[ListenerFrame]:
        frames = []
        for sample in range(self._samples):
            late = self._late.pop(sample, None)
            frame = due.frames.get(sample) or self._held(due, sample, late)
            if frame is not None:
                ledger = replace(frame.ledger, deadline=due.deadline)
                frame = replace(frame, ledger=ledger, events=self._told(sample, due.slot))
                self._shown[sample] = frame
                frames.append(frame)
        return frames

    def _told(self, sample: int, slot: int) -> tuple[Event, ...]:
        """What has begun by a slot, of frames that were shown or not; each is told once."""
        untold = self._untold.pop(sample, ())
        self._untold[sample] = tuple(event for event in untold if event.frame > slot)
        return tuple(event for event in untold if event.frame <= slot)

    def _held(self, due: Due, sample: int, late: ListenerFrame | None) -> ListenerFrame | None:
        """A picture that came too late for its own slot, or the last one once more; None before the first."""
        if late is not None:  # shown for the first time: what it took to make it is told with it
            ledger = replace(late.ledger, frame=due.slot, rung=Rung.HOLD, time_s=due.time_s)
            return replace(late, time_s=due.time_s, ledger=ledger)
        last = self._shown.get(sample)
        if last is None:
            return None
        ledger = replace(_bare(due, sample), picture=last.ledger.picture, newest=last.ledger.newest)
        return replace(last, time_s=due.time_s, ledger=ledger)

    def _missing(self, shown: Iterable[ListenerFrame]) -> list[int]:
        there = {frame.sample for frame in shown}
        return [sample for sample in range(self._samples) if sample not in there]

    def _dropped(self, due: Due, missing: Iterable[int] | None = None) -> list[Ledger]:
        """Ledgers of what is never shown."""
        ledgers = []
        for sample in range(self._samples) if missing is None else missing:
            frame = due.frames.get(sample)
            ledgers.append(replace(_bare(due, sample) if frame is None else frame.ledger, deadline=due.deadline))
        return ledgers


def _bare(due: Due, sample: int) -> Ledger:
    """The ledger of a slot that nothing was made for."""
    return Ledger(frame=due.slot, sample=sample, segment=None, picture=None, rung=Rung.HOLD, time_s=due.time_s)


class Deadlines:
    """When the frames are due whose slots were fed last."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def note(self, number: int, deadline: int) -> None:
        """A slot is fed."""
        self._known[number] = deadline
        if len(self._known) > _REMEMBERED:
            del self._known[min(self._known)]

    def of(self, number: int) -> int:
        """The deadline of a frame in ns; a segment may begin ahead of the speaker."""
        newest = next(reversed(self._known))
        return self._known[newest] + (number - newest) * FRAME_NS if number > newest else self._known[number]
