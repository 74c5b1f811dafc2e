"""The log in lines of JSON: what is in it, and what never is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from support.live.live_sessions import watchdog  # noqa: F401
from support.serve.logs import logging_kept
from support.serve.scene import PORTRAIT, Scene, play
from support.serve.serve_client import (
    WISH,
    loopback_only,  # noqa: F401
    until,
)
from support.serve.serve_listener import nodding_listener, slow

from pflx.runtime.serve.operation.journal import log_json


@pytest.fixture
def journal() -> Iterator[StringIO]:
    """What is logged, in JSON; logging is as it was afterwards."""
    stream = StringIO()
    with logging_kept():
        log_json(stream)
        yield stream


def lines(journal: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.getvalue().splitlines()]


def test_a_visit_is_told_in_events_with_one_name(journal: StringIO) -> None:
    ids: list[str] = []

    async def act(here: Scene) -> None:
        visitor = await here.seated(pictures=5)
        ids.append(visitor.id)
        await here.visitor().come()
        await visitor.ask("tune", wish=WISH | {"samples": 2})
        await visitor.ask("leave")
        await until(lambda: not here.lobby.peers)

    play(act, max_sessions=1)
    told = lines(journal)
    assert [line["event"] for line in told] == [
        "session.joined",
        "session.refused",
        "session.tuned",
        "session.ended",
    ]
    joined, refused, tuned, ended = told
    assert joined["session"] == tuned["session"] == ended["session"]
    assert (refused["reason"], tuned["samples"], ended["reason"]) == ("full", 2, "The visitor has left.")
    assert ended["frames"] >= 0
    assert ended["seconds"] > 0
    assert {line["level"] for line in told} == {"info"}
    assert ids[0] not in journal.getvalue()  # it would let readers end the session
    assert "127.0.0.1" not in journal.getvalue()


def test_who_is_turned_away_for_want_of_time_is_refused_and_nothing_else(journal: StringIO) -> None:
    async def act(here: Scene) -> None:
        await here.seated()
        await here.visitor().come()
        assert [line["event"] for line in lines(journal)] == ["session.joined", "session.refused"]
        assert lines(journal)[-1]["reason"] == "busy"

    play(act, nodding_listener(PORTRAIT, before=slow(lambda: 0.016)), max_load=0.7)


def test_words_of_other_libraries_are_left_out_for_they_may_hold_addresses(journal: StringIO) -> None:
    logging.getLogger("asyncio").error("Fatal error on transport peer=('203.0.113.9', 4)")
    logging.getLogger("aioice.ice").info("Check CandidatePair(203.0.113.9)")
    logging.getLogger("pflx.runtime.serve.peer").warning("the relay does not answer")
    foreign, own = lines(journal)
    assert (foreign["logger"], foreign["level"], foreign["event"]) == ("asyncio", "error", "log")
    assert own["message"] == "the relay does not answer"
    assert "203.0.113.9" not in journal.getvalue()


def test_an_error_is_told_by_its_kind_and_places_without_its_words(journal: StringIO) -> None:
    try:
        raise OSError(22, "bad", "/home/visitor/their picture.png")
    except OSError:
        logging.getLogger("pflx.runtime.serve.app").exception("A request has failed")
    (line,) = lines(journal)
    assert (line["error"], line["message"]) == ("OSError", "A request has failed")
    assert line["trace"][0].startswith("test_an_error_is_told")
    assert "picture" not in journal.getvalue()
