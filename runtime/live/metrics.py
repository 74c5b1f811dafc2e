"""Counters of live sessions for Prometheus. Nothing is counted, imported or served unless a program asks for it.

from prometheus_client import start_http_server
from pflx.runtime.live.metrics import SessionMetrics

SessionMetrics(session, name="kiosk").register()
start_http_server(9100)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from pflx.engines import PflxError
from pflx.engines.graphs.protocol import import_backend

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from pflx.runtime.live.stats import SessionStats

_INSTALL = "pip install 'pflx[metrics]'"


class MetricsError(PflxError, ValueError):
    """Two sessions of one name cannot be told apart."""


class Counted(Protocol):
    """What has counters: a `LiveSession`."""

    @property
    def stats(self) -> SessionStats:
        """As it is now."""
        ...


Rows = Iterable[tuple[tuple[str, ...], float]]
"""Values by their labels, those of the session left out."""

_COUNTERS: tuple[tuple[str, str, tuple[str, ...], Callable[[SessionStats], Rows]], ...] = (
    ("pflx_frames_emitted", "Frames handed to the sink.", (), lambda s: [((), s.emitted)]),
    ("pflx_frames_missed", "Frames not shown in full at their deadline.", (), lambda s: [((), s.missed)]),
    ("pflx_frames_dropped", "Frames never shown.", (), lambda s: [((), s.dropped)]),
    ("pflx_frames_held", "Frames for which another picture was shown.", (), lambda s: [((), s.held)]),
    ("pflx_frames_by_rung", "Frames emitted, by how they were made.", ("rung",), lambda s: _by(s.rungs)),
    ("pflx_coefficients_repaired", "Coefficient frames that were not finite.", (), lambda s: [((), s.repaired)]),
    ("pflx_clock_reanchored", "New starts of the media clock.", (), lambda s: [((), s.reanchored)]),
    ("pflx_queue_dropped", "Items dropped.", ("queue",), lambda s: [((q.name,), q.dropped) for q in s.queues]),
)
_GAUGES: tuple[tuple[str, str, tuple[str, ...], Callable[[SessionStats], Rows]], ...] = (
    (
        "pflx_queue_capacity_seconds",
        "Media time that fits.",
        ("queue", "owner", "policy"),
        lambda s: [((q.name, q.owner, str(q.policy)), q.capacity_ms / 1000) for q in s.queues],
    ),
    (
        "pflx_queue_waiting_seconds",
        "Media time that waits.",
        ("queue",),
        lambda s: [((q.name,), q.waiting_ms / 1000) for q in s.queues],
    ),
    (
        "pflx_queue_age_seconds",
        "Age of the oldest item.",
        ("queue",),
        lambda s: [((q.name,), q.age_ms / 1000) for q in s.queues],
    ),
    (
        "pflx_frame_age_seconds",
        "Age of the newest speaker frame that the last picture depends on, when it was shown.",
        (),
        lambda s: [((), s.age_ms / 1000)],
    ),
    (
        "pflx_av_offset_seconds",
        "How far the speaker's sound is ahead of the picture.",
        (),
        lambda s: [((), s.av_offset_ms / 1000)],
    ),
    (
        "pflx_stage_cost_p95_seconds",
        "95th percentile of the last calls of a stage.",
        ("stage",),
        lambda s: _by({stage: cost / 1000 for stage, cost in s.cost_ms.items()}),
    ),
)


class SessionMetrics:
    """One session's counters. Its `stats` are read when Prometheus scrapes, and at no other time.

    Args:
        session: with `stats`.
        name: tells it from other sessions of the process; the label `session`.

    Raises:
        BackendMissingError: prometheus-client is not installed.
    """

    def __init__(self, session: Counted, name: str = "session-0") -> None:
        self._prometheus: Any = import_backend("prometheus_client", _INSTALL)
        self.session = session
        self.name = name
        self._registry: CollectorRegistry | None = None

    def register(self, registry: CollectorRegistry | None = None) -> None:
        """Show the session in a registry, by default the one that `prometheus_client` serves.

        Raises:
            MetricsError: it is shown already, or another one of this name is.
        """
        chosen: CollectorRegistry = self._prometheus.REGISTRY if registry is None else registry
        with _LOCK:
            if self._registry is not None:
                raise MetricsError(f"The counters of '{self.name}' are registered already. Unregister them first.")
            collector = _COLLECTORS.get(chosen)
            if collector is None:
                collector = _COLLECTORS[chosen] = _Collector()
                chosen.register(collector)
            collector.add(self)
            self._registry = chosen

    def unregister(self) -> None:
        """Show it no more; doing so twice is harmless."""
        with _LOCK:
            if self._registry is None:
                return
            collector = _COLLECTORS[self._registry]
            if not collector.remove(self):
                self._registry.unregister(collector)
                del _COLLECTORS[self._registry]
            self._registry = None


class _Collector:
    """All sessions of one registry: in the text format each counter stands once, with a line for each session."""

    def __init__(self) -> None:
        self._sessions: dict[str, SessionMetrics] = {}

    def add(self, metrics: SessionMetrics) -> None:
        if metrics.name in self._sessions:
            raise MetricsError(f"A session named '{metrics.name}' is registered already. Give another name.")
        self._sessions = self._sessions | {metrics.name: metrics}  # a scrape may be going through the old one

    def remove(self, metrics: SessionMetrics) -> int:
        """How many are left."""
        self._sessions = {name: other for name, other in self._sessions.items() if other is not metrics}
        return len(self._sessions)

    def describe(self) -> Iterable[Metric]:
        """Nothing: asked when it is registered, before there is a session."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What a scrape shows."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        readings = {name: metrics.session.stats for name, metrics in self._sessions.items()}
        for family, table in ((CounterMetricFamily, _COUNTERS), (GaugeMetricFamily, _GAUGES)):
            for metric, text, labels, rows in table:
                shown = family(metric, text, labels=("session", *labels))
                for name, reading in readings.items():
                    for values, value in rows(reading):
                        shown.add_metric((name, *values), value)
                yield shown


_LOCK = Lock()
_COLLECTORS: dict[CollectorRegistry, _Collector] = {}


def _by(values: Mapping[str, float]) -> Rows:
    return [((label,), value) for label, value in values.items()]
