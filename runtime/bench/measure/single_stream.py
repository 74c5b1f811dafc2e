"""A closed loop, segment after segment: service times, which know nothing of waiting."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import cycle, islice

import numpy as np
from msgspec.structs import replace

from pflx.runtime.bench.measure.environment import describe_environment
from pflx.runtime.bench.measure.plan import Plan, make_report, open_listener
from pflx.runtime.bench.measure.realtime import WARM_UP_SEGMENTS, Progress, figures_of, make_stimulus, without_warm_up
from pflx.runtime.bench.measure.stimulus import Stimulus
from pflx.runtime.bench.report.report import Report
from pflx.runtime.bench.report.verdict import verdict
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.ledger import Ledger
from pflx.runtime.frames.timing import FPS, NS_PER_S, Clock
from pflx.runtime.generators import Generator
from pflx.runtime.live.clock import LiveClock, SystemClock
from pflx.runtime.stream.stream import Stream

_LEAST_SEGMENTS = WARM_UP_SEGMENTS + 2  # however long they take
_CLOSED_LOOP = (
    "This is a closed loop: a segment was fed when all of the last one was done, so these are service times. What a "
    "slow moment does to the frames that wait meanwhile is not in them: realtime measures it."
)


def run_single_stream(
    plan: Plan,
    clock: LiveClock | None = None,
    *,
    costs: Mapping[str, int] | None = None,
    progress: Progress | None = None,
    record: Callable[[Ledger], None] = lambda _: None,
) -> Report:
    """Measure how long segments take when nothing is ever due.

    Args:
        plan: `duration_s` is how long to go on, however many segments that makes; of a slow chain, a few at least.
        clock: what it runs on; None is the machine's. One that stands still while engines work needs costs.
        costs: see `open_listener`.
        progress: is told how far it is.
        record: gets every ledger, those of the warm-up included.

    Raises:
        BundleError, DeviceError, EngineError, PortraitError, MediaError: what cannot be opened.
    """
    clock = clock or SystemClock()
    stimulus = make_stimulus(plan)
    environment = describe_environment(plan.device)
    ledgers: list[Ledger] = []
    with open_listener(plan, clock, costs=costs) as listener:
        hop = listener.generator.hop
        with listener.stream(samples=plan.samples, seed=plan.seed) as stream:
            for done_s, served in serve(stream, _portions(stimulus, listener.generator), clock):
                ledgers += served
                if progress is not None:
                    progress(min(done_s, plan.duration_s), plan.duration_s)
                if done_s >= plan.duration_s and served and served[-1].frame >= _LEAST_SEGMENTS * hop:
                    break
    for ledger in ledgers:
        record(ledger)
    fed = dataclasses.replace(
        plan, live=dataclasses.replace(plan.live, playout_ms=0), duration_s=(ledgers[-1].frame + 1) / FPS
    )
    found = figures_of(without_warm_up(ledgers, hop), fed, listener)
    report = make_report(
        fed,
        "single-stream",
        listener.manifest,
        environment,
        source=stimulus.description,
        clock=clock,
        figures=found,
    )
    return replace(report, verdict=[_CLOSED_LOOP, *verdict(found, report.setup)])


def serve(
    stream: Stream, portions: Iterable[tuple[UInt8Array, Float32Array]], clock: Clock
) -> Iterator[tuple[float, list[Ledger]]]:
    """Feed a portion, take all frames that follow, and only then feed the next.

    Args:
        stream: that is fed.
        portions: pictures and sound.
        clock: of the stream.

    Yields:
        After each portion: seconds since the start, and the ledgers of its frames.
    """
    begun = clock()
    for video, audio in portions:
        stream.push(video=video, audio=audio)
        ledgers = [frame.ledger for frame in stream.pull()]
        yield (clock() - begun) / NS_PER_S, ledgers


def _portions(stimulus: Stimulus, generator: Generator) -> Iterator[tuple[UInt8Array, Float32Array]]:
    """What a stimulus shows, with its events, over and over, a hop at a time.

    Of segments that lie ahead of the speaker, frames are still due while the hop comes in; its last frame comes by
    itself, so that the segment that it closes does not wait for them.
    """
    frames = _frames(stimulus)
    for length in cycle([generator.hop - 1, 1] if generator.lead else [generator.hop]):
        pictures, sounds = zip(*islice(frames, length), strict=True)
        yield np.stack(pictures), np.concatenate(sounds)


def _frames(stimulus: Stimulus) -> Iterator[tuple[UInt8Array, Float32Array]]:
    while True:
        for number, (picture, sound) in enumerate(stimulus.slots()):
            yield stimulus.alter(number, picture, sound)
