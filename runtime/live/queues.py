"""The queue of a live session: bounded in media time, with an owner and a policy, and open to inspection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from pflx.engines import FeedError

Item = TypeVar("Item")


class Policy(StrEnum):
    """What happens to an item for which there is no room."""

    LATEST = "latest"
    """It takes the place of all that wait."""
    DROP_OLDEST = "drop-oldest"
    """The oldest makes room."""
    BLOCK = "block"
    """Whoever brings it waits, for a stated time at most; then the oldest makes room."""


@dataclass(frozen=True)
class QueueGauge:
    """One queue at one moment.

    Attributes:
        name: what waits in it.
        owner: the thread that takes from it.
        policy: see `Policy`.
        capacity_ms: media time that fits.
        waiting_ms: media time that waits.
        age_ms: age of the oldest item, by its scheduled arrival; 0 when empty.
        dropped: items dropped so far.
    """

    name: str
    owner: str
    policy: Policy
    capacity_ms: float
    waiting_ms: float
    age_ms: float
    dropped: int


class MediaQueue(Generic[Item]):
    """First in, first out. The session's monitor guards it.

    Args:
        name, owner, policy: see `QueueGauge`.
        capacity_ms: media time that fits.
        item_ms: media time of one item.
        stamp: an item's scheduled arrival, in ns.

    Raises:
        FeedError: not one item fits.
    """

    def __init__(
        self, name: str, owner: str, policy: Policy, capacity_ms: float, item_ms: float, stamp: Callable[[Item], int]
    ) -> None:
        if not item_ms <= capacity_ms < float("inf"):
            raise FeedError(f"The queue '{name}' holds {capacity_ms:g} ms; give it a bound of {item_ms:g} ms or more.")
        self.policy = policy
        self.dropped = 0
        self._name, self._owner = name, owner
        self._capacity_ms, self._item_ms, self._stamp = capacity_ms, item_ms, stamp
        self._items: deque[Item] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @property
    def is_full(self) -> bool:
        """Whether another item makes older ones go."""
        return (len(self._items) + 1) * self._item_ms > self._capacity_ms + 1e-6

    def put(self, item: Item) -> list[Item]:
        """Append an item; the ones that were dropped for it."""
        gone: list[Item] = []
        if self.is_full and self.policy is Policy.LATEST:
            gone, self._items = list(self._items), deque()
        while self.is_full:
            gone.append(self._items.popleft())
        self._items.append(item)
        self.dropped += len(gone)
        return gone

    def peek(self, place: int = 0) -> Item | None:
        """The item at a place from the front, which stays; None where there is none."""
        return self._items[place] if place < len(self._items) else None

    def take(self) -> Item:
        """The oldest item."""
        return self._items.popleft()

    def drop(self) -> Item:
        """The oldest item, counted as dropped."""
        self.dropped += 1
        return self._items.popleft()

    def clear(self) -> list[Item]:
        """Drop all; what there was."""
        gone = list(self._items)
        self._items.clear()
        self.dropped += len(gone)
        return gone

    def gauge(self, now: int) -> QueueGauge:
        """What it looks like now."""
        age = (now - self._stamp(self._items[0])) / 1e6 if self._items else 0.0
        waiting_ms = len(self._items) * self._item_ms
        return QueueGauge(
            self._name, self._owner, self.policy, self._capacity_ms, waiting_ms, max(age, 0.0), self.dropped
        )
