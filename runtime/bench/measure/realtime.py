"""The headline measurement: a speaker whose frames come by the clock and wait for nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
from msgspec.structs import replace

from pflx.engines import FeedError
from pflx.runtime.bench.measure.environment import describe_environment
from pflx.runtime.bench.measure.plan import Plan, make_report, open_listener, read_manifest
from pflx.runtime.bench.measure.reaction import hears, measure_reaction
from pflx.runtime.bench.measure.stimulus import Stimulus
from pflx.runtime.bench.report.report import FirstFrame, Report
from pflx.runtime.bench.report.series import make_series
from pflx.runtime.bench.report.verdict import verdict
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.ledger import Ledger
from pflx.runtime.frames.listener_frame import ListenerFrame
from pflx.runtime.frames.timing import FPS, NS_PER_MS, NS_PER_S
from pflx.runtime.generators import Generator
from pflx.runtime.latency.percentiles import Figures, figures
from pflx.runtime.listener import Listener
from pflx.runtime.live.clock import LiveClock, SystemClock, VirtualClock
from pflx.runtime.live.session import LiveSession
from pflx.runtime.media.clip import open_speaker
from pflx.runtime.media.sinks import NullSink
from pflx.runtime.media.sources import Source
from pflx.runtime.speaker.recorded import RECORDED
from pflx.runtime.stream.stream import Stream
from pflx.runtime.text_table import count

WARM_UP_SEGMENTS = 3
"""At the start of a session, left out of its figures."""

_IDLE_S = 10.0
_LONG = 3  # an idle test is made of runs that are so many times as long
_TICK_S = 0.25  # how often progress is told


class Progress(Protocol):
    """Is told how far a measurement is."""

    def __call__(self, done_s: float, total_s: float) -> None:
        """So many seconds of so many are over."""
        ...


def run_realtime(
    plan: Plan,
    clock: LiveClock | None = None,
    *,
    progress: Progress | None = None,
    record: Callable[[Ledger], None] | None = None,
) -> Report:
    """Measure a live session in an open loop: the speaker never waits, and what is not done in time is missed.

    Args:
        plan: what to measure.
        clock: what it runs on; None is the machine's clock, which engines that compute need.
        progress: is told how far it is.
        record: gets every ledger, those of the warm-up included; called by the session's threads.

    Raises:
        FeedError: the duration is too short for figures.
        SessionError: the session failed.
        ReactionError: the ledgers contradict a run without an event.
        BundleError, DeviceError, EngineError, PortraitError, MediaError: what cannot be opened.
    """
    clock = clock or SystemClock()
    stimulus = make_stimulus(plan)
    environment = describe_environment(plan.device)
    ledgers: list[Ledger] = []
    begun = clock()
    with open_listener(plan, clock) as listener:
        opening_ms = (clock() - begun) / NS_PER_MS
        require_duration(stimulus, listener)
        cold_ms, idle_ms = _time_first_frames(plan, listener, stimulus, clock)
        play(plan, listener, stimulus, clock, record=_both(ledgers.append, record), progress=progress)
        measured = without_warm_up(ledgers, listener.generator.hop)
        found = figures_of(measured, plan, listener)
        reaction = None
        if reaches := events_reach(plan, listener.generator):
            reaction = measure_reaction(measured, stimulus, listener, playout_ms=plan.live.playout_ms, seed=plan.seed)
    report = make_report(
        plan,
        "realtime",
        listener.manifest,
        environment,
        source=stimulus.description,
        clock=clock,
        figures=found,
        reaction=reaction,
        first_frame=FirstFrame(
            cold_ms=cold_ms, opening_ms=opening_ms, warm_ms=_warm_ms(ledgers, found), idle_ms=idle_ms
        ),
        series=make_series(measured, found, hop=listener.generator.hop),
    )
    notes = _notes(plan, len(ledgers) - len(measured), reaches)
    return replace(report, verdict=[*verdict(found, report.setup), *notes])


def make_stimulus(plan: Plan) -> Stimulus:
    """The plan's speaker.

    Raises:
        MediaError, PortraitError, BundleError: the clip, the portrait or the bundle cannot be read.
    """
    manifest = read_manifest(plan, verify=False)
    square, rate_hz = manifest.pfl.square_pixels, manifest.sample_rate_hz
    clip = None if plan.speaker is None else open_speaker(plan.speaker).with_pixels(square=square)
    return Stimulus(plan.duration_s, plan.seed, portrait=plan.portrait, clip=clip, sample_rate_hz=rate_hz)


def require_duration(stimulus: Stimulus, listener: Listener) -> None:
    """Refuse a run of which nothing is left beside its warm-up.

    Raises:
        FeedError: it is too short.
    """
    least = (WARM_UP_SEGMENTS + 1) * listener.generator.hop + listener.lookahead
    if stimulus.frames < least:
        raise FeedError(f"duration is {stimulus.frames / FPS:g} s; the warm-up alone takes {least / FPS:g} s.")


def start_session(
    plan: Plan, listener: Listener, source: Source, clock: LiveClock, record: Callable[[Ledger], None]
) -> LiveSession:
    """A session by the plan, whose frames go nowhere but into `record`."""
    return listener.live(
        source,
        NullSink(),
        plan.live,
        samples=plan.samples,
        seed=plan.seed,
        record=record,
        clock=clock,
    )


def play(
    plan: Plan,
    listener: Listener,
    stimulus: Stimulus,
    clock: LiveClock,
    *,
    record: Callable[[Ledger], None],
    progress: Progress | None = None,
) -> None:
    """Let a session run from its start to its end.

    Args:
        plan: how.
        listener: that reacts.
        stimulus: that is fed.
        clock: what it runs on.
        record: gets every ledger.
        progress: is told how far it is.

    Raises:
        SessionError: it failed.
    """
    with start_session(plan, listener, stimulus, clock, record) as session:
        begun = clock()
        while not session.wait(_TICK_S):
            if progress is not None:
                progress(min((clock() - begun) / NS_PER_S, plan.duration_s), plan.duration_s)


def events_reach(plan: Plan, generator: Generator) -> bool:
    """Whether what happens to the speaker changes anything that the generator reads."""
    recorded = {need for need, given in plan.extractors.items() if Path(given).suffix.lower() in RECORDED}
    return hears(generator) or not recorded.issuperset(generator.needs)


def without_warm_up(ledgers: Sequence[Ledger], hop: int) -> list[Ledger]:
    """The ledgers of a session's later segments."""
    return [ledger for ledger in ledgers if ledger.frame >= WARM_UP_SEGMENTS * hop]


