"""Options of `pflx serve` for whoever runs it as a service."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer


class Log(StrEnum):
    """What the server's log is made of."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True)
class OperationOptions:
    """How the server is watched, and how it ends; see `ServeSettings`."""

    log: Annotated[Log, typer.Option(help="text: warnings on stderr. json: a line for each event, on stdout.")] = (
        Log.TEXT
    )
    drain: Annotated[
        float | None,
        typer.Option(
            metavar="S", min=0, help="At SIGTERM let nobody new in, and those here stay for S s. [0; with --ray 120]"
        ),
    ] = None
    replica: Annotated[
        str | None, typer.Option(metavar="NAME", envvar="PFLX_REPLICA", help="Its name in metrics. [the machine's]")
    ] = None

    def settings(self) -> dict[str, Any]:
        """Fields of `ServeSettings`."""
        return {"drain_s": self.drain or 0.0, "replica": self.replica}
