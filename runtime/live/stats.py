"""What a live session counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.timing import NS_PER_MS
from pflx.runtime.live.errors import SessionError
from pflx.runtime.live.queues import QueueGauge


@dataclass(frozen=True)
class SessionStats:
    """A session at one moment; all counts are of frames, one for each sample.

    Attributes:
        emitted: handed to the sink.
        missed: not shown in full at their deadline.
        dropped: never shown.
        held: for which an earlier picture, or one that came late, was shown.
        rungs: frames emitted by the name of their rung.
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
    """

    def __init__(self, record: Callable[[Ledger], None] | None) -> None:
        self.emitted = self.missed = self.dropped = self.age_ns = 0
        self.rungs: Counter[Rung] = Counter()
        self._record = record

    def emit(self, ledger: Ledger) -> None:
        """A frame is shown."""
        self.emitted += 1
        self.rungs[ledger.rung] += 1
        late = ledger.deadline is not None and (ledger.on_host or 0) > ledger.deadline
        self.missed += ledger.rung is not Rung.FULL or late
        if ledger.emitted is not None and ledger.newest is not None:
            self.age_ns = ledger.emitted - ledger.newest
        self._tell(ledger)

    def drop(self, ledger: Ledger) -> None:
        """A frame is never shown."""
        self.dropped += 1
        self.missed += 1
        self._tell(ledger)

    def stats(
        self,
        *,
        repaired: int,
        reanchored: int,
        queues: list[QueueGauge],
        av_offset_ns: int,
        cost_ns: Mapping[str, int],
    ) -> SessionStats:
        """All that was counted, and what only the session knows; see `SessionStats`."""
        return SessionStats(
            emitted=self.emitted,
            missed=self.missed,
            dropped=self.dropped,
            held=self.rungs[Rung.HOLD],
            rungs={rung.name: self.rungs[rung] for rung in Rung},
            repaired=repaired,
            reanchored=reanchored,
            queues=queues,
            age_ms=self.age_ns / NS_PER_MS,
            av_offset_ms=av_offset_ns / NS_PER_MS,
            cost_ms={name: cost / NS_PER_MS for name, cost in cost_ns.items()},
        )

    def _tell(self, ledger: Ledger) -> None:
        if self._record is None:
            return
        try:
            self._record(ledger)
        except Exception as error:
            raise SessionError("record", error) from error
