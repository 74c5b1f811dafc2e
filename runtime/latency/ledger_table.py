"""Ledgers as columns of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from pflx.runtime.frames.arrays import BoolArray, Int64Array
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.timing import NS_PER_MS

_NEVER = np.iinfo(np.int64).min
_STAMPS = (
    "closed",
    "generator_start",
    "generator_end",
    "posnet_end",
    "render_start",
    "render_end",
    "on_host",
    "deadline",
    "emitted",
    "newest",
)


class LedgerTable:
    """Ledgers as columns, sample by sample in the order of the frames.

    Stamps are float64 ns since the first of them, exact for 100 days, NaN for none; a segment or picture that there is
    not is -1. All columns have one entry a ledger.

    Attributes:
        first: smallest frame number.
        slots: frame numbers from the first to the last, those without a ledger included.
        samples: as given.
        live: whether there are deadlines at all.
        shown: column: the frame was emitted.
        dropped: column: it was not, though it was to be.
        fresh: column: its picture was shown for the first time, or is one of a pair at half rate.
        ready: column: when its own picture was on the host; when it was emitted, if only that is known.
        end: last moment that anything was ready or emitted; NaN for none.
    """

    def __init__(self, ledgers: Sequence[Ledger], samples: int) -> None:
        names = (*_STAMPS, "frame", "sample", "segment", "picture", "rung", "time_s", "av_offset_ns")
        columns = {name: list(map(attrgetter(name), ledgers)) for name in names}
        stamps = np.stack([_integers(columns[name], _NEVER) for name in _STAMPS])
        order = np.lexsort((stamps[_STAMPS.index("emitted")], columns["frame"], columns["sample"]))
        self._take_stamps(stamps[:, order])
        self.frame, self.sample, self.rung = (np.array(columns[name])[order] for name in ("frame", "sample", "rung"))
        self.segment, self.picture = (_integers(columns[name], -1)[order] for name in ("segment", "picture"))
        self.time_ms = np.array(columns["time_s"])[order] * 1000
        self.av_offset_ms = np.array(columns["av_offset_ns"])[order] / NS_PER_MS
        self.first = int(self.frame.min())
        self.slots = int(self.frame.max()) - self.first + 1
        self.samples = samples
        self.live = not bool(np.isnan(self.deadline).all())
        self.shown = ~np.isnan(self.emitted)
        self.dropped = ~self.shown & self.live
        made = ~np.isnan(self.on_host)
        self.ready = np.where(made | (self.rung == Rung.HOLD), self.on_host, self.emitted)
        self.fresh = self.shown & (made | (self.rung != Rung.HOLD))
        self.end = np.fmax.reduce(np.concatenate([self.on_host, self.emitted]))

    def _take_stamps(self, stamps: Int64Array) -> None:
        known = stamps != _NEVER
        origin = stamps.min(initial=np.iinfo(np.int64).max, where=known)
        (
            self.closed,
            self.generator_start,
            self.generator_end,
            self.posnet_end,
            self.render_start,
            self.render_end,
            self.on_host,
            self.deadline,
            self.emitted,
            self.newest,
        ) = np.where(known, np.where(known, stamps, origin) - origin, np.nan)

    def segments(self) -> Int64Array:
        """One row of each segment, for what its frames share."""
        return _firsts(self.segment, ~np.isnan(self.posnet_end) & (self.segment >= 0))

    def renderings(self) -> Int64Array:
        """One row of each rendering: on HALF_RATE two frames share one; to move a picture (WARPED) is none."""
        picture = np.where(self.picture < 0, self.frame, self.picture)
        drawn = ~np.isnan(self.render_end) & (self.rung != Rung.WARPED)
        return _firsts(picture * self.samples + self.sample, drawn)

    def cells(self, among: BoolArray) -> int:
        """How many frames, of all samples, have such a row."""
        return distinct(self.frame[among] * self.samples + self.sample[among])


def _integers(column: Sequence[int | None], missing: int) -> Int64Array:
    return np.array([missing if value is None else value for value in column], np.int64)


def distinct(values: Int64Array) -> int:
    """How many different values there are; `np.unique` takes ten times as long."""
    return int(np.count_nonzero(np.diff(np.sort(values)))) + bool(values.size)


def _firsts(key: Int64Array, among: BoolArray) -> Int64Array:
    """The first row of each key among some rows."""
    rows = np.flatnonzero(among)
    return rows[np.unique(key[rows], return_index=True)[1]]
