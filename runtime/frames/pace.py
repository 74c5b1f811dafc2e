"""How much work a stream may put into what is due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pflx.runtime.frames.ledger import Rung

BATCHES = (8, 7, 4, 2, 1)
"""How many pictures one call renders, largest first: each is another shape, and each shape another captured call.
After a first picture alone, 7 are the rest of a segment of 8, and 3 times 8 that of one of 25."""


class Pace(Protocol):
    """Decides, piece by piece, how much work `Stream.pull` may put into what is due."""

    def steps(self, frame: int, available: tuple[int, ...]) -> int | None:
        """Denoising steps for the segment that begins with `frame`; None takes the most."""
        ...

    def rung(self, frame: int, *, ahead: int) -> Rung:
        """How to make `frame`: FULL, HALF_RATE (one picture for it and the next), WARPED or HOLD (no picture).

        Args:
            frame: its number.
            ahead: how many frames after it can be rendered without another segment.
        """
        ...

    def batches(self, count: int) -> Sequence[int]:
        """How to cut `count` pictures that are rendered ahead into calls, by sizes of `BATCHES`."""
        ...

    def generated(self, steps: int | None, duration_ns: int) -> None:
        """Learn what a segment took, from its complete input to PosNet, with so many denoising steps."""
        ...

    def rendered(self, duration_ns: int) -> None:
        """Learn what a picture took."""
        ...


class Unhurried:
    """Everything in full: no deadline."""

    def steps(self, frame: int, available: tuple[int, ...]) -> int | None:
        """See `Pace.steps`."""
        return None

    def rung(self, frame: int, *, ahead: int) -> Rung:
        """See `Pace.rung`."""
        return Rung.FULL

    def batches(self, count: int) -> Sequence[int]:
        """See `Pace.batches`: the fewest calls."""
        return largest_batches(count)

    def generated(self, steps: int | None, duration_ns: int) -> None:
        """See `Pace.generated`."""

    def rendered(self, duration_ns: int) -> None:
        """See `Pace.rendered`."""


UNHURRIED = Unhurried()


def largest_batches(count: int) -> list[int]:
    """The fewest calls that render so many pictures."""
    sizes: list[int] = []
    while count:
        sizes.append(next(size for size in BATCHES if size <= count))
        count -= sizes[-1]
    return sizes
