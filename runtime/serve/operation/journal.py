"""The server's log as lines of JSON: what happened, in which session, and nothing about who the visitor is.

Events carry a session's name, which lets nobody act for the visitor as its id would, and numbers. Of what other
libraries log, addresses may be part (of sockets, of ICE candidates), so their words are left out.
"""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

log = logging.getLogger("pflx.serve.events")


def tell(event: str, session: str = "", **facts: Any) -> None:
    """Log that something has happened.

    Args:
        event: what, in dotted words.
        session: its name, where it is about one.
        facts: plain values; none that tells of the visitor: no address, no name of a file.
    """
    words = " ".join([event, session, *(f"{name}={value}" for name, value in facts.items())])
    log.info("%s", words, extra={"event": event, "session": session, "facts": facts})


def log_json(stream: TextIO) -> None:
    """Log events, warnings and errors as lines of JSON, in place of what was logged so far.

    Args:
        stream: where to.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(logging.INFO)


class JsonLines(logging.Formatter):
    """One object in one line for each record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; traces hold places in the code and the error's kind, not its words."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "log"),
        }
        if session := getattr(record, "session", ""):
            line["session"] = session
        if (facts := getattr(record, "facts", None)) is not None:
            line |= facts
        else:
            line["logger"] = record.name
            if record.name.partition(".")[0] == "pflx":
                line["message"] = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            places = traceback.extract_tb(error.__traceback__)
            line["error"] = type(error).__name__
            line["trace"] = [f"{place.name}:{place.lineno}" for place in places]
        return json.dumps(line, default=str)
