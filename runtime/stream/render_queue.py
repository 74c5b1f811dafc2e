"""The pictures of a stream: put under way, waited for, and handed out as frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pflx.engines.gpu.placement import Fetching, fetch, kept
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.coefficients import POSE, WINDOW_RADIUS
from pflx.runtime.frames.event import Event, events_of
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.pace import Pace
from pflx.runtime.rendering.badge import badged
from pflx.runtime.rendering.renderers import Features
from pflx.runtime.stream.chain import Chain
from pflx.runtime.stream.coefficient_track import CoefficientTrack
from pflx.runtime.stream.hop import make_pictures


@dataclass(frozen=True)
class Shot:
    """A rendered picture and what it shows."""

    image: UInt8Array
    coefficients: Float32Array
    picture: int
    rung: Rung
    render_start: int
    render_end: int
    on_host: int
    newest: int


@dataclass(frozen=True)
class Flight:
    """A picture that is being rendered, or one that is left out.

    Attributes:
        position: of its frame.
        sample: whose.
        rung: HOLD for one that is left out.
        image: uint8 [H, W, 3], on its way to the host; None for one that is left out, or the second of a pair.
        coefficients: float32 [58], mean face subtracted, where it is not its own segment's that the picture shows.
        known: how many segments its window could reach.
        begun: when the renderer was called.
        rendered: when it returned the finished picture; None where it does not wait for the GPU.
        batch: how many pictures the call made.
    """

    position: int
    sample: int
    rung: Rung
    image: Fetching | None
    coefficients: Float32Array | None
    known: int
    begun: int = 0
    rendered: int | None = None
    batch: int = 1


class RenderQueue:
    """Renders the frames of a track that are due, in order, and sample by sample within a frame.

    Args:
        chain: with the renderer.
        track: what is rendered.
        samples: reactions.
        is_shown: whether a frame at a position is to be seen; what is not is left out.

    Attributes:
        under_way: pictures that were begun and not handed out yet.
        n_begun: pictures that were begun or left out so far, of all samples.
        n_emitted: pictures that were handed out or left out so far, of all samples.
        portraits: sample m shows portrait m modulo their number.
    """

    def __init__(
        self, chain: Chain, track: CoefficientTrack, samples: int, is_shown: Callable[[int], bool] = lambda _: True
    ) -> None:
        self._chain, self._track, self._samples, self._is_shown = chain, track, samples, is_shown
        self.under_way: deque[Flight] = deque()
        self.n_begun = self.n_emitted = 0
        self.portraits: list[Features] = list(chain.portraits)
        self._n_due = 0
        self._landed_at = 0
        self._rung = Rung.FULL
        self._shots: dict[int, Shot] = {}  # by sample, of a pair of frames that shares its pictures
        self._rendered: dict[int, Shot] = {}  # by sample, what was rendered last
        self._second_of_pair = -1
        self._untold: dict[int, tuple[Event, ...]] = {}  # by sample, of frames that were left out

    @property
    def position(self) -> int:
        """Of the next frame to be handed out."""
        return self.n_emitted // self._samples

    @property
    def are_all_begun(self) -> bool:
        """Whether no picture that was due when `begin` was called is left to be begun."""
        return self.n_begun >= self._n_due * self._samples

    @property
    def coming(self) -> Fetching | None:
        """The picture that is handed out next, if it is still on its way."""
        image = self.under_way[0].image if self.under_way else None
        return None if image is None or image.is_done else image

    def begin(self, n_due: int, pace: Pace) -> None:
        """Put pictures under way that are due, as many as the renderer takes ahead.

        Args:
            n_due: how many frames can be rendered, of all since the beginning.
            pace: chooses how.
        """
        self._n_due = n_due
        ahead = self._chain.renderer.ahead
        room = ahead * self._samples if ahead > 1 else 1
        while len(self.under_way) < room and self.n_begun < self._n_due * self._samples:
            position, sample = divmod(self.n_begun, self._samples)
            if sample == 0:
                self._rung = self._choose(position, pace)
            if self._rung is Rung.WARPED:
                begun, n_begun = [self._begin_warped(position, sample)], 1
            elif self._rung is Rung.HOLD:
                begun = [Flight(position, sample, Rung.HOLD, None, None, self._track.known(position))]
                n_begun = self._samples
            elif self._rung is Rung.HALF_RATE:
                begun, n_begun = [self._begin_half_rate(position, sample)], 1
            elif ahead == 1 or sample:
                begun, n_begun = self._begin_full(position, (sample,), (1,)), 1
            else:
                count = self._n_alike(position, pace)
                begun = self._begin_full(position, range(self._samples), pace.batches(count))
                n_begun = len(begun)
            self.under_way.extend(begun)
            self.n_begun += n_begun
            if self.under_way[-1].rung is Rung.HOLD:
                return

    def land(self, pace: Pace) -> ListenerFrame | None:
        """Hand out the picture that was begun first; None if it was left out, or has to be begun again."""
        if not self.under_way:
            return None
        flight = self.under_way[0]
        if flight.rung is Rung.HOLD:
            self._pass_over(flight.position)
            self.under_way.popleft()
            self.n_emitted += self._samples
            return None
        shot = self._shots.pop(flight.sample) if flight.image is None else self._developed(flight, pace)
        second = flight.position + 1
        if flight.rung is Rung.HALF_RATE and (
            second == self._second_of_pair or self._is_under_way(second, flight.sample)
        ):
            self._shots[flight.sample] = shot  # the second of the pair shows it too
        landed = self._frame(flight, shot)
        self.under_way.popleft()
        self.n_emitted += 1
        return landed

    def _pass_over(self, position: int) -> None:
        """Keep what begins in a frame that is left out for want of time; it is told with the next."""
        if self._is_shown(position):
            for sample in range(self._samples):
                self._untold[sample] = self._untold.get(sample, ()) + self._events(position, sample)

    def _events(self, position: int, sample: int) -> tuple[Event, ...]:
        segment, row = self._track.segment_of(position), position % self._track.hop
        number, time_s = self._track.names[position]
        return events_of(segment.events, sample, row, frame=number, time_s=time_s)

    def recall(self) -> None:
        """Forget pictures that are under way, or wait for the second frame of a pair: what they are made of changes."""
        self.under_way.clear()
        self.n_begun = self.n_emitted
        if self._chain.renderer.ahead > 1:
            self._rung = Rung.FULL  # what was chosen last may be for a frame much further on
        self._second_of_pair = -1
        self._shots.clear()
        self._rendered.clear()

    def go_on_at(self, n_emitted: int) -> None:
        """Go on after so many pictures of all samples; what is under way is forgotten."""
        self.n_emitted = n_emitted
        self._rung = Rung.FULL
        self.recall()

    def _choose(self, position: int, pace: Pace) -> Rung:
        """How to make a frame; the second of a pair is made already, unless input was left out between the two."""
        if position == self._second_of_pair and self._track.number(position) == self._track.number(position - 1) + 1:
            return Rung.HALF_RATE
        if not self._is_shown(position):
            self._second_of_pair = -1
            return Rung.HOLD
        rung = pace.rung(self._track.number(position), ahead=self._n_due - 1 - position)
        if rung is Rung.WARPED and not self._can_warp():
            rung = Rung.HOLD
        self._second_of_pair = position + 1 if rung is Rung.HALF_RATE else -1
        return rung

    def _n_alike(self, position: int, pace: Pace) -> int:
        """How many frames from here on are due, in full, and see the same segments."""
        last, known = position + 1, self._track.known(position)
        while last < self._n_due and self._track.known(last) == known and self._choose(last, pace) is Rung.FULL:
            last += 1
        return last - position

    def _begin_full(self, position: int, samples: Sequence[int], batches: Sequence[int]) -> list[Flight]:
        """Render frames from a position on, in batches of so many; in the order in which they are handed out."""
        chain, known = self._chain, self._track.known(position)
        tracks = {sample: self._track.around(position, sum(batches), sample) for sample in samples}
        flights, done = [], 0
        for size in batches:
            for sample in samples:
                portrait = self.portraits[sample % len(self.portraits)]
                track = tracks[sample][done : done + size + 2 * WINDOW_RADIUS]
                made = make_pictures(chain, track, size, portrait)
                for row in range(size):
                    at, image = position + done + row, fetch(kept(made.images[row]))
                    ended = made.rendered if image.is_done else None
                    flights.append(Flight(at, sample, Rung.FULL, image, None, known, made.begun, ended, size))
            done += size
        return sorted(flights, key=lambda flight: (flight.position, flight.sample))

    def _begin_half_rate(self, position: int, sample: int) -> Flight:
        """Render the mean of a frame and the next, or wait for the picture that was made so of the frame before."""
        chain, known = self._chain, self._track.known(position)
        if position == self._second_of_pair and (sample in self._shots or self._is_under_way(position - 1, sample)):
            return Flight(position, sample, Rung.HALF_RATE, None, None, known)
        first, second = (self._track.around_on_host(frame, sample) for frame in (position, position + 1))
        track = (first + second) / np.float32(2)
        made = make_pictures(chain, track, 1, self.portraits[sample % len(self.portraits)])
        image = fetch(kept(made.images[0]))
        ended = made.rendered if image.is_done else None
        return Flight(position, sample, Rung.HALF_RATE, image, track[WINDOW_RADIUS], known, made.begun, ended)

    def _can_warp(self) -> bool:
        """Whether of every sample a picture was rendered that can be moved."""
        portraits, renderer = self.portraits, self._chain.renderer
        movable = [renderer.can_move(portrait) for portrait in portraits]
        return all(sample in self._rendered and movable[sample % len(portraits)] for sample in range(self._samples))

    def _begin_warped(self, position: int, sample: int) -> Flight:
        """Move the head of the picture that was rendered last to where it is in a frame."""
        chain, known, last = self._chain, self._track.known(position), self._rendered[sample]
        shows = last.coefficients - chain.mean_face
        wanted = self._track.segment_of(position).shown.wait()[sample, position % self._track.hop]
        portrait = self.portraits[sample % len(self.portraits)]
        begun = chain.clock()
        moved, rendered = chain.renderer.move(last.image, shows[POSE], wanted[POSE], portrait), chain.clock()
        image = fetch(kept(moved))
        ended = rendered if image.is_done else None
        coefficients = np.concatenate([shows[: POSE.start], wanted[POSE]])
        return Flight(position, sample, Rung.WARPED, image, coefficients, known, begun, ended)

    def _is_under_way(self, position: int, sample: int) -> bool:
        return any(flight.position == position and flight.sample == sample for flight in self.under_way)

    def _developed(self, flight: Flight, pace: Pace) -> Shot:
        """Wait for a picture."""
        assert flight.image is not None
        hop, stamps = self._track.hop, self._track.segment_of(flight.position).stamps
        image = flight.image.wait()
        on_host = self._chain.clock()
        # On a GPU its turn comes when all before it is done.
        begun = flight.begun if flight.rendered is not None else max(flight.begun, stamps.posnet_end, self._landed_at)
        self._landed_at = on_host
        if flight.rung is not Rung.WARPED:
            pace.rendered((on_host - begun) // flight.batch)  # those of a batch come together
        coefficients = flight.coefficients
        if coefficients is None:
            coefficients = self._track.segment_of(flight.position).shown.wait()[flight.sample, flight.position % hop]
        radius = 0 if flight.rung is Rung.WARPED else self._chain.renderer.radius
        newest = min((flight.position + radius) // hop, flight.known - 1)
        shot = Shot(
            image=image,
            coefficients=coefficients + self._chain.mean_face,
            picture=self._track.number(flight.position),
            rung=flight.rung,
            render_start=begun,
            render_end=on_host if flight.rendered is None else flight.rendered,
            on_host=on_host,
            newest=self._track.segments[newest].stamps.scheduled,
        )
        if flight.rung is not Rung.WARPED:
            self._rendered[flight.sample] = shot
        return shot

    def _frame(self, flight: Flight, shot: Shot) -> ListenerFrame:
        position, sample = flight.position, flight.sample
        segment, row = self._track.segment_of(position), position % self._track.hop
        stamps, (number, time_s) = segment.stamps, self._track.names[position]
        ledger = Ledger(
            frame=number,
            sample=sample,
            segment=position // self._track.hop,
            picture=shot.picture,
            rung=max(shot.rung, segment.rung),
            time_s=time_s,
            scheduled=stamps.scheduled,
            read=stamps.read,
            closed=stamps.closed,
            generator_start=stamps.generator_start,
            generator_end=stamps.generator_end,
            posnet_end=stamps.posnet_end,
            render_start=shot.render_start,
            render_end=shot.render_end,
            on_host=shot.on_host,
            newest=shot.newest,
            av_offset_ns=stamps.av_offset_ns,
        )
        return ListenerFrame(
            image=badged(shot.image) if self._chain.badge else shot.image,
            coefficients=shot.coefficients,
            generated_pose=segment.generated_pose.wait()[sample, row] + self._chain.mean_face[POSE],
            time_s=ledger.time_s,
            sample=sample,
            face=segment.face,
            ledger=ledger,
            emotion=None if segment.emotion is None else segment.emotion.wait()[sample, row],
            events=self._untold.pop(sample, ()) + self._events(position, sample),
        )
