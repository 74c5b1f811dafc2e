"""What the listener was told to do, and from which frame on: turns and cues, by the speaker's frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pflx.engines import Array
from pflx.runtime.frames.timing import FPS
from pflx.runtime.frames.turns import LISTENING, TURNS, Role
from pflx.runtime.generators import Generator
from pflx.runtime.generators.protocol import first_after
from pflx.runtime.generators.speaker_window import Window

DEAF_FRAMES = 5
"""Frames of silence after a listener has spoken: its own voice comes back as an echo, 200 ms."""
_HALF_S = 0.5 / FPS
_NONE = -1.0
_FIELDS = 6


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

    def to_row(self) -> list[float]:
        """As numbers."""
        role = (_NONE,) * 3 if self.role is None else (TURNS.index(self.role.turn), self.role.hears, self.role.shown)
        places = (_NONE if place is None else place for place in (self.frame, self.position))
        return [*places, np.nan if self.time_s is None else self.time_s, *map(float, role)]

    @classmethod
    def from_row(cls, row: Sequence[float]) -> Told:
        """What `to_row` wrote."""
        frame, position, time_s, turn, hears, shown = row
        return cls(
            None if turn == _NONE else Role(TURNS[int(turn)], bool(hears), bool(shown)),
            None if frame == _NONE else int(frame),
            None if np.isnan(time_s) else time_s,
            None if position == _NONE else int(position),
        )


@dataclass(frozen=True)
class Span:
    """What was told for a segment of the listener.

    Attributes:
        roles: of each of its frames.
        cues: frames of it with which a nod begins that was asked for.
    """

    roles: tuple[Role, ...]
    cues: tuple[int, ...] = ()


class TurnBook:
    """All that was told, in order.

    A segment is made of what it was told before the last of the speaker's frames that it waits for; so a frame of the
    listener is told what was told before that of the speaker with the same position, or a little later where a segment
    lies ahead of the speaker. Nothing of it depends on when a segment is made.

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

    def forget(self, position: int) -> None:
        """Drop what was over before the speaker's frame at a position."""
        over = [told for told in self._bound() if told.position is not None and told.position < position]
        last = next((told for told in reversed(over) if told.role), None)
        self.told = [told for told in self.told if told is last or told not in over]

    def heard(self, taken: Window, position: int) -> Window:
        """What the listener hears of new frames, the first of them at a position."""
        n_frames = len(taken.video)
        hears = self._hears(position, n_frames)
        if hears.all():
            return taken
        return replace(taken, audio=taken.audio * np.repeat(hears, len(taken.audio) // n_frames).astype(np.float32))

    def span(self, generator: Generator, segment: int) -> Span:
        """What was told for a segment."""
        first, hop = segment * generator.hop, generator.hop
        roles, cues = [LISTENING] * hop, []
        for told, begins in self._begins(generator):
            if told.role is not None and begins < first + hop:
                row = max(0, begins - first)
                roles[row:] = [told.role] * (hop - row)
            elif told.role is None and first <= begins < first + hop:
                cues.append(begins - first)
        return Span(tuple(roles), tuple(cues))

    def shown(self, generator: Generator, position: int) -> bool:
        """Whether a frame of the listener is to be seen."""
        begun = [told.role for told, begins in self._begins(generator) if told.role and begins <= position]
        return begun[-1].shown if begun else True

    def to_array(self) -> Array:
        """As numbers, for a snapshot."""
        return np.array([told.to_row() for told in self.told], np.float64).reshape(-1, _FIELDS)

    @classmethod
    def from_array(cls, rows: Array) -> TurnBook:
        """What `to_array` wrote.

        Raises:
            ValueError: it is something else.
        """
        fits = rows.dtype == np.float64 and rows.ndim == 2 and rows.shape[1] == _FIELDS
        if not fits or not np.isfinite(rows[:, [0, 1, 3, 4, 5]]).all() or np.isinf(rows[:, 2]).any():
            raise ValueError("what it was told is no numbers")
        if (rows[:, :2] < _NONE).any() or (np.abs(rows[:, :2]) > 1 << 53).any() or len(rows) > 1 << 16:
            raise ValueError("it was told for frames that there are not")
        if not ((rows[:, 3] >= _NONE) & (rows[:, 3] < len(TURNS))).all():
            raise ValueError("it was told of turns that there are not")
        return cls([Told.from_row(row) for row in rows.tolist()])

    def _bound(self) -> list[Told]:
        """What has begun, in order."""
        return sorted((told for told in self.told if told.position is not None), key=lambda told: told.position or 0)

    def _begins(self, generator: Generator) -> list[tuple[Told, int]]:
        """What has begun, and with which frame of the listener."""
        return [(told, first_after(generator, told.position or 0)) for told in self._bound()]

    def _hears(self, position: int, n_frames: int) -> Array:
        """Whether each of the speaker's frames from a position on is heard, bool [n]."""
        hears, before, deaf = np.ones(n_frames, np.bool_), LISTENING, np.zeros(n_frames, np.bool_)
        for told in self._bound():
            if told.role is None:
                continue
            begins = (told.position or 0) - position
            hears[max(0, begins) :] = told.role.hears
            if before.turn == "speaking" and not before.hears and told.role.hears:
                deaf[max(0, begins) : max(0, begins + DEAF_FRAMES)] = True
            before = told.role
        return hears & ~deaf
