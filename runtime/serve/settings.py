"""What a server is told, and what it refuses to be told."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pflx.runtime.bundle_engines import AS_IT_IS, EngineSettings
from pflx.runtime.listener import Listener
from pflx.runtime.live.settings import LiveSettings
from pflx.runtime.rendering.renderers import Portrait
from pflx.runtime.serve.errors import ServeError
from pflx.runtime.serve.network.ice import TurnServer, check_stun
from pflx.runtime.speaker.settings import SpeakerSettings

SHORTEST_TOKEN = 16
"""Characters: what is shorter could be guessed, for all limits on the rate of guesses."""

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-]+(:\d+)?|https?://\[[0-9A-Fa-f:.]+\](:\d+)?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class ServeSettings:
    """What a server is told.

    Attributes:
        host: address to listen at; anything but a loopback address needs a token.
        port: to listen at; 0 takes a free one.
        token: what a visitor must know, 16 characters or more; None lets everybody in who reaches a loopback address.
        origins: under which browsers may come besides the address itself, such as "https://me.example:8000".
        trusted_proxies: addresses and networks of proxies that tell who asks; nobody else is believed.
        secure: whether the server itself speaks TLS.
        max_sessions: visitors at once.
        max_load: share of their time that the engines may be busy with all visitors.
        max_samples: listeners side by side that a visitor may ask for.
        lookahead: coefficient frames to wait for that a page begins with, 0…13.
        playout_ms: playout delay that a page begins with.
        seed: of the reactions; None takes another one in each session.
        ice_servers: STUN servers, that help to find a way through networks; none are asked by default.
        turn: a TURN server, that carries media where there is no other way.
        udp_ports: first and last of the ports that media may come in by; any by default.
        announce: the IP address that visitors find the server's media at, where a NAT gives it another one.
        replica: tells servers of one service apart in their metrics; None takes the machine's name.
        drain_s: how long those who are here may stay after SIGTERM, while nobody new comes in.
        patience_s: how long nothing may come from a visitor before the session ends.
        connect_s: how long a visitor may take to connect after having been let in.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    secure: bool = False
    max_sessions: int = 4
    max_load: float = 0.7
    max_samples: int = 3
    lookahead: int = 5
    playout_ms: float = LiveSettings.playout_ms
    seed: int | None = None
    ice_servers: tuple[str, ...] = ()
    turn: TurnServer | None = None
    udp_ports: tuple[int, int] | None = None
    announce: str | None = None
    replica: str | None = None
    drain_s: float = 0.0
    patience_s: float = 15.0
    connect_s: float = 15.0

    def __post_init__(self) -> None:
        """Refuse what is unsafe or cannot be meant."""
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise ServeError(f"The token has {len(self.token)} characters; give it {SHORTEST_TOKEN} or more.")
        if not self.is_loopback and self.token is None:
            raise ServeError(
                f"{self.host} can be reached by others. Give a --token of {SHORTEST_TOKEN} characters or more, or "
                "--host 127.0.0.1."
            )
        if self.is_wildcard and not self.origins:
            raise ServeError(
                f"{self.host} says nothing about the address that browsers come by. Name it, such as --origin "
                f"https://me.example:{self.port}."
            )
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise ServeError(f"'{origin}' is no origin. Give one such as https://me.example:8000, without a path.")
        for proxy in self.trusted_proxies:
            _check_proxy(proxy)
        for server in self.ice_servers:
            check_stun(server)
        if self.turn is not None and self.token is None and (open_to := [*filter(_names_others, self.origins)]):
            raise ServeError(
                f"{open_to[0]} can be reached by others, who would get credentials of {self.turn.urls[0]}. Give a "
                f"--token of {SHORTEST_TOKEN} characters or more."
            )
        if self.udp_ports is not None and not 0 < self.udp_ports[0] <= self.udp_ports[1] < 65_536:
            raise ServeError(
                f"{self.udp_ports[0]}-{self.udp_ports[1]} is no range of UDP ports. Give one such as 50000-50100."
            )
        if self.announce is not None and _address(self.announce) is None:
            raise ServeError(
                f"'{self.announce}' is no IP address that could be announced. Give one such as 203.0.113.7; browsers "
                "are told no names."
            )
        if not 0 <= self.drain_s < float("inf"):
            raise ServeError(f"drain_s is {self.drain_s}; give a time in s, such as 30, or 0 to end at once.")
        if not 0 < self.max_load < float("inf"):
            raise ServeError(f"max_load is {self.max_load}; give a share of the engines' time, such as 0.7.")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return _is_loopback(self.host)

    @property
    def is_wildcard(self) -> bool:
        """Whether it listens at every address of the machine."""
        address = _address(self.host)
        return not self.host or (address is not None and address.is_unspecified)

    def allowed_origins(self, port: int) -> frozenset[str]:
        """Every origin of a page of this server, in the form that browsers send.

        Args:
            port: that is listened at.
        """
        scheme = "https" if self.secure else "http"
        names = {"127.0.0.1", "localhost", "[::1]"} if self.is_loopback else set(self._names())
        own = {_without_default_port(f"{scheme}://{name}:{port}") for name in names}
        return frozenset(own | {_without_default_port(origin.lower()) for origin in self.origins})

    def _names(self) -> Iterator[str]:
        if not self.is_wildcard:
            yield f"[{self.host}]" if ":" in self.host else self.host.lower()


@dataclass(frozen=True)
class ServedListener:
    """A listener to serve, as it is opened in whatever process serves it.

    Attributes:
        bundle: the folder, or an address on the hub; None is the listener that comes with pflx.
        portrait: that it begins with.
        device: see `Listener.open`.
        engines: see there.
        size: see there.
        lookahead: see there.
        extractors: by what they tell of the speaker; see `SpeakerSettings`.
        badge: see `Listener.open`.
    """

    bundle: str | None
    portrait: Portrait
    device: str = "cpu"
    engines: EngineSettings = AS_IT_IS
    size: int | None = None
    lookahead: int = ServeSettings.lookahead
    extractors: Mapping[str, str] = field(default_factory=dict)
    badge: bool = False

    def open(self) -> Listener:
        """The listener; raises what `Listener.open` does."""
        return Listener.open(
            self.bundle,
            self.portrait,
            device=self.device,
            engines=self.engines,
            size=self.size,
            lookahead=self.lookahead,
            speaker=SpeakerSettings(extractors=self.extractors),
            badge=self.badge,
        )


def _check_proxy(given: str) -> None:
    try:
        network = ipaddress.ip_network(given)
    except ValueError as error:
        raise ServeError(
            f"'{given}' is no address of a proxy ({error}). Give one such as 127.0.0.1, or a network such as "
            "10.0.0.0/8."
        ) from error
    if network.prefixlen == 0:
        raise ServeError(f"{given} is everybody, who could then pass for anybody. Name the addresses of your proxies.")


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _names_others(origin: str) -> bool:
    return not _is_loopback(urlsplit(origin).hostname or "")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _without_default_port(origin: str) -> str:
    scheme = origin.partition(":")[0]
    return origin.removesuffix(f":{_DEFAULT_PORTS[scheme]}")
