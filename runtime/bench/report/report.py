"""The report of a measurement: what ran where, and every figure, as data that is read strictly."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Literal

import msgspec

from pflx.engines import PflxError
from pflx.engines.bundle.schema import check_schema
from pflx.engines.files.writer import write_whole
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.latency.percentiles import Distribution, Figures

SCHEMA = 3
STUB_EXTRACTOR = "stub, a function of the picture"
"""What gave the generator numbers of the speaker that mean nothing, at no cost."""
MAX_POINTS = 3_000
"""Points of one series; a longer one is thinned."""

_NUMBERS = re.compile(rb"\[(?:\s+(?:-?[\d.]+(?:[eE][+-]?\d+)?|null),?)+\s+\]")

Mode = Literal["realtime", "single-stream", "engine", "sessions", "soak", "self-test"]


class ReportError(PflxError, ValueError):
    """A file is no report that this version reads."""


class ReportMissingError(ReportError, FileNotFoundError):
    """There is no report at the path."""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the report."""


class Environment(_Record, frozen=True, kw_only=True):
    """The machine and what is installed on it.

    Attributes:
        pflx: version.
        commit: of the checkout that pflx runs from, marked where files were changed; None where it was installed.
        python: version.
        os: name and version.
        cpu: name of the processor.
        cores: physical cores; None where the system does not say.
        threads_of_machine: logical cores.
        memory_gb: main memory, in 10^9 bytes.
        frequency: `floating, …`, `locked, …`, or `not stated`.
        gpu: name of the GPU; None without one.
        driver: version of its driver, where it is known.
        sm: its generation, like `sm_89`.
        cuda: CUDA version that the driver supports.
        packages: version of each installed package that figures depend on.
        load: runnable threads of the whole machine, averaged over the minute before the measurement.
    """

    pflx: str
    commit: str | None = None
    python: str
    os: str
    cpu: str
    cores: int | None
    threads_of_machine: int
    memory_gb: float
    frequency: str
    gpu: str | None = None
    driver: str | None = None
    sm: str | None = None
    cuda: str | None = None
    packages: dict[str, str] = {}
    load: float


class Setup(_Record, frozen=True, kw_only=True):
    """What was measured, and how it was set.

    Attributes:
        bundle: name of the bundle.
        untrained: seed of made-up weights; None for trained ones.
        generator: name of the generator.
        renderer: name of the renderer.
        precision: variant of the graphs.
        graphs: graph name to the first 12 hex digits of the SHA-256 of the file that ran.
        device: `cpu` or `cuda:N`.
        engine: the library that runs the graphs.
        threads: of one graph's run; None for the backend's own choice.
        stub: the graphs were replaced by functions that cost nothing.
        window: speaker frames that one step reads.
        hop: S, coefficient frames that one step yields.
        lead: frames by which a segment lies ahead of the speaker frames that it is made of.
        lookahead: R, coefficient frames that the renderer waits for.
        steps: denoising steps of a segment; None for a generator that does not choose them.
        solver: what takes them.
        history: past frames that a generator with a growing history looks back on, 0 for all; None for the others.
        person: whose weights the generator has; None for its own.
        sample_rate_hz: of the speaker's sound.
        extractors: need of the generator that the speaker's pictures do not give by themselves, to what gave it.
        fps: frames per second of media time.
        samples: reactions made at once.
        size: height and width of a picture in pixels.
        source: what was fed.
        sink: where frames went.
        floor: the lowest rung of the ladder that was allowed.
        playout_ms: declared delay beyond the algorithmic one.
        duration_s: media time that was fed.
        seed: of noise and of impulse phases.
        clock: `real`, or `virtual` where time was simulated.
    """

    bundle: str
    untrained: int | None
    generator: str
    renderer: str
    precision: str
    graphs: dict[str, str]
    device: str
    engine: str = "onnxruntime"
    threads: int | None
    stub: bool
    window: int
    hop: int
    lead: int
    lookahead: int
    steps: int | None = None
    solver: str | None = None
    history: int | None = None
    person: str | None = None
    sample_rate_hz: int
    extractors: dict[str, str] = {}
    fps: int
    samples: int
    size: int
    source: str
    sink: str
    floor: str
    playout_ms: float
    duration_s: float
    seed: int
    clock: Literal["real", "virtual"]

    @property
    def frame_ms(self) -> float:
        """T: media time of one frame."""
        return 1000 / self.fps

    @property
    def segment_ms(self) -> float:
        """S·T: media time of one segment, and so the time there is for it."""
        return self.hop * self.frame_ms


