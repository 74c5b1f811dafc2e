"""Counters of sessions, as Prometheus reads them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import pflx.engines.graphs.protocol as protocol
from pflx.engines import BackendMissingError
from pflx.runtime.live.metrics import MetricsError, SessionMetrics
from pflx.runtime.live.queues import Policy, QueueGauge
from pflx.runtime.live.stats import SessionStats

QUEUES = [
    QueueGauge("speaker", "worker", Policy.DROP_OLDEST, 1140.0, 80.0, 75.5, 3),
    QueueGauge("viewer", "viewer", Policy.LATEST, 40.0, 0.0, 0.0, 0),
]
STATS = SessionStats(
    emitted=1000,
    missed=12,
    dropped=2,
    held=7,
    rungs={"FULL": 990, "FEWER_STEPS": 0, "HALF_RATE": 3, "HOLD": 7},
    frame=1001,
    repaired=1,
    reanchored=4,
    queues=QUEUES,
    age_ms=431.5,
    av_offset_ms=-2.5,
    cost_ms={"generator": 41.0, "render": 12.25},
)


@dataclass
class Stand:
    """In the place of a session: it has `stats`, and knows how often they were read."""

    now: SessionStats = STATS
    reads: int = 0

    @property
    def stats(self) -> SessionStats:
        self.reads += 1
        return self.now


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def scraped(registry: CollectorRegistry) -> dict[str, float]:
    """Every line of the text that Prometheus would get, by what stands before the value."""

    def lines() -> Iterator[tuple[str, float]]:
        for family in text_string_to_metric_families(generate_latest(registry).decode()):
            assert family.documentation
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                yield f"{sample.name}{{{labels}}}", sample.value

    found = list(lines())
    assert len(dict(found)) == len(found)
    return dict(found)


def test_a_scrape_has_every_counter_and_gauge_in_base_units(registry: CollectorRegistry) -> None:
    SessionMetrics(Stand(), "kiosk").register(registry)
    assert scraped(registry) == {
        "pflx_frames_emitted_total{session=kiosk}": 1000,
        "pflx_frames_missed_total{session=kiosk}": 12,
        "pflx_frames_dropped_total{session=kiosk}": 2,
        "pflx_frames_held_total{session=kiosk}": 7,
        "pflx_frames_by_rung_total{rung=FULL,session=kiosk}": 990,
        "pflx_frames_by_rung_total{rung=FEWER_STEPS,session=kiosk}": 0,
        "pflx_frames_by_rung_total{rung=HALF_RATE,session=kiosk}": 3,
        "pflx_frames_by_rung_total{rung=HOLD,session=kiosk}": 7,
        "pflx_coefficients_repaired_total{session=kiosk}": 1,
        "pflx_clock_reanchored_total{session=kiosk}": 4,
        "pflx_queue_dropped_total{queue=speaker,session=kiosk}": 3,
        "pflx_queue_dropped_total{queue=viewer,session=kiosk}": 0,
        "pflx_queue_capacity_seconds{owner=worker,policy=drop-oldest,queue=speaker,session=kiosk}": 1.14,
        "pflx_queue_capacity_seconds{owner=viewer,policy=latest,queue=viewer,session=kiosk}": 0.04,
        "pflx_queue_waiting_seconds{queue=speaker,session=kiosk}": 0.08,
        "pflx_queue_waiting_seconds{queue=viewer,session=kiosk}": 0,
        "pflx_queue_age_seconds{queue=speaker,session=kiosk}": 0.0755,
        "pflx_queue_age_seconds{queue=viewer,session=kiosk}": 0,
        "pflx_frame_age_seconds{session=kiosk}": 0.4315,
        "pflx_av_offset_seconds{session=kiosk}": -0.0025,
        "pflx_stage_cost_p95_seconds{session=kiosk,stage=generator}": 0.041,
        "pflx_stage_cost_p95_seconds{session=kiosk,stage=render}": 0.01225,
    }


def test_the_session_is_read_when_it_is_scraped_and_at_no_other_time(registry: CollectorRegistry) -> None:
    session = Stand()
    SessionMetrics(session).register(registry)
    assert session.reads == 0
    assert scraped(registry)["pflx_frames_emitted_total{session=session-0}"] == 1000
    session.now = replace(STATS, emitted=1001)
    assert scraped(registry)["pflx_frames_emitted_total{session=session-0}"] == 1001
    assert session.reads == 2


def test_several_sessions_stand_in_one_block_of_each_counter(registry: CollectorRegistry) -> None:
    first, second = SessionMetrics(Stand(), "a"), SessionMetrics(Stand(replace(STATS, emitted=5)), "b")
    first.register(registry)
    second.register(registry)
    assert generate_latest(registry).decode().count("# TYPE pflx_frames_emitted_total counter") == 1
    values = scraped(registry)
    assert values["pflx_frames_emitted_total{session=a}"] == 1000
    assert values["pflx_frames_emitted_total{session=b}"] == 5
    first.unregister()
    assert {name.split("session=")[1][0] for name in scraped(registry)} == {"b"}
    second.unregister()
    assert generate_latest(registry) == b""


def test_a_session_can_be_unregistered_twice_and_registered_again(registry: CollectorRegistry) -> None:
    metrics = SessionMetrics(Stand())
    metrics.unregister()
    metrics.register(registry)
    metrics.unregister()
    metrics.unregister()
    metrics.register(registry)
    assert "pflx_frames_emitted_total{session=session-0}" in scraped(registry)


def test_a_name_that_is_taken_is_refused(registry: CollectorRegistry) -> None:
    metrics = SessionMetrics(Stand(), "a")
    metrics.register(registry)
    with pytest.raises(MetricsError, match=r"registered already. Unregister them first"):
        metrics.register(CollectorRegistry())
    with pytest.raises(MetricsError, match=r"A session named 'a' is registered already. Give another name"):
        SessionMetrics(Stand(), "a").register(registry)
    SessionMetrics(Stand(), "a").register(CollectorRegistry())
    assert scraped(registry)


def test_the_default_registry_is_the_one_that_is_served() -> None:
    metrics = SessionMetrics(Stand(), "served")
    metrics.register()
    try:
        assert b'pflx_frames_emitted_total{session="served"} 1000.0' in generate_latest()
    finally:
        metrics.unregister()
    assert b"pflx_" not in generate_latest()


def test_without_the_package_the_line_that_installs_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(protocol, "import_module", missing)
    with pytest.raises(BackendMissingError, match=r"prometheus_client is not installed.*pip install 'pflx\[metrics\]'"):
        SessionMetrics(Stand())


def test_nothing_is_imported_unless_it_is_asked_for() -> None:
    code = "import sys, pflx.runtime, pflx.runtime.live.metrics; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
