"""The ledger: time stamps a frame collects on its way, and every figure that is computed from them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Rung(IntEnum):
    """How a frame was made: the steps of the ladder that a live session takes when time runs short, best first."""

    FULL = 0
    """As without a deadline."""
    FEWER_STEPS = 1
    """Its segment was generated with fewer denoising steps."""
    HALF_RATE = 2
    """One picture, of the mean of two coefficient frames, stands for both."""
    WARPED = 3
    """The last picture that was rendered, its head moved to the pose of the frame."""
    HOLD = 4
    """An earlier picture, shown once more."""


@dataclass(frozen=True)
class Ledger:
    """When each stage did its part for one frame, in ns on one monotonic clock (its zero means nothing).

    A stamp is None where there was no such moment: no deadline without a live session, no rendering of a frame whose
    picture was held, no emission of a frame that was dropped.

    Attributes:
        frame: number of the frame: of the 25 fps speaker frame it reacts to.
        sample: which of the M reactions.
        segment: number of the segment it belongs to; None for a frame that no segment was made for.
        picture: number of the frame whose picture is shown: `frame`, or an earlier one that is held; None for none.
        rung: how it was made.
        time_s: of the frame, on the speaker's media clock.
        scheduled: when the last speaker frame that its segment needed was due to arrive, by the media clock.
        read: when that speaker frame was read.
        closed: the segment's input was complete and its work could start.
        generator_start: the generator was called for its segment.
        generator_end: the generator had yielded its segment.
        posnet_end: PosNet had joined the segment to the one before.
        render_start: the renderer was called for this frame.
        render_end: the renderer had finished.
        on_host: the picture was in host memory.
        deadline: when the frame was to be shown.
        emitted: when it was handed to the sink.
        newest: scheduled arrival of the newest speaker frame that the shown picture depends on.
        av_offset_ns: how far the speaker's sound was ahead of the picture (positive) when its segment's input was
            put together, by their capture stamps, after correction.
    """

    frame: int
    sample: int
    segment: int | None
    picture: int | None
    rung: Rung
    time_s: float
    scheduled: int | None = None
    read: int | None = None
    closed: int | None = None
    generator_start: int | None = None
    generator_end: int | None = None
    posnet_end: int | None = None
    render_start: int | None = None
    render_end: int | None = None
    on_host: int | None = None
    deadline: int | None = None
    emitted: int | None = None
    newest: int | None = None
    av_offset_ns: int = 0
