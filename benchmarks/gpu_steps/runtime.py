"""Steps of `gpu.py`: what the runtime makes of the graphs: a segment, a live session, many sessions."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any, TypeAlias

import msgspec
import numpy as np
from gpu_steps.engines import Opened, call_feeds, open_on_gpu
from gpu_steps.record import Record, Setting, figures, rounded, timed

from pflx.engines import Array, Bundle, Engine, Manifest
from pflx.engines.gpu.cuda import Cuda, open_cuda, parse_device
from pflx.engines.gpu.device import Device
from pflx.runtime import EngineSettings, Listener, Region, SpeakerSettings, Stream, SystemClock
from pflx.runtime.bench.measure.drawing import draw_face
from pflx.runtime.bench.measure.plan import Plan, open_listener
from pflx.runtime.bench.measure.realtime import run_realtime
from pflx.runtime.bench.measure.sessions import measure_sessions
from pflx.runtime.bench.measure.stimulus import Stimulus
from pflx.runtime.bench.measure.usage import graph_uses
from pflx.runtime.bench.report.report import Report, save_report
from pflx.runtime.bundle_engines import open_engines
from pflx.runtime.frames.pace import UNHURRIED, Pace, Unhurried, largest_batches
from pflx.runtime.frames.timing import FPS
from pflx.runtime.latency.percentiles import Distribution
from pflx.runtime.speaker.pfl import centre_square

HOPS, WARM_UP_HOPS = 300, 20
_AHEAD = 20  # segments that are pushed at once where everything is pushed ahead
_CYCLES, _CYCLES_S = 20, 45
_FLAT_MB = 16
REALTIME_S, SESSIONS_S = 20.0, 20.0
SESSIONS = (8, 12, 16, 20, 24)
_FEWER_SESSIONS = (4, 2, 1)
_SEARCH_S = 100

Segment: TypeAlias = tuple[Array, Array]
"""Pictures and sound of one hop."""


class Cut(Unhurried):
    """Cuts pictures into calls by a function of their number."""

    def __init__(self, cut: Callable[[int], Sequence[int]]) -> None:
        self._cut = cut

    def batches(self, count: int) -> Sequence[int]:
        return self._cut(count)


PACES: Mapping[str, Pace] = {
    "captured": UNHURRIED,
    "first_alone": Cut(lambda count: [1, *largest_batches(count - 1)]),
    "one_by_one": Cut(lambda count: [1] * count),
}
"""All pictures of a segment in one call; the first one alone, as live sessions do; every one alone."""


@dataclass(frozen=True)
class Hop:
    """Times of one segment in s, from its last speaker frame pushed: until the generator began, until the first of its
    pictures was on the host, until the last; and what its other speaker frames took before."""

    crop: float
    first: float
    last: float
    before: float


def hop(setting: Setting, record: Record) -> None:
    """What a segment takes end to end, beside the sum of its engines, and what memory it takes."""
    cuda = open_cuda(parse_device(setting.device) or 0)
    memory = partial(used_mb, cuda)
    bundle = Bundle.open(setting.bundle, verify=False)
    record.put("memory_mb", {"before": memory()})
    speaker = made_up_speaker(bundle.manifest.sample_rate_hz, bundle.manifest.generator.hop)
    record.attempt("engines", partial(engine_times, bundle, setting, record))
    _measure_captured(bundle, setting, record, speaker, memory)
    gc.collect()
    record.found["memory_mb"]["after_close"] = memory()
    record.attempt("not_captured", partial(_measure_not_captured, bundle, setting, record, speaker))
    record.attempt("overhead", partial(overheads, record.found))
    record.say(f"overhead: {record.found['overhead']}; memory in MB: {record.found['memory_mb']}")
    open_one = partial(open_hop_listener, bundle, setting.device)
    record.attempt("cycles", partial(open_and_close, open_one, memory, speaker, _CYCLES))
    record.say(f"open and close: {record.found['cycles']}")


def open_hop_listener(bundle: Bundle, device: str) -> Listener:
    """A listener that looks at no frame ahead, so that a segment's own pictures follow at once."""
    engines, gpu = open_engines(bundle, device, settings=EngineSettings(precision="fp16"))
    return Listener(bundle.manifest, engines, draw_face(), lookahead=0, gpu=gpu)


