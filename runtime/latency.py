"""The ledger: time stamps a frame collects on its way."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ledger:
    """When each stage finished with a frame, in ns on the listener's clock (monotonic; its zero means nothing).

    Attributes:
        received: the last speaker frame or sample that its segment needed was pushed.
        generated: the generator had yielded its segment.
        smoothed: PosNet had joined the segment to the last one.
        rendered: the picture was there.
    """

    received: int
    generated: int
    smoothed: int
    rendered: int
