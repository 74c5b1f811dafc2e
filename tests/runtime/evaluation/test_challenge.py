"""The challenge's metrics: equal to the published code's numbers, and to plain loops, with all of its traps."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import plain_metrics
from support.golden_arrays import golden

from pflx.engines import Array, BackendMissingError
from pflx.runtime.evaluation import (
    UndefinedError,
    fr_corr,
    fr_dist,
    fr_div,
    fr_dvs,
    fr_syn,
    fr_var,
    lag_correlation,
    lags,
)
from pflx.runtime.evaluation.challenge import concordance
from pflx.runtime.evaluation.distance import warping

CASES = ("evaluation_emotion25", "evaluation_3dmm58")


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Inputs, and what baseline_react2024 0c3ce58 computes from them."""
    return golden(request.param)


def made_up(seed: int, *, clips: int = 2, samples: int = 2, frames: int = 60, features: int = 25) -> tuple[Array, ...]:
    """Predictions, true reactions, speakers, neighbours."""
    rng = np.random.default_rng(seed)
    pred = np.cumsum(rng.normal(size=(clips, samples, frames, features)), axis=2).astype(np.float32)
    listener, speaker = np.cumsum(rng.normal(size=(2, clips, frames, features)), axis=2).astype(np.float32)
    neighbours = np.maximum(rng.integers(0, 2, (clips, clips)), np.eye(clips))
    return pred, listener, speaker, neighbours


def test_variance_and_diversity_are_those_of_the_published_code(case: dict[str, Any]) -> None:
    assert fr_var(case["pred"]) == pytest.approx(float(case["FRVar"]), rel=1e-5)
    assert fr_div(case["pred"]) == pytest.approx(float(case["FRDiv"]), rel=1e-5)
    assert fr_dvs(case["pred"]) == pytest.approx(float(case["FRDvs"]), rel=1e-5)


def test_correlation_is_that_of_the_published_code(case: dict[str, Any]) -> None:
    found = fr_corr(case["pred"], case["listener_gt"], case["neighbour"])
    assert found == pytest.approx(float(case["FRCorr"]), abs=1e-6)
    assert found == pytest.approx(float(case["FRCorr_mp"]), abs=1e-6)
    every = np.stack([concordance(clip, case["listener_gt"]) for clip in case["pred"]])
    known = np.isfinite(case["ccc"])
    np.testing.assert_allclose(every[known], case["ccc"][known], atol=1e-6)


def test_lags_are_those_of_the_published_code(case: dict[str, Any]) -> None:
    pred, speaker = case["pred"], case["speaker"]
    np.testing.assert_array_equal(lags(pred, speaker), case["FRSyn_per"])
    np.testing.assert_allclose(lag_correlation(pred[0], speaker[0])[0], case["tlcc_curve_n0k0"], atol=1e-6)
    assert fr_syn(pred, speaker) == float(case["FRSyn_mp"])
    assert fr_syn(pred, speaker, all_samples=True) == pytest.approx(float(case["FRSyn_all"]), rel=1e-6)


def test_the_warped_distance_is_that_of_the_published_code() -> None:
    case = golden("evaluation_emotion25")
    found = fr_dist(case["pred"], case["listener_gt"], case["neighbour"])
    assert found == pytest.approx(float(case["FRDist"]), abs=1e-6)
    assert found == pytest.approx(float(case["FRDist_mp"]), abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 6), st.integers(2, 30), st.sampled_from([1e-3, 1.0]))