def _measure_captured(
    bundle: Bundle, setting: Setting, record: Record, speaker: Sequence[Segment], memory: Callable[[], float]
) -> None:
    engines, gpu = open_engines(bundle, setting.device, settings=EngineSettings(precision="fp16"))
    assert gpu is not None
    with Listener(bundle.manifest, engines, draw_face(), lookahead=0, gpu=gpu) as listener:
        for name, pace in PACES.items():
            found = record.attempt(name, partial(_hops_and_memory, listener, speaker, pace, gpu, memory))
            if found:
                record.say(f"{name}: {_in_short(found)}")
        record.attempt("overlap", partial(measure_overlap, listener, speaker, HOPS))
        record.say(f"overlap: {record.found['overlap']}")


def _hops_and_memory(
    listener: Listener, speaker: Sequence[Segment], pace: Pace, gpu: Device, memory: Callable[[], float]
) -> dict[str, Any]:
    marks: list[tuple[int, float]] = []
    hops = measure_hops(listener, speaker, HOPS, pace, at_start=lambda: marks.append((gpu.allocated, memory())))
    (before, before_mb), (after, after_mb) = marks[0], (gpu.allocated, memory())
    return {
        **summary(hops),
        "allocated_after_warm_up_mb": rounded(before / 1e6),
        "allocations_since_bytes": after - before,
        "memory_mb": {"after_warm_up": before_mb, "after_hops": after_mb},
    }


def _measure_not_captured(
    bundle: Bundle, setting: Setting, record: Record, speaker: Sequence[Segment]
) -> dict[str, Any]:
    with ExitStack() as stack:
        gpu = stack.enter_context(closing(Device.open(setting.device)))
        opened = {name: open_on_gpu(bundle, name, "fp16", gpu) for name in bundle.manifest.graphs}
        engines: dict[str, Engine] = {name: each.plain for name, each in opened.items()}
        listener = Listener(bundle.manifest, engines, draw_face(), lookahead=0, gpu=gpu)
        stack.enter_context(listener)
        found = summary(measure_hops(listener, speaker, HOPS, UNHURRIED))
    record.say(f"not captured: {_in_short(found)}")
    return found


def made_up_speaker(sample_rate_hz: int, hop: int) -> list[Segment]:
    """A speaker who sways and hums, in segments to be fed in turn."""
    stimulus = Stimulus(2 * 48 / FPS, 0, sample_rate_hz=sample_rate_hz)
    slots = stimulus.slots()
    segments = []
    while len(chunk := list(islice(slots, hop))) == hop:
        pictures, sounds = zip(*chunk, strict=True)
        segments.append((np.stack(pictures), np.concatenate(sounds)))
    return segments


