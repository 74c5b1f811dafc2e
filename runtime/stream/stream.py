"""The online listener: speaker frames and sound in, listener frames out, in any portions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from pflx.engines import Array, FeedError, PflxError
from pflx.engines.gpu.placement import Fetching
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.coefficients import check_samples
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.pace import UNHURRIED, Pace
from pflx.runtime.frames.turns import CueName, TurnName, as_role, check_cue
from pflx.runtime.generators import reach
from pflx.runtime.generators.personal import person_of
from pflx.runtime.generators.speaker_window import Ahead
from pflx.runtime.rendering.renderers import Portrait, portrait_sha256
from pflx.runtime.speaker.face_track import FaceTrack
from pflx.runtime.stream.chain import Chain, Noise, SeededNoise
from pflx.runtime.stream.coefficient_track import CoefficientTrack
from pflx.runtime.stream.hop import HopState
from pflx.runtime.stream.inbox import Arrival, Inbox
from pflx.runtime.stream.render_queue import RenderQueue
from pflx.runtime.stream.saved import OtherStreamError, Saved
from pflx.runtime.stream.segment_maker import SegmentMaker
from pflx.runtime.stream.turn_book import DEAF_FRAMES, Told, TurnBook

log = logging.getLogger(__name__)


class Look:
    """Looking at the speaker's pictures, to be done before the stream goes on.

    Args:
        look: does it.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def wait(self) -> None:
        """Do it."""
        self._look()


class StreamError(PflxError, RuntimeError):
    """A stream was used after its end, or a snapshot does not fit it."""


