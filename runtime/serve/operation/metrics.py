"""A server's counters for Prometheus. Sessions are summed up: one that has ended still counts, and none is told apart.

`pflx.runtime.live.metrics` has a label for each session; a server has too many of them in a day.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import Metric

from pflx.runtime.live.session import LiveSession
from pflx.runtime.live.stats import SessionStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of Prometheus's text format."""

_REACTION_S = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0)


@dataclass(frozen=True)
class Room:
    """What is taken of a server's room, and what there is.

    Attributes:
        sessions: visitors who are here.
        most_sessions: that may be.
        load: share of their time that the engines are busy.
        most_load: that they may be.
        frames_per_s: that the sessions are due, of all samples.
    """

    sessions: int
    most_sessions: int
    load: float
    most_load: float
    frames_per_s: int

    @property
    def frame_cost_s(self) -> float:
        """The engines' time that a frame takes, as sessions are admitted by it; 0 where there is none."""
        return self.load / self.frames_per_s if self.frames_per_s else 0.0


class ServerMetrics:
    """Counters of one server, in a registry of their own, each with the label `replica`.

    Args:
        room: read when somebody asks.
        replica: tells servers of one service apart; None takes the machine's name.
    """

    def __init__(self, room: Callable[[], Room], replica: str | None = None) -> None:
        name = socket.gethostname() if replica is None else replica
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # process_cpu_seconds_total, process_resident_memory_bytes, ...

        def gauge(metric: str, text: str, value: Callable[[Room], float]) -> None:
            Gauge(f"pflx_serve_{metric}", text, ("replica",), registry=registry).labels(name).set_function(
                lambda: value(room())
            )

        def counter(metric: str, text: str, *more: str) -> Counter:
            return Counter(f"pflx_serve_{metric}", text, ("replica", *more), registry=registry)

        gauge("sessions", "Visitors who are here.", lambda room: room.sessions)
        gauge("sessions_limit", "Visitors who may be here.", lambda room: room.most_sessions)
        gauge("load", "Share of their time that the engines are busy.", lambda room: room.load)
        gauge("load_limit", "Share of their time that the engines may be busy.", lambda room: room.most_load)
        gauge(
            "frame_cost_seconds", "The engines' time for a frame, as sessions are admitted.", lambda r: r.frame_cost_s
        )
        self._replica = name
        self._joins = counter("joins", "Visitors let in.").labels(name)
        self._refusals = counter("refusals", "Visitors not let in.", "reason")
        self._frames = counter("frames", "Frames shown, by how they were made.", "rung")
        self._missed = counter("frames_missed", "Frames not shown in full at their deadline.").labels(name)
        self._reaction = Histogram(
            "pflx_serve_reaction_seconds",
            "From something that a visitor does to the first picture that depends on it.",
            ("replica",),
            buckets=_REACTION_S,
            registry=registry,
        ).labels(name)

    def joined(self) -> None:
        """A visitor was let in."""
        self._joins.inc()

    def refused(self, reason: str) -> None:
        """A visitor was not.

        Args:
            reason: one of a few words.
        """
        self._refusals.labels(self._replica, reason).inc()

    def add(self, stats: SessionStats, before: SessionStats | None, reactions_ms: Iterable[float]) -> None:
        """What a session has done.

        Args:
            stats: of it.
            before: of it, when it was added last.
            reactions_ms: delays of the reactions that came since.
        """
        for rung, count in stats.rungs.items():
            self._frames.labels(self._replica, rung).inc(count - (before.rungs[rung] if before else 0))
        self._missed.inc(stats.missed - (before.missed if before else 0))
        for delay_ms in reactions_ms:
            self._reaction.observe(delay_ms / 1000)

    def collect(self) -> Iterable[Metric]:
        """All of it, for an exporter of another kind."""
        return self._registry.collect()

    def text(self) -> bytes:
        """All of it in Prometheus's text format; see `CONTENT_TYPE`."""
        return generate_latest(self._registry)


class SessionMeter:
    """Adds what one session does to the server's counters, each time that it is read.

    Args:
        metrics: of the server.
        session: whose counters they are.
        reactions: delays in ms of the reactions that came since it was called last.
    """

    def __init__(self, metrics: ServerMetrics, session: LiveSession, reactions: Callable[[], Iterable[float]]) -> None:
        self._metrics, self._session, self._reactions = metrics, session, reactions
        self._before: SessionStats | None = None
        self._lock = Lock()  # read while it runs and, in another thread, when it has ended

    def read(self) -> SessionStats:
        """Add what is new; the session as it is now."""
        with self._lock:
            stats = self._session.stats
            self._metrics.add(stats, self._before, self._reactions())
            self._before = stats
            return stats
