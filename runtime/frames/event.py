"""What a listener does that an application may want to know of: a nod, a smile, a blink, attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

EventKind: TypeAlias = Literal["nod", "smile", "blink", "attention"]
"""What the listener does."""

Cause: TypeAlias = Literal["", "low pitch", "pause", "long turn", "voice", "face", "cue"]
"""Why it does so: the speaker's low pitch, a pause, a turn that is long; the speaker's voice (it begins, or is lively);
the speaker's face (it smiles); or because it was told to. Empty for what it does by itself.
"""


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
