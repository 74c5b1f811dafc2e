"""A server's main figures as metrics of Ray, which puts those of all processes of a machine out for Prometheus."""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client.samples import Sample

from pflx.runtime.serve.operation.metrics import ServerMetrics

EVERY_S = 0.5
"""As often as sessions are read; Ray hands them on every few seconds."""

_TOLD = frozenset(
    f"pflx_serve_{name}"
    for name in ("sessions", "sessions_limit", "load", "load_limit", "joins", "refusals", "frames", "frames_missed")
)


class RayFigures:
    """Tells Ray what a server has on its `/metrics`, by the same names and labels. Ray puts `ray_` before the names.

    Args:
        ray_metrics: the module `ray.util.metrics`.
        figures: of the server.
    """

    def __init__(self, ray_metrics: Any, figures: ServerMetrics) -> None:
        self._ray, self._figures = ray_metrics, figures
        self._metrics: dict[str, Any] = {}
        self._counted: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def tell(self) -> None:
        """Tell it what they are now; of counters, what has come to them."""
        for family in self._figures.collect():
            if family.name not in _TOLD:
                continue
            for sample in family.samples:
                if sample.name == family.name:
                    self._metric(self._ray.Gauge, family.name, family.documentation, sample).set(
                        sample.value, tags=sample.labels
                    )
                elif sample.name == f"{family.name}_total":
                    self._count(family.name, family.documentation, sample)

    async def keep_telling(self) -> None:
        """Tell it again and again."""
        while True:
            self.tell()
            await asyncio.sleep(EVERY_S)

    def _count(self, name: str, text: str, sample: Sample) -> None:
        key = name, tuple(sorted(sample.labels.items()))
        more = sample.value - self._counted.get(key, 0.0)
        if more > 0:  # which Ray insists on
            self._metric(self._ray.Counter, name, text, sample).inc(more, tags=sample.labels)
            self._counted[key] = sample.value

    def _metric(self, kind: Any, name: str, text: str, sample: Sample) -> Any:
        if name not in self._metrics:
            self._metrics[name] = kind(name, text, tag_keys=tuple(sample.labels))
        return self._metrics[name]