def figures_of(ledgers: Sequence[Ledger], plan: Plan, listener: Listener) -> Figures:
    """Figures of a plan's run."""
    return figures(
        ledgers,
        hop=listener.generator.hop,
        algorithmic_ms=listener.algorithmic_delay_ms,
        playout_ms=plan.live.playout_ms,
        samples=plan.samples,
        fps=FPS,
    )


def _both(first: Callable[[Ledger], None], second: Callable[[Ledger], None] | None) -> Callable[[Ledger], None]:
    if second is None:
        return first

    def record(ledger: Ledger) -> None:
        first(ledger)
        second(ledger)

    return record


def _time_first_frames(
    plan: Plan, listener: Listener, stimulus: Stimulus, clock: LiveClock
) -> tuple[float | None, float | None]:
    """From the start of the process to the first frame; and the first turnaround after idling.

    There is no process on a virtual clock, and a short run does not idle.
    """
    with listener.stream(samples=plan.samples, seed=plan.seed) as stream:
        slots = stimulus.slots()
        first = None
        while first is None:
            first = _next_frame(stream, slots, listener.generator.hop)
        cold_ms = None if isinstance(clock, VirtualClock) else (time.time() - psutil.Process().create_time()) * 1000
        if plan.duration_s < _LONG * _IDLE_S:
            return cold_ms, None
        for _ in stream.pull():
            pass
        clock.sleep(round(_IDLE_S * NS_PER_S))
        return cold_ms, _turnaround_ms(stream, slots, clock())


def _turnaround_ms(stream: Stream, slots: Iterator[tuple[UInt8Array, Float32Array]], since: int) -> float:
    """Of the next segment: from its last frame to the first picture that depends on it."""
    for picture, sound in slots:
        stream.push(video=picture[None], audio=sound)
        for ledger in (frame.ledger for frame in stream.pull()):
            if ledger.newest is not None and ledger.newest >= since and ledger.on_host is not None:
                return (ledger.on_host - ledger.newest) / NS_PER_MS
    raise FeedError("The speaker ended before a segment was made of it. Measure for longer.")


def _next_frame(stream: Stream, slots: Iterator[tuple[object, object]], hop: int) -> ListenerFrame | None:
    """The first frame of the next segment's input."""
    pictures, sounds = zip(*islice(slots, hop), strict=True)
    stream.push(video=np.stack(pictures), audio=np.concatenate(sounds))
    return next(stream.pull(), None)


def _warm_ms(ledgers: Sequence[Ledger], found: Figures) -> float | None:
    """From a session's first speaker sample to its first picture; None if there was none."""
    shown = [ledger.emitted for ledger in ledgers if ledger.emitted is not None]
    due = [ledger.deadline for ledger in ledgers if ledger.deadline is not None]
    if not shown:
        return None
    return (min(shown) - min(due)) / NS_PER_MS + found.algorithmic_ms + found.playout_ms


def _notes(plan: Plan, n_warm_up: int, reaches: bool) -> Iterator[str]:
    yield f"Left out as warm-up: the first {WARM_UP_SEGMENTS} segments, {count(n_warm_up, 'frame')}."
    if not reaches:
        yield "No reaction was measured: all that the generator reads of the speaker was recorded before."
    if plan.portrait is None:
        yield "No portrait was given: the listener's face is a drawn one."
