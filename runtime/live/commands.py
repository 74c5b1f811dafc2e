"""What is asked of a running session, done by its worker between two pieces of work."""

from __future__ import annotations

from collections.abc import Callable

from pflx.runtime.live.clock import Turn


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
