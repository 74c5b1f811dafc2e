"""What is to be measured: the plan, the listener that it describes, and the report around the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from pflx.engines import Bundle, FeedError, Manifest
from pflx.runtime.bench.drawing import draw_face
from pflx.runtime.bench.environment import describe_frequency
from pflx.runtime.bench.report import Environment, Mode, Report, Setup
from pflx.runtime.bench.stub import StubDetector, stub_engines, stub_manifest
from pflx.runtime.clock import LiveClock, VirtualClock
from pflx.runtime.latency import Rung
from pflx.runtime.listener import Listener
from pflx.runtime.rendering import WINDOW_RADIUS
from pflx.runtime.session import LiveSettings

_STUB_NAME = "stub"
_HASH_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be measured.

    Attributes:
        bundle: folder of the bundle; None measures with stub networks of the usual shapes.
        portrait: picture of the listener, and of the face in the made-up speaker; None draws one.
        speaker: clip of the speaker; None makes one up.
        device: `cpu` or `cuda:N`.
        precision: a variant that the bundle holds; None takes the bundle's own.
        threads: of one graph's run; None leaves it to the backend.
        samples: reactions made at once.
        lookahead: coefficient frames that rendering waits for.
        playout_ms: declared delay on top of the algorithm's.
        floor: the lowest rung that may be chosen. With FULL the chain itself is measured: late frames count as late.
        stale_ms: how late a frame may come, and input may be used, at all. More than a session's own default: on a
            machine that is far too slow no picture would be in time, and nothing be known of its cost.
        duration_s: media time to feed.
        seed: of noise and of the phases of events.
        stub: networks that cost next to nothing, in the shapes of the bundle's; what is left is the runtime's own cost.
        command: the command line, as the report tells it.

    Raises:
        FeedError: a number out of range, or no bundle and no stub.
    """

    bundle: Path | None = None
    portrait: Path | None = None
    speaker: Path | None = None
    device: str = "cpu"
    precision: str | None = None
    threads: int | None = None
    samples: int = 1
    lookahead: int = WINDOW_RADIUS
    playout_ms: float = LiveSettings.playout_ms
    floor: Rung = Rung.FULL
    stale_ms: float = 5000.0
    duration_s: float = 60.0
    seed: int = 0
    stub: bool = False
    command: str = "pflx bench-latency"

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if self.bundle is None and not self.stub:
            raise FeedError("There is no bundle to measure. Name one, or measure the runtime alone with stub networks.")
        if self.samples < 1 or self.seed < 0:
            raise FeedError(f"samples is {self.samples} and seed is {self.seed}; take 1 and 0, or more.")
        if not 0 < self.duration_s < float("inf"):
            raise FeedError(f"duration is {self.duration_s} s; take more than 0.")


def read_manifest(plan: Plan) -> Manifest:
    """What the plan's bundle holds; the usual shapes where there is none.

    Raises:
        BundleError: it cannot be opened.
    """
    return stub_manifest() if plan.bundle is None else Bundle.open(plan.bundle).manifest


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
    if not plan.stub:
        assert plan.bundle is not None
        assert not isinstance(clock, VirtualClock), "engines that compute take real time"
        return Listener.open(
            plan.bundle,
            portrait,
            device=plan.device,
            precision=plan.precision,
            threads=plan.threads,
            lookahead=plan.lookahead,
        )
    manifest = read_manifest(plan)
    engines = stub_engines(manifest, clock=clock, costs=costs or {})
    return Listener(manifest, engines, portrait, lookahead=plan.lookahead, detector=StubDetector(), clock=clock)


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
    precision = plan.precision or manifest.precision
    return Setup(
        bundle=_STUB_NAME if plan.bundle is None else plan.bundle.name,
        untrained=manifest.untrained,
        generator=manifest.generator.name,
        renderer=manifest.renderer.name,
        precision=precision,
        graphs={} if plan.stub else _hashes(manifest, precision),
        device=plan.device,
        threads=plan.threads,
        stub=plan.stub,
        window=manifest.generator.window,
        hop=manifest.generator.hop,
        lookahead=plan.lookahead,
        fps=manifest.fps,
        samples=plan.samples,
        size=manifest.renderer.size,
        source=source,
        sink="null",
        floor=plan.floor.name,
        playout_ms=plan.playout_ms,
        duration_s=plan.duration_s,
        seed=plan.seed,
        clock="virtual" if virtual else "real",
    )


def _hashes(manifest: Manifest, precision: str) -> dict[str, str]:
    files = {name: graph.files[precision] for name, graph in manifest.graphs.items()}
    return {name: manifest.files[file].sha256[:_HASH_DIGITS] for name, file in files.items()}
