"""What the listener was told to do, and from which frame on: turns and cues, by the speaker's frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pflx.runtime.frames.timing import FPS
from pflx.runtime.frames.turns import LISTENING, Role

_HALF_S = 0.5 / FPS
DEAF_FRAMES = 5
"""Frames of silence after a listener has spoken: its own voice comes back as an echo, 200 ms."""


@dataclass(frozen=True)
class Told:
    """Something that was told.

    Attributes:
        role: from now on; None for a cue, to nod.
        frame: number of the speaker's frame that it begins with, or of the first after it.
        time_s: the same as a time, where no number was given.
        position: of that frame in the stream, as soon as it is there.
    """

    role: Role | None
    frame: int | None = None
    time_s: float | None = None
    position: int | None = None

    def begins(self, number: int, time_s: float) -> bool:
        """Whether it has begun with a frame."""
        if self.frame is not None:
            return self.frame <= number
        return self.time_s is None or self.time_s <= time_s + _HALF_S


class TurnBook:
    """All that was told, in order.

    Attributes:
        told: what still matters.
    """

    def __init__(self, told: Sequence[Told] = ()) -> None:
        self.told = list(told)

    def add(self, told: Told) -> None:
        """Something is told."""
        self.told.append(told)

    def name(self, position: int, number: int, time_s: float) -> None:
        """The speaker's next frame is there."""
        self.told = [
            replace(told, position=position) if told.position is None and told.begins(number, time_s) else told
            for told in self.told
        ]

    def flush(self, position: int) -> None:
        """Frames from a position on are forgotten, and others will stand there."""
        self.told = [
            told if told.position is None else replace(told, position=min(told.position, position))
            for told in self.told
        ]

    def role(self, position: int) -> Role:
        """The listener's at a frame of the speaker."""
        here = [told for told in self.told if told.role and told.position is not None and told.position <= position]
        found = max(here, key=lambda told: told.position or 0, default=None) if here else None
        return LISTENING if found is None or found.role is None else found.role
