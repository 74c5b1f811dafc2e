"""What a server tells Ray of itself is what its own `/metrics` says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families
from support.live.live_sessions import watchdog  # noqa: F401
from support.serve.scene import PORTRAIT, Scene, play
from support.serve.serve_client import WISH, loopback_only, until  # noqa: F401
from support.serve.serve_listener import nodding_listener

from pflx.runtime.cluster.ray_figures import RayFigures
from pflx.runtime.serve.operation.metrics import ServerMetrics

Values = dict[tuple[str, tuple[str, ...]], float]


@dataclass
class FakeRay:
    """Stands for `ray.util.metrics`: takes what Ray takes, and adds up as it does."""

    values: Values = field(default_factory=dict)

    def Gauge(self, name: str, description: str, tag_keys: tuple[str, ...]) -> FakeMetric:  # noqa: N802
        return FakeMetric(self, name, tag_keys)

    def Counter(self, name: str, description: str, tag_keys: tuple[str, ...]) -> FakeMetric:  # noqa: N802
        return FakeMetric(self, f"{name}_total", tag_keys)


@dataclass
class FakeMetric:
    ray: FakeRay
    name: str
    tag_keys: tuple[str, ...]

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        assert set(tags) == set(self.tag_keys)
        self.ray.values[self.name, tuple(tags[key] for key in self.tag_keys)] = value

    def inc(self, value: float, tags: Mapping[str, str]) -> None:
        assert value > 0
        before = self.ray.values.get((self.name, tuple(tags[key] for key in self.tag_keys)), 0.0)
        self.set(before + value, tags)


def own(metrics: ServerMetrics) -> Values:
    """What `/metrics` says of the same, but for counters that are at zero."""
    return {
        (sample.name, (sample.labels.pop("replica"), *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if sample.name.startswith("pflx_") and not re.search("_(cost|reaction)_|_created$", sample.name)
        if sample.value or family.type == "gauge"
    }


def test_ray_is_told_who_is_here_who_was_turned_away_and_which_frames_were_made() -> None:
    async def act(here: Scene) -> None:
        ray = FakeRay()
        figures = RayFigures(ray, here.lobby.metrics)
        figures.tell()
        assert ray.values["pflx_serve_sessions", ("blue",)] == 0
        visitor = await here.seated(pictures=10)
        assert (await here.visitor().come()).kind == "full"
        assert (await here.visitor().come(WISH | {"listener": 7})).kind == "wish"
        figures.tell()
        assert ray.values["pflx_serve_sessions", ("blue",)] == ray.values["pflx_serve_sessions_limit", ("blue",)] == 1
        assert (await here.visitor().come()).kind == "full"
        await visitor.ask("leave")
        await until(lambda: not here.lobby.peers)
        figures.tell()
        figures.tell()  # what has been told is not told again
        assert ray.values == own(here.lobby.metrics)
        assert ray.values["pflx_serve_sessions", ("blue",)] == 0
        assert ray.values["pflx_serve_joins_total", ("blue",)] == 1
        assert ray.values["pflx_serve_refusals_total", ("blue", "full")] == 2
        assert ray.values["pflx_serve_refusals_total", ("blue", "request")] == 1
        assert ray.values["pflx_serve_frames_total", ("blue", "FULL")] >= 10

    play(act, nodding_listener(PORTRAIT), max_sessions=1, replica="blue")