def test_distances_that_are_not_computed_could_not_have_been_the_least(
    seed: int, samples: int, near: int, frames: int, spread: float
) -> None:
    """Equal to the bit, also where true reactions are alike, and where one is hit exactly."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(scale=spread, size=(near, frames, 25)).astype(np.float32)
    truth[-1] = truth[0]
    pred = rng.normal(scale=spread, size=(1, samples, frames, 25)).astype(np.float32)
    pred[0, 0] = truth[rng.integers(near)]
    sums = sum(weight * warping(pred[0][..., group], truth[..., group]) for group, weight in plain_metrics.GROUPS)
    assert fr_dist(pred, truth, np.ones((1, near))) == float(np.min(sums, axis=1).sum())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 3), st.integers(1, 3), st.integers(51, 110), st.integers(1, 4))
def test_every_figure_equals_plain_loops(seed: int, clips: int, samples: int, frames: int, features: int) -> None:
    pred, listener, speaker, near = made_up(seed, clips=clips, samples=samples, frames=frames, features=features)
    assert fr_var(pred) == pytest.approx(plain_metrics.variance(pred), rel=1e-9)
    assert fr_div(pred) == pytest.approx(plain_metrics.diversity(pred), rel=1e-9)
    assert fr_dvs(pred) == pytest.approx(plain_metrics.diversity_over_clips(pred), rel=1e-9)
    assert fr_corr(pred, listener, near) == pytest.approx(plain_metrics.correlation(pred, listener, near), abs=1e-9)
    curve = lag_correlation(pred[0], speaker[0])
    plain = np.stack([plain_metrics.lag_curve(track, speaker[0]) for track in pred[0]])
    np.testing.assert_allclose(curve, plain, atol=1e-9)


def test_the_warped_distance_equals_plain_loops() -> None:
    pred, listener, _, near = made_up(5, frames=20)
    near[0] = 1
    assert fr_dist(pred, listener, near) == pytest.approx(plain_metrics.distance(pred, listener, near), rel=1e-12)
    longer = np.random.default_rng(6).normal(size=(3, 31, 2))
    some = warping(pred[0][..., :2], longer)
    plain = [[plain_metrics.warping(a[:, :2], b) for b in longer] for a in pred[0]]
    np.testing.assert_allclose(some, plain, rtol=1e-12)


@pytest.mark.parametrize("delay", [0, 1, 17, 49])
@pytest.mark.parametrize("ahead", [False, True])
def test_a_reaction_that_repeats_the_speaker_has_its_delay_as_lag(delay: int, ahead: bool) -> None:
    speaker = np.random.default_rng(0).normal(size=(1, 200, 3))
    assert fr_syn(np.roll(speaker, -delay if ahead else delay, axis=1)[:, None], speaker) == delay


def test_only_the_first_reaction_counts_unless_all_are_asked_for() -> None:
    speaker = np.random.default_rng(0).normal(size=(1, 200, 3))
    pred = np.stack([np.roll(speaker, delay, axis=1) for delay in (4, 10)], axis=1)
    assert fr_syn(pred, speaker) == 4
    assert fr_syn(pred, speaker, all_samples=True) == 7


def test_a_feature_that_never_varies_gives_the_largest_lag() -> None:
    _, _, speaker, _ = made_up(3)
    pred = speaker[:, None].copy()
    pred[..., 3] = np.float32(0.1)
    assert np.isnan(lag_correlation(pred[0], speaker[0])).all()
    assert lags(pred, speaker).tolist() == [[49], [49]]


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("end", [True, False])
def test_a_feature_that_varies_at_some_lags_only_gives_the_first_lag_without(end: bool, offset: float) -> None:
    _, _, speaker, _ = made_up(3, frames=120)
    pred = speaker[:, None].astype(np.float64) + offset
    pred[..., 0] = offset
    pred[:, :, slice(100, None) if end else slice(0, 20), 0] += 0.3  # an action unit that is on for 0.8 s
    curve = lag_correlation(pred[0], speaker[0])[0]
    np.testing.assert_array_equal(np.isnan(curve), np.arange(-49, 50) <= -20 if end else np.arange(-49, 50) >= 20)
    np.testing.assert_allclose(curve, plain_metrics.lag_curve(pred[0, 0], speaker[0]), atol=1e-6)
    assert lags(pred, speaker)[0, 0] == plain_metrics.lag(pred[0, 0], speaker[0]) == (49 if end else 20)


def test_a_faint_feature_beside_a_burst_keeps_its_correlation() -> None:
    rng = np.random.default_rng(1)
    faint = 1e-7 * rng.normal(size=(1, 300, 1))
    speaker, pred = rng.normal(size=(1, 300, 1)), faint.copy()
    pred[:, :20] = 1e3
    curve = lag_correlation(pred, speaker[0])[0]
    np.testing.assert_allclose(curve, plain_metrics.lag_curve(pred[0], speaker[0]), atol=1e-6)


def test_one_reaction_to_each_clip_has_no_diversity() -> None:
    assert fr_div(made_up(0, samples=1)[0]) == 0


def test_correlation_and_distance_grow_with_the_number_of_reactions() -> None:
    pred, listener, _, near = made_up(2, samples=1, frames=20)
    thrice = np.repeat(pred, 3, axis=1)
    assert fr_corr(thrice, listener, near) == pytest.approx(3 * fr_corr(pred, listener, near))
    assert fr_dist(thrice, listener, near) == pytest.approx(3 * fr_dist(pred, listener, near))


def test_what_equals_a_neighbour_is_at_distance_zero_and_of_concordance_one() -> None:
    _, listener, _, _ = made_up(4)
    mirrored = np.eye(2)[::-1]
    pred = listener[::-1][:, None]
    assert fr_dist(pred, listener, mirrored) == 0
    assert fr_corr(pred, listener, mirrored) == pytest.approx(1, abs=1e-6)


def test_what_is_too_little_is_refused() -> None:
    pred, listener, speaker, near = made_up(0, clips=1, frames=50, features=58)
    with pytest.raises(UndefinedError, match="at least 51, not 50"):
        fr_syn(pred, speaker)
    with pytest.raises(UndefinedError, match="it compares clips"):
        fr_dvs(pred)
    with pytest.raises(UndefinedError, match="25 emotion features, these have 58"):
        fr_dist(pred, listener, near)
    with pytest.raises(UndefinedError, match="at least 2"):
        fr_var(pred[:, :, :1])


def test_without_dtaidistance_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dtaidistance", None)
    pred, listener, _, near = made_up(0)
    with pytest.raises(
        BackendMissingError, match=r"dtaidistance is not installed. Install it: pip install 'pflx\[evaluate\]'"
    ):
        fr_dist(pred, listener, near)
