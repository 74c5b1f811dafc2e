"""Who may ask for what, and how often: stands before every request, and knows nothing of listeners."""

from __future__ import annotations

import hmac
import ipaddress
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pflx.runtime.serve.errors import HurriedError
from pflx.runtime.serve.network.proxies import TrustedProxies, read_address
from pflx.runtime.serve.settings import ServeSettings

COOKIE = "pflx"

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer. Nothing from elsewhere is loaded, nothing runs that is not a file of the page, nobody frames it."""

HEALTH, READINESS, METRICS = "/healthz", "/readyz", "/metrics"
SOCKET = "SOCKET"
"""In the place of a method: a web socket that is opened."""

_SAFE = frozenset({"GET", "HEAD"})
_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
_SIGN_IN = "/sign-in"
_OPEN = frozenset({_SIGN_IN, "/style.css", "/sign-in.js"})  # what a visitor sees who has no token yet


class RateLimit:
    """So many requests of one visitor in a row, and then so many a minute: a token bucket for each.

    Args:
        burst: in a row.
        per_minute: in the long run.
        clock: in s, monotonic.
    """

    def __init__(self, burst: int, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._per_s, self._clock = burst, per_minute / 60, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # by visitor: requests left, when

    def allows(self, visitor: str) -> bool:
        """Whether one more request is within the limit; if so, it is counted."""
        now = self._clock()
        left, before = self._left.pop(visitor, (float(self._burst), now))
        left = min(self._burst, left + (now - before) * self._per_s)
        allowed = left >= 1
        self._left[visitor] = (left - allowed, now)
        if len(self._left) > _REMEMBERED:
            self._left.popitem(last=False)
        return allowed


_REMEMBERED = 4096  # visitors


def default_limits() -> dict[str, RateLimit]:
    """On the rate of who is in, by name: all requests; sessions that are begun or changed; portraits."""
    return {
        "all": RateLimit(120, 600),
        "session": RateLimit(12, 30),
        "portrait": RateLimit(6, 20),
    }


class SignIn:
    """Lets in who knows the token.

    Only wrong ones are counted, so that nobody who shares an address with who guesses, such as that of a proxy, is kept
    from coming in with the right one.

    Args:
        token: None lets everybody in.
        guesses: limit on the rate of wrong tokens.
    """

    def __init__(self, token: str | None, guesses: RateLimit | None = None) -> None:
        self._token, self._guesses = token, guesses or RateLimit(5, 5)

    def has_signed_in(self, headers: Headers) -> bool:
        """Whether a request comes of a browser that may come in."""
        return self._token is None or is_equal(_cookie(headers), _pass_for(self._token))

    def by_token(self, given: str, scope: Scope) -> Response:
        """The answer to a token that was typed in."""
        if self._is_right(given):
            return self._signed_in(Response(status_code=204), scope)
        return refused(401, "token", "This is not the token.") if self._may_guess(scope) else _hurried()

    def by_link(self, scope: Scope) -> Response:
        """The answer to a link: one with the token signs in, and leaves it out of the address from then on."""
        given = _token_in(scope)
        if given is not None and self._is_right(given):
            return self._signed_in(RedirectResponse("/", 303), scope)
        return RedirectResponse(_SIGN_IN, 303) if given is None or self._may_guess(scope) else _hurried()

    def by_bearer(self, scope: Scope) -> Response | None:
        """The answer to a program that brings the token in a header; None where it is right.

        Nothing brings that header of its own accord, so whatever name the server was asked under, it knows the token.
        """
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._token is not None and self._is_right(given):
            return None
        return refused(401, "token", "This is not the token.") if self._may_guess(scope) else _hurried()

    def _is_right(self, given: str) -> bool:
        return self._token is None or is_equal(given, self._token)

    def _may_guess(self, scope: Scope) -> bool:
        return self._guesses.allows(visitor_of(scope))

    def _signed_in(self, response: Response, scope: Scope) -> Response:
        """The answer, with which the browser keeps its pass until it is closed.

        Lax, for a strict cookie would not come along when the link is opened from a message; unsafe requests are
        checked by their origin anyway.
        """
        if self._token is not None:
            kept, secure = _pass_for(self._token), scope["scheme"] == "https"
            response.set_cookie(COOKIE, kept, path="/", secure=secure, httponly=True, samesite="lax")
        return response


class Guard:
    """Middleware: host, origin, token and rate, in this order, and the headers of every answer.

    Args:
        app: what is guarded.
        sign_in: knows who may come in.
        settings: of the server.
        port: that is listened at.
        limits: on the rate of who is in, by name; see `default_limits`.
    """

    def __init__(
        self,
        app: ASGIApp,
        sign_in: SignIn,
        settings: ServeSettings,
        port: int,
        limits: Mapping[str, RateLimit] | None = None,
    ) -> None:
        self._app, self._sign_in = app, sign_in
        self._origins = settings.allowed_origins(port)
        self._hosts = frozenset(urlsplit(origin).netloc for origin in self._origins)
        self._limits = limits or default_limits()
        self._proxies = TrustedProxies(settings.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            scope = self._as_asked(self._proxies.seen_through(scope))
            refusal = self._refusal(scope)
            await (refusal or self._app)(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            scope = self._as_asked(self._proxies.seen_through(scope))
            if refusal := self._refusal({**scope, "method": SOCKET}):
                await _hung_up(refusal, receive, send)
            else:
                await self._app(scope, receive, send)

    def _as_asked(self, scope: Scope) -> Scope:
        """The request, of https where pages of that name are: a proxy may have spoken TLS in the server's place."""
        host = Headers(scope=scope).get("host", "").lower()
        is_secure = f"https://{host}" in self._origins and f"http://{host}" not in self._origins
        return {**scope, "scheme": "https" if scope["type"] == "http" else "wss"} if is_secure else scope

    def _refusal(self, scope: Scope) -> Response | None:
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        if path in (HEALTH, READINESS) and method in _SAFE:
            return None  # probes ask under any name, and learn one word
        if path == METRICS and method in _SAFE and "authorization" in headers:
            return self._sign_in.by_bearer(scope)
        if headers.get("host", "").lower() not in self._hosts:
            return refused(421, "host", "This server does not answer under that name.")
        if not self._is_same_origin(headers, method):
            return refused(403, "origin", "This request came from another site.")
        if path in _OPEN:
            return None
        if self._sign_in.has_signed_in(headers):
            return None if self._is_within_limits(scope, method, path) else _hurried()
        if method == "GET" and path == "/":
            return self._sign_in.by_link(scope)
        return refused(401, "token", "Sign in first.")

    def _is_same_origin(self, headers: Headers, method: str) -> bool:
        site = headers.get("sec-fetch-site", "none")
        if method in _SAFE:
            return site in ("none", "same-origin") or headers.get("sec-fetch-mode") == "navigate"
        return headers.get("origin", "").lower() in self._origins and site in ("none", "same-origin")

    def _is_within_limits(self, scope: Scope, method: str, path: str) -> bool:
        names = ["all"]
        names += ["session"] * (method == SOCKET)
        names += ["portrait"] * (method == "PUT")
        return all(self._limits[name].allows(visitor_of(scope)) for name in names)


