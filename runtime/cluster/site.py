"""`pflx serve --ray`: the servers of one page on Ray Serve, which places, admits, drains and scales them."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pflx.engines import PflxError
from pflx.engines.graphs.protocol import first_line, import_backend
from pflx.runtime.cluster.ray_session import LOCAL, ClusterError, RaySession
from pflx.runtime.cluster.vault import VaultActor
from pflx.runtime.frames.arrays import UInt8Array
from pflx.runtime.persons import Person
from pflx.runtime.serve.errors import ServeError
from pflx.runtime.serve.settings import ServedListener, ServeSettings

NAME = "pflx"
"""Of the application in the cluster. A site that is begun where one is takes its place: old servers are drained."""

_INSTALL = "pip install 'pflx[site]'"
_OTHERS = 64
"""Requests of a server besides its sessions: pages, pictures, and visitors who are told that it is full. Beyond its
bound Ray Serve answers with an error of its own, which tells a visitor nothing."""
_FILLED = 0.7
"""Share of its places that is taken on average when another server is begun."""
_LEAST_CPUS = 4
"""That a Ray of one's own deals out, whatever the machine has: Ray Serve does not start with fewer."""
_SURGE_PERCENT = 25
"""Servers of a new version that are begun before old ones drain, of all: one at least."""
_LOOK_S = 1.0
_RANGE = re.compile(r"(\d{1,4})(?::(\d{1,4}))?")


@dataclass(frozen=True)
class SiteSettings:
    """What a site is told beyond its servers.

    Attributes:
        replicas: servers, at least and at most.
        cpus: of each.
        gpus: of each; a share of one where several servers use it.
        busy_s: how long servers have to be too full before another is begun.
        idle_s: how long they have to be too empty before one goes.
        drain_s: how long sessions of a server that is to go may stay on it.
        in_json: whether each server writes its log as lines of JSON on its stdout, which Ray keeps.
    """

    replicas: tuple[int, int] = (1, 1)
    cpus: float = 1.0
    gpus: float = 0.0
    busy_s: float = 30.0
    idle_s: float = 600.0
    drain_s: float = 120.0
    in_json: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        least, most = self.replicas
        if not 1 <= least <= most:
            raise ServeError(f"--replicas is {least}:{most}; give the fewest and the most servers, such as 1:8.")
        if not 0 <= self.gpus < math.inf or (self.gpus > 1 and self.gpus % 1):
            raise ServeError(f"--gpus-per-replica is {self.gpus:g}; give 0, a share of one such as 0.5, or whole ones.")
        if not 0 < self.busy_s < math.inf or not 0 <= self.idle_s < math.inf:
            raise ServeError(f"busy_s is {self.busy_s:g} and idle_s {self.idle_s:g}; give seconds, such as 30 and 600.")
        if not 0 <= self.drain_s < math.inf:
            raise ServeError(f"--drain is {self.drain_s:g}; give seconds, such as 120.")

    @classmethod
    def read_replicas(cls, text: str) -> tuple[int, int]:
        """The fewest and the most servers of a text such as "1:8", or "2" for both.

        Raises:
            ServeError: it is something else.
        """
        match = _RANGE.fullmatch(text)
        if match is None:
            raise ServeError(f"--replicas is '{text}'; give the fewest and the most servers, such as 1:8.")
        return int(match[1]), int(match[2] or match[1])


@dataclass(frozen=True)
class Site:
    """A page and all that its servers are opened with; every process of it gets a copy.

    Attributes:
        listeners: by the name that the page shows.
        portraits: by the name that the page shows, uint8 [H, W, 3] RGB.
        settings: of each server; `host` and `port` are those that the cluster listens at.
        site: see there.
        persons: whose weights listeners may have.
    """

    listeners: Mapping[str, ServedListener]
    portraits: Mapping[str, UInt8Array]
    settings: ServeSettings
    site: SiteSettings
    persons: Sequence[Person] = ()

    def __post_init__(self) -> None:
        """Refuse what other processes cannot do."""
        if self.settings.secure:
            raise ServeError("Behind --ray it takes no --certificate: a proxy before the cluster speaks TLS.")
        if not self.settings.port:
            raise ServeError("Behind --ray it takes no free port by itself: give --port.")
        for each in self.listeners.values():
            if each.device.startswith("cuda") != (self.site.gpus > 0):
                raise ServeError(
                    f"Servers with {self.site.gpus:g} GPUs cannot run on {each.device}. Give --device cuda with "
                    "--gpus-per-replica, or neither."
                )
            if each.device not in ("cpu", "cuda"):
                raise ServeError(f"--device is {each.device}; behind --ray each server has its own: give cuda.")


