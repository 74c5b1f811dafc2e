"""The headline: how long from something that the speaker does to the first frame that depends on it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import count, islice

import numpy as np

from pflx.engines import Array, PflxError
from pflx.runtime.bench.measure.stimulus import Stimulus
from pflx.runtime.bench.report.report import Reaction
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.ledger import Ledger, Rung
from pflx.runtime.frames.timing import FPS, FRAME_NS, NS_PER_MS, NS_PER_S
from pflx.runtime.generators import Generator, reach
from pflx.runtime.generators.protocol import delay_frames
from pflx.runtime.latency.percentiles import distribution
from pflx.runtime.listener import Listener
from pflx.runtime.rendering.renderers import Features, Renderer
from pflx.runtime.speaker.face_track import FaceTrack
from pflx.runtime.stream.chain import seeded_noise
from pflx.runtime.stream.stream import Stream

_ROUNDS = 2
_CHECKED = 20  # impulses that are replayed, if there are so many
_CLOSE_NS = NS_PER_MS  # stamps of one slot differ by rounding, those of two by 40 ms


class ReactionError(PflxError, RuntimeError):
    """The ledgers say that a picture depends on an event, and by a run without the event it does not."""


@dataclass(frozen=True)
class Response:
    """What came of one event.

    Attributes:
        impulse: index of the event.
        slot: number of the speaker frame in which it falls.
        first: number of the first speaker frame by which the generator can know of it.
        picture: number of the first picture that depends on it.
        latency_ms: from the event to the emission of that picture.
        coefficients_ms: from the event to the emission of the first frame whose own coefficients depend on it.
    """

    impulse: int
    slot: int
    first: int
    picture: int
    latency_ms: float
    coefficients_ms: float | None


def measure_reaction(
    ledgers: Sequence[Ledger], stimulus: Stimulus, listener: Listener, *, playout_ms: float, seed: int
) -> Reaction | None:
    """Reaction latency of a live run on a stimulus; None where no event was answered.

    An event at media time x is in slot k = ⌊25·x⌋, whose sound holds it; a generator that hears nothing knows of it by
    the picture of ⌈25·x⌉. The first picture that shows it is the first one that a segment made of that slot was known
    for. That this picture is in fact another one than without the event, and that none before it is, is checked by
    feeding the same input once more, offline, with and without some of the events.

    Args:
        ledgers: of the run, without those of its warm-up.
        stimulus: that was fed.
        listener: that reacted.
        playout_ms: declared delay on top of the algorithm's.
        seed: of the run's noise.

    Raises:
        ReactionError: the ledgers are wrong about what depends on what.
    """
    declared_ns = round((listener.algorithmic_delay_ms + playout_ms) * NS_PER_MS)
    found = list(find_responses(ledgers, stimulus.impulse_times_s, declared_ns, hears=hears(listener.generator)))
    if not found:
        return None
    note = _why_not_checked(ledgers)
    checked = 0 if note else _check(found, stimulus, listener, seed)
    own = [response.coefficients_ms for response in found if response.coefficients_ms is not None]
    mean_ms, worst_ms = algorithmic_reaction_ms(listener)
    return Reaction(
        latency=distribution([response.latency_ms for response in found]),
        coefficients_latency=distribution(own) if own else None,
        impulses=len(found),
        checked=checked,
        note=note or ("" if checked else "no event was early enough in its segment"),
        algorithmic_mean_ms=mean_ms,
        algorithmic_worst_ms=worst_ms,
    )


def hears(generator: Generator) -> bool:
    """Whether sound reaches it."""
    return not {"audio", "mfcc"}.isdisjoint(generator.needs)


def algorithmic_reaction_ms(listener: Listener) -> tuple[float, float]:
    """From an event to the first picture that shows it, on infinitely fast hardware, on average and at worst.

    A segment answers what happened in the hop before the speaker frame that it waits for, whatever its lead. Where only
    pictures tell, the event waits for the next one first; and a picture is never shown before its slot is over.
    """
    generator, frame_ms = listener.generator, 1000 / FPS
    idle = delay_frames(generator, listener.lookahead) - (generator.hop - generator.lead + listener.lookahead)
    more = (idle + (not hears(generator))) * frame_ms
    segment_ms = generator.hop * frame_ms
    return segment_ms / 2 + more, segment_ms + more


def find_responses(
    ledgers: Sequence[Ledger], times_s: Sequence[float], declared_ns: int, *, hears: bool = True
) -> Iterator[Response]:
    """The answer to each event, by the ledgers of sample 0 alone; events outside the run, or unanswered, are left out.

    Args:
        ledgers: of the run.
        times_s: of the events, on the media clock.
        declared_ns: from the start of a slot to its deadline.
        hears: whether the generator knows of an event by the sound of its slot.
    """
    mine = [ledger for ledger in ledgers if ledger.sample == 0]
    starts = {ledger.frame: ledger.deadline - declared_ns for ledger in mine if ledger.deadline is not None}
    shown = sorted((ledger for ledger in mine if ledger.emitted is not None), key=lambda ledger: ledger.emitted or 0)
    depends = _known_up_to([ledger.newest for ledger in shown])
    own = _known_up_to([ledger.scheduled for ledger in shown])
    for impulse, time_s in enumerate(times_s):
        slot = int(time_s * FPS)
        knows = slot if hears else math.ceil(time_s * FPS)
        if slot not in starts or knows not in starts:
            continue
        event = starts[slot] + round((time_s - slot / FPS) * NS_PER_S)
        complete = starts[knows] + FRAME_NS - _CLOSE_NS
        first, first_own = (int(np.searchsorted(known, complete)) for known in (depends, own))
        if first < len(shown) and (picture := shown[first].picture) is not None:
            yield Response(
                impulse=impulse,
                slot=slot,
                first=knows,
                picture=picture,
                latency_ms=_since(event, shown[first]),
                coefficients_ms=_since(event, shown[first_own]) if first_own < len(shown) else None,
            )


def _known_up_to(stamps: Sequence[int | None]) -> Array:
    """The newest input that anything shown so far depends on, int64."""
    never = np.iinfo(np.int64).min
    return np.maximum.accumulate(np.array([never if stamp is None else stamp for stamp in stamps], np.int64))


def _since(event: int, ledger: Ledger) -> float:
    assert ledger.emitted is not None
    return (ledger.emitted - event) / NS_PER_MS


def _why_not_checked(ledgers: Sequence[Ledger]) -> str:
    """Why a replay would not be of the same pictures; empty if it would."""
    if any(ledger.emitted is None or ledger.segment is None for ledger in ledgers):
        return "input or frames were dropped"
    return "" if all(ledger.rung is Rung.FULL for ledger in ledgers) else "not all frames were made in full"


def _check(found: Sequence[Response], stimulus: Stimulus, listener: Listener, seed: int) -> int:
    """Replay some events; how many.

    Those in the last slot that a segment hears are left out, of which it holds the last milliseconds of sound alone:
    whether these matter is the network's affair. So are those of the last segment, at which the session may have ended.
    """
    ends = list(_ends(listener.generator, stimulus.frames))
    last_heard = {end - 1 for end in ends} if hears(listener.generator) else set()
    whole = [0, *ends][-2]
    sure = [response for response in found if response.first < whole and response.first not in last_heard]
    chosen = [sure[index] for index in np.linspace(0, len(sure) - 1, min(_CHECKED, len(sure))).round().astype(int)]
    for response, number in zip(chosen, first_differences(chosen, stimulus, listener, seed), strict=True):
        if number not in first_different(response, listener):
            raise ReactionError(
                f"By the ledgers picture {response.picture} is the first that depends on the event at "
                f"{stimulus.impulse_times_s[response.impulse]:.3f} s; by a run without it, it is {number}. Report this."
            )
    return len(chosen)


def first_different(response: Response, listener: Listener) -> range:
    """The pictures of which one must be the first that differs without the event.

    It is the first that depends on it. But the frames of a segment that joins the last one by itself begin as that
    ended, and answer one after the other what happened in as many frames before.
    """
    generator = listener.generator
    return range(response.picture, response.picture + (generator.hop if generator.is_joined else 1))


def first_differences(
    responses: Sequence[Response], stimulus: Stimulus, listener: Listener, seed: int
) -> list[int | None]:
    """The number of the first picture that is another one without the event, for each of some responses.

    The whole input is fed to a stream, in whose pictures any bit of what they are rendered from can be told. Before the
    frames that are read together with an event a second stream branches off, which gets the input without it.

    Args:
        responses: in order of their events.
        stimulus: that was fed.
        listener: that reacted.
        seed: of the noise.

    Returns:
        The numbers; None where the pictures that follow are all the same.
    """
    stream, slots = _replay(listener, seed), stimulus.slots()
    waiting, branches, numbers = deque(responses), list[_Branch](), dict[int, int | None]()
    begin = 0
    for end in _ends(listener.generator, stimulus.frames):
        if not waiting and not branches:
            break
        raw = list(islice(slots, end - begin))
        while waiting and waiting[0].first < end:
            branches.append(_Branch(waiting.popleft(), _replay(listener, seed, stream.snapshot())))
        shown = _feed(stream, stimulus, raw, begin)
        for branch in branches:
            branch.compare(shown, _feed(branch.stream, stimulus, raw, begin, without=branch.response.impulse))
            numbers[branch.response.impulse] = branch.picture
        branches = [branch for branch in branches if not branch.settled]
        begin = end
    return [numbers.get(response.impulse) for response in responses]


@dataclass
class _Branch:
    """A stream without one of the events, from the frames on that are read together with it.

    Attributes:
        response: to the event.
        stream: without it.
        picture: number of the first picture that differs, once one does.
        rounds: portions compared.
    """

    response: Response
    stream: Stream
    picture: int | None = None
    rounds: int = 0

    @property
    def settled(self) -> bool:
        """Whether it is known; a picture that waits for its own slot comes with the next portion."""
        return self.picture is not None or self.rounds == _ROUNDS

    def compare(self, shown: Mapping[int, bytes], without: Mapping[int, bytes]) -> None:
        """Look for a difference among pictures by their numbers."""
        self.picture = next((number for number, digest in shown.items() if without[number] != digest), None)
        self.rounds += 1


def _ends(generator: Generator, frames: int) -> Iterator[int]:
    """Where the portions end in which the generator takes so many speaker frames."""
    taken = 0
    for segment in count():
        if taken >= frames:
            return
        end = min(reach(generator, segment), frames)
        if end > taken:
            taken = end
            yield end


def _replay(listener: Listener, seed: int, snapshot: Mapping[str, Array] | None = None) -> Stream:
    """A stream like that of the run, in whose pictures every difference shows."""
    chain = replace(listener.chain, renderer=_Digests())
    stream = Stream(chain, samples=1, noise=seeded_noise(seed), track=FaceTrack())
    if snapshot is not None:
        stream.restore(snapshot)
    return stream


class _Digests(Renderer):
    """In the renderer's place: a picture that any bit of the coefficients changes, at no cost."""

    def __init__(self) -> None:
        self.ahead = 1

    def render(self, track: Array, count: int, features: Features) -> UInt8Array:
        return np.frombuffer(blake2b(np.asarray(track).tobytes()).digest(), np.uint8)[None]


def _feed(
    stream: Stream,
    stimulus: Stimulus,
    raw: Sequence[tuple[UInt8Array, Float32Array]],
    first: int,
    *,
    without: int | None = None,
) -> dict[int, bytes]:
    """Feed some frames from frame `first` on; the pictures that can be made then, by their numbers."""
    slots = [stimulus.alter(first + row, *slot, without=without) for row, slot in enumerate(raw)]
    stream.push(video=np.stack([picture for picture, _ in slots]), audio=np.concatenate([sound for _, sound in slots]))
    if first + len(raw) == stimulus.frames:
        stream.finish()
    return {frame.ledger.frame: frame.image.tobytes() for frame in stream.pull()}
