"""What each stage costs: the one source of the bar that a page draws and of the shares that a verdict names."""

from __future__ import annotations

from pflx.runtime.latency.percentiles import Distribution, Figures


def stage_costs(figures: Figures, hop: int) -> dict[str, float]:
    """Stage to its cost in ms, from medians: of the work that one frame of all samples takes.

    Args:
        figures: of a run of any mode.
        hop: frames per segment.
    """
    generator, posnet = typical(figures.generator), typical(figures.posnet)
    costs = {
        "crop": (typical(figures.hop_work) - generator - posnet) / hop,
        "generator": generator / hop,
        "PosNet": posnet / hop,
        "rendering": typical(figures.render) * figures.samples,
        "copy to host": typical(figures.host_copy) * figures.samples,
    }
    return {name: round(max(0.0, ms), 4) for name, ms in costs.items()}


def typical(sample: Distribution | None) -> float:
    """The median; of a sample that carries none, the largest value, so that nothing looks better than it is."""
    if sample is None:
        return 0.0
    return sample.p50.value if sample.p50 else sample.max


def share_of(ms: float, total_ms: float) -> str:
    """The share of a stage in words, the same wherever it is told."""
    share = ms / total_ms
    return "under 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"