class Stream:
    """M reactions to one speaker. The caller owns the clock; there are no threads and no waiting.

    `push` takes what there is, `pull` does the work that is due and yields its frames one by one. How the input is
    cut into pushes, and when pull is called, changes nothing in the frames. Input that is pushed and not pulled waits
    in memory.

    Frame k is rendered when the segment that holds frame k + lookahead is closed, and not before the speaker's frame k
    is there. Its window reaches as far as the segments that had to be closed for that, at most 13 frames; beyond, the
    last known frame is repeated.

    On a GPU, pictures are put under way as many at a time as the renderer takes, and the next segment beside them if
    its input is there; only the picture that is handed out next is waited for. What is under way is no part of
    snapshots: it is rendered again from the same numbers.

    Made by `Listener.stream`.
    """

    def __init__(
        self,
        chain: Chain,
        *,
        samples: int,
        noise: Noise,
        track: FaceTrack,
        audio: bool = True,
        start_s: float = 0.0,
    ) -> None:
        check_samples(samples)
        self._chain = chain
        self._samples = samples
        self._seed = noise.seed if isinstance(noise, SeededNoise) else None
        self._inbox = Inbox(silent=not audio, start_s=start_s, sample_rate_hz=chain.speaker.sample_rate_hz)
        self._ahead = Ahead()
        self._track = CoefficientTrack(chain.generator.hop, chain.lookahead, chain.foresight)
        self._turns = TurnBook()
        self._pictures = RenderQueue(chain, self._track, samples, partial(self._turns.shown, chain.generator))
        start = HopState.start(chain, track, samples)
        self._segments = SegmentMaker(chain, self._track, samples, noise, start, self._pictures.recall)
        self._n_taken = 0  # speaker frames that segments were made of; the others wait in the inbox
        self._n_speaker: int | None = None

    @property
    def next_frame(self) -> int:
        """Number that the next frame pushed without an arrival gets."""
        return self._inbox.next_number

    @property
    def is_between_hops(self) -> bool:
        """Whether no speaker frame waits for its segment; a snapshot is small then, for it holds no picture."""
        return not self._inbox.n_frames

    @property
    def repaired(self) -> int:
        """Coefficient frames that were not finite, for which the last good ones were held."""
        return self._segments.repaired

    def push(
        self, *, video: UInt8Array | None = None, audio: Float32Array | None = None, arrival: Arrival | None = None
    ) -> None:
        """Add speaker frames, sound, or both; neither has to fit the other yet.

        Args:
            video: uint8 [T, H, W, 3] RGB at 25 fps, whole frames of one size.
            audio: float32 [N], mono in [-1, 1], at the bundle's rate R (`Listener.sample_rate_hz`). Sample R/25·k
                belongs to the start of frame k.
            arrival: numbers, time and stamps of `video`, which is then handed over; by default the frames follow the
                last ones, came now, and are copied.

        Raises:
            FeedError: another dtype or shape, a frame size that changed, or NaN in the sound.
            StreamError: `finish` was called.
        """
        if self._n_speaker is not None:
            raise StreamError("The stream was finished; open another one for more input.")
        before = self._inbox.n_frames
        self._inbox.add(video, audio, self._chain.clock(), arrival)
        self._name_frames(before)

    def finish(self) -> None:
        """Tell that the speaker's input is over: the rest comes out of the next `pull`.

        The pictures decide the length. Missing sound is silence, sound after the last picture is dropped, and a segment
        that lacks frames repeats the last picture.
        """
        if self._n_speaker is None:
            before = self._inbox.n_frames
            self._n_speaker = self._n_taken + before
            segments = -(-self._n_speaker // self._chain.generator.hop)
            self._inbox.complete(max(before, reach(self._chain.generator, segments - 1) - self._n_taken))
            self._name_frames(before)

    def pull(self, pace: Pace = UNHURRIED) -> Iterator[ListenerFrame]:
        """The frames that are due, oldest first and sample by sample within a frame; ends when input is lacking.

        Work is done as frames are taken: what is not taken comes with the next pull. When an engine fails, or Ctrl-C
        comes, the stream is as it was before that piece of work, and the next pull tries again.

        Args:
            pace: may have work left out to save time; frames on HOLD do not come out at all.
        """
        for item in self.work(pace):
            if isinstance(item, ListenerFrame):
                yield item
            else:
                item.wait()

    def work(self, pace: Pace = UNHURRIED) -> Iterator[ListenerFrame | Fetching | Look]:
        """What `pull` does, but for what needs no engine, so that whoever shares engines can let others have them.

        Instead of waiting for a GPU, or looking at the speaker's pictures, it yields something whose `wait` does so,
        and has to be called before it goes on.
        """
        while True:
            self._pictures.begin(self._n_due(), pace)
            if self._pictures.under_way:
                if self._may_close_early():
                    yield from self._close_next(pace)
                if (coming := self._coming(pace)) is not None:
                    yield coming
                elif (landed := self._pictures.land(pace)) is not None:
                    yield landed
            elif self._is_segment_due():
                yield from self._close_next(pace)
            else:
                yield from self._look()
                return

    def flush(self) -> None:
        """Forget the input that waits and the frames not rendered yet; the motion goes on with the next input.

        Input that frames were shown for already stays: a segment that lies ahead of the speaker is still to be made of
        it.
        """
        shown = -(-self._pictures.n_emitted // self._samples)
        here = max(self._n_taken, shown)
        self._inbox.keep(here - self._n_taken)
        self._turns.flush(here)
        self._track.names = {position: name for position, name in self._track.names.items() if position < here}
        self._ahead = Ahead()
        self._pictures.go_on_at(here * self._samples)
        if self._n_speaker is not None:
            self._n_speaker = here

    def reopen(self) -> None:
        """Take new input after `finish`; it goes on where the motion ended, the padding of the last window included."""
        self._n_speaker = None

    def release_pictures(self) -> None:
        """Drop the speaker's pictures that were looked at, for whoever takes no snapshot until the next segment.

        Without it they stay until their segment is made: a second of large ones is a gigabyte.
        """
        cropped, face = self._ahead.cropped, self._segments.state.speaker.face
        if cropped is not None and not self._chain.speaker.needs_again(face):
            self._inbox.release(cropped.count)

    def set_portrait(self, portrait: Portrait, sample: int | None = None) -> None:
        """Show another portrait from the next frame on. Snapshots hold its hash, not the picture.

        Args:
            portrait: a picture file, or uint8 [H, W, 3] RGB.
            sample: whose; None for all reactions.

        Raises:
            PortraitError: it cannot be read.
            FeedError: there is no such sample.
        """
        if sample is not None and not 0 <= sample < self._samples:
            raise FeedError(f"sample is {sample}; this stream has 0 to {self._samples - 1}.")
        features = self._chain.renderer.prepare(portrait)
        portraits = self._pictures.portraits
        shown = [portraits[index % len(portraits)] for index in range(self._samples)]
        self._pictures.portraits = [features if sample in (None, index) else old for index, old in enumerate(shown)]
        self._pictures.recall()

    def set_turn(
        self,
        turn: TurnName,
        *,
        at_s: float | None = None,
        frame: int | None = None,
        hears: bool | None = None,
        shown: bool = True,
    ) -> None:
        """Tell the listener whose turn it is: for whoever speaks through it, or covers it with another picture.

        | turn | what it does |
        |---|---|
        | `listening` | reacts; as it begins |
        | `thinking` | reacts, but begins no nods |
        | `speaking` | looks at the speaker, sways and blinks; takes nothing over, never moves the mouth |
        | `idle` | sways and blinks |

        It passes from one to the other within 400 ms, and for 200 ms after `speaking` hears nothing, for what is heard
        then is its own voice. Said again, nothing changes.

        Args:
            turn: which.
            at_s: from this moment of the speaker on, in s; what is over is now. None: from the next frame on.
            frame: the same as the number of a frame.
            hears: whether the speaker's sound counts; None hears while it listens and thinks.
            shown: False makes no pictures meanwhile: frames do not come out at all, or hold the last one.

        Raises:
            FeedError: there is no such turn.
        """
        self._turns.add(self._told(Told(as_role(turn, hears, shown), frame, at_s)))

    def cue(self, cue: CueName = "nod", *, at_s: float | None = None, frame: int | None = None) -> None:
        """Have the listener nod, whatever its generator and its turn: within a hop of that moment.

        Args:
            cue: "nod".
            at_s: at this moment of the speaker, in s; None is now.
            frame: the same as the number of a frame.

        Raises:
            FeedError: there is no such cue.
        """
        check_cue(cue)
        self._turns.add(self._told(Told(None, frame, at_s)))

    def snapshot(self) -> dict[str, Array]:
        """Everything the stream knows, as plain arrays; `Listener.resume` goes on from there in any process.

        They have a schema number, the seed, and a checksum of all: what was changed or damaged is refused.
        """
        self._segments.settle()
        return Saved(
            samples=self._samples,
            settings=self._chain.settings,
            seed=self._seed,
            portraits=self._hashes(),
            person=person_of(self._chain.generator),
            n_taken=self._n_taken,
            n_closed=self._track.n_closed,
            n_emitted=self._pictures.n_emitted,
            n_speaker=self._n_speaker,
            names=self._track.names,
            state=self._segments.state,
            inbox=self._inbox,
            segments=self._track.segments,
            turns=self._turns,
        ).to_snapshot()

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        """Take over a snapshot; one that is refused changes nothing. If it showed another portrait, that is logged.

        Raises:
            StreamError: it is of other samples, another seed or another generator, or not a snapshot of this pflx.
        """
        try:
            saved = Saved.from_snapshot(snapshot, self._chain, self._samples)
        except OtherStreamError as error:
            raise StreamError(str(error)) from error
        except ValueError as error:
            raise StreamError(f"This is no snapshot of a stream ({error}). Take one with Stream.snapshot.") from error
        if saved.seed != self._seed and None not in (saved.seed, self._seed):
            raise StreamError(f"The snapshot is of seed {saved.seed}, the stream of {self._seed}. Give it the same.")
        for sample, (shown, now) in enumerate(
            zip(*map(self._by_sample, (saved.portraits, self._hashes())), strict=True)
        ):
            if shown.any() and now.any() and (shown != now).any():  # zeros: nothing was, or is, shown
                log.warning(
                    "The snapshot showed a portrait of SHA-256 %s… as sample %d, this stream shows %s…. Its motion "
                    "goes on with this one; set that portrait to go on with the same.",
                    *(shown.tobytes().hex()[:12], sample, now.tobytes().hex()[:12]),
                )
        self._segments.forget(saved.state)
        self._track.n_closed, self._track.names, self._track.segments = (
            saved.n_closed,
            dict(saved.names),
            dict(saved.segments),
        )
        self._n_taken, self._n_speaker, self._inbox = saved.n_taken, saved.n_speaker, saved.inbox
        self._turns.told = saved.turns.told
        self._pictures.go_on_at(saved.n_emitted)
        self._ahead = Ahead()

    def go_on_from(self, snapshot: Mapping[str, Array]) -> None:
        """Take over the motion of a snapshot, without the input that waited in it, whether or not it was finished.

        Raises:
            StreamError: see `restore`.
        """
        self.restore(snapshot)
        self.flush()
        self.reopen()

    def close(self) -> None:
        """Drop what the stream holds and end it; the engines belong to the listener."""
        self._n_speaker = 0
        self._segments.forget()
        self._pictures.recall()
        self._inbox.clear()
        self._track.segments.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _hashes(self) -> Array:
        """uint8 [P, 32], of the portraits."""
        return np.stack([portrait_sha256(features) for features in self._pictures.portraits])

    def _by_sample(self, hashes: Array) -> Array:
        return np.resize(hashes, (self._samples, hashes.shape[1]))

    def _told(self, told: Told) -> Told:
        """Bound to the next frame, if to none."""
        return replace(told, frame=self.next_frame) if told.frame is None and told.time_s is None else told

    def _n_due(self) -> int:
        """How many frames can be rendered with the segments closed so far."""
        known = self._track.n_closed * self._chain.generator.hop
        if self._n_speaker is not None and not self._is_segment_due():
            return self._n_speaker
        return min(max(0, known - self._chain.lookahead), self._n_taken + self._inbox.n_frames)

    def _name_frames(self, before: int) -> None:
        """Remember what the frames are called that came after the first `before` ones of the inbox."""
        start = self._n_taken + before
        names = self._inbox.names(before)
        self._track.names |= {start + index: name for index, name in enumerate(names)}
        for index, (number, time_s) in enumerate(names):
            self._turns.name(start + index, number, time_s)

    def _n_missing(self) -> int:
        """How many frames the next segment takes from the inbox."""
        return max(0, reach(self._chain.generator, self._track.n_closed) - self._n_taken)

    def _is_segment_due(self) -> bool:
        if self._n_speaker is not None and self._track.n_closed * self._chain.generator.hop >= self._n_speaker:
            # What lies ahead of the end is made as if the end were not known: the last frames look at it.
            return bool(self._n_speaker) and reach(self._chain.generator, self._track.n_closed) <= self._n_speaker
        return self._inbox.has(max(self._n_missing(), 0 if self._n_taken else 1))

    def _close_next(self, pace: Pace) -> Iterator[Look]:
        """Close the next segment, after looking at all that it is made of, if that takes no turn."""
        if self._chain.looks_alone:
            yield from self._look()
        self._close_segment(pace)

    def _look(self) -> Iterator[Look]:
        """Look at the speaker's pictures so far, here or where the engines are not needed."""
        if not self._chain.looks_alone:
            self._look_ahead()
        elif self._may_look_ahead():
            yield Look(self._look_ahead)

    def _may_look_ahead(self) -> bool:
        """Whether there are pictures for the next segment that nobody has looked at."""
        cropped = self._ahead.cropped
        return min(self._n_missing(), self._inbox.n_frames) > (0 if cropped is None else cropped.count)

    def _look_ahead(self) -> None:
        """See to what waits for the next segment already, so that the segment does not wait for it."""
        length = self._n_missing()
        pictures, numbers = self._inbox.pictures(length)
        self._ahead = self._chain.speaker.look_ahead(
            pictures, numbers, length, self._segments.state.speaker, self._ahead
        )

    def _close_segment(self, pace: Pace) -> None:
        """Make the next segment of the frames that wait, then forget these."""
        taken = self._turns.heard(self._inbox.window(self._n_missing()), self._n_taken)
        self._segments.make(taken, self._ahead, pace, self._turns.span(self._chain.generator, self._track.n_closed))
        self._inbox.drop(len(taken.video))
        self._n_taken += len(taken.video)
        self._ahead = Ahead()
        self._segments.settle(pace, wait=False)
        self._track.forget(self._pictures.position)
        self._turns.forget(min(self._n_taken, self._pictures.position) - self._chain.generator.hop - DEAF_FRAMES)

    def _may_close_early(self) -> bool:
        """Whether the next segment can be made while the pictures of the last one are rendered."""
        return (
            self._chain.renderer.ahead > 1
            and self._pictures.are_all_begun
            and self._pictures.under_way[-1].known == self._track.n_closed
            and self._is_segment_due()
        )

    def _coming(self, pace: Pace) -> Fetching | None:
        """What has to arrive before the picture that was begun first can be handed out; None if all is here."""
        if self._pictures.under_way:
            known = self._pictures.under_way[0].known
            if (numbers := self._segments.awaited(known)) is not None:
                return numbers
            self._segments.settle(pace, before=known)  # its stamps are those of now, before its pictures are waited for
        return self._pictures.coming
