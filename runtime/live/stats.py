"""What a live session counts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.timing import NS_PER_MS
from pflx.runtime.live.errors import SessionError
from pflx.runtime.live.queues import QueueGauge

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionStats:
    """A session at one moment; all counts are of frames, one for each sample.

    Attributes:
        emitted: handed to the sink.
        missed: not shown in full at their deadline.
        dropped: never shown.
        held: for which an earlier picture, or one that came late, was shown.
        rungs: frames emitted by the name of their rung.
        frame: number of the last one that was emitted; None before the first. It goes on where a snapshot was taken.
            Of one sample, all frames up to it are emitted or dropped.
        repaired: coefficient frames that were not finite; the last good ones were held.
        reanchored: how often the media clock started anew.
        queues: all queues.
        age_ms: of the newest speaker frame that the last picture depends on, when it was shown.
        av_offset_ms: how far the speaker's sound is ahead of the picture.
        cost_ms: predicted cost (95th percentile of the last calls) of a "generator" step and of a "render".
    """

    emitted: int
    missed: int
    dropped: int
    held: int
    rungs: dict[str, int]
    frame: int | None
    repaired: int
    reanchored: int
    queues: list[QueueGauge]
    age_ms: float
    av_offset_ms: float
    cost_ms: dict[str, float]


class Tally:
    """Counts ledgers as they come, and hands each one on. The session's monitor guards it.

    Args:
        record: gets every ledger, of frames that were shown and of those that were not.
        patience: frames of which none was shown, until it is said.
        stale_ms: of the session, for what is said.
        cost_ns: what a segment and a picture take, likewise.
    """

    def __init__(
        self,
        record: Callable[[Ledger], None] | None,
        patience: int,
        stale_ms: float,
        cost_ns: Callable[[], Mapping[str, int]],
    ) -> None:
        self.emitted = self.missed = self.dropped = self.age_ns = 0
        self.rungs: Counter[Rung] = Counter()
        self.frame: int | None = None
        self._record, self._patience, self._stale_ms, self._cost_ns = record, patience, stale_ms, cost_ns
        self._warned = False

    def emit(self, ledger: Ledger) -> None:
        """A frame is shown."""
        self.emitted += 1
        self.rungs[ledger.rung] += 1
        self.frame = ledger.frame
        late = ledger.deadline is not None and (ledger.on_host or 0) > ledger.deadline
        self.missed += ledger.rung is not Rung.FULL or late
        if ledger.emitted is not None and ledger.newest is not None:
            self.age_ns = ledger.emitted - ledger.newest
        self._tell(ledger)

    def drop(self, ledgers: Iterable[Ledger]) -> None:
        """Frames that are never shown."""
        for ledger in ledgers:
            self.dropped += 1
            self.missed += 1
            self._tell(ledger)
        if not self.emitted and self.dropped >= self._patience:
            step, render = (cost / NS_PER_MS for cost in self._cost_ns().values())
            self.warn_once("Nothing is in time to be shown: a segment takes %d ms, a picture %d ms", step, render)

    def warn_once(self, message: str, *details: float) -> None:
        """Log what is late; the first time only."""
        if not self._warned:
            self._warned = True
            log.warning(f"{message}; stale_ms is %g. Said once.", *details, self._stale_ms)

    def stats(
        self,
        *,
        repaired: int,
        reanchored: int,
        queues: list[QueueGauge],
        av_offset_ns: int,
    ) -> SessionStats:
        """All that was counted, and what only the session knows; see `SessionStats`."""
        return SessionStats(
            emitted=self.emitted,
            missed=self.missed,
            dropped=self.dropped,
            held=self.rungs[Rung.HOLD],
            rungs={rung.name: self.rungs[rung] for rung in Rung},
            frame=self.frame,
            repaired=repaired,
            reanchored=reanchored,
            queues=queues,
            age_ms=self.age_ns / NS_PER_MS,
            av_offset_ms=av_offset_ns / NS_PER_MS,
            cost_ms={name: cost / NS_PER_MS for name, cost in self._cost_ns().items()},
        )

    def _tell(self, ledger: Ledger) -> None:
        if self._record is None:
            return
        try:
            self._record(ledger)
        except Exception as error:
            raise SessionError("record", error) from error
