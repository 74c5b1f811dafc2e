"""How a live session fails, or is refused."""

from __future__ import annotations

from pflx.engines import PflxError


class SessionError(PflxError, RuntimeError):
    """A session has failed; `__cause__` is what was raised in it.

    Attributes:
        stage: where: "source", "chain" (crop, generator, PosNet or renderer), "sink", "record", the callable that gets
            the ledgers, or "start", where the machine has no thread left for it.
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
