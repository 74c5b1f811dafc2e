"""The segments of a stream, made one after the other; what is not finite in them is held before it spreads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from pflx.engines import Array
from pflx.engines.gpu.placement import Fetching, Here, Part, fetch
from pflx.runtime.frames.coefficients import POSE
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.frames.pace import UNHURRIED, Pace
from pflx.runtime.generators.speaker_window import Ahead, Window
from pflx.runtime.stream.chain import TOLD_NOISE, Chain, Noise
from pflx.runtime.stream.coefficient_track import CoefficientTrack
from pflx.runtime.stream.hop import HopState, Motion, make_segment
from pflx.runtime.stream.repair import Draft, hold_good, is_finite, to_check
from pflx.runtime.stream.segment import Segment, SegmentStamps
from pflx.runtime.stream.turn_book import Span
from pflx.runtime.stream.turn_taking import Direction

log = logging.getLogger(__name__)


class SegmentMaker:
    """Calls `make_segment` for one segment after the other, and puts them on the track.

    Nobody waits for a segment's numbers when it is made: on a GPU its pictures are put under way first. They are looked
    at when they are here (`settle`), and at the latest before the next segment.

    Args:
        chain: the stages.
        track: that the segments are put on.
        samples: reactions.
        noise: of every segment.
        state: before the first.
        recall: called when a segment was changed whose pictures may be under way.

    Attributes:
        state: what the last segment left to the next.
        repaired: coefficient frames that were not finite, for which the last good ones were held.
    """

    def __init__(
        self,
        chain: Chain,
        track: CoefficientTrack,
        samples: int,
        noise: Noise,
        state: HopState,
        recall: Callable[[], None],
    ) -> None:
        self._chain, self._track, self._samples, self._noise, self._recall = chain, track, samples, noise, recall
        self.state = state
        self.repaired = 0
        self._draft: Draft | None = None
        self._was_spoilt = False
        self._warned = False

    def make(self, taken: Window, ahead: Ahead, pace: Pace, span: Span) -> None:
        """Make the next segment, then put it on the track in one go.

        Args:
            taken: the frames it takes; none if it was made in one piece with the one before.
            ahead: what was done for the first of them already.
            pace: chooses the denoising steps.
            span: what the listener was told for it.
        """
        self.settle(pace)
        chain, index, before = self._chain, self._track.n_closed, self.state
        begun = chain.clock()
        steps = pace.steps(self._track.expected_number(index * chain.generator.hop), chain.generator.steps)
        size = chain.generator.noise_size
        noise = self._draws(index, 0, size)
        told = Direction(span, partial(self._draws, index, TOLD_NOISE))
        is_seam = bool(taken.video) or not index
        motion, after = make_segment(chain, taken, before, noise, steps=steps, ahead=ahead, is_seam=is_seam, told=told)
        raw = motion.reaction.coefficients
        generated = fetch(raw)
        few = steps is not None and steps < max(chain.generator.steps)
        segment = self._segment(motion, generated, taken, Rung.FEWER_STEPS if few else Rung.FULL)
        # A state may hold the segment itself, which is looked at anyway.
        others = {name: array for name, array in after.generator.items() if array is not raw}
        generator_after, is_all = to_check(others)
        self._draft = Draft(
            index,
            generated=generated,
            is_seam=is_seam,
            generator_after=generator_after,
            is_all=is_all,
            generator_before=before.generator,
            smoother_after=to_check(after.pose)[0],
            smoother_before=before.pose,
            begun=begun,
            steps=steps,
            is_late=not segment.shown.is_done,
        )
        self.state = after
        self._track.add(segment)

    def awaited(self, known: int) -> Fetching | None:
        """What has to arrive before pictures that see `known` segments are handed out; None if all is here."""
        if self._draft is None or self._draft.index >= known:
            return None
        numbers = self._track.segments[self._draft.index].shown
        return None if numbers.is_done else numbers

    def settle(self, pace: Pace = UNHURRIED, *, wait: bool = True, before: int | None = None) -> None:
        """Look at the numbers of the segment made last, before anything is built on them.

        Where they are not finite, the last good ones are held, and the next segment is made as if the networks had
        never been called.

        Args:
            pace: learns what the segment took.
            wait: False leaves them for later if they were not here yet when the segment was made.
            before: only of a segment before this one.
        """
        if self._draft is None or (self._draft.is_late and not wait):
            return
        if before is not None and self._draft.index >= before:
            return
        draft, self._draft = self._draft, None
        segment = self._track.segments[draft.index]
        generated, n_bad = self._repair(draft.index, draft.generated.wait())
        generated_at = self._chain.clock()
        shown = segment.shown.wait()
        posnet_end = self._chain.clock() if draft.is_late else segment.stamps.posnet_end
        if draft.is_late:
            segment = replace(
                segment, stamps=replace(segment.stamps, generator_end=generated_at, posnet_end=posnet_end)
            )
        pace.generated(draft.steps, posnet_end - draft.begun)
        smoother_after = draft.smoother_after
        if n_bad:
            smoothed, pose = self._chain.smoother.join(generated, draft.smoother_before, is_seam=draft.is_seam)
            self.state = replace(self.state, pose=pose)
            shown = fetch(smoothed).wait()
            smoother_after = to_check(pose)[0]
        spoilt = n_bad > 0 or not is_finite(draft.generator_after)
        if spoilt:  # what is not finite would spoil every segment after it
            again = self._was_spoilt and not draft.is_all  # by what was not looked at
            start = self._chain.generator.start(self._samples) if again else draft.generator_before
            self.state = replace(self.state, generator=start)
        self._was_spoilt = spoilt
        held, n_bad_poses = self._repair(draft.index, shown)
        torn = n_bad_poses > 0 or not is_finite(smoother_after)
        if torn:
            self.state = replace(self.state, pose=self._chain.smoother.resume(held))
        if n_bad or n_bad_poses:
            generated_pose = Part(Here(generated), (..., POSE))
            segment = replace(segment, coefficients=held, shown=Here(held), generated_pose=generated_pose)
            self._recall()
        self._track.segments[draft.index] = segment
        self.repaired += n_bad + n_bad_poses
        if (spoilt or torn) and not self._warned:
            self._warned = True
            log.warning("The numbers of generator or PosNet are not finite; the last good ones are held. Said once.")

    def forget(self, state: HopState | None = None) -> None:
        """Look at nothing any more; go on with another state, if one is given."""
        self._draft = None
        self.state = state or self.state

    def _draws(self, index: int, first: int, size: int) -> Array:
        """Noise of as many samples as there are reactions, from one of them on, float32 [M, size]."""
        return np.stack([self._noise(index, first + sample, size) for sample in range(self._samples)])

    def _segment(self, motion: Motion, generated: Fetching, taken: Window, rung: Rung) -> Segment:
        emotion = motion.reaction.emotion
        return Segment(
            coefficients=motion.joined,
            shown=fetch(motion.joined),
            generated_pose=Part(generated, (..., POSE)),
            emotion=None if emotion is None else fetch(emotion),
            events=motion.reaction.events,
            face=motion.face,
            rung=rung,
            stamps=self._stamps(motion, taken),
        )

    def _stamps(self, motion: Motion, taken: Window) -> SegmentStamps:
        """The stamps of a new segment; one that took no new input depends on what the last one depends on."""
        before = self._track.segments.get(self._track.n_closed - 1)
        source = taken if taken.video or before is None else before.stamps
        return SegmentStamps(
            scheduled=source.scheduled,
            read=source.read,
            closed=source.closed,
            generator_start=motion.started,
            generator_end=motion.generated,
            posnet_end=motion.smoothed,
            av_offset_ns=source.av_offset_ns,
        )

    def _repair(self, index: int, segment: Array) -> tuple[Array, int]:
        """Hold the last good coefficients wherever a frame is not finite; the segment and how many frames that were."""
        before = self._track.segments.get(index - 1)
        last = np.zeros_like(segment[:, 0]) if before is None else before.shown.wait()[:, -1]
        return hold_good(segment, last)
