"""What a live session is told, what it counts, and how it fails."""

from __future__ import annotations

from dataclasses import dataclass

from pflx.engines import FeedError
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.live.queues import Policy


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
