"""What is to be measured: the plan, the listener that it describes, and the report around the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from pflx.engines import Bundle, FeedError, Manifest
from pflx.engines.hub.cache import cached_name
from pflx.runtime.bench.measure.drawing import draw_face
from pflx.runtime.bench.measure.environment import describe_frequency
from pflx.runtime.bench.measure.stub import StubDetector, StubExtractor, stub_engines
from pflx.runtime.bench.measure.stub_shapes import stub_manifest
from pflx.runtime.bench.report.report import STUB_EXTRACTOR, Environment, Mode, Report, Setup
from pflx.runtime.bundle_engines import AS_IT_IS, EngineSettings, precision_of
from pflx.runtime.frames.coefficients import WINDOW_RADIUS, check_samples
from pflx.runtime.frames.ledger import Rung
from pflx.runtime.generators import GeneratorOptions, default_sources, make_generator
from pflx.runtime.listener import Listener
from pflx.runtime.live.clock import LiveClock, VirtualClock
from pflx.runtime.live.settings import LiveSettings
from pflx.runtime.persons import Whom, read_person
from pflx.runtime.rendering.renderers import reach
from pflx.runtime.speaker.extractor import SIZES, Extractor
from pflx.runtime.speaker.extractors import source_name
from pflx.runtime.speaker.settings import SpeakerSettings

_STUB_NAME = "stub"
_HASH_DIGITS = 12
_LONGEST_S = 604_800


LATE_INSTEAD = LiveSettings(floor=Rung.FULL, stale_ms=5000.0)
"""The chain itself is measured: late frames count as late. On a machine that is far too slow no picture would be in
time by a session's own `stale_ms`, and nothing be known of its cost."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be measured.

    Attributes:
        bundle: folder of the bundle; None measures with stub networks of the usual shapes.
        kind: generator of the stub networks where there is no bundle; None takes ReactFace.
        portrait: picture of the listener, and of the face in the made-up speaker; None draws one.
        speaker: clip of the speaker; None makes one up.
        device: `cpu` or `cuda:N`.
        engines: how the graphs are run there.
        samples: reactions made at once.
        lookahead: coefficient frames that rendering waits for.
        live: how a session keeps time.
        duration_s: media time to feed.
        seed: of noise and of the phases of events.
        extractors: need of the generator to what gives it, as `open_extractor` takes it; a need that is not named is
            met by what the generator makes do with, or else by a function of the picture that costs nothing.
        options: what is chosen of the generator.
        person: whose weights it has, or their file; None for nobody in particular.
        stub: networks that cost next to nothing, in the shapes of the bundle's; what is left is the runtime's own cost.
        command: the command line, as the report tells it.

    Raises:
        FeedError: a number out of range, no bundle and no stub, or a kind beside a bundle, which has one.
    """

    bundle: Path | None = None
    kind: str | None = None
    portrait: Path | None = None
    speaker: Path | None = None
    device: str = "cpu"
    engines: EngineSettings = AS_IT_IS
    samples: int = 1
    lookahead: int = WINDOW_RADIUS
    live: LiveSettings = LATE_INSTEAD
    duration_s: float = 60.0
    seed: int = 0
    extractors: Mapping[str, str] = field(default_factory=dict)
    options: GeneratorOptions = field(default_factory=GeneratorOptions)
    person: Whom | None = None
    stub: bool = False
    command: str = "pflx bench-latency"

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if self.bundle is None and not self.stub:
            raise FeedError("There is no bundle to measure. Name one, or measure the runtime alone with stub networks.")
        if self.bundle is not None and self.kind is not None:
            raise FeedError(f"{self.bundle} has a generator of its own. Leave out the kind '{self.kind}'.")
        check_samples(self.samples)
        if self.seed < 0:
            raise FeedError(f"seed is {self.seed}; give 0 or more.")
        if not 0 < self.duration_s <= _LONGEST_S:
            raise FeedError(f"duration is {self.duration_s} s; give more than 0, and a week ({_LONGEST_S} s) at most.")


def read_manifest(plan: Plan, *, verify: bool = True) -> Manifest:
    """What the plan's bundle holds; the usual shapes where there is none.

    Args:
        plan: what is to be measured.
        verify: False skips the hashes of the files.

    Raises:
        BundleError: it cannot be opened.
        FeedError: there is no stub of that kind.
    """
    if plan.bundle is None:
        return stub_manifest(plan.kind or "reactface")
    return Bundle.open(plan.bundle, verify=verify).manifest


def open_listener(plan: Plan, clock: LiveClock, *, costs: Mapping[str, int] | None = None) -> Listener:
    """The plan's listener, on its engines or on stubs of them.

    Args:
        plan: what to open.
        clock: what it will run on; engines that compute need the machine's.
        costs: graph to the ns that a call of its stub takes.

    Raises:
        BundleError, DeviceError, EngineError, BackendMissingError, PortraitError, FeedError: what cannot be opened.
    """
    portrait = draw_face() if plan.portrait is None else plan.portrait
    manifest = read_manifest(plan, verify=plan.stub)
    extractors = _extractors(plan, manifest.generator.name)
    if not plan.stub:
        assert plan.bundle is not None
        assert not isinstance(clock, VirtualClock), "engines that compute take real time"
        return Listener.open(
            plan.bundle,
            portrait,
            device=plan.device,
            engines=plan.engines,
            lookahead=plan.lookahead,
            speaker=SpeakerSettings(extractors=extractors),
            options=plan.options,
            person=plan.person,
        )
    return Listener(
        manifest,
        stub_engines(manifest, clock=clock, costs=costs or {}),
        portrait,
        lookahead=plan.lookahead,
        speaker=SpeakerSettings(extractors=extractors, detector=StubDetector()),
        options=plan.options,
        person=plan.person,
        clock=clock,
    )


def _extractors(plan: Plan, generator: str) -> dict[str, Extractor | str | Path]:
    """What gives each need; what a generator does not read is never asked."""
    named = _named(plan, generator)
    return {need: named.get(need) or StubExtractor(size) for need, size in SIZES.items()}


def _named(plan: Plan, generator: str) -> Mapping[str, str]:
    """What the plan names, or, with networks that compute, the generator makes do with."""
    return {**({} if plan.stub else default_sources(generator)), **plan.extractors}


def make_report(
    plan: Plan,
    mode: Mode,
    manifest: Manifest,
    environment: Environment,
    *,
    source: str,
    clock: LiveClock | None = None,
    **found: Any,
) -> Report:
    """The report of a measurement that is over.

    Args:
        plan: what was measured.
        mode: how.
        manifest: of the bundle, or of the stubs.
        environment: as it was at the start; the processor's clock is looked at again.
        source: what was fed.
        clock: what it ran on; None is the machine's.
        found: the other fields of `Report`.
    """
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        mode=mode,
        command=plan.command,
        environment=replace(environment, frequency=describe_frequency()),
        setup=_setup(plan, manifest, source, virtual=isinstance(clock, VirtualClock)),
        **found,
    )


def _setup(plan: Plan, manifest: Manifest, source: str, *, virtual: bool) -> Setup:
    precision = precision_of(manifest, plan.engines)
    named = _named(plan, manifest.generator.name)
    generator = make_generator(manifest.generator, stub_engines(manifest), plan.options)
    steps = max(generator.steps, default=None)
    return Setup(
        bundle=_STUB_NAME if plan.bundle is None else cached_name(plan.bundle) or plan.bundle.name,
        untrained=manifest.untrained,
        generator=manifest.generator.name,
        renderer=manifest.renderer.name,
        precision=precision,
        graphs={} if plan.stub else _hashes(manifest, precision),
        device=plan.device,
        engine=plan.engines.library,
        threads=plan.engines.threads,
        stub=plan.stub,
        window=manifest.generator.window,
        hop=manifest.generator.hop,
        lead=generator.lead,
        lookahead=min(plan.lookahead, reach(manifest.renderer)),
        steps=steps,
        solver=None if steps is None else plan.options.solver or "ddim",
        history=_history(plan, manifest),
        person=None if plan.person is None else read_person(plan.person).name,
        sample_rate_hz=manifest.sample_rate_hz,
        extractors={
            need: source_name(named[need]) if need in named else STUB_EXTRACTOR
            for need in generator.needs
            if need in SIZES
        },
        fps=manifest.fps,
        samples=plan.samples,
        size=manifest.renderer.size,
        source=source,
        sink="null",
        floor=plan.live.floor.name,
        playout_ms=plan.live.playout_ms,
        duration_s=plan.duration_s,
        seed=plan.seed,
        clock="virtual" if virtual else "real",
    )


def _history(plan: Plan, manifest: Manifest) -> int | None:
    if "history" not in manifest.generator.settings:
        return None
    chosen = plan.options.history
    return int(manifest.generator.settings["history"]) if chosen is None else chosen


def _hashes(manifest: Manifest, precision: str) -> dict[str, str]:
    files = {name: graph.files[precision] for name, graph in manifest.graphs.items()}
    return {name: manifest.files[file].sha256[:_HASH_DIGITS] for name, file in files.items()}
