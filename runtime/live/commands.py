"""What is asked of a running session, done by its worker between two pieces of work, and what it is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial

from pflx.engines import Array
from pflx.runtime.frames.turns import CueName, TurnName, as_role, check_cue
from pflx.runtime.live.clock import Monitor, Turn
from pflx.runtime.rendering.renderers import Portrait
from pflx.runtime.stream.stream import Stream


class _Command:
    """Something to be done, as soon as its moment has come, and its outcome."""

    def __init__(self, act: Callable[[], object], is_due: Callable[[], bool]) -> None:
        self.act, self.is_due = act, is_due
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
        """Whether there is anything to be done now; for the worker, with the monitor held."""
        return self._next() is not None

    def ask(
        self,
        act: Callable[[], object],
        is_worked_on: Callable[[], bool],
        is_due: Callable[[], bool] = lambda: True,
    ) -> object:
        """What `act` returns, as soon as the worker has called it; after its end it is called here.

        Args:
            act: what to do.
            is_worked_on: whether there still is a worker; called with the monitor held.
            is_due: whether now is the moment for it; called by the worker, with the monitor held.
        """
        command = _Command(act, is_due)
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
        """Do all that was asked for and is due; by the worker, without the monitor."""
        while (command := self._take()) is not None:
            self._run(command)
            with self._monitor:
                command.done = True
                self._monitor.notify()

    def _take(self) -> _Command | None:
        with self._monitor:
            if (command := self._next()) is not None:
                self._waiting.remove(command)
            return command

    def _next(self) -> _Command | None:
        return next((command for command in self._waiting if command.is_due()), None)

    def _run(self, command: _Command) -> None:
        try:
            with self._turn:
                command.result = command.act()
        except Exception as error:  # told to whoever asked; the session goes on
            command.error = error


class Steered(ABC):
    """What may be asked of a session from any thread while it runs, and told to it.

    What is told waits for nobody: it counts from the slot on that the speaker is in, whenever the worker gets to it.

    Args:
        monitor: of the session.
        commands: how the worker is asked.
        stream: of the session; only its worker uses it.
    """

    def __init__(self, monitor: Monitor, commands: Commands, stream: Stream) -> None:
        self._monitor, self._commands, self._stream = monitor, commands, stream
        self._said: deque[Callable[[], None]] = deque()

    def set_turn(
        self, turn: TurnName, *, at_s: float | None = None, hears: bool | None = None, shown: bool = True
    ) -> None:
        """Tell whose turn it is, from the slot on that the speaker is in; see `Stream.set_turn`. Never waits.

        Args:
            turn: "listening", "thinking", "speaking" or "idle".
            at_s: from this moment of the speaker's media clock on instead.
            hears: whether the speaker's sound counts; None hears while it listens and thinks.
            shown: False makes no pictures meanwhile; the last one is held.

        Raises:
            FeedError: there is no such turn.
        """
        as_role(turn, hears, shown)
        self._say(partial(self._stream.set_turn, turn, at_s=at_s, hears=hears, shown=shown), at_s)

    def cue(self, cue: CueName = "nod", *, at_s: float | None = None) -> None:
        """Have the listener nod, in any turn; see `Stream.cue`. Never waits.

        Args:
            cue: "nod".
            at_s: at this moment of the speaker's media clock; None is now.

        Raises:
            FeedError: there is no such cue.
        """
        check_cue(cue)
        self._say(partial(self._stream.cue, cue, at_s=at_s), at_s)

    def set_portrait(self, portrait: Portrait, sample: int | None = None) -> None:
        """Show another portrait from the next frame that is rendered on; see `Stream.set_portrait`."""
        self._ask(lambda: self._stream.set_portrait(portrait, sample))

    def flush(self) -> None:
        """Drop everything that waits, and go on with what the speaker does now; held pictures fill the gap."""
        self._ask(self._flush)

    def snapshot(self, *, at_boundary: bool = False) -> dict[str, Array]:
        """The stream as plain arrays. `Listener.live` takes it up at the next segment, in another process too.

        Args:
            at_boundary: take it between two segments, for which it waits a hop at most while the speaker goes on. No
                picture of the speaker is in it then: tens of kB in place of up to megabytes.
        """
        due = self._is_between_hops if at_boundary else lambda: True
        arrays = self._commands.ask(self._stream.snapshot, lambda: self._is_worked_on, due)
        assert isinstance(arrays, dict)
        return arrays

    @property
    @abstractmethod
    def _is_worked_on(self) -> bool:
        """Whether there still is a worker; with the monitor held."""

    @abstractmethod
    def _now(self) -> int:
        """Number of the slot that the speaker is in; with the monitor held."""

    @abstractmethod
    def _flush(self) -> None:
        """Forget what waits; by the worker."""

    def _say(self, tell: Callable[..., None], at_s: float | None) -> None:
        with self._monitor:
            self._said.append(partial(tell, frame=self._now()) if at_s is None else tell)

    def _is_between_hops(self) -> bool:
        return self._stream.is_between_hops

    def _ask(self, act: Callable[[], object]) -> object:
        return self._commands.ask(act, lambda: self._is_worked_on)

    def _obey(self) -> None:
        """Do all that was said and asked; by the worker, without the monitor."""
        while self._said:
            self._said.popleft()()
        self._commands.obey()