def visitor_of(scope: Scope) -> str:
    """The address that a request comes from; of IPv6 the network, for who has one has 2^64 addresses in it."""
    given = str((scope.get("client") or ("", 0))[0])
    address = read_address(given)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address), 64), strict=False))
    return given if address is None else str(address)


def _hurried() -> Response:
    return refused(429, "rate", str(HurriedError()))


def refused(status: int, kind: str, message: str, **facts: Any) -> Response:
    """An answer that says why not."""
    return JSONResponse({"error": {"kind": kind, "message": message, **facts}}, status)


async def _hung_up(refusal: Response, receive: Receive, send: Send) -> None:
    """Tell a page why its web socket is refused: of a handshake that fails it learns nothing. Others learn nothing."""
    await receive()
    if refusal.status_code in (401, 429):
        await send({"type": "websocket.accept"})
        told = {"type": "refused", **json.loads(bytes(refusal.body))}
        await send({"type": "websocket.send", "text": json.dumps(told)})
    await send({"type": "websocket.close", "code": _POLICY_VIOLATION})


def is_equal(given: str, expected: str) -> bool:
    """Whether two secrets are equal, in a time that tells nothing about where they differ."""
    return hmac.compare_digest(given.encode(), expected.encode())


def _pass_for(token: str) -> str:
    """What a browser that has signed in keeps; the token cannot be told from it."""
    return hmac.new(token.encode(), b"pflx serve", sha256).hexdigest()


def _cookie(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _token_in(scope: Scope) -> str | None:
    query = scope.get("query_string", b"").decode("latin-1")
    return dict(parse_qsl(query[:1024], max_num_fields=8)).get("token") if query.count("&") < 8 else None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sending
