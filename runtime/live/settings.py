"""What a live session may be told."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pflx.engines import FeedError
from pflx.runtime.frames.coefficients import check_lookahead
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.frames.timing import NS_PER_MS, Clock
from pflx.runtime.live.queues import Policy
from pflx.runtime.stream.chain import Chain

_LONGEST_PLAYOUT_MS = 10_000
"""All frames of this time wait in memory, and nobody talks to whoever is further behind."""


@dataclass(frozen=True)
class LiveSettings:
    """How a live session keeps time.

    Attributes:
        playout_ms: time to work in, on top of the algorithmic delay; more misses fewer deadlines, and is later.
            `pflx bench-latency` finds the smallest that misses none.
        lookahead: coefficient frames to wait for, in place of the listener's.
        floor: the lowest rung that may be chosen when time runs short; above HOLD, frames come late instead.
        stale_ms: how late a frame may come, and input may be used, at all.
        queue_ms: frames laid out for whoever iterates.
        policy: what happens when they are not taken.
        block_ms: how long to wait for them to be taken, with the policy BLOCK.
        max_load: share of their time that the engines may be busy with all sessions of the listener, by what the
            running ones cost and this one has cost while it was warmed up; None admits every session.

    Raises:
        FeedError: a value out of range.
    """

    playout_ms: float = 100.0  # not a multiple of 40: deadlines then lie between arrivals, when nothing else wakes up
    lookahead: int | None = None
    floor: Rung = Rung.HOLD
    stale_ms: float = 1000.0
    queue_ms: float = 200.0
    policy: Policy = Policy.DROP_OLDEST
    block_ms: float = 200.0
    max_load: float | None = None

    @property
    def stale_ns(self) -> int:
        """`stale_ms` in ns."""
        return round(self.stale_ms * NS_PER_MS)

    @property
    def block_ns(self) -> int:
        """`block_ms` in ns."""
        return round(self.block_ms * NS_PER_MS)

    def on(self, chain: Chain, clock: Clock) -> Chain:
        """The stages of a session that keeps time so, on a clock.

        Raises:
            FeedError: they do not reach down to the floor.
        """
        if self.floor is Rung.WARPED and not chain.renderer.has_mover:
            raise FeedError("floor is Rung.WARPED, and the bundle has no preview to move pictures with; give another.")
        lookahead = chain.lookahead if self.lookahead is None else min(self.lookahead, chain.renderer.radius)
        return replace(chain, clock=clock, lookahead=lookahead)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("playout_ms", "stale_ms", "queue_ms", "block_ms"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise FeedError(f"{name} is {getattr(self, name)}; give 0 or more milliseconds.")
        if self.playout_ms > _LONGEST_PLAYOUT_MS:
            raise FeedError(f"playout_ms is {self.playout_ms}; give {_LONGEST_PLAYOUT_MS} milliseconds at most.")
        if self.lookahead is not None:
            check_lookahead(self.lookahead)
        for name, kind in (("floor", Rung), ("policy", Policy)):
            if not isinstance(getattr(self, name), kind):
                options = ", ".join(f"{kind.__name__}.{option.name}" for option in kind)
                raise FeedError(f"{name} is {getattr(self, name)!r}; give one of {options}.")


PROMPT = LiveSettings()
"""The defaults: a tenth of a second to work in, and every rung of the ladder."""
