"""Percentiles with confidence intervals that hold for any distribution, refused where a sample is too small."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from math import ceil, comb, log

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pflx.engines import PflxError
from pflx.runtime.latency.percentiles import FiguresError, Quantile, _interval, distribution

NAMES = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p999": 999}
NEEDED = {"p50": 6, "p90": 29, "p95": 59, "p99": 299, "p999": 100_000}
Draw = Callable[[np.random.Generator, tuple[int, int]], npt.NDArray[np.float64]]


@pytest.mark.parametrize("name", NAMES)
def test_a_percentile_is_given_from_the_first_sample_size_that_can_carry_it(name: str) -> None:
    needed = NEEDED[name]
    assert getattr(distribution(np.arange(needed - 1)), name) is None
    assert getattr(distribution(np.arange(needed)), name) is not None


@pytest.mark.parametrize("permille", NAMES.values())
@pytest.mark.parametrize("n", [6, 7, 28, 29, 58, 59, 60, 100, 298, 299, 300, 1000, 1875])
def test_the_ranks_enclose_the_quantile_with_at_least_95_percent_in_exact_arithmetic(n: int, permille: int) -> None:
    def chance(low: int, high: int) -> float:
        rows = (comb(n, k) * permille**k * (1000 - permille) ** (n - k) for k in range(low, high))
        return float(Fraction(sum(rows), 1000**n))

    ranks = _interval(n, permille)
    if ranks is None:
        assert chance(1, n) < 0.95
        return
    low, high = ranks
    assert 1 <= low < high <= n
    assert chance(low, high) >= 0.95
    assert max(chance(low + 1, high), chance(low, high - 1)) < 0.95  # and no wider than that


@pytest.mark.parametrize(
    ("draw", "true"),
    [
        (lambda rng, shape: rng.random(shape), lambda p: p),
        (lambda rng, shape: rng.exponential(size=shape), lambda p: -log(1 - p)),
        (lambda rng, shape: rng.pareto(1, shape), lambda p: 1 / (1 - p) - 1),
        (lambda rng, shape: np.floor(rng.random(shape) * 10), lambda p: ceil(p * 10) - 1),
    ],
    ids=["uniform", "exponential", "heavy tail", "ties"],
)
def test_the_interval_holds_the_true_quantile_in_95_of_100_trials(draw: Draw, true: Callable[[float], float]) -> None:
    trials = np.sort(draw(np.random.default_rng(1), (10_000, 320)), axis=1)
    for permille in (500, 900, 950, 990):
        ranks = _interval(320, permille)
        assert ranks is not None
        low, high = (trials[:, rank - 1] for rank in ranks)
        quantile = true(permille / 1000)
        assert ((low <= quantile) & (quantile <= high)).mean() >= 0.944  # 95 %, less what 10 000 trials may be off


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.randoms(use_true_random=False))
def test_percentiles_are_values_of_the_sample_in_order_whatever_order_they_come_in(
    values: list[float], shuffle: random.Random
) -> None:
    given_order = distribution(values)
    shuffle.shuffle(values)
    assert distribution(values) == given_order
    assert (given_order.count, given_order.max) == (len(values), max(values))
    ordered = sorted(values)
    last = ordered[0]
    for name, permille in NAMES.items():
        quantile: Quantile | None = getattr(given_order, name)
        assert (quantile is None) == (len(values) < NEEDED[name])
        if quantile is not None:
            assert quantile.low <= quantile.value <= quantile.high
            assert quantile.value == ordered[ceil(len(values) * permille / 1000) - 1]
            assert {quantile.low, quantile.high} <= set(values)
            assert last <= quantile.value
            last = quantile.value


@given(st.integers(1, 3_000_000), st.sampled_from(list(NAMES.values())))
@settings(max_examples=60)
def test_the_ranks_lie_around_the_percentile_for_any_sample_size(n: int, permille: int) -> None:
    ranks = _interval(n, permille)
    if ranks is not None:
        assert 1 <= ranks[0] <= -(-n * permille // 1000) <= ranks[1] <= n


def test_a_distribution_of_nothing_or_of_no_number_is_refused() -> None:
    with pytest.raises(FiguresError, match=r"no values .* Measure for longer"):
        distribution([])
    with pytest.raises(FiguresError, match="not finite"):
        distribution([1.0, float("nan")])
    assert issubclass(FiguresError, PflxError)
