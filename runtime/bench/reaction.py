"""The headline: how long from something that the speaker does to the first frame that depends on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice

import numpy as np

from pflx.engines import Array, PflxError
from pflx.runtime.bench.report import Reaction
from pflx.runtime.bench.stimulus import Stimulus
from pflx.runtime.chain import seeded_noise
from pflx.runtime.clock import NS_PER_S
from pflx.runtime.figures import distribution
from pflx.runtime.latency import Ledger, Rung
from pflx.runtime.listener import Listener
from pflx.runtime.media import FPS, Float32Array, UInt8Array
from pflx.runtime.rendering import Features, Renderer
from pflx.runtime.speaker import FaceTrack
from pflx.runtime.stream import Stream
from pflx.runtime.timeline import FRAME_NS

_CHECKED = 20  # impulses that are replayed, if there are so many
_MS = 1_000_000
_CLOSE_NS = _MS  # stamps of one slot differ by rounding, those of two by 40 ms


class ReactionError(PflxError, RuntimeError):
    """The ledgers say that a picture depends on an event, and by a run without the event it does not."""


@dataclass(frozen=True)
class Response:
    """What came of one event.

    Attributes:
        impulse: index of the event.
        slot: number of the speaker frame in which it falls.
        picture: number of the first picture that depends on it.
        latency_ms: from the event to the emission of that picture.
        coefficients_ms: from the event to the emission of the first frame whose own coefficients depend on it.
    """

    impulse: int
    slot: int
    picture: int
    latency_ms: float
    coefficients_ms: float | None


def measure_reaction(
    ledgers: Sequence[Ledger], stimulus: Stimulus, listener: Listener, *, playout_ms: float, seed: int
) -> Reaction | None:
    """Reaction latency of a live run on a stimulus; None where no event was answered.

    An event at media time x is in slot k = ⌊25·x⌋, whose sound holds it. It can be seen first in the first picture that
    the segment of slot k was known for. That this picture is in fact another one than without the event, and that none
    before it is, is checked by feeding the same input once more, offline, with and without some of the events.

    Args:
        ledgers: of the run, without those of its warm-up.
        stimulus: that was fed.
        listener: that reacted.
        playout_ms: declared delay on top of the algorithm's.
        seed: of the run's noise.

    Raises:
        ReactionError: the ledgers are wrong about what depends on what.
    """
    declared_ns = round((listener.algorithmic_delay_ms + playout_ms) * _MS)
    found = list(find_responses(ledgers, stimulus.impulse_times_s, declared_ns))
    if not found:
        return None
    note = _why_not_checked(ledgers)
    checked = 0 if note else _check(found, stimulus, listener, seed)
    own = [response.coefficients_ms for response in found if response.coefficients_ms is not None]
    segment_ms = listener.generator.hop * 1000 / FPS
    return Reaction(
        latency=distribution([response.latency_ms for response in found]),
        coefficients_latency=distribution(own) if own else None,
        impulses=len(found),
        checked=checked,
        note=note or ("" if checked else "no event was early enough in its segment"),
        algorithmic_mean_ms=segment_ms / 2,
        algorithmic_worst_ms=segment_ms,
    )


def find_responses(ledgers: Sequence[Ledger], times_s: Sequence[float], declared_ns: int) -> Iterator[Response]:
    """The answer to each event, by the ledgers of sample 0 alone; events outside the run, or unanswered, are left out.

    Args:
        ledgers: of the run.
        times_s: of the events, on the media clock.
        declared_ns: from the start of a slot to its deadline.
    """
    mine = [ledger for ledger in ledgers if ledger.sample == 0]
    starts = {ledger.frame: ledger.deadline - declared_ns for ledger in mine if ledger.deadline is not None}
    shown = sorted((ledger for ledger in mine if ledger.emitted is not None), key=lambda ledger: ledger.emitted or 0)
    depends = _known_up_to([ledger.newest for ledger in shown])
    own = _known_up_to([ledger.scheduled for ledger in shown])
    for impulse, time_s in enumerate(times_s):
        slot = int(time_s * FPS)
        if slot not in starts:
            continue
        event = starts[slot] + round((time_s - slot / FPS) * NS_PER_S)
        complete = starts[slot] + FRAME_NS - _CLOSE_NS
        first, first_own = (int(np.searchsorted(known, complete)) for known in (depends, own))
        if first < len(shown) and (picture := shown[first].picture) is not None:
            yield Response(
                impulse=impulse,
                slot=slot,
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
    return (ledger.emitted - event) / _MS


def _why_not_checked(ledgers: Sequence[Ledger]) -> str:
    """Why a replay would not be of the same pictures; empty if it would."""
    if any(ledger.emitted is None or ledger.segment is None for ledger in ledgers):
        return "input or frames were dropped"
    return "" if all(ledger.rung is Rung.FULL for ledger in ledgers) else "not all frames were made in full"


def _check(found: Sequence[Response], stimulus: Stimulus, listener: Listener, seed: int) -> int:
    """Replay some events; how many.

    Those in the last slot of a segment are left out, of which it holds the last milliseconds of sound alone: whether
    these matter is the network's affair.
    """
    hop = listener.generator.hop
    sure = [response for response in found if response.slot % hop < hop - 1]
    chosen = [sure[index] for index in np.linspace(0, len(sure) - 1, min(_CHECKED, len(sure))).round().astype(int)]
    for response, number in zip(chosen, first_differences(chosen, stimulus, listener, seed), strict=True):
        if number != response.picture:
            raise ReactionError(
                f"By the ledgers picture {response.picture} is the first that depends on the event at "
                f"{stimulus.impulse_times_s[response.impulse]:.3f} s; by a run without it, it is {number}. Report this."
            )
    return len(chosen)


def first_differences(
    responses: Sequence[Response], stimulus: Stimulus, listener: Listener, seed: int
) -> Iterator[int | None]:
    """The number of the first picture that is another one without the event, for each of some responses.

    The whole input is fed to a stream, in whose pictures any bit of what they are rendered from can be told. Before the
    segment of an event a second stream branches off, which gets the input without it.

    Args:
        responses: in order of their events, whose segments are apart.
        stimulus: that was fed.
        listener: that reacted.
        seed: of the noise.

    Yields:
        The number; None where the first pictures after the event's segment are all the same.
    """
    hop = listener.generator.hop
    wanted = {response.slot // hop: response for response in responses}
    chain = replace(listener.chain, renderer=_Digests())
    stream = Stream(chain, samples=1, noise=seeded_noise(seed), track=FaceTrack())
    slots = stimulus.slots()
    for segment in range(max(wanted, default=-1) + 1):
        raw = list(islice(slots, hop))
        response = wanted.get(segment)
        if response is None:
            _feed(stream, stimulus, raw, segment * hop)
            continue
        branch = Stream(chain, samples=1, noise=seeded_noise(seed), track=FaceTrack())
        branch.restore(stream.snapshot())
        with_event = _feed(stream, stimulus, raw, segment * hop)
        without = _feed(branch, stimulus, raw, segment * hop, without=response.impulse)
        yield next((number for number, digest in with_event.items() if without[number] != digest), None)


class _Digests(Renderer):
    """In the renderer's place: a picture that any bit of the coefficients changes, at no cost."""

    def __init__(self) -> None:
        pass

    def render(self, track: Array, frame: int, features: Features) -> UInt8Array:
        return np.frombuffer(blake2b(np.ascontiguousarray(track).tobytes()).digest(), np.uint8)


def _feed(
    stream: Stream,
    stimulus: Stimulus,
    raw: Sequence[tuple[UInt8Array, Float32Array]],
    first: int,
    *,
    without: int | None = None,
) -> dict[int, bytes]:
    """Feed one segment from frame `first` on; the pictures that can be made then, by their numbers."""
    slots = [stimulus.alter(first + row, *slot, without=without) for row, slot in enumerate(raw)]
    stream.push(video=np.stack([picture for picture, _ in slots]), audio=np.concatenate([sound for _, sound in slots]))
    if first + len(raw) == stimulus.frames:
        stream.finish()
    return {frame.ledger.frame: frame.image.tobytes() for frame in stream.pull()}
