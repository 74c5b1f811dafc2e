"""What a live session is told, what it counts, and how it fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pflx.engines import FeedError, PflxError
from pflx.runtime.clock import Turn
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.queues import Policy, QueueGauge


class SessionError(PflxError, RuntimeError):
    """A session has failed; `__cause__` is what was raised in it.

    Attributes:
        stage: where: "source", "chain" (crop, generator, PosNet or renderer), "sink", or "record", the callable that
            gets the ledgers.
    """

    def __init__(self, stage: str, cause: BaseException) -> None:
        super().__init__(f"The session's {stage} failed: {str(cause) or type(cause).__name__}")
        self.stage = stage
        self.__cause__ = cause


class ListenerFullError(PflxError, RuntimeError):
    """A listener has no time left for another session.

    Attributes:
        load: share of its time that all sessions would take, the new one included.
        max_load: share that was allowed.
    """

    def __init__(self, load: float, max_load: float) -> None:
        super().__init__(
            f"Another session would keep the engines busy {load:.0%} of the time, allowed is {max_load:.0%}. End one, "
            "or open a listener on another device."
        )
        self.load, self.max_load = load, max_load


@dataclass(frozen=True)
class LiveSettings:
    """What a session may be told; see `Listener.live`."""

    playout_ms: float = 100.0  # not a multiple of 40: deadlines then lie between arrivals, when nothing else wakes up
    samples: int = 1
    floor: Rung = Rung.HOLD
    stale_ms: float = 1000.0
    queue_ms: float = 200.0
    policy: Policy = Policy.DROP_OLDEST
    block_ms: float = 200.0

    @property
    def stale_ns(self) -> int:
        """`stale_ms` in ns."""
        return round(self.stale_ms * 1_000_000)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("playout_ms", "stale_ms", "queue_ms", "block_ms"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise FeedError(f"{name} is {getattr(self, name)}; give 0 or more milliseconds.")
        for name, kind in (("floor", Rung), ("policy", Policy)):
            if not isinstance(getattr(self, name), kind):
                options = ", ".join(f"{kind.__name__}.{option.name}" for option in kind)
                raise FeedError(f"{name} is {getattr(self, name)!r}; give one of {options}.")


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

    def _tell(self, ledger: Ledger) -> None:
        if self._record is None:
            return
        try:
            self._record(ledger)
        except Exception as error:
            raise SessionError("record", error) from error


class Command:
    """Something to be done by the worker between two pieces of work, and its outcome.

    Args:
        act: what to do; engines may be used.
        turn: held meanwhile.
    """

    def __init__(self, act: Callable[[], object], turn: Turn) -> None:
        self.done = False
        self.result: object = None
        self.error: BaseException | None = None
        self._act, self._turn = act, turn

    def run(self) -> None:
        """Do it, in whichever thread."""
        try:
            with self._turn:
                self.result = self._act()
        except Exception as error:  # told to whoever asked; the session goes on
            self.error = error
