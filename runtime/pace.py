"""How much work a stream may put into what is due."""

from __future__ import annotations

from typing import Protocol

from pflx.runtime.latency import Rung


class Pace(Protocol):
    """Decides, piece by piece, how much work `Stream.pull` may put into what is due."""

    def steps(self, frame: int, available: tuple[int, ...]) -> int | None:
        """Denoising steps for the segment that begins with `frame`; None takes the most."""
        ...

    def rung(self, frame: int, *, ahead: int) -> Rung:
        """How to make `frame`: FULL, HALF_RATE (one picture for it and the next) or HOLD (no picture).

        Args:
            frame: its number.
            ahead: how many frames after it can be rendered without another segment.
        """
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

    def generated(self, steps: int | None, duration_ns: int) -> None:
        """See `Pace.generated`."""

    def rendered(self, duration_ns: int) -> None:
        """See `Pace.rendered`."""


UNHURRIED = Unhurried()
