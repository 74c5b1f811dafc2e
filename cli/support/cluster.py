"""Options of `pflx serve` on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pflx.runtime.cluster.site import SiteSettings

_RAY = "Serve from a Ray cluster: HOST:PORT, auto, or nothing for one begun here."
_REPLICAS = "Servers with --ray, at least and at most."
_GPUS = "Of each server with --ray; a share of one where several use it. [1 with --device cuda, else 0]"


@dataclass(frozen=True)
class ClusterOptions:
    """Where the servers run; see `SiteSettings`."""

    ray: Annotated[str | None, typer.Option(metavar="[ADDRESS]", help=_RAY)] = None
    replicas: Annotated[str | None, typer.Option(metavar="LEAST:MOST", help=f"{_REPLICAS} [1:1]")] = None
    gpus_per_replica: Annotated[float | None, typer.Option(metavar="N", min=0, help=_GPUS)] = None

    def settings(self, device: str, drain: float | None, in_json: bool) -> SiteSettings | None:
        """How the site runs; None without --ray.

        Args:
            device: of the servers.
            drain: seconds that sessions of a server that is to go may stay on it; None for the usual time.
            in_json: whether their logs are lines of JSON.
        """
        from pflx.runtime.cluster.ray_session import check_address
        from pflx.runtime.cluster.site import SiteSettings
        from pflx.runtime.serve import ServeError

        given = {"--replicas": self.replicas, "--gpus-per-replica": self.gpus_per_replica}
        if self.ray is None:
            alone = next((name for name, value in given.items() if value is not None), None)
            if alone is not None:
                raise ServeError(f"{alone} is for servers on a Ray cluster. Give --ray, too.")
            return None
        check_address(self.ray)
        usual = SiteSettings()
        return SiteSettings(
            replicas=usual.replicas if self.replicas is None else SiteSettings.read_replicas(self.replicas),
            gpus=float(device.startswith("cuda")) if self.gpus_per_replica is None else self.gpus_per_replica,
            drain_s=usual.drain_s if drain is None else drain,
            in_json=in_json,
        )
