"""Proxies that stand before the server: who really asks, and under which name, of those that are trusted to tell."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from starlette.datastructures import Headers
from starlette.types import Scope

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TrustedProxies:
    """Sees through the proxies that it trusts, and through nobody else.

    `X-Forwarded-For` is read from its end, which the nearest proxy wrote, to the first address that is not a trusted
    proxy's: what stands before that the visitor may have made up. RFC 7239's `Forwarded` is not read. A proxy that sets
    the one hands the other on as it came, so whoever reads both believes the visitor.

    Args:
        networks: of the proxies; none by default.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [ipaddress.ip_network(each) for each in networks]

    def seen_through(self, scope: Scope) -> Scope:
        """A request as it was made to the first proxy: the visitor's address, the scheme, and the name asked for."""
        client = scope.get("client")
        nearest = None if client is None else read_address(client[0])
        if nearest is None or not self._trusts(nearest):
            return scope
        headers = Headers(scope=scope)
        seen = {**scope, "client": (str(self._visitor(nearest, headers)), 0)}
        scheme, host = _last(headers, "x-forwarded-proto").lower(), _last(headers, "x-forwarded-host")
        if scheme in ("http", "https"):
            seen["scheme"] = scheme
        if host:
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            seen["headers"] = [(b"host", host.encode("latin-1")), *others]
        return seen

    def _visitor(self, nearest: Address, headers: Headers) -> Address:
        visitor = nearest
        for hop in reversed([*_listed(headers, "x-forwarded-for")]):
            address = read_address(hop)
            if address is None:
                break
            visitor = address
            if not self._trusts(address):
                break
        return visitor

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _listed(headers: Headers, name: str) -> Iterator[str]:
    """The words of a list, which may stand in several lines."""
    return (word.strip() for line in headers.getlist(name) for word in line.split(","))


def _last(headers: Headers, name: str) -> str:
    return next(reversed([*_listed(headers, name)]), "")


def read_address(text: str) -> Address | None:
    """An address, also with a port; None for what is none. One of IPv4 in the form of IPv6 is one of IPv4."""
    host = text.partition("]")[0].removeprefix("[") if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
