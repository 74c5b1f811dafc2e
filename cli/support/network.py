"""Options of `pflx serve` that tell of the network between it and its visitors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pflx.runtime.serve import TurnServer

_PROXY = "A proxy that tells who asks (X-Forwarded-For, -Proto, -Host); nobody else is believed."
_STUN = "STUN server that browsers may ask; none is asked by default."
_TURN = "TURN server, which carries media where there is no other way; several addresses of one may be given."
_SECRET = "File with the secret shared with it (coturn: use-auth-secret); visitors get credentials for 12 h."
_PORTS = "Ports that media may come in by, to open a firewall for; one a visitor. [any that is free]"
_ANNOUNCE = "IP address that visitors find the server at, where a NAT that keeps ports gives it another one."
_PASSWORD = "File with that user's password."


@dataclass(frozen=True)
class NetworkOptions:
    """What stands between the server and its visitors; see `ServeSettings`."""

    trusted_proxies: Annotated[
        list[str] | None, typer.Option("--trusted-proxy", metavar="ADDRESS|NETWORK", help=_PROXY)
    ] = None
    ice_servers: Annotated[list[str] | None, typer.Option("--ice-server", metavar="URL", help=_STUN)] = None
    turn: Annotated[list[str] | None, typer.Option(metavar="URL", envvar="PFLX_TURN", help=_TURN)] = None
    turn_secret: Annotated[Path | None, typer.Option(metavar="FILE", envvar="PFLX_TURN_SECRET_FILE", help=_SECRET)] = (
        None
    )
    turn_user: Annotated[
        str | None, typer.Option(metavar="NAME", help="In place of a secret: the same user for all.")
    ] = None
    turn_password: Annotated[Path | None, typer.Option(metavar="FILE", help=_PASSWORD)] = None
    udp_ports: Annotated[str | None, typer.Option(metavar="FIRST-LAST", help=_PORTS)] = None
    announce: Annotated[str | None, typer.Option(metavar="ADDRESS", help=_ANNOUNCE)] = None

    def settings(self) -> dict[str, Any]:
        """Fields of `ServeSettings`."""
        return {
            "trusted_proxies": tuple(self.trusted_proxies or ()),
            "ice_servers": tuple(self.ice_servers or ()),
            "turn": self._turn_server(),
            "udp_ports": None if self.udp_ports is None else _range(self.udp_ports),
            "announce": self.announce,
        }

    def _turn_server(self) -> TurnServer | None:
        from pflx.runtime.serve import TurnServer

        if not any((self.turn, self.turn_secret, self.turn_user, self.turn_password)):
            return None
        secret = None if self.turn_secret is None else _secret_in(self.turn_secret, "--turn-secret")
        password = None if self.turn_password is None else _secret_in(self.turn_password, "--turn-password")
        return TurnServer(tuple(self.turn or ()), secret=secret, user=self.turn_user, password=password)


def _range(given: str) -> tuple[int, int]:
    from pflx.runtime.serve import ServeError

    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", given)
    if match is None:
        raise ServeError(f"'{given}' is no range of UDP ports. Give one such as 50000-50100.")
    return int(match[1]), int(match[2] or match[1])


def _secret_in(path: Path, option: str) -> str:
    """The one line of a file; nothing of it is ever told."""
    from pflx.runtime.serve import ServeError

    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ServeError(
            f"{option} {path} cannot be read ({reason}). Name a file that holds it in one line."
        ) from error
    if not text or len(text.splitlines()) > 1:
        raise ServeError(
            f"{option} {path} holds {len(text.splitlines())} lines. Write it in one line, and nothing else."
        )
    return text
