"""PerFRDiff's runtime on stand-ins for its graphs: windows, noise, steps and solvers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.golden_arrays import golden

from pflx.engines import Array, BundleError, FakeEngine, FeedError, GeneratorInfo, TensorSpec
from pflx.runtime.generators import GeneratorOptions, SpeakerWindow, make_generator, reach
from pflx.runtime.generators.diffusion import N_STEPS, TIMESTEPS, Solver, check_sampler, signal_share, updates
from pflx.runtime.generators.perfrdiff import PerFRDiffGenerator

SOLVERS: tuple[Solver, ...] = ("ddim", "dpm++")


def floats(*shape: int | str) -> TensorSpec:
    return TensorSpec(shape, np.dtype(np.float32))


WINDOW = floats("samples", 50, 58)
MEMORY = {"keys": floats(1)}
INFO = GeneratorInfo(
    name="perfrdiff",
    window=50,
    hop=25,
    needs=["coefficients", "mfcc"],
    graphs={role: f"perfrdiff_{role}" for role in ("condition", "denoise", "emotion")},
    settings={"mfcc_min": -100.0, "mfcc_max": 100.0},
)


class Stage:
    """Engines that remember what they were given; the prediction is what `predict` makes of x."""

    def __init__(self, past: bool = False) -> None:
        self.given: list[Mapping[str, Array]] = []
        speaker = {"coefficients": floats(1, 50, 58), "mfcc": floats(1, 50, 78)}
        step = {"step": TensorSpec((1,), np.dtype(np.int64)), "update": floats(3)}
        self.condition = FakeEngine(self._encode, {**speaker, **({"past": WINDOW} if past else {})}, MEMORY)
        self.denoise = FakeEngine(
            self._denoise, {"x": WINDOW, "previous": WINDOW, **step, **MEMORY}, {"next": WINDOW, "clean": WINDOW}
        )
        hop = {name: floats("samples", 25, size) for name, size in (("coefficients", 58), ("emotion", 25))}
        self.emotion = FakeEngine(
            lambda feeds: {"emotion": feeds["coefficients"][..., :25]},
            {"coefficients": hop["coefficients"]},
            {"emotion": hop["emotion"]},
        )

    def generator(self, options: GeneratorOptions | None = None) -> PerFRDiffGenerator:
        engines = {f"perfrdiff_{role}": getattr(self, role) for role in ("condition", "denoise", "emotion")}
        made = make_generator(INFO, engines, options)
        assert isinstance(made, PerFRDiffGenerator)
        return made

    def _encode(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.given.append({name: value.copy() for name, value in feeds.items()})
        return {"keys": np.array([feeds["coefficients"].mean()], np.float32)}

    def _denoise(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        clean = np.tanh(feeds["x"] + feeds["keys"] + np.float32(0.01) * feeds["step"].astype(np.float32))
        a, b, c = feeds["update"]
        return {"next": a * clean + b * feeds["x"] + c * feeds["previous"], "clean": clean}


def speaker_of(seed: int) -> SpeakerWindow:
    rng = np.random.default_rng(seed)
    return {
        "coefficients": rng.standard_normal((50, 58), np.float32),
        "mfcc": 30 * rng.standard_normal((50, 78), np.float32),
    }


def noise_of(samples: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((samples, 2900), np.float32)


def test_segments_wait_for_the_speaker_frames_of_the_reference() -> None:
    generator = Stage().generator()
    assert [reach(generator, segment) for segment in range(5)] == [25, 25, 50, 75, 100]
    assert (generator.window, generator.hop, generator.noise_size) == (50, 25, 2900)


def test_the_first_two_segments_are_the_halves_of_one_window() -> None:
    stage = Stage()
    generator = stage.generator()
    first, state = generator.step(speaker_of(0), generator.start(2), noise_of(2))
    second, state = generator.step(speaker_of(0), state, noise_of(2, 1))
    assert (stage.condition.calls, stage.denoise.calls) == (1, 49)
    third, _ = generator.step(speaker_of(0), state, noise_of(2, 2))
    assert (stage.condition.calls, stage.denoise.calls) == (2, 98)
    np.testing.assert_array_equal(third.coefficients, second.coefficients)  # the same speaker, the same noise
    assert np.abs(first.coefficients - second.coefficients).max() > 0.1
    assert first.emotion is not None
    np.testing.assert_array_equal(first.emotion, first.coefficients[..., :25])


def test_a_step_changes_nothing_it_was_given() -> None:
    generator = Stage().generator(GeneratorOptions(steps=3))
    state = generator.start(1)
    for seed in range(4):
        window, noise = speaker_of(seed), noise_of(1, seed)
        before = {name: value.copy() for name, value in state.items()}
        results = [generator.step(window, state, noise) for _ in range(2)]
        for name, value in before.items():
            np.testing.assert_array_equal(state[name], value)
        np.testing.assert_array_equal(results[0][0].coefficients, results[1][0].coefficients)
        state = results[0][1]
        assert {name: value.shape for name, value in state.items()} == {
            name: value.shape for name, value in generator.start(1).items()
        }


def test_past_frames_are_the_whole_last_window() -> None:
    stage = Stage(past=True)
    generator = stage.generator(GeneratorOptions(steps=2))
    state, made = generator.start(2), []
    for seed in range(4):
        reaction, state = generator.step(speaker_of(seed), state, noise_of(2))
        made.append(reaction.coefficients)
    pasts = [given["past"] for given in stage.given]
    assert not pasts[0].any()
    np.testing.assert_array_equal(pasts[1], np.concatenate(made[:2], axis=1))
    np.testing.assert_array_equal(pasts[2][:, 25:], made[2])


def test_remembered_past_frames_are_the_last_two_segments_as_they_were_shown() -> None:
    stage = Stage(past=True)
    generator = stage.generator(GeneratorOptions(steps=2))
    state, shown = generator.start(2), []
    for seed in range(5):
        reaction, after = generator.step(speaker_of(seed), state, noise_of(2))
        shown.append(reaction.coefficients + seed + 1)
        state = generator.remember(state, after, shown[-1])
    pasts = [given["past"] for given in stage.given]
    assert not pasts[0].any()
    for past, two in zip(pasts[1:], pairwise(shown), strict=False):
        np.testing.assert_array_equal(past, np.concatenate(two, axis=1))
    assert [generator.reads_itself, Stage().generator().reads_itself] == [True, False]


def test_mfcc_are_scaled_by_the_bundles_bounds_and_clipped() -> None:
    stage = Stage()
    generator = stage.generator(GeneratorOptions(steps=1))
    window = {**speaker_of(0), "mfcc": np.tile(np.array([-200, -100, 0, 50, 100, 150], np.float32), (50, 13))}
    generator.step(window, generator.start(1), noise_of(1))
    assert stage.given[0]["mfcc"][0, 0, :6].tolist() == [0, 0, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize("bounds", [{}, {"mfcc_min": 1.0}, {"mfcc_min": 2.0, "mfcc_max": 2.0}])
def test_a_bundle_without_bounds_is_refused(bounds: dict[str, float]) -> None:
    stage = Stage()
    info = GeneratorInfo(name="perfrdiff", window=50, hop=25, needs=[], graphs={}, settings=bounds)
    with pytest.raises(BundleError, match="needs mfcc_min below mfcc_max in its settings"):
        PerFRDiffGenerator(info, {"condition": stage.condition, "denoise": stage.denoise}, GeneratorOptions())


def test_the_ladder_begins_at_the_chosen_number() -> None:
    assert Stage().generator().steps == (49, 25, 12, 6)
    assert Stage().generator(GeneratorOptions(steps=12)).steps == (12, 6)
    assert Stage().generator(GeneratorOptions(steps=3, solver="dpm++")).steps == (3,)


def test_fewer_steps_make_fewer_calls() -> None:
    stage = Stage()
    generator = stage.generator(GeneratorOptions(steps=25))
    state = generator.start(1)
    generator.step(speaker_of(0), state, noise_of(1))
    generator.step(speaker_of(0), state, noise_of(1), steps=6)
    assert stage.denoise.calls == 25 + 6


@pytest.mark.parametrize("steps", [0, -1, 50, 1000])
def test_another_number_of_steps_is_told(steps: int) -> None:
    stage = Stage()
    with pytest.raises(FeedError, match=rf"steps is {steps}; give 1 to 49"):
        stage.generator(GeneratorOptions(steps=steps))
    generator = stage.generator()
    with pytest.raises(FeedError, match=rf"steps is {steps}; give 1 to 49"):
        generator.step(speaker_of(0), generator.start(1), noise_of(1), steps=steps)


def test_another_solver_is_told() -> None:
    with pytest.raises(FeedError, match=r"solver is 'euler'; give ddim or dpm\+\+"):
        check_sampler(10, "euler")


def test_the_difference_of_the_trained_sampler_to_itself_is_nothing() -> None:
    same = Stage().generator().step_difference(speaker_of(0), noise_of(2))
    assert (same.rms, same.largest, same.head_largest_deg) == (0, 0, 0)
    few = Stage().generator(GeneratorOptions(steps=4, solver="dpm++")).step_difference(speaker_of(0), noise_of(2))
    assert (few.n_steps, few.solver) == (4, "dpm++")
    assert 0 < few.rms < few.largest
    assert 0 < few.head_mean_deg < few.head_largest_deg


def test_the_noise_schedule_is_the_published_one() -> None:
    np.testing.assert_allclose(signal_share(), golden("perfrdiff")["alphas_cumprod"], rtol=1e-12)
    assert (len(TIMESTEPS), TIMESTEPS[0], TIMESTEPS[-1]) == (50, 980, 0)


@given(n_steps=st.integers(1, N_STEPS), solver=st.sampled_from(SOLVERS))
def test_steps_are_spread_from_the_first_timestep_and_never_repeat(n_steps: int, solver: Solver) -> None:
    rows = [update.row for update in updates(n_steps, solver)]
    assert rows[0] == 0
    assert len(rows) == n_steps
    gaps = np.diff([*rows, N_STEPS])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


@settings(deadline=None)
@given(n_steps=st.integers(1, N_STEPS), solver=st.sampled_from(SOLVERS), clean=st.floats(-1, 1), noise=st.floats(-4, 4))
def test_a_right_prediction_is_reached_in_any_number_of_steps(
    n_steps: int, solver: Solver, clean: float, noise: float
) -> None:
    share = signal_share()[list(TIMESTEPS)]
    signal, spread = np.sqrt(share), np.sqrt(1 - share)
    x = signal[0] * clean + spread[0] * noise
    for update in updates(n_steps, solver):
        x = update.weights.astype(np.float64) @ (clean, x, clean)
    assert x == pytest.approx(signal[-1] * clean + spread[-1] * noise, abs=1e-4)


@pytest.mark.parametrize("n_steps", [10, 25])
def test_the_second_order_comes_nearer_to_the_exact_path(n_steps: int) -> None:
    """Data of one Gaussian, where the path from noise to data is known."""
    share = signal_share()[list(TIMESTEPS)]
    begin, spread = 1.7, np.sqrt(share + 1 - share)
    ends = {}
    for solver in SOLVERS:
        x = previous = begin
        for update in updates(n_steps, solver):
            clean = np.sqrt(share[update.row]) * x / spread[update.row] ** 2
            x, previous = float(update.weights @ (clean, x, previous)), clean
        ends[solver] = abs(x - begin * spread[-1] / spread[0])
    assert ends["dpm++"] < ends["ddim"] / 5