class Reaction(_Record, frozen=True, kw_only=True):
    """From an event in the speaker's behaviour to the first frame that depends on it, measured with impulses.

    A frame is rendered from the coefficients around it. So the first picture that differs is an older frame, which sees
    the event's segment through its look-ahead; the look-ahead costs it nothing. The first frame whose own coefficients
    differ comes R·T later.

    An event begins between two pictures. A generator that hears the speaker knows of it by the sound of its frame, one
    that only sees the speaker by the next picture.

    Attributes:
        latency: ms from event to the emission of the first picture that depends on it.
        coefficients_latency: ms from event to the emission of the first frame whose own coefficients depend on it; None
            where no such frame was shown.
        impulses: how many events.
        checked: of how many of them the first picture was confirmed by a run without the event.
        note: why none was checked; empty if any was.
        algorithmic_mean_ms: what infinitely fast hardware would leave of `latency`, on average over phases: S·T/2. T
            more where only pictures tell of the event, and T more where frames that lie wholly ahead of the speaker
            wait for their own slot. The playout delay comes on top, and R·T for `coefficients_latency`.
        algorithmic_worst_ms: the same for an event right after a segment closed: S·T instead of its half.
    """

    latency: Distribution
    coefficients_latency: Distribution | None = None
    impulses: int
    checked: int = 0
    note: str = ""
    algorithmic_mean_ms: float
    algorithmic_worst_ms: float


class FirstFrame(_Record, frozen=True, kw_only=True):
    """How long until there is something to see.

    Attributes:
        cold_ms: from the start of the process to the first frame in host memory.
        opening_ms: of which opening the bundle and its engines.
        warm_ms: from a session's first speaker sample to its first frame shown.
        idle_ms: turnaround of the first segment after 10 s of idling; None where it was not measured.
    """

    cold_ms: float | None
    opening_ms: float
    warm_ms: float | None
    idle_ms: float | None = None


class EngineFigures(_Record, frozen=True, kw_only=True):
    """One graph, run again and again; all times in ms.

    Attributes:
        graph: its name.
        per_segment: how often it runs for a segment; 0 for what runs once a session.
        calls: timed runs.
        warmup_calls: runs before them.
        warmup_ms: how long those took.
        warmup_note: why there were fewer than the usual 50; empty if there were not.
        feeds: input name to shape.
        h2d: copies to the device, where the device has its own memory.
        compute: the graph's run.
        d2h: copies to the host.
        enqueue: time on the host to submit the work.
        flops: floating-point operations of one run at these shapes.
        gflops: achieved, by the median of `compute`, in 10^9 a second.
        share_of_peak: of the machine's measured peak, 0…1.
    """

    graph: str
    per_segment: int
    calls: int
    warmup_calls: int
    warmup_ms: float
    warmup_note: str = ""
    feeds: dict[str, list[int]]
    h2d: Distribution | None = None
    compute: Distribution
    d2h: Distribution | None = None
    enqueue: Distribution | None = None
    flops: int | None = None
    gflops: float | None = None
    share_of_peak: float | None = None


class SessionsRow(_Record, frozen=True, kw_only=True):
    """So many sessions at once.

    Attributes:
        sessions: how many.
        dmr: share of frames that missed their deadline, over all sessions.
        turnaround_p99_ms: over all segments; None where there were too few.
        kept: they are within the limits.
    """

    sessions: int
    dmr: float
    turnaround_p99_ms: float | None
    kept: bool


class Minute(_Record, frozen=True, kw_only=True):
    """One minute of a long run.

    Attributes:
        minute: number, from 0.
        dmr: share of its frames that missed their deadline.
        rss_mb: resident memory at its end, in 10^6 bytes.
        drift_ms: how far emission has moved from the media clock since the start.
        frames: frames due in it.
    """

    minute: int
    dmr: float
    rss_mb: float
    drift_ms: float
    frames: int


