"""What the listener's video does where little comes through: sent at a lower rate, and repaired without haste."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiortc import RTCRtpSender
from aiortc.codecs import vpx

LEAST_BPS = 100_000
"""To which the video's rate may go down; aiortc stops at 250 kbit/s, which leaves a line of 300 no room for repairs."""

REPAIR_S = 0.25
"""Between two repairs of one packet: longer than what waits in a line's queue takes to come through, as a rule."""

_REMEMBERED = 128  # packets: as many as a sender keeps to repeat


def spare_the_line(sender: RTCRtpSender, clock: Callable[[], float] = time.monotonic) -> None:
    """Have a sender of video give way to a line that is too narrow for it.

    A browser asks for a packet that is missing again and again, every few milliseconds, for it does not know that the
    repeated one waits in the same queue that was too long for the first. aiortc sends it each time: repairs then take
    the place of pictures, which have to be repaired in turn, until nothing comes through any more. It has no setting
    for that, so one method of the sender is replaced.

    Args:
        sender: of a connection that is not made yet.
        clock: in s, monotonic.
    """
    vpx.MIN_BITRATE = min(vpx.MIN_BITRATE, LEAST_BPS)
    plain = sender._retransmit
    repaired: dict[int, tuple[int, float]] = {}  # by place: which packet, and when

    async def retransmit(sequence_number: int) -> None:
        """Repeat a packet, unless it was repeated just now."""
        place, now = sequence_number % _REMEMBERED, clock()
        before, at = repaired.get(place, (-1, 0.0))
        if before == sequence_number and now - at < REPAIR_S:
            return
        repaired[place] = sequence_number, now
        await plain(sequence_number)

    setattr(sender, "_retransmit", retransmit)  # noqa: B010 - of an object whose class is another's
