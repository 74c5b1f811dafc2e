"""The measurement measured: an open loop has to see a stall that a closed loop does not."""

from __future__ import annotations

from collections.abc import Mapping

from pflx.engines import Array, Engine, FakeEngine
from pflx.runtime.bench.measure.drawing import draw_face
from pflx.runtime.bench.measure.environment import describe_environment
from pflx.runtime.bench.measure.plan import Plan, make_report
from pflx.runtime.bench.measure.realtime import figures_of, play, without_warm_up
from pflx.runtime.bench.measure.stimulus import Stimulus
from pflx.runtime.bench.measure.stub import StubDetector, stub_engines
from pflx.runtime.bench.measure.stub_shapes import stub_manifest
from pflx.runtime.bench.report.report import Report, SelfTest
from pflx.runtime.bench.report.series import make_series
from pflx.runtime.frames.ledger import Ledger
from pflx.runtime.frames.timing import NS_PER_MS
from pflx.runtime.latency.percentiles import Distribution, distribution
from pflx.runtime.listener import Listener
from pflx.runtime.live.clock import LiveClock, VirtualClock
from pflx.runtime.speaker.settings import SpeakerSettings
from pflx.runtime.text_table import number

_STALL_MS = 500
_STALLED_GRAPH = "pirender_frame"
_STALLED_FRAME = 500  # of 1000
_COSTS_MS = {"reactface_speaker": 40, "reactface_listener": 10, "posnet": 1, "pirender_frame": 20}
_OPEN_RISES_MS = 100.0  # at least
_CLOSED_RISES_MS = 5.0  # at most


def run_self_test(command: str = "pflx bench-latency --self-test") -> Report:
    """Run stub networks that take their time on a virtual clock, with one stall and without, in both loops.

    The stall holds up some twenty frames. Where frames come by the clock all of them are late, and the 99th percentile
    moves; where the next one is fed when the last is done, one call of a thousand is slow, and nothing shows.

    Args:
        command: as the report tells it.

    Returns:
        The report, with the figures of the open loop with the stall.
    """
    plan = Plan(stub=True, duration_s=40.0, command=command)
    environment = describe_environment()
    quiet, stalled = _open_loop(plan, stall=False), _open_loop(plan, stall=True)
    before, after = (figures_of(ledgers, plan, _listener(plan, VirtualClock())) for ledgers in (quiet, stalled))
    test = _judge(
        open_before=_p99(before.trail),
        open_after=_p99(after.trail),
        closed_before=_p99(_closed_loop(plan, stall=False)),
        closed_after=_p99(_closed_loop(plan, stall=True)),
    )
    manifest = stub_manifest()
    return make_report(
        plan,
        "self-test",
        manifest,
        environment,
        source=_stimulus(plan).description,
        clock=VirtualClock(),
        figures=after,
        series=make_series(stalled, after, hop=manifest.generator.hop),
        verdict=[_sentence(test)],
        self_test=test,
    )


class _Stalling:
    """Another engine, one of whose calls takes far longer."""

    def __init__(self, engine: FakeEngine, clock: LiveClock, at: int) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self._engine, self._clock, self._at = engine, clock, at

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._engine.calls == self._at:
            self._clock.sleep(_STALL_MS * NS_PER_MS)
        return self._engine.run(feeds)

    def close(self) -> None:
        self._engine.close()


def _listener(plan: Plan, clock: LiveClock, *, stall: bool = False) -> Listener:
    manifest = stub_manifest()
    costs = {graph: ms * NS_PER_MS for graph, ms in _COSTS_MS.items()}
    stubs = stub_engines(manifest, clock=clock, costs=costs)
    engines: dict[str, Engine] = {**stubs}
    if stall:
        engines[_STALLED_GRAPH] = _Stalling(stubs[_STALLED_GRAPH], clock, _STALLED_FRAME)
    speaker = SpeakerSettings(detector=StubDetector())
    return Listener(manifest, engines, draw_face(), lookahead=plan.lookahead, speaker=speaker, clock=clock)


def _stimulus(plan: Plan) -> Stimulus:
    return Stimulus(plan.duration_s, plan.seed, size=(160, 120))


def _open_loop(plan: Plan, *, stall: bool) -> list[Ledger]:
    clock = VirtualClock()
    ledgers: list[Ledger] = []
    with _listener(plan, clock, stall=stall) as listener:
        play(plan, listener, _stimulus(plan), clock, record=ledgers.append)
        return without_warm_up(ledgers, listener.generator.hop)


def _closed_loop(plan: Plan, *, stall: bool) -> Distribution:
    """Of each frame: how long it took, from when the one before was done."""
    clock = VirtualClock()
    took: list[float] = []
    with _listener(plan, clock, stall=stall) as listener, listener.stream(seed=plan.seed) as stream:
        asked = clock()
        for picture, sound in _stimulus(plan).slots():
            stream.push(video=picture[None], audio=sound)
            for _ in stream.pull():
                took.append((clock() - asked) / NS_PER_MS)
                asked = clock()
    return distribution(took)


def _p99(sample: Distribution | None) -> float:
    assert sample is not None
    assert sample.p99 is not None, "the self-test is long enough for it"
    return sample.p99.value


def _judge(*, open_before: float, open_after: float, closed_before: float, closed_after: float) -> SelfTest:
    return SelfTest(
        stall_ms=_STALL_MS,
        open_p99_before=open_before,
        open_p99_after=open_after,
        closed_p99_before=closed_before,
        closed_p99_after=closed_after,
        passed=open_after - open_before > _OPEN_RISES_MS and closed_after - closed_before < _CLOSED_RISES_MS,
    )


def _sentence(test: SelfTest) -> str:
    rises = (test.open_p99_after - test.open_p99_before, test.closed_p99_after - test.closed_p99_before)
    moved = " and ".join(
        f"{number(rise)} ms in the {loop} loop" for rise, loop in zip(rises, ("open", "closed"), strict=True)
    )
    outcome = "as it has to be" if test.passed else "which is wrong: do not trust other figures of this version"
    return f"One stall of {number(test.stall_ms)} ms moved the 99th percentile by {moved}, {outcome}."
