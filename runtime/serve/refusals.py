"""What is told to a visitor when something fails, over HTTP and on the web socket."""

from __future__ import annotations

import logging

import msgspec
from starlette.requests import ClientDisconnect

from pflx.runtime.rendering.picture_file import PortraitError
from pflx.runtime.serve.errors import (
    BusyError,
    GoneError,
    HurriedError,
    SeatsTakenError,
    TooLargeError,
    WishError,
)
from pflx.runtime.serve.network.ports import NoAddressError, NoPortError
from pflx.runtime.serve.offer import OfferError
from pflx.runtime.serve.operation.draining import ClosingError

log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (BusyError, 503, "busy"),
    (SeatsTakenError, 503, "full"),
    (ClosingError, 503, "full"),
    (NoPortError, 503, "full"),
    (NoAddressError, 503, "network"),
    (GoneError, 404, "gone"),
    (TooLargeError, 413, "large"),
    (HurriedError, 429, "rate"),
    (PortraitError, 422, "portrait"),
    (OfferError, 422, "offer"),
    (WishError, 422, "wish"),
    (msgspec.ValidationError, 422, "request"),
    (msgspec.DecodeError, 400, "request"),
    (TimeoutError, 408, "slow"),
    (ClientDisconnect, 400, "request"),
)
"""What is told to a visitor, and how. Of anything else they learn only that it has happened."""

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (SeatsTakenError, "full"),
    (BusyError, "busy"),
    (ClosingError, "closing"),
    (NoPortError, "ports"),
    (NoAddressError, "network"),
    (OfferError, "request"),
    (WishError, "request"),
)
"""What it is counted as for who runs the server; anything else as an error."""


def reason_of(error: Exception) -> str:
    """Why a visitor was not let in, in a word for counters."""
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "error")


def told(error: Exception) -> tuple[int, str, str]:
    """The status, what kind of refusal it is, and a sentence."""
    for kind, status, name in _STATUS:
        if isinstance(error, kind):
            return status, name, str(error) or "The request cannot be read."
    log.error("A request has failed", exc_info=error)
    return 500, "server", "Something went wrong on the server. Its log says what."
