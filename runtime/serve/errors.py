"""What keeps a server from starting, and what a visitor is told who cannot have what they ask for."""

from __future__ import annotations

from pflx.engines import PflxError
from pflx.runtime.live.errors import ListenerFullError


class ServeError(PflxError, ValueError):
    """A server cannot be started as it was asked to."""


class GoneError(PflxError, LookupError):
    """There is no such visitor, or no longer."""


class WishError(PflxError, ValueError):
    """A visitor wishes for what this server does not offer."""


class SeatsTakenError(PflxError, RuntimeError):
    """There are as many visitors as may be."""

    def __init__(self, seats: int) -> None:
        super().__init__(f"All {seats} places are taken." if seats > 1 else "The only place is taken.")


class BusyError(PflxError, RuntimeError):
    """The computer has no time for a visitor beside those who are here."""

    def __init__(self, full: ListenerFullError) -> None:
        super().__init__(
            f"With you it would be at work {full.load:.0%} of its time, and {full.max_load:.0%} are allowed. Fewer "
            "listeners side by side, or a lighter one, take less."
        )


class TooLargeError(PflxError, ValueError):
    """A request has more bytes than it may have."""


class HurriedError(PflxError, RuntimeError):
    """A visitor asks too often."""

    def __init__(self) -> None:
        super().__init__("Too many requests. Wait a minute, and try again.")
