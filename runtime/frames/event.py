"""What a listener does that an application may want to know of: a nod, a smile, a blink, attention."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

EventKind: TypeAlias = Literal["nod", "smile", "blink", "attention"]
"""What the listener does."""

Cause: TypeAlias = Literal["", "low pitch", "pause", "long turn", "voice", "face", "cue"]
"""Why it does so: the speaker's low pitch, a pause, a turn that is long; the speaker's voice (it begins, or is lively);
the speaker's face (it smiles); or because it was told to. Empty for what it does by itself.
"""

KINDS: tuple[EventKind, ...] = get_args(EventKind)
CAUSES: tuple[Cause, ...] = get_args(Cause)


@dataclass(frozen=True)
class Event:
    """Something that begins in a frame.

    Attributes:
        kind: what.
        time_s: when it begins, on the speaker's media clock: that of its frame.
        frame: number of the frame it begins in.
        because: why.
        size: a nod's depth in deg, a smile's weight, how far lids close or how much attention is paid, in 0…1.
        duration_s: how long it takes; 0 for what has no end that is known.
    """

    kind: EventKind
    time_s: float
    frame: int
    because: Cause = ""
    size: float = 0.0
    duration_s: float = 0.0


Events: TypeAlias = npt.NDArray[np.float64]
"""Events of a segment as numbers, [N, 6]: what `Noted` has."""


class Noted(NamedTuple):
    """An event of a segment.

    Attributes:
        sample: whose.
        row: frame of the segment that it begins in.
        kind, cause: places in `KINDS` and `CAUSES`.
        size, duration_s: see `Event`.
    """

    sample: float
    row: float
    kind: float
    cause: float
    size: float
    duration_s: float


def as_events(noted: Iterable[Noted] = ()) -> Events:
    """As numbers, in the order of their rows."""
    rows = sorted(noted, key=lambda event: (event.row, event.sample, event.kind))
    return np.array(rows, np.float64).reshape(-1, len(Noted._fields))


NO_EVENTS = as_events()


def note(
    sample: int, row: int, kind: EventKind, cause: Cause = "", *, size: float = 0.0, duration_s: float = 0.0
) -> Noted:
    """An event of a segment, by names."""
    return Noted(sample, row, KINDS.index(kind), CAUSES.index(cause), size, duration_s)


def events_of(events: Events, sample: int, row: int, *, frame: int, time_s: float) -> tuple[Event, ...]:
    """Those of one frame of a segment.

    Args:
        events: of the segment.
        sample: whose.
        row: of the frame in the segment.
        frame: its number.
        time_s: and its time.
    """
    here = events[(events[:, 0] == sample) & (events[:, 1] == row), 2:].tolist()
    return tuple(
        Event(KINDS[int(kind)], time_s, frame, CAUSES[int(cause)], size, duration_s)
        for kind, cause, size, duration_s in here
    )


def are_events(events: Events, samples: int, hop: int) -> bool:
    """Whether numbers, such as a snapshot's, are events of a segment of so many samples and frames."""
    if events.dtype != np.float64 or events.ndim != 2 or events.shape[1] != len(Noted._fields):
        return False
    most = np.array([samples, hop, len(KINDS), len(CAUSES)])
    places = events[:, : len(most)]
    return bool(np.isfinite(events).all() and (places >= 0).all() and (places < most).all())
