"""What a browser offers: text of a stranger, looked at before a connection is made of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from pflx.engines import PflxError

log = logging.getLogger(__name__)

_MEDIA = ("audio", "video", "application")

MOST_ADDRESSES = {"host": 6, "srflx": 3, "relay": 3}
"""By kind, that the server tries to reach a visitor at. It sends about five packets to each, and an offer may name
anybody's addresses: without a bound, one offer would send hundreds of packets to strangers."""

_CANDIDATE = "a=candidate:"


class OfferError(PflxError, ValueError):
    """What a browser offers is neither a camera nor a microphone, or nothing that can be connected to."""


def checked_offer(sdp: str) -> str:
    """An offer whose form is right, with no more addresses than are tried.

    Args:
        sdp: of a browser: at most one camera, microphone and data channel, on one transport.

    Raises:
        OfferError: it is of another form.
    """
    lines = sdp.splitlines()
    media = [line[2:].partition(" ")[0] for line in lines if line.startswith("m=")]
    if len(media) != len(set(media)) or not set(media) <= set(_MEDIA):
        raise OfferError("The browser must offer one camera, and at most one microphone and one data channel.")
    if "video" not in media:
        raise OfferError("Neither camera nor microphone is offered. Allow the camera, and start again.")
    if "a=fingerprint:" not in sdp:  # by which the encryption knows who it speaks to
        raise OfferError("The browser's offer has no fingerprint. Try another browser.")
    if _bundled(lines) != [line[6:].strip() for line in lines if line.startswith("a=mid:")]:
        raise OfferError("The browser must send everything on one transport (BUNDLE). Try a newer browser.")
    return "\r\n".join([*_within_bounds(lines), ""])


def _bundled(lines: Iterable[str]) -> list[str]:
    """Names of the parts that share a transport, in their order."""
    return next((line.split()[1:] for line in lines if line.startswith("a=group:BUNDLE")), [])


def _within_bounds(lines: Iterable[str]) -> Iterable[str]:
    """The lines without candidates beyond the bounds; of each part, for only the first one's are used."""
    left_out, counts = 0, Counter[str]()
    for line in lines:
        if line.startswith("m="):
            counts.clear()
        if not line.startswith(_CANDIDATE):
            yield line
        elif (kind := _kind(line)) in MOST_ADDRESSES:
            counts[kind] += 1
            if counts[kind] <= MOST_ADDRESSES[kind]:
                yield line
            else:
                left_out += 1
    if left_out:
        log.info("%d addresses of an offer are left out, for there are too many", left_out)


def _kind(candidate: str) -> str:
    """What a candidate is: "host", "srflx", "relay"; nothing for what cannot be reached by UDP."""
    # a=candidate:foundation component transport priority address port typ kind …  (RFC 8839, section 5.1)
    words = candidate.split()
    return words[7] if len(words) > 7 and words[2].lower() == "udp" and words[6] == "typ" else ""
