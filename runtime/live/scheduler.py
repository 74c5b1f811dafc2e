"""How much work a frame gets: the ladder of a live session under its deadlines."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from pflx.runtime.frames.ledger import Rung
from pflx.runtime.frames.pace import UNHURRIED, Pace, Unhurried, largest_batches
from pflx.runtime.frames.timing import FRAME_NS, NS_PER_S, Clock
from pflx.runtime.speaker.face_track import FaceTrack
from pflx.runtime.speaker.pfl import Region
from pflx.runtime.stream.chain import Chain, seeded_noise
from pflx.runtime.stream.stream import Stream

_SPAN_NS = 4 * NS_PER_S  # a dozen segments of 8 frames, four of 25
_REMEMBERED = 64  # calls: a few segments of rendering, so that the prediction follows a machine that slows down


class Cost:
    """What a stage has cost lately, and so what it will cost.

    Attributes:
        predicted: of the next call, in ns: the 95th percentile of the last ones.
        mean: of the last ones, in ns.
    """

    def __init__(self) -> None:
        self._calls: deque[int] = deque(maxlen=_REMEMBERED)
        self.predicted = self.mean = 0  # numbers, for other threads look at them

    def add(self, duration_ns: int) -> None:
        """Remember a call."""
        self._calls.append(duration_ns)
        self.predicted = sorted(self._calls)[math.ceil(0.95 * len(self._calls)) - 1]
        self.mean = sum(self._calls) // len(self._calls)

    def of(self, calls: int) -> int:
        """Predicted for so many calls, in ns: slow ones are not slow all together, unless all were of late."""
        return round(calls * self.mean + math.sqrt(calls) * (self.predicted - self.mean))


class Share:
    """Share of the last 4 s that was spent in `during`. Added to by one thread, asked by any."""

    def __init__(self) -> None:
        self._since: int | None = None
        self._spells: deque[tuple[int, int]] = deque()  # beginning and end of each, in ns

    @contextmanager
    def during(self, clock: Clock) -> Iterator[None]:
        """Count what is done inside."""
        begun = clock()
        self._since = begun if self._since is None else self._since
        try:
            yield
        finally:
            ended = clock()
            self._spells.append((begun, ended))
            while self._spells[0][1] <= ended - _SPAN_NS:
                self._spells.popleft()

    def at(self, now: int) -> float:
        """From 0 to 1; 0 until it was counted for so long.

        Args:
            now: in ns.
        """
        since, spells = now - _SPAN_NS, [*self._spells]
        if self._since is None or self._since > since:
            return 0.0
        return sum(max(0, ended - max(begun, since)) for begun, ended in spells) / _SPAN_NS


class DeadlinePace:
    """Chooses, for each piece of work, the best rung that is in time.

    A frame is made in full when it and all that can be made now, and then the first frame of the next segment, can be
    in time; at half rate when only it can. When it cannot, it is made of the picture before it while its deadline is
    still to come (WARPED), for that takes next to no time, and else not at all (HOLD). The floor is the lowest rung
    that may be chosen: with a floor above HOLD frames come late instead of not at all. Whatever the floor, a frame
    that would be later than `stale_ns` is not made. And the newest frame is made even if it comes late, for a late
    picture is better than none, unless input waits for a newer one that is quicker to come by.

    Args:
        clock: of the session.
        deadline: of a frame by its number, in ns.
        samples: pictures of one frame.
        lookahead: coefficient frames that rendering waits for.
        floor: see above.
        stale_ns: see above.
        waiting: whether input waits that newer frames can be made of.
        crowded: whether others want the engines for most of their time.
    """

    def __init__(
        self,
        clock: Clock,
        deadline: Callable[[int], int],
        *,
        samples: int,
        lookahead: int,
        floor: Rung,
        stale_ns: int,
        waiting: Callable[[], bool],
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self.render = Cost()
        self.generate: dict[int | None, Cost] = {}
        self._clock, self._deadline, self._samples, self._lookahead = clock, deadline, samples, lookahead
        self._floor, self._stale_ns, self._waiting, self._crowded = floor, stale_ns, waiting, crowded

    def share(self, hop: int) -> float:
        """Share of the time that segments of so many frames and their pictures take, by what they cost in the mean."""
        step = max((known.mean for known in [*self.generate.values()]), default=0)
        return (step + hop * self._samples * self.render.mean) / (hop * FRAME_NS)

    @property
    def step_cost(self) -> int:
        """Predicted for a generator step of any kind, in ns."""
        return max((known.predicted for known in [*self.generate.values()]), default=0)

    def generated(self, steps: int | None, duration_ns: int) -> None:
        """See `Pace.generated`."""
        self.generate.setdefault(steps, Cost()).add(duration_ns)

    def rendered(self, duration_ns: int) -> None:
        """See `Pace.rendered`."""
        self.render.add(duration_ns)

    def batches(self, count: int) -> Sequence[int]:
        """See `Pace.batches`: the first picture alone, to be there early; while it is shown, the others are rendered.

        Where input waits already, or others do, what counts is the sum.
        """
        if self._waiting() or self._crowded():
            return largest_batches(count)
        return [1, *largest_batches(count - 1)]

    def steps(self, frame: int, available: tuple[int, ...]) -> int | None:
        """See `Pace.steps`."""
        if self._floor < Rung.FEWER_STEPS or len(available) < 2:
            return None
        # The first frame that waits for the segment lies a look-ahead before it.
        left = self._left(frame) - self._lookahead * FRAME_NS - self._render_cost()
        return next((steps for steps in available if self._generate_cost(steps) <= left), available[-1])

    def rung(self, frame: int, *, ahead: int) -> Rung:
        """See `Pace.rung`."""
        left, cost = self._left(frame), self._render_cost()
        # The newest is tried even if it is predicted to be stale: a prediction that is never tested never changes.
        if left < -self._stale_ns or (ahead and left - cost < -self._stale_ns):
            return Rung.HOLD
        if self._floor < Rung.HALF_RATE:
            return Rung.FULL
        if cost <= left:
            in_time = self.render.of((ahead + 2) * self._samples) + self.step_cost <= left + (ahead + 1) * FRAME_NS
            return Rung.FULL if in_time else Rung.HALF_RATE
        if self._floor is Rung.HALF_RATE:
            return Rung.HALF_RATE
        if self._floor is Rung.WARPED:
            return Rung.WARPED
        if ahead == 0 and not (self._waiting() and self.step_cost < cost):
            return Rung.FULL
        return Rung.WARPED if left > 0 else Rung.HOLD

    def _left(self, frame: int) -> int:
        return self._deadline(frame) - self._clock()

    def _render_cost(self) -> int:
        return self._samples * self.render.predicted

    def _generate_cost(self, steps: int) -> int:
        """Predicted from calls with as many steps, or else in proportion to calls with another number."""
        known = self.generate.get(steps)
        if known is None:
            rates = [cost.predicted / count for count, cost in self.generate.items() if count]
            return round(max(rates, default=0.0) * steps)
        return known.predicted


class _Rehearsal(Unhurried):
    """Two segments in full, for PosNet begins with the second, and no picture before it."""

    def __init__(self, pace: Pace, hop: int) -> None:
        self._pace, self._hop = pace, hop

    def rung(self, frame: int, *, ahead: int) -> Rung:
        return Rung.HOLD if frame < self._hop else Rung.FULL

    def steps(self, frame: int, available: tuple[int, ...]) -> int | None:
        return max(available, default=None)

    def generated(self, steps: int | None, duration_ns: int) -> None:
        self._pace.generated(steps, duration_ns)

    def rendered(self, duration_ns: int) -> None:
        self._pace.rendered(duration_ns)


def warm_up(chain: Chain, pace: DeadlinePace, samples: int) -> None:
    """Run a chain on a blank speaker, once to let the engines settle, once for the pace to learn their cost."""
    chain.renderer.warm_up(chain.portraits[0])
    side, n_frames = 64, chain.generator.window + chain.generator.hop
    for learner in (UNHURRIED, pace):
        track = FaceTrack(region=Region(0, 0, side, side))
        with Stream(chain, samples=samples, noise=seeded_noise(0), track=track, audio=False) as scratch:
            scratch.push(video=np.zeros((n_frames, side, side, 3), np.uint8))
            scratch.finish()
            next(scratch.pull(_Rehearsal(learner, chain.generator.hop)))
