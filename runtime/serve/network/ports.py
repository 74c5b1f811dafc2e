"""Where media comes in: UDP ports that a firewall can be opened for, and the address by which others see them."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pflx.engines import PflxError
from pflx.runtime.serve.errors import ServeError

Result = TypeVar("Result")


_KEEPS_TO = "_pflx_ports"
"""Attribute of an event loop that keeps to a range, which has it for a value."""


def keep_within(loop: asyncio.AbstractEventLoop, ports: tuple[int, int] | None) -> None:
    """Have an event loop bind UDP sockets, where any port would do, to one of a range.

    aioice asks its event loop for port 0 and knows no range. What a loop does when it is asked is the program's to
    choose, so nothing of aioice has to be changed for it. Doing it twice is harmless.

    Args:
        loop: of the program, or of what runs it.
        ports: first and last; None for any.
    """
    if ports is None or getattr(loop, _KEEPS_TO, None) == ports:
        return
    plain = loop.create_datagram_endpoint

    async def within(
        protocol_factory: Callable[[], Any], local_addr: Any = None, remote_addr: Any = None, **options: Any
    ) -> tuple[asyncio.DatagramTransport, Any]:
        """As of every event loop; `OSError` where no port of the range is free."""
        if remote_addr is not None or local_addr is None or local_addr[1] != 0:
            return await plain(protocol_factory, local_addr, remote_addr, **options)
        bound = _bound(local_addr[0], range(ports[0], ports[1] + 1))
        try:
            return await plain(protocol_factory, sock=bound, **options)
        except BaseException:
            bound.close()
            raise

    setattr(loop, "create_datagram_endpoint", within)  # noqa: B010 - of a loop whose class is another's
    setattr(loop, _KEEPS_TO, ports)


def _bound(host: str, ports: range) -> socket.socket:
    """A socket at a free port of the range. The first to be tried is any: who just left may still be sent to."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    first = random.randrange(len(ports))
    for port in (*ports[first:], *ports[:first]):
        found = socket.socket(family, socket.SOCK_DGRAM)
        try:
            found.setblocking(False)
            found.bind((host, port))
        except OSError as error:
            found.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return found
    raise OSError(errno.EADDRINUSE, f"no UDP port of {ports[0]}-{ports[-1]} is free at {host}")


class NoPortError(PflxError, OSError):
    """All UDP ports that may be taken are in use."""


class NoAddressError(PflxError, OSError):
    """The machine has no address in any network."""


def run_within(ports: tuple[int, int] | None, main: Coroutine[Any, Any, Result]) -> Result:
    """`asyncio.run`, with the ports of media in a range.

    Args:
        ports: first and last; None for any.
        main: what is run.
    """
    with asyncio.Runner() as runner:
        keep_within(runner.get_loop(), ports)
        return runner.run(main)


def require_range(ports: tuple[int, int] | None) -> None:
    """Make sure that the event loop that runs keeps to the range.

    Raises:
        ServeError: it knows of none.
    """
    if ports is not None and getattr(asyncio.get_running_loop(), _KEEPS_TO, None) != ports:
        raise ServeError(
            "udp_ports are kept to by the event loop. Run the server in run_within(settings.udp_ports, …)."
        )


def reachable(sdp: str, ports: tuple[int, int] | None, announce: str | None) -> str:
    """An answer as others are told it.

    Args:
        sdp: of the server; with no address in it nobody would ever get through.
        ports: that it may take, first and last; None for any.
        announce: the address that a NAT, which keeps ports, has for the server: it takes the place of all its own of
            the same kind, IPv4 or IPv6. None leaves them.

    Raises:
        NoPortError: none of the ports is free.
        NoAddressError: the machine has no network.
    """
    if "a=candidate:" not in sdp:
        if ports is not None:
            raise NoPortError(f"No UDP port is free: all of {ports[0]}-{ports[1]} are in use.")
        raise NoAddressError("The server has no address in any network.")
    if announce is None:
        return sdp
    lines = [line.split(" ") for line in sdp.splitlines()]
    # a=candidate:foundation component transport priority address port typ kind …  (RFC 8839, section 5.1)
    hosts = {words[4] for words in lines if words[0].startswith("a=candidate:") and words[7] == "host"}
    own = {host for host in hosts if (":" in host) == (":" in announce)}
    for words in lines:
        if words[0].startswith(("a=candidate:", "c=")):  # the latter is the first of the former once more
            words[:] = [announce if word in own else word for word in words]
    return "\r\n".join([*map(" ".join, lines), ""])
