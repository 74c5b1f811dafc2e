"""What the live sessions of one listener share: places at its engines, and its time."""

from __future__ import annotations

from threading import Lock
from weakref import WeakSet

from pflx.runtime.live.clock import LiveClock, SystemClock, Turn
from pflx.runtime.live.errors import ListenerFullError
from pflx.runtime.live.session import LiveSession

_CROWDED = 0.5
"""Share of the engines' time from which what counts is that all sessions keep up, not how early each picture is."""


class Sharing:
    """The sessions of a listener, and the clock that all of them run on.

    Args:
        places: sessions that may use the engines at the same time.

    Attributes:
        turn: held while engines work.
        looking: held by whatever looks at speakers and does not bear several threads.
    """

    turn: Turn
    looking: Turn

    def __init__(self, places: int) -> None:
        self.places = places
        self._sessions: WeakSet[LiveSession] = WeakSet()
        self._lock = Lock()  # sessions may be begun in several threads
        self._set_clock(SystemClock())

    def run_on(self, clock: LiveClock | None) -> None:
        """Take a clock for the sessions that come; None leaves the one there is."""
        if clock is not None and clock is not self.turn.clock:
            self._set_clock(clock)

    def add(self, session: LiveSession) -> None:
        """Count a session, as long as somebody holds it."""
        _keep_opencv_to_one_thread()
        with self._lock:
            self._sessions.add(session)

    @property
    def load(self) -> float:
        """Share of the places, or of the engines' time, that the sessions take which run."""
        with self._lock:
            sessions = list(self._sessions)
        return sum(session.load for session in sessions if session.is_running) / self.places

    @property
    def is_crowded(self) -> bool:
        """Whether sessions want the engines for most of their time."""
        return self.load > _CROWDED

    def admit(self, load: float, max_load: float | None) -> None:
        """Refuse a session that does not run yet.

        Args:
            load: of the session alone; see `LiveSession.load`.
            max_load: of all, at most; None admits every session.

        Raises:
            ListenerFullError: there is no time left for it beside those that run.
        """
        load = load / self.places + self.load
        if max_load is not None and load > max_load:
            raise ListenerFullError(load, max_load)

    def _set_clock(self, clock: LiveClock) -> None:
        self.turn, self.looking = Turn(clock, self.places), Turn(clock)


def _keep_opencv_to_one_thread() -> None:
    """For this process, unless the application has chosen a number for itself.

    Sessions keep all cores busy, and a picture of 256 pixels is too little work to be divided: OpenCV's other threads
    would take the cores from the sessions, and cost a quarter of their time.
    """
    import cv2

    if cv2.getNumThreads() == cv2.getNumberOfCPUs():
        cv2.setNumThreads(1)
