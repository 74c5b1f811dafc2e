from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

import pytest
from support.places import ROOT
from support.serve.serve_client import ORIGIN, PORT, WISH, Answer, serving

from pflx.runtime.media.mark import SOURCE_TYPE
from pflx.runtime.serve import ServeSettings
from pflx.runtime.serve.guard import HEADERS, RateLimit

TOKEN = "a token of some length"
GUARDED = ServeSettings(port=PORT, token=TOKEN)
SCRIPTS = sorted(f"/{path.name}" for path in (ROOT / "runtime/serve/page").glob("*.js"))
PATHS = ["/", "/style.css", "/scripts/page.js", "/sign-in", "/portrait.png", "/api/choices", "/nothing"]


def ask(
    *requests: Any, settings: ServeSettings | None = None, address: str = "127.0.0.1", **limits: Any
) -> list[Answer]:
    """Answers to requests, each (method, path, body, headers) or shorter."""

    async def run() -> list[Answer]:
        async with serving(settings=settings, **limits) as (browser, _):
            browser.address = address
            return [await browser.ask(*request) for request in requests]

    return asyncio.run(run())


def told(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["error"]["kind"]


@pytest.mark.parametrize("path", ["/", "/style.css", "/scripts/page.js", "/portrait.png", "/api/choices"])
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_a_page_is_served_to_this_machine(path: str, host: str) -> None:
    (answer,) = ask(("GET", path, b"", {"host": host}))
    assert answer.status == 200
    assert answer.body


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:9", "", None])
@pytest.mark.parametrize("path", ["/", "/api/choices"])
def test_a_name_that_was_bent_to_this_address_is_refused(host: str | None, path: str) -> None:
    (answer,) = ask(("GET", path, b"", {"host": host}))
    assert told(answer) == (421, "host")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": None},
        {"origin": "http://127.0.0.1:9"},
        {"origin": "https://127.0.0.1:8000"},
        {"origin": ORIGIN, "sec-fetch-site": "cross-site"},
        {"origin": ORIGIN, "sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/api/stills/0"), ("DELETE", "/api/stills/0"), ("POST", "/sign-in")]
)
def test_what_changes_something_must_come_from_the_page_itself(
    headers: dict[str, str | None], method: str, path: str
) -> None:
    (answer,) = ask((method, path, b"{}", headers))
    assert told(answer) == (403, "origin")


def test_another_site_cannot_read_either_but_may_link_here() -> None:
    cross = {"origin": None, "sec-fetch-site": "cross-site"}
    read, linked = ask(("GET", "/api/choices", b"", cross), ("GET", "/", b"", cross | {"sec-fetch-mode": "navigate"}))
    assert told(read) == (403, "origin")
    assert linked.status == 200


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_carries_the_headers_and_opens_itself_to_no_other_site(path: str) -> None:
    for answer in ask(("GET", path), ("GET", path, b"", {"host": "evil.example"}), ("POST", path, b"{}")):
        assert {name.lower(): value for name, value in HEADERS.items()}.items() <= answer.headers.items()
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_policy_lets_nothing_in_from_outside() -> None:
    policy = dict(part.split(maxsplit=1) for part in HEADERS["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    allowed = {source for sources in policy.values() for source in sources.split()}
    assert allowed == {"'none'", "'self'", "blob:"}


def test_the_page_asks_for_nothing_from_outside() -> None:
    for answer in ask(*[("GET", path) for path in ("/", "/style.css", "/sign-in", *SCRIPTS)]):
        page = answer.body.replace(SOURCE_TYPE.encode(), b"")  # a name, which nothing is loaded from
        assert not re.search(rb"""["'(=]\s*(https?:|wss?:)?//""", page)
        assert b"style=" not in answer.body
        assert b"onclick=" not in answer.body


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/../../../../etc/passwd",
        "/page/../../settings.py",
        "/..%2f..%2fsettings.py",
        "/%2e%2e/settings.py",
        "//etc/passwd",
        "/style.css/../../settings.py",
        "/index.html",
        "/page/style.css",
        "/\\..\\settings.py",
        "/portrait.png\x00.py",
        "/api/stills/../../../etc/passwd",
    ],
)
def test_no_path_reaches_the_file_system(path: str) -> None:
    answers = ask(("GET", path), ("PUT", path, b"x"), ("DELETE", path))
    assert {answer.status for answer in answers} <= {404, 405}
    assert all(b"root:" not in answer.body and b"import" not in answer.body for answer in answers)