class SiteServer:
    """One server of a site, in a process of its own somewhere in the cluster. Ray Serve begins and ends it.

    Args:
        site: see there.
    """

    def __init__(self, site: Site) -> None:
        from pflx.runtime.serve.network.ports import keep_within
        from pflx.runtime.serve.operation.journal import log_json

        if site.site.in_json:
            log_json(sys.stdout)
        keep_within(asyncio.get_running_loop(), site.settings.udp_ports)
        self._site = site
        self._listeners = {name: each.open() for name, each in site.listeners.items()}

    def __serve_build_asgi_app__(self) -> Any:
        """The application, by the name under which Ray Serve looks for it."""
        from ray import serve
        from ray.util import metrics as ray_metrics

        from pflx.runtime.cluster.ray_figures import RayFigures
        from pflx.runtime.serve.app import make_app
        from pflx.runtime.serve.lobby import Lobby

        site, keeper = self._site, _vault()
        names = filter(None, (site.settings.replica, serve.get_replica_context().replica_tag))
        settings = replace(site.settings, replica="-".join(names))  # what all are called does not tell them apart
        lobby = Lobby(self._listeners, site.portraits, settings, site.persons, keeper)
        self._telling = asyncio.ensure_future(RayFigures(ray_metrics, lobby.metrics).keep_telling())
        return make_app(lobby, settings.port)

    def __del__(self) -> None:
        """Free the engines when it has ended."""
        if hasattr(self, "_telling"):
            self._telling.cancel()
        for listener in getattr(self, "_listeners", {}).values():
            listener.close()


def require_site() -> Any:
    """Ray Serve's module.

    Raises:
        BackendMissingError: it is not installed.
    """
    return import_backend("ray.serve", _INSTALL, needs=("start", "run", "status", "delete", "ingress"))


def application(site: Site) -> Any:
    """The site as an application of Ray Serve."""
    serve = require_site()
    least, most = site.site.replicas
    places = site.settings.max_sessions
    count: dict[str, Any] = {"num_replicas": least}
    if least < most:
        count = {"autoscaling_config": _scaling(site.site, places)}
    deployment = serve.deployment(serve.ingress()(SiteServer)).options(
        name=SiteServer.__name__,
        max_ongoing_requests=places + _OTHERS,
        graceful_shutdown_timeout_s=site.site.drain_s,
        graceful_shutdown_wait_loop_s=_LOOK_S,
        max_surge_percent=_SURGE_PERCENT,
        ray_actor_options={"num_cpus": site.site.cpus, "num_gpus": site.site.gpus},
        **count,
    )
    return deployment.bind(site)


def _scaling(site: SiteSettings, places: int) -> Mapping[str, float]:
    """When Ray Serve begins servers and ends them; a web socket is a request that goes on."""
    least, most = site.replicas
    return {
        "min_replicas": least,
        "max_replicas": most,
        "target_ongoing_requests": places * _FILLED,
        "upscale_delay_s": site.busy_s,
        "downscale_delay_s": site.idle_s,
        "look_back_period_s": min(site.busy_s, 30.0),
        "metrics_interval_s": min(site.busy_s / 3, 10.0),
    }


class RunningSite:
    """A site in a cluster. Made by `running`.

    Args:
        serve: Ray Serve's module.
        name: of `begin`.
    """

    def __init__(self, serve: Any, name: str) -> None:
        self._serve, self._name, self._vault = serve, name, _vault()

    @property
    def is_replaced(self) -> bool:
        """Whether somebody else has begun another site in its place, or ended it."""
        if NAME not in self._serve.status().applications:
            return True
        return self._vault.site() not in (None, self._name)  # Ray Serve itself does not tell one from the next

    def wait(self, until: Callable[[], bool]) -> bool:
        """Wait until something is so; False if the site was replaced before that."""
        while not until():
            if self.is_replaced:
                return False
            time.sleep(_LOOK_S)
        return True

    def end(self) -> None:
        """Take nobody new, and end when the last visitor has left, or the time for that is over."""
        if not self.is_replaced:
            self._serve.delete(NAME)


@contextmanager
def running(site: Site, address: str) -> Iterator[RunningSite]:
    """Begin a site, and end it with the block.

    Args:
        site: see there.
        address: of the cluster; see `check_address`.

    Raises:
        BackendMissingError: Ray Serve is not installed.
        ClusterError: there is no cluster, or the site does not start in it.
    """
    serve = require_site()
    most = site.site.replicas[1]
    cpus = max(_LEAST_CPUS, math.ceil(most * site.site.cpus) + 1, os.cpu_count() or 1)
    session = RaySession(address, cpus=cpus, wants_gpu=site.site.gpus > 0)
    try:
        options = {"host": site.settings.host, "port": site.settings.port}
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(proxy_location="EveryNode", http_options=options)
        begun = RunningSite(serve, begin(serve, site))
        yield begun
        begun.end()
    finally:
        if address == LOCAL:
            serve.shutdown()
        session.close()


def begin(serve: Any, site: Site) -> str:
    """Begin a site, or put it in the place of the one there is.

    Returns:
        A name that no other site has.

    Raises:
        ClusterError: it does not start.
    """
    try:
        serve.run(application(site), name=NAME, route_prefix="/", blocking=False)
    except PflxError:
        raise
    except Exception as error:  # of Ray, which has many kinds
        status = serve.status().applications.get(NAME)
        why = [] if status is None else [each.message for each in status.deployments.values() if each.message]
        raise ClusterError(f"The site does not start: {_cause(why) or first_line(error)}") from error
    name = secrets.token_hex(8)
    _vault().begin(name)
    return name


def _vault() -> VaultActor:
    import ray

    return VaultActor(ray, f"{NAME}-vault")


def _cause(messages: Sequence[str]) -> str:
    """What the process has said that could not start: the last line of its traceback."""
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Error: " in line), lines[-1] if lines else "")
