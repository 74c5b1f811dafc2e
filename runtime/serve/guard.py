"""Who may ask for what, and how often: stands before every request, and knows nothing of listeners."""

from __future__ import annotations

import hmac
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

_SAFE = frozenset({"GET", "HEAD"})
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


def _default_limits() -> dict[str, RateLimit]:
    return {
        "all": RateLimit(120, 600),
        "sign-in": RateLimit(5, 5),
        "session": RateLimit(12, 30),
        "portrait": RateLimit(6, 20),
    }


class Guard:
    """Middleware: host, origin, rate and token, in this order, and the headers of every answer.

    Args:
        app: what is guarded.
        settings: of the server.
        port: that is listened at.
        limits: on the rate, by name; see `_default_limits`.
    """

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, port: int, limits: Mapping[str, RateLimit] | None = None
    ) -> None:
        self._app, self._token = app, settings.token
        self._origins = settings.allowed_origins(port)
        self._hosts = frozenset(urlsplit(origin).netloc for origin in self._origins)
        self._limits = limits or _default_limits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            refusal = self._refusal(scope)
            await (refusal or self._app)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        if headers.get("host", "").lower() not in self._hosts:
            return refused(421, "host", "This server does not answer under that name.")
        if not self._is_same_origin(headers, method):
            return refused(403, "origin", "This request came from another site.")
        if not self._is_within_limits(scope, method, path):
            return refused(429, "rate", "Too many requests. Wait a minute, and try again.")
        if self._token is None or path in _OPEN or self._is_signed_in(headers):
            return None
        if method == "GET" and path == "/":
            return self._sign_in_by_link(scope)
        return refused(401, "token", "Sign in first.")

    def _is_same_origin(self, headers: Headers, method: str) -> bool:
        site = headers.get("sec-fetch-site", "none")
        if method in _SAFE:
            return site in ("none", "same-origin") or headers.get("sec-fetch-mode") == "navigate"
        return headers.get("origin", "").lower() in self._origins and site in ("none", "same-origin")

    def _is_within_limits(self, scope: Scope, method: str, path: str) -> bool:
        visitor = (scope.get("client") or ("", 0))[0]
        names = ["all"]
        if method not in _SAFE:
            names += ["sign-in"] * (path == _SIGN_IN)
            names += ["session"] * (method in ("POST", "PATCH") and path.startswith("/api/sessions"))
            names += ["portrait"] * (method == "PUT")
        elif _token_in(scope) is not None:
            names.append("sign-in")
        return all(self._limits[name].allows(visitor) for name in names)

    def _is_signed_in(self, headers: Headers) -> bool:
        return self._token is not None and is_equal(_cookie(headers), pass_for(self._token))

    def _sign_in_by_link(self, scope: Scope) -> Response:
        """A link with the token signs in, and leaves the token out of the address from then on."""
        given = _token_in(scope)
        if given is None or self._token is None or not is_equal(given, self._token):
            return RedirectResponse(_SIGN_IN, 303)
        return signed_in(self._token, RedirectResponse("/", 303), secure=scope["scheme"] == "https")


def refused(status: int, kind: str, message: str, **facts: Any) -> Response:
    """An answer that says why not."""
    return JSONResponse({"error": {"kind": kind, "message": message, **facts}}, status)


def is_equal(given: str, expected: str) -> bool:
    """Whether two secrets are equal, in a time that tells nothing about where they differ."""
    return hmac.compare_digest(given.encode(), expected.encode())


def pass_for(token: str) -> str:
    """What a browser that has signed in keeps; the token cannot be told from it."""
    return hmac.new(token.encode(), b"pflx serve", sha256).hexdigest()


def signed_in(token: str, response: Response, *, secure: bool) -> Response:
    """The answer, with which the browser keeps its pass until it is closed.

    Lax, for a strict cookie would not come along when the link is opened from a message; unsafe requests are checked by
    their origin anyway.
    """
    response.set_cookie(COOKIE, pass_for(token), path="/", secure=secure, httponly=True, samesite="lax")
    return response


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