def test_no_code_of_the_server_opens_a_file_by_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with serving() as (browser, _):
            monkeypatch.setattr("builtins.open", lambda *a, **k: pytest.fail(f"opened {a}"))
            monkeypatch.setattr("io.open", lambda *a, **k: pytest.fail(f"opened {a}"))
            for path in PATHS:
                await browser.ask("GET", path)
            answer = await browser.ask("PUT", "/api/stills/..%2f..%2fetc", b"/etc/passwd")
            assert answer.status == 404

    asyncio.run(run())


def test_without_the_token_there_is_only_a_page_to_sign_in() -> None:
    answers = ask(*[("GET", path) for path in PATHS], settings=GUARDED)
    assert {path: answer.status for path, answer in zip(PATHS, answers, strict=True)} == {
        "/": 303,
        "/style.css": 200,
        "/scripts/page.js": 401,
        "/sign-in": 200,
        "/portrait.png": 401,
        "/api/choices": 401,
        "/nothing": 401,
    }
    assert answers[0].headers["location"] == "/sign-in"
    changes = [("PUT", "/api/stills/0", b"x"), ("DELETE", "/api/stills/0")]
    assert {told(answer) for answer in ask(*changes, settings=GUARDED)} == {(401, "token")}


def sign_in(given: str, *, secure: bool = False) -> tuple[Answer, Answer]:
    """The answer to a token, and to a request with the cookie that came."""

    async def run() -> tuple[Answer, Answer]:
        settings = ServeSettings(port=PORT, token=TOKEN, secure=secure)
        async with serving(settings=settings) as (browser, _):
            browser.secure = secure
            origin = {"origin": ORIGIN.replace("http", "https")} if secure else {}
            answer = await browser.ask("POST", "/sign-in", {"token": given}, origin)
            cookie = answer.headers.get("set-cookie", "").partition(";")[0]
            return answer, await browser.ask("GET", "/api/choices", b"", origin | {"cookie": cookie})

    return asyncio.run(run())


def test_the_token_signs_in_by_a_cookie_from_which_it_cannot_be_told() -> None:
    answer, after = sign_in(TOKEN)
    assert (answer.status, after.status) == (204, 200)
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie
    assert TOKEN.replace(" ", "") not in cookie.replace(" ", "")
    assert "; secure" in sign_in(TOKEN, secure=True)[0].headers["set-cookie"].lower()


@pytest.mark.parametrize("given", ["", "wrong", TOKEN + "x", TOKEN[:-1], TOKEN.upper(), "ü" * 20])
def test_another_token_does_not(given: str) -> None:
    answer, after = sign_in(given)
    assert told(answer) == (401, "token")
    assert "set-cookie" not in answer.headers
    assert told(after) == (401, "token")


@pytest.mark.parametrize("cookie", ["pflx=", f"pflx={TOKEN}", "pflx=\xff", "pflx", "a=b;;;pflx=x", "other=1"])
def test_a_made_up_cookie_is_none(cookie: str) -> None:
    (answer,) = ask(("GET", "/api/choices", b"", {"cookie": cookie}), settings=GUARDED)
    assert told(answer) == (401, "token")


def by_link(query: str) -> Answer:
    async def run() -> Answer:
        async with serving(settings=GUARDED) as (browser, _):
            return await browser.ask("GET", "/", query=query)

    return asyncio.run(run())


def test_a_link_signs_in_and_leaves_the_token_out_of_the_address() -> None:
    answer = by_link("token=a+token+of+some+length")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert "set-cookie" in answer.headers


@pytest.mark.parametrize("query", ["token=wrong", "", "token=", "&" * 100, "x=1&token"])
def test_a_wrong_link_leads_to_the_page_to_sign_in(query: str) -> None:
    answer = by_link(query)
    assert (answer.status, answer.headers["location"]) == (303, "/sign-in")
    assert "set-cookie" not in answer.headers


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, expected: bytes) -> bool:
        compared.append((given, expected))
        return False

    monkeypatch.setattr("hmac.compare_digest", compare)
    answer, after = sign_in(TOKEN)
    by_link("token=linked")
    assert (answer.status, after.status) == (401, 401)  # nothing else lets anybody in
    assert {TOKEN.encode(), b"", b"linked"} == {given for given, _ in compared}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_is_limited_for_each_visitor_and_recovers() -> None:
    clock = Clock()
    limit = RateLimit(3, 60, clock)
    assert [limit.allows("a") for _ in range(5)] == [True, True, True, False, False]
    assert limit.allows("b")
    clock.now = 1.0
    assert [limit.allows("a") for _ in range(2)] == [True, False]
    clock.now = 1000.0
    assert [limit.allows("a") for _ in range(4)] == [True, True, True, False]


def test_what_is_remembered_of_visitors_is_bounded() -> None:
    limit = RateLimit(1, 1, Clock())
    for number in range(10_000):
        limit.allows(str(number))
    assert len(limit._left) <= 4096


