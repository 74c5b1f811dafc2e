"""What is asked of a running session, done by its worker between two pieces of work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pflx.runtime.live.clock import Monitor, Turn


class _Command:
    """Something to be done, and its outcome."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act
        self.done = False
        self.result: object = None
        self.error: BaseException | None = None


class Commands:
    """Hands work from any thread to the session's worker, and the outcome back.

    Args:
        monitor: of the session.
        turn: held while a command is carried out, for it may use the engines.
    """

    def __init__(self, monitor: Monitor, turn: Turn) -> None:
        self._monitor, self._turn = monitor, turn
        self._waiting: deque[_Command] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def ask(self, act: Callable[[], object], is_worked_on: Callable[[], bool]) -> object:
        """What `act` returns, as soon as the worker has called it; after its end it is called here.

        Args:
            act: what to do.
            is_worked_on: whether there still is a worker; called with the monitor held.
        """
        command = _Command(act)
        with self._monitor:
            self._waiting.append(command)
            self._monitor.notify()
            while not command.done and is_worked_on():
                self._monitor.wait()
            if not command.done and command in self._waiting:
                self._waiting.remove(command)
        if not command.done:
            self._run(command)
        if command.error is not None:
            raise command.error
        return command.result

    def obey(self) -> None:
        """Do all that was asked for; by the worker, without the monitor."""
        while self._waiting:
            command = self._waiting.popleft()
            self._run(command)
            with self._monitor:
                command.done = True
                self._monitor.notify()

    def _run(self, command: _Command) -> None:
        try:
            with self._turn:
                command.result = command.act()
        except Exception as error:  # told to whoever asked; the session goes on
            command.error = error