class Series(_Record, frozen=True, kw_only=True):
    """What is plotted. All lists with one value per point have one length, of at most `MAX_POINTS`.

    Attributes:
        frame_s: media time of the point's frame.
        trail_ms: how far its emission trailed the speaker; None for a frame that was not emitted.
        lateness_ms: how long past its deadline its own picture was ready, below 0 before it; None where there was none.
        rung: how it was made.
        deadline_ms: the trail at which a frame is due: algorithmic delay + playout delay.
        histogram_edges_ms: of bins of when pictures were ready, as a trail, over all that were rendered; one more
            than there are bins. The deadline lies on an edge, or outside.
        histogram_counts: frames in each bin; the first and the last hold what lies beyond them, too.
        ready: when they were ready, as a trail; None where there were none.
        stages: stage to its median in ms per frame.
    """

    frame_s: list[float]
    trail_ms: list[float | None]
    lateness_ms: list[float | None]
    rung: list[Rung]
    deadline_ms: float
    histogram_edges_ms: list[float]
    histogram_counts: list[int]
    stages: dict[str, float]
    ready: Distribution | None = None


class SelfTest(_Record, frozen=True, kw_only=True):
    """One injected stall, seen by an open loop and by a closed one; times in ms.

    Attributes:
        stall_ms: how long the stage stood still.
        open_p99_before: 99th percentile without the stall, frames released by a schedule.
        open_p99_after: the same with the stall.
        closed_p99_before: 99th percentile without the stall, each frame fed when the last was done.
        closed_p99_after: the same with the stall.
        passed: the open loop saw the stall and the closed one did not.
    """

    stall_ms: float
    open_p99_before: float
    open_p99_after: float
    closed_p99_before: float
    closed_p99_after: float
    passed: bool


class Report(_Record, frozen=True, kw_only=True):
    """One measurement.

    Attributes:
        schema: version of this description.
        created: when it was made, ISO 8601.
        mode: what kind of measurement.
        command: the command line that made it.
        environment: where it ran.
        setup: what ran.
        figures: of the frames; None where none were made.
        reaction: by impulses.
        first_frame: cold and warm.
        engines: of each graph.
        peak_gflops: measured peak of the machine, in 10^9 operations a second.
        sessions: rows of a search for the largest number of sessions.
        minutes: of a long run.
        series: what is plotted.
        verdict: what it means, in sentences.
        self_test: of the harness itself.
    """

    schema: int = SCHEMA
    created: str
    mode: Mode
    command: str
    environment: Environment
    setup: Setup
    figures: Figures | None = None
    reaction: Reaction | None = None
    first_frame: FirstFrame | None = None
    engines: list[EngineFigures] = []
    peak_gflops: float | None = None
    sessions: list[SessionsRow] = []
    minutes: list[Minute] = []
    series: Series | None = None
    verdict: list[str] = []
    self_test: SelfTest | None = None


def encode_report(report: Report) -> bytes:
    """Write a report as indented JSON, lists of numbers in one line each."""
    indented = msgspec.json.format(msgspec.json.encode(report), indent=2)
    return _NUMBERS.sub(lambda numbers: re.sub(rb"\s+", b" ", numbers[0]), indented) + b"\n"


def decode_report(data: bytes, name: str) -> Report:
    """Read a report strictly, schema first.

    Args:
        data: JSON.
        name: what messages call the report.

    Raises:
        ReportError: of another schema, not JSON, or a missing, wrong or unknown field.
    """
    try:
        check_schema(data, SCHEMA, name, "Measure again with --json", ReportError)
        return msgspec.json.decode(data, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(f"{name} is no report of pflx bench-latency: {error}. Measure again with --json.") from error


def save_report(path: Path, report: Report) -> None:
    """Write a report that appears at its path complete, or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_whole(path, encode_report(report))


def load_report(path: Path) -> Report:
    """Read a report from a file.

    Raises:
        ReportMissingError: there is no such file.
        ReportError: as `decode_report`.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        made = f"pflx bench-latency BUNDLE --json {shlex.quote(str(path))}"
        raise ReportMissingError(f"{path} does not exist. Make one: {made}") from error
    except OSError as error:
        raise ReportMissingError(f"{path} cannot be read: {error.strerror}. Give another file.") from error
    return decode_report(data, str(path))