def measure_hops(
    listener: Listener,
    speaker: Sequence[Segment],
    count: int,
    pace: Pace,
    *,
    warm_up: int = WARM_UP_HOPS,
    at_start: Callable[[], object] = lambda: None,
) -> list[Hop]:
    """Let a listener react segment by segment, as a live one does: earlier speaker frames are there before the last.

    Args:
        listener: without look-ahead.
        speaker: segments, fed in turn.
        count: segments to measure.
        pace: how to cut their pictures into calls.
        warm_up: segments before.
        at_start: called after those.
    """
    hops = []
    with listener.stream(speaker=SpeakerSettings(region=region_of(speaker))) as stream:
        for index, segment in enumerate(islice(cycle(speaker), warm_up + count)):
            if index == warm_up:
                at_start()
            hops.append(_one_hop(stream, segment, listener.sample_rate_hz // FPS, pace))
    return hops[warm_up:]


def region_of(speaker: Sequence[Segment]) -> Region:
    """The middle of the pictures."""
    height, width = speaker[0][0].shape[1:3]
    return centre_square((width, height))


def _one_hop(stream: Stream, segment: Segment, per_frame: int, pace: Pace) -> Hop:
    video, audio = segment
    started = time.perf_counter_ns()
    stream.push(video=video[:-1], audio=audio[:-per_frame])
    early = len(list(stream.pull(pace)))
    begun = time.perf_counter_ns()
    stream.push(video=video[-1:], audio=audio[-per_frame:])
    arrived, ledgers = [], []
    for frame in stream.pull(pace):
        arrived.append(time.perf_counter_ns())
        ledgers.append(frame.ledger)
    if early or len(arrived) != len(video):
        raise AssertionError(f"{early} pictures came early and {len(arrived)} in time, of {len(video)}")
    crop, first, last = (stamp - begun for stamp in (ledgers[0].generator_start or begun, arrived[0], arrived[-1]))
    return Hop(crop / 1e9, first / 1e9, last / 1e9, (begun - started) / 1e9)


def summary(hops: Sequence[Hop]) -> dict[str, Any]:
    """Figures of segments, in ms."""
    return {
        "hop": figures([each.last for each in hops]),
        "first_picture": figures([each.first for each in hops]),
        "without_crop": figures([each.last - each.crop for each in hops]),
        "crop_of_last_frame": figures([each.crop for each in hops]),
        "earlier_speaker_frames": figures([each.before for each in hops]),
    }


def measure_overlap(
    listener: Listener, speaker: Sequence[Segment], count: int, *, ahead: int = _AHEAD
) -> dict[str, Any]:
    """The same with many segments pushed at once: each is generated while the one before it is rendered.

    Args:
        listener: that reacts.
        speaker: segments, fed in turn.
        count: segments to measure.
        ahead: how many are pushed at once.
    """
    spans = []
    segments = cycle(speaker)
    with listener.stream(speaker=SpeakerSettings(region=region_of(speaker))) as stream:
        for _ in range(1 + max(1, count // ahead)):
            videos, sounds = zip(*islice(segments, ahead), strict=True)
            stream.push(video=np.concatenate(videos), audio=np.concatenate(sounds))
            begun = time.perf_counter()
            for _ in stream.pull():
                pass
            spans.append((time.perf_counter() - begun) / ahead)
    return {"segment": figures(spans[1:]), "segments_at_once": ahead, "includes": "the crop of all speaker frames"}


def engine_times(bundle: Bundle, setting: Setting, record: Record) -> dict[str, Any]:
    """What the calls of a segment take by themselves, one by one, waited for; and their sums in ms."""
    found: dict[str, Any] = {}
    with closing(Device.open(setting.device)) as gpu:
        for graph, frames in segment_calls(bundle.manifest):
            with closing(open_on_gpu(bundle, graph, "fp16", gpu)) as opened:
                found[graph] = call_times(opened, call_feeds(bundle.manifest, graph, frames), gpu, setting.seconds / 3)
    record.say("engines: " + ", ".join(f"{name} {each['captured']['median_ms']} ms" for name, each in found.items()))
    return {**found, "sum_ms": sums(found)}


def segment_calls(manifest: Manifest) -> Iterator[tuple[str, int]]:
    """The graphs that a segment runs, each once, and the pictures that a call makes."""
    frame = manifest.renderer.graphs["frame"]
    for graph, use in graph_uses(manifest, 1).items():
        if graph == frame:
            yield graph, manifest.generator.hop
        elif use.per_segment:
            assert use.per_segment == 1, f"{graph} runs {use.per_segment} times"
            yield graph, 1


def call_times(opened: Opened, feeds: Mapping[str, Array], gpu: Device, seconds: float) -> dict[str, Any]:
    """Of one graph, captured and not."""
    placed = {name: gpu.upload(value) for name, value in feeds.items()}
    wait = opened.stream.synchronize
    ways = {"captured": opened.captured, "not_captured": opened.plain}
    return {name: timed(partial(engine.run, placed), wait, seconds) for name, engine in ways.items()}


def sums(found: Mapping[str, Any]) -> dict[str, float]:
    """Of all graphs: by the median of calls that are waited for, and of queued ones."""
    ways = ("captured", "not_captured")
    medians = {way: rounded(sum(each[way]["median_ms"] for each in found.values())) for way in ways}
    queued = {f"{way}_queued": rounded(sum(each[way]["queued_ms"] for each in found.values())) for way in ways}
    return {**medians, **queued}


def overheads(found: Mapping[str, Any]) -> dict[str, float]:
    """How much longer a segment takes than its engines one by one: whole / sum - 1, by medians."""
    engines_ms = found["engines"]["sum_ms"]
    made = {}
    for name in ("captured", "not_captured"):
        for part in ("without_crop", "hop"):
            if part in found.get(name, {}):
                made[f"{name}_{part}"] = rounded(found[name][part]["median_ms"] / engines_ms[name] - 1)
    if "segment" in found.get("overlap", {}):
        made["overlap"] = rounded(found["overlap"]["segment"]["median_ms"] / engines_ms["captured"] - 1)
    return made


def open_and_close(
    open_one: Callable[[], Listener], memory: Callable[[], float], speaker: Sequence[Segment], count: int
) -> dict[str, Any]:
    """Open a listener, make a segment, close it, again and again: MB in use after each."""
    used: list[float] = []
    began = time.perf_counter()
    while len(used) < count and (len(used) < 3 or time.perf_counter() - began < _CYCLES_S):
        with open_one() as listener:
            measure_hops(listener, speaker, 1, UNHURRIED, warm_up=2)
        del listener
        gc.collect()
        used.append(memory())
    growth = used[-1] - used[1]  # libraries take what they keep in the first
    return {"cycles": len(used), "used_mb": used, "growth_since_second_mb": rounded(growth), "flat": growth <= _FLAT_MB}


def used_mb(cuda: Cuda) -> float:
    """Memory of a GPU that is in use, by anybody."""
    free, total = cuda.memory()
    return round((total - free) / 1e6, 1)


def realtime(setting: Setting, record: Record) -> None:
    """A live session by the clock, without any rung but the full one."""
    plan = make_plan(setting, REALTIME_S)
    report = run_realtime(plan)
    save_report(setting.work / "latency_realtime.json", report)
    for name, value in realtime_figures(report).items():
        record.put(name, value)
    record.say(str(record.found))


def make_plan(setting: Setting, duration_s: float) -> Plan:
    """The bundle in FP16, in full or too late."""
    command = "python benchmarks/gpu.py"
    return Plan(
        bundle=setting.bundle,
        device=setting.device,
        engines=EngineSettings(precision="fp16"),
        duration_s=duration_s,
        command=command,
    )


def realtime_figures(report: Report) -> dict[str, Any]:
    """The key figures of a report."""
    found, first = report.figures, report.first_frame
    assert found is not None
    assert first is not None
    return {
        "playout_ms": found.playout_ms,
        "algorithmic_ms": found.algorithmic_ms,
        "frames": found.frames,
        "dmr": found.dmr,
        "reaction_ms": percentiles(report.reaction.latency if report.reaction else None),
        "turnaround_ms": percentiles(found.turnaround),
        "lateness_ms": percentiles(found.lateness),
        "trail_ms": percentiles(found.trail),
        "real_time_factor": percentiles(found.real_time_factor),
        "smallest_playout_ms": found.smallest_playout_ms,
        "first_frame": msgspec.to_builtins(first),
        "stages_ms": report.series.stages if report.series else None,
        "verdict": list(report.verdict),
    }


def percentiles(found: Distribution | None) -> dict[str, float | int | None] | None:
    """The values of a distribution; None for those that it is too small for."""
    if found is None:
        return None
    named = {name: getattr(found, name) for name in ("p50", "p95", "p99")}
    values = {name: rounded(quantile.value) if quantile else None for name, quantile in named.items()}
    return {**values, "max": rounded(found.max), "count": found.count}


def sessions(setting: Setting, record: Record) -> None:
    """More and more sessions on one listener, until they are not kept."""
    plan, clock, began = make_plan(setting, SESSIONS_S), SystemClock(), time.perf_counter()
    record.put("rows", [])
    with open_listener(plan, clock) as listener:
        for number in session_counts(record.found["rows"]):
            if time.perf_counter() - began > _SEARCH_S:
                record.put("stopped", f"not tried with {number}: no time")
                break
            row = msgspec.to_builtins(measure_sessions(listener, plan, number, clock))
            record.found["rows"].append(row)
            record.put("kept", max((each["sessions"] for each in record.found["rows"] if each["kept"]), default=0))
            record.say(str(row))


def session_counts(rows: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """Numbers to try: upwards until one is not kept, and down if that is the first."""
    for number in SESSIONS:
        yield number
        if not rows[-1]["kept"]:
            break
    if rows[0]["kept"]:
        return
    for number in _FEWER_SESSIONS:
        yield number
        if rows[-1]["kept"]:
            return


def _in_short(found: Mapping[str, Any]) -> str:
    parts = [f"{name} {found[name]['median_ms']} ms (p99 {found[name]['p99_ms']})" for name in ("hop", "first_picture")]
    return f"{', '.join(parts)}, crop {found['crop_of_last_frame']['median_ms']} ms"
