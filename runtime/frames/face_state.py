"""Whether the speaker's face is there."""

from __future__ import annotations

from enum import IntEnum


class FaceState(IntEnum):
    """What a stream knows about its speaker's face."""

    LOCKED = 0
    """Seen at the last look, and at the one before."""
    COASTING = 1
    """Missed for less than 2 s; the face is taken to be still there."""
    LOST = 2
    """None seen yet, or missed for 2 s and more."""
    REACQUIRED = 3
    """Seen once after it was lost; not yet trusted."""