def test_tokens_cannot_be_tried_for_long() -> None:
    tries = [("POST", "/sign-in", {"token": f"try {n}"}) for n in range(8)]
    assert [told(answer)[0] for answer in ask(*tries, settings=GUARDED)] == [401] * 5 + [429] * 3


def test_the_addresses_of_one_network_of_ipv6_are_one_visitor() -> None:
    async def run() -> list[int]:
        async with serving(settings=GUARDED) as (browser, _):
            statuses = []
            for address in (
                *(f"2001:db8::{n:x}" for n in range(6)),
                "2001:db8:0:1::1",
                "fe80::1%eth0",
                "::ffff:192.0.2.1",
            ):
                browser.address = address
                statuses.append((await browser.ask("POST", "/sign-in", {"token": "wrong"})).status)
            return statuses

    assert asyncio.run(run()) == [401] * 5 + [429, 401, 401, 401]


def test_wrong_tokens_of_others_at_the_same_address_keep_nobody_out() -> None:
    async def run() -> list[int]:
        async with serving(settings=GUARDED) as (browser, _):
            for n in range(200):
                await browser.ask("POST", "/sign-in", {"token": f"try {n}"})
                await browser.ask("GET", "/", query=f"token={n}")
                await browser.ask("GET", "/api/choices")
            page = await browser.ask("GET", "/sign-in")
            link = await browser.ask("GET", "/", query=f"token={TOKEN.replace(' ', '+')}")
            typed = await browser.ask("POST", "/sign-in", {"token": TOKEN})
            cookie = {"cookie": typed.headers["set-cookie"].partition(";")[0]}
            inside = await browser.ask("GET", "/api/choices", b"", cookie)
            wrong = await browser.ask("POST", "/sign-in", {"token": "wrong"})
            return [answer.status for answer in (page, link, typed, inside, wrong)]

    assert asyncio.run(run()) == [200, 303, 204, 200, 429]


def test_sessions_and_requests_are_limited_too() -> None:
    async def begin() -> list[str]:
        async with serving() as (browser, _):
            lines = [await browser.line() for _ in range(20)]
            kinds = [(await line.ask("begin", wish=3)).kind for line in lines]
            assert lines[-1].told[-1]["error"]["message"] == "Too many requests. Wait a minute, and try again."
            return kinds

    assert asyncio.run(begin()) == ["request"] * 12 + ["rate"] * 8
    assert [answer.status for answer in ask(*[("GET", "/")] * 140)].count(429) >= 15


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 400), (b"{", 400), (b"[]", 422), (b"{}", 422), (b'{"token": 5, "x": 1}', 422)]
)
def test_what_is_no_request_is_refused(body: bytes, status: int) -> None:
    (answer,) = ask(("POST", "/sign-in", body))
    assert told(answer) == (status, "request")


def test_a_body_is_read_no_further_than_it_may_be_long() -> None:
    read: list[int] = []

    async def run() -> list[Any]:
        async with serving() as (browser, _):
            came: list[Any] = []

            async def receive() -> Any:
                read.append(10_000)
                return {"type": "http.request", "body": b"x" * 10_000, "more_body": True}

            async def send(message: Any) -> None:
                came.append(message)

            headers = [(name.encode(), value.encode()) for name, value in browser.headers.items()]
            scope: dict[str, Any] = {
                "type": "http",
                "method": "POST",
                "path": "/sign-in",
                "headers": headers,
                "scheme": "http",
            }
            scope |= {"query_string": b"", "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", PORT)}
            await browser.app(scope, receive, send)
            return came

    assert asyncio.run(run())[0]["status"] == 413
    assert sum(read) <= 80_000


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 0},
        {"samples": 4},
        {"samples": 1.5},
        {"lookahead": -1},
        {"lookahead": 14},
        {"playout_ms": -1},
        {"playout_ms": 1001},
        {"listener": 1},
        {"listener": -1},
        {"seed": 3},
        {"listener": "../me.pflx"},
    ],
)
def test_a_wish_beyond_what_is_offered_is_refused(change: dict[str, Any]) -> None:
    async def begin() -> str:
        async with serving() as (browser, _):
            return (await (await browser.line()).ask("begin", wish=WISH | change)).kind

    assert asyncio.run(begin()) in ("wish", "request")


def test_an_error_of_the_server_tells_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Coroutine[Any, Any, Any]:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("pflx.runtime.serve.lobby.Lobby.describe", fail)
    (answer,) = ask(("GET", "/api/choices"))
    assert told(answer) == (500, "server")
    assert b"secret" not in answer.body
