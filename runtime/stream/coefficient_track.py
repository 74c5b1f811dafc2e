"""The motion of M reactions so far: the segments that are closed, and what their frames are called."""

from __future__ import annotations

import numpy as np

from pflx.engines import Array
from pflx.engines.gpu.placement import concatenate
from pflx.runtime.frames.coefficients import COEFFICIENTS, WINDOW_RADIUS
from pflx.runtime.frames.foresight import Foresight
from pflx.runtime.stream.segment import Segment

_NONE: Array = np.empty((0, COEFFICIENTS), np.float32)


class CoefficientTrack:
    """Segments by their index, and the numbers and times of frames by their position in the stream.

    Args:
        hop: frames of a segment.
        lookahead: coefficient frames that rendering waits for.
        foresight: foretells frames that are not there yet; without, the last one that is stands for them.

    Attributes:
        segments: those that frames to be rendered may read.
        names: position to number and time of a speaker's frame; numbers leap where input was left out.
        n_closed: how many segments were closed.
    """

    def __init__(self, hop: int, lookahead: int, foresight: Foresight | None = None) -> None:
        self.hop, self.lookahead, self._foresight = hop, lookahead, foresight
        self.segments: dict[int, Segment] = {}
        self.names: dict[int, tuple[int, float]] = {}
        self.n_closed = 0

    def add(self, segment: Segment) -> None:
        """Put the next segment on the track."""
        self.segments[self.n_closed] = segment
        self.n_closed += 1

    def segment_of(self, position: int) -> Segment:
        """The segment that a frame belongs to."""
        return self.segments[position // self.hop]

    def number(self, position: int) -> int:
        """The number of the frame at a position."""
        return self.names[position][0]

    def expected_number(self, position: int) -> int:
        """The same of a frame that may be still to come."""
        if position in self.names:
            return self.number(position)
        last = max(self.names, default=None)
        return position if last is None else self.number(last) + position - last

    def known(self, position: int) -> int:
        """How many segments had to be closed for a frame to be due; at the end of the input, how many there are."""
        return min((position + self.lookahead) // self.hop + 1, self.n_closed)

    def around(self, position: int, count: int, sample: int) -> Array:
        """The coefficient frames around `count` frames from `position` on, float32 [count + 26, 58].

        What is not there yet is foretold, or repeats the last one that is; what is foretold is made on the host, which
        waits for the segment to come from a GPU.
        """
        foretold = self._foretold(position, count, sample)
        rows, parts = self._rows(position, count)[: count + 2 * WINDOW_RADIUS - len(foretold)], []
        while rows:  # runs of rows that lie one behind the other in one segment
            first = rows[0]
            segment, at = divmod(first, self.hop)
            run = next((n for n, row in enumerate(rows) if row != first + n or row // self.hop != segment), len(rows))
            parts.append(self.segments[segment].coefficients[sample, at : at + run])
            del rows[:run]
        if len(foretold):
            parts.append(foretold)
        track: Array = concatenate(parts, 0)
        return track

    def around_on_host(self, position: int, sample: int) -> Array:
        """The same of one frame, on the host."""
        foretold = self._foretold(position, 1, sample)
        known = self._on_host(self._rows(position, 1)[: 1 + 2 * WINDOW_RADIUS - len(foretold)], sample)
        return np.concatenate([known, foretold]) if len(foretold) else known

    def forget(self, position: int) -> None:
        """Keep what the window of the next frame to render, at a position, can reach."""
        for index in [i for i in self.segments if (i + 1) * self.hop <= position - WINDOW_RADIUS]:
            del self.segments[index]
        oldest = position - 1  # a pair of frames asks for the one before
        self.names = {at: name for at, name in self.names.items() if at >= oldest}

    def _foretold(self, position: int, count: int, sample: int) -> Array:
        """The frames behind the last known one that a window reaches, float32 [0…13, 58]; none without foresight."""
        known = self.known(position) * self.hop
        missing = position + count + WINDOW_RADIUS - known
        if self._foresight is None or missing <= 0:
            return _NONE
        past = np.clip(np.arange(known - self._foresight.reach, known), 0, None)  # nothing moved before the beginning
        return self._foresight.after(self._on_host(past.tolist(), sample))[:missing]

    def _on_host(self, rows: list[int], sample: int) -> Array:
        return np.stack([self.segments[row // self.hop].shown.wait()[sample, row % self.hop] for row in rows])

    def _rows(self, position: int, count: int) -> list[int]:
        wanted = np.arange(position - WINDOW_RADIUS, position + count + WINDOW_RADIUS)
        rows: list[int] = np.clip(wanted, 0, self.known(position) * self.hop - 1).tolist()
        return rows
