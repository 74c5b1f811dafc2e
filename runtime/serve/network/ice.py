"""Servers that help browser and server to find a way to one another (STUN), or carry media between them (TURN)."""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any

from pflx.runtime.serve.errors import ServeError

LIFETIME_S = 12 * 3600
"""Of time-limited credentials. A TURN server may look at them again while it carries a session, and its clock may be
another one."""

# What browsers and aiortc both take: names and IPv4 addresses, a port; RFC 7064 and 7065, sections 3.1.
_HOST = r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.\-]*[A-Za-z0-9])?)(?::(?P<port>\d{1,5}))?"
_STUN = re.compile(f"stun:{_HOST}")
_TURN = re.compile(f"turn:{_HOST}(?:\\?transport=(?:udp|tcp))?")
_TURNS = re.compile(f"turns:{_HOST}(?:\\?transport=tcp)?")


def check_stun(url: str) -> None:
    """Make sure that browsers take the address of a STUN server: with one that they refuse nobody can connect.

    Raises:
        ServeError: they do not.
    """
    if url.startswith(("turn:", "turns:")):
        raise ServeError(
            f"'{url}' is a TURN server, which browsers take with a user and a password only. Give --turn {url} with "
            "--turn-secret FILE, or with --turn-user NAME and --turn-password FILE, in place of --ice-server."
        )
    if not _is_address(_STUN, url):
        raise ServeError(f"'{url}' is no ICE server. Give one such as stun:stun.example:3478.")


def _is_address(form: re.Pattern[str], url: str) -> bool:
    match = form.fullmatch(url)
    return match is not None and 0 < int(match["port"] or 1) < 65_536


@dataclass(frozen=True)
class TurnServer:
    """A TURN server and what it lets in by: a secret shared with it, or one user and their password.

    Attributes:
        urls: ways to the one server, such as "turn:turn.example:3478". A browser tries all, this server the first.
        secret: shared with it: every visitor gets credentials of their own, for `LIFETIME_S`.
        user: the same for every visitor, in place of a secret.
        password: of that user.

    Raises:
        ServeError: an address is none, or it is not told by what one is let in.
    """

    urls: tuple[str, ...]
    secret: str | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse what browsers would refuse."""
        if not self.urls:
            raise ServeError("There is a secret or a user of a TURN server, and no server. Give --turn turn:HOST:PORT.")
        for url in self.urls:
            if not _is_address(_TURNS if url.startswith("turns:") else _TURN, url):
                raise ServeError(
                    f"'{url}' is no TURN server. Give one such as turn:turn.example:3478, "
                    "turn:turn.example:3478?transport=tcp or turns:turn.example:5349."
                )
        given = [bool(each) for each in (self.secret, self.user, self.password)]
        if given not in ([True, False, False], [False, True, True]):
            raise ServeError(
                f"By what does {self.urls[0]} let in? Give --turn-secret FILE, or both --turn-user NAME and "
                "--turn-password FILE."
            )

    def credentials(self) -> tuple[str, str]:
        """A user and a password; with a secret, others each time.

        Source: draft-uberti-behave-turn-rest-00, section 2.2, as coturn's `use-auth-secret` has it.
        """
        if self.secret is None:
            assert self.user is not None
            assert self.password is not None
            return self.user, self.password
        user = f"{int(time.time()) + LIFETIME_S}:{secrets.token_hex(4)}"
        digest = hmac.new(self.secret.encode(), user.encode(), sha1).digest()
        return user, base64.b64encode(digest).decode()


def ice_servers(stun: Sequence[str], turn: TurnServer | None) -> list[dict[str, Any]]:
    """The servers as a browser takes them, with fresh credentials: for one visitor, or this server's side of one.

    Args:
        stun: addresses of STUN servers.
        turn: the relay, if there is one.
    """
    servers: list[dict[str, Any]] = [{"urls": [url]} for url in stun]
    if turn is not None:
        user, password = turn.credentials()
        servers.append({"urls": [*turn.urls], "username": user, "credential": password})
    return servers
