"""How a server ends: at once, or when those who are there have left."""

from __future__ import annotations

import asyncio
import signal
import sys
import time

import pytest
from support.live.live_sessions import watchdog  # noqa: F401
from support.serve.serve_client import (
    Visitor,
    loopback_only,  # noqa: F401
    until,
)
from support.serve.server_process import ServerProcess, server_process

from pflx.runtime.serve import ServeError, ServeSettings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


async def seated(server: ServerProcess) -> Visitor:
    visitor = Visitor(server)
    assert not (await visitor.come()).kind
    await visitor.see(5)
    return visitor


async def told_of_the_end(visitor: Visitor) -> None:
    """The server has said why it ends before it has closed the web socket."""
    assert visitor.line is not None
    line = visitor.line
    await until(lambda: line.closed is not None)
    assert (visitor.told[-1]["type"], visitor.told[-1]["reason"]) == ("ended", "The server stops.")


def test_at_sigterm_nobody_new_comes_in_and_who_is_there_may_stay_until_they_leave() -> None:
    async def act(server: ServerProcess) -> None:
        visitor = await seated(server)
        joined = server.wait_for("session.joined")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_for("server.draining")["sessions"] == 1
        late = Visitor(server)
        answer = await late.come()
        assert answer.kind == "full"
        assert "about to stop" in answer.message
        assert server.get("/readyz") == (503, b"draining\n")
        seen = len(visitor.pictures)
        await visitor.see(seen + 20)
        await visitor.leave()
        await late.leave()
        assert server.wait_for("session.ended")["session"] == joined["session"]

    with server_process("--drain", "60") as server:
        server.wait_for("server.ready")
        asyncio.run(act(server))
        assert server.process.wait(20) == 128 + signal.SIGTERM


def test_who_stays_longer_than_they_may_is_told_that_it_ends() -> None:
    async def act(server: ServerProcess) -> None:
        visitor = await seated(server)
        server.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        await told_of_the_end(visitor)
        assert time.monotonic() - begun >= 1
        assert server.wait_for("session.ended")["reason"] == "The server stops."
        await visitor.leave()

    with server_process("--drain", "1") as server:
        asyncio.run(act(server))
        assert server.process.wait(20) == 128 + signal.SIGTERM


@pytest.mark.parametrize("options", [(), ("--drain", "60")], ids=["at once", "told twice"])
def test_it_ends_at_once_without_drain_and_at_a_second_signal(options: tuple[str, ...]) -> None:
    async def act(server: ServerProcess) -> None:
        visitor = await seated(server)
        server.process.send_signal(signal.SIGTERM)
        if options:
            server.wait_for("server.draining")
            server.process.send_signal(signal.SIGTERM)
        await told_of_the_end(visitor)
        assert server.wait_for("session.ended")["reason"] == "The server stops."
        await visitor.leave()

    with server_process(*options) as server:
        asyncio.run(act(server))
        assert server.process.wait(20) == 128 + signal.SIGTERM


@pytest.mark.parametrize("given", [-1.0, float("inf"), float("nan")])
def test_a_time_to_stay_is_a_number_of_seconds(given: float) -> None:
    with pytest.raises(ServeError, match="give a time in s, such as 30"):
        ServeSettings(drain_s=given)
