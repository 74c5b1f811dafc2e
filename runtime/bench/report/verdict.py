"""What the figures of a run mean: whether the machine keeps up, and if not, by how much, why, and what would fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pflx.runtime.bench.report.report import STUB_EXTRACTOR, Setup
from pflx.runtime.bench.report.stages import share_of, stage_costs, typical
from pflx.runtime.latency.percentiles import Distribution, Figures
from pflx.runtime.text_table import count, number, percent

MAX_DMR = 0.001
"""Share of missed frames up to which a run counts as kept."""


def verdict(figures: Figures, setup: Setup) -> list[str]:
    """Say in sentences whether the machine keeps the frame rate, and what would fit if it does not.

    Args:
        figures: of a run of any mode.
        setup: of the same run.
    """
    note = ["The networks are stubs: the figures are the runtime's own."] if setup.stub else []
    stubs = [need for need, given in setup.extractors.items() if given == STUB_EXTRACTOR]
    if stubs and not setup.stub:
        note.append(f"The speaker's {' and '.join(stubs)} came from a stub: what a real source takes comes on top.")
    if figures.real_time_factor is None:
        return [*note, *_unknown(figures, setup)]
    costs = _Costs(figures, setup)
    if costs.factor > 1:
        return [*note, *_too_slow(figures.real_time_factor, costs)]
    return [*note, *_fast_enough(figures, figures.real_time_factor, costs)]


@dataclass(frozen=True)
class _Costs:
    """Where the time of a typical segment goes, in ms."""

    figures: Figures
    setup: Setup

    @cached_property
    def stages(self) -> dict[str, float]:
        """Of one frame: what the page draws as a bar."""
        return stage_costs(self.figures, self.setup.hop)

    @cached_property
    def factor(self) -> float:
        """How many times too long a segment takes. Where deadlines are missed, all stages count."""
        engines = typical(self.figures.real_time_factor)
        if self.figures.dmr is None or self.figures.dmr <= MAX_DMR:
            return engines
        return max(engines, sum(self.stages.values()) / self.setup.frame_ms)

    @cached_property
    def pictures(self) -> int:
        """Of one segment."""
        return self.setup.hop * self.setup.samples

    @cached_property
    def motion(self) -> float:
        """Generator and PosNet."""
        return typical(self.figures.generator) + typical(self.figures.posnet)

    @cached_property
    def picture(self) -> float:
        """Rendering one."""
        return typical(self.figures.render)

    @cached_property
    def spare(self) -> float:
        """What generator and PosNet leave of the segment's duration; negative if they alone take longer."""
        return self.setup.segment_ms - self.motion


def _too_slow(factor: Distribution, costs: _Costs) -> Iterator[str]:
    setup = costs.setup
    yield (
        f"This machine cannot keep {setup.fps} fps: a segment of {number(setup.segment_ms)} ms takes "
        f"{number(costs.factor * setup.segment_ms)} ms to make, {number(costs.factor)} times too long "
        f"(real-time factor {_percentiles(factor)})."
    )
    if costs.figures.dmr is not None:
        yield f"{_missed(costs.figures)}."
    yield from _shares(costs)
    if costs.spare <= 0:
        yield (
            f"Generator and PosNet alone take {number(costs.motion)} of {number(setup.segment_ms)} ms: no renderer "
            f"would fit beside them."
        )
        return
    yield from _what_fits(costs)
    if setup.samples > 1:
        yield _samples(setup, costs.factor)
    yield (
        f"Generator and PosNet alone would fit: they take {number(costs.motion)} of {number(setup.segment_ms)} ms and "
        f"leave {number(costs.spare / costs.pictures)} ms a picture to another renderer."
    )


def _what_fits(costs: _Costs) -> Iterator[str]:
    """Fewer pictures, or smaller ones."""
    if not costs.picture:
        return
    setup = costs.setup
    share = min(1.0, costs.spare / (costs.pictures * costs.picture))
    of_samples = f" of each of {setup.samples} samples" if setup.samples > 1 else ""
    yield f"It could render {number(share * setup.fps)} pictures a second{of_samples} beside generator and PosNet."
    side = setup.size * math.sqrt(share)
    yield (
        f"Pictures of {math.floor(side)} px instead of {setup.size} would fit if the cost of rendering grows with "
        f"their pixels (an estimate)."
    )


def _unknown(figures: Figures, setup: Setup) -> Iterator[str]:
    if figures.missed:
        yield f"This machine does not keep {setup.fps} fps here: {_missed(figures)}."
    yield "No picture was rendered, so nothing is known about the speed."


def _fast_enough(figures: Figures, factor: Distribution, costs: _Costs) -> Iterator[str]:
    if figures.dmr is None:
        yield f"One segment after another is made in less than its duration (real-time factor {_percentiles(factor)})."
        yield from _more_samples(costs.setup, factor)
    elif figures.dmr <= MAX_DMR:
        yield f"This machine keeps {costs.setup.fps} fps: {_missed(figures)}; real-time factor {_percentiles(factor)}."
        yield from _more_samples(costs.setup, factor)
    else:
        setup = costs.setup
        yield f"This machine does not keep {setup.fps} fps here: {_missed(figures)}."
        yield (
            f"A typical segment of {number(setup.segment_ms)} ms takes {number(costs.factor * setup.segment_ms)} ms to "
            f"make (real-time factor {_percentiles(factor)})."
        )
        yield from _shares(costs)
    yield from _playout(figures)


def _missed(figures: Figures) -> str:
    missed = f"{figures.missed or 0:,} of {figures.frames:,} frames missed their deadline"
    return f"{missed} ({percent(figures.dmr or 0)}, the limit is {percent(MAX_DMR)})"


def _playout(figures: Figures) -> Iterator[str]:
    if figures.smallest_playout_ms is not None:
        yield (
            f"The smallest playout delay that would have missed none is {number(figures.smallest_playout_ms)} ms "
            f"({number(figures.playout_ms)} ms was granted)."
        )


def _more_samples(setup: Setup, factor: Distribution) -> Iterator[str]:
    highest = factor.p99.value if factor.p99 else factor.max
    if not setup.stub and 0 < highest <= setup.samples / (setup.samples + 1):
        yield _samples(setup, highest)


def _samples(setup: Setup, factor: float) -> str:
    n_samples = math.floor(setup.samples / factor)
    fits = f"{count(n_samples, 'sample')} would fit" if n_samples else "Not one sample would fit"
    return f"{fits} if cost grows with their number (an estimate; measured with {setup.samples})."


def _shares(costs: _Costs) -> Iterator[str]:
    """Which stage takes how much, the largest first: those of the bar."""
    total = sum(costs.stages.values())
    if total <= 0:
        return
    parts = (f"{name} {share_of(ms, total)} ({number(ms)} ms)" for name, ms in _largest_first(costs.stages))
    yield f"Where the time of a frame goes: {', '.join(parts)}."


def _largest_first(stages: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(stages.items(), key=lambda stage: -stage[1])


def _percentiles(factor: Distribution) -> str:
    median = f"p50 {number(factor.p50.value)}, " if factor.p50 else ""
    tail = f"p99 {number(factor.p99.value)}" if factor.p99 else f"at most {number(factor.max)}"
    return f"{median}{tail}"
