"""PosNet fitted to motion: its objective, where it begins, how it goes on, and what comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support.golden_arrays import golden

from pflx.calibration.errors import CalibrationError
from pflx.calibration.posnet.fit import FitOptions, fit, joined, save_posnet
from pflx.calibration.posnet.loss import (
    Objective,
    connect,
    first_difference,
    join_change,
    reconstruction,
    second_magnitude,
    second_signed,
    transition,
)
from pflx.calibration.posnet.motion import (
    Draws,
    Motion,
    continued,
    displaced,
    previous_pose,
    read_motion,
    track_motion,
)
from pflx.calibration.posnet.start import solve_start
from pflx.calibration.posnet.table import baselines, compare, cross_fade, moved, one_euro, online
from pflx.engines import Array, FakeEngine, TensorSpec
from pflx.export import load_component
from pflx.export.models import PosNet, load_model, untrained
from pflx.runtime.stream.posnet import Smoother

SLIDE = 8


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    return golden("posnet")


def waves(frames: int, seed: int = 0) -> Array:
    """A head that sways below 2 Hz, float64 [frames, 6]."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(frames)[:, None, None] / 25
    frequency, phase = rng.uniform(0.1, 2, (6, 5)), rng.uniform(0, 2 * np.pi, (6, 5))
    height = rng.uniform(0.5, 1, (6, 1)) * 0.1 / (1 + frequency)
    return np.asarray(np.sum(height * np.sin(2 * np.pi * frequency * time_s + phase), axis=2))


@pytest.fixture(scope="module")
def motion() -> Motion:
    return track_motion("waves", "00", waves(1500), SLIDE)


def small(**changes: Any) -> FitOptions:
    given: dict[str, Any] = {"slide": SLIDE, "hidden": 72, "steps": 30, "batch": 16, "check_every": 10}
    return FitOptions(**given | changes)


def test_every_term_is_that_of_the_published_module(case: dict[str, Any]) -> None:
    window = torch.from_numpy(case["output"])
    terms = {
        "code_continuity": connect(window, 25),
        "code_sm1": first_difference(window),
        "code_second": second_signed(window),
        "code_connect": join_change(window, 25),
        "code_trans": transition(window, 25),
        "paper_connect": connect(window, 25),
        "paper_sm1": first_difference(window),
        "paper_sm2": second_magnitude(window),
        "paper_total": Objective(reconstruction=0)(window, window[..., 25:, :]),
    }
    assert {f"loss_{name}" for name in terms} == {name for name in case if name.startswith("loss_")} - {
        "loss_total_code"
    }
    for name, value in terms.items():
        assert abs(float(value) - float(case[f"loss_{name}"])) <= 1e-5, name


def test_gradients_are_those_of_the_published_module(case: dict[str, Any]) -> None:
    network = load_model("posnet", untrained("posnet", int(case["weight_seed"]))).requires_grad_(True)
    window = network(torch.from_numpy(case["past_pos"]), torch.from_numpy(case["current_pos"]))
    objective = Objective(reconstruction=0, second=0, signed_second=0.2)
    total = objective(window, window[..., 25:, :].detach())
    torch.autograd.backward(total)
    assert abs(float(total.detach()) - float(case["loss_total_code"])) <= 1e-5
    for name, value in network.named_parameters():
        key = name.replace(".", "_")
        assert value.grad is not None
        assert float(value.grad.norm()) == pytest.approx(float(case[f"gradnorm_{key}"]), rel=1e-4)
        if f"grad_{key}" in case:
            expected = torch.from_numpy(case[f"grad_{key}"])
            assert float((value.grad - expected).norm() / expected.norm()) <= 1e-4


def test_the_released_terms_take_the_place_of_the_papers() -> None:
    window, target = torch.randn(3, 16, 6), torch.randn(3, 8, 6)
    expected = 2 * reconstruction(window, target) + connect(window, 8) + first_difference(window)
    expected = expected + 0.2 * second_signed(window) + join_change(window, 8)
    torch.testing.assert_close(Objective.released(2.0)(window, target), expected)


def test_without_reconstruction_a_still_head_is_best() -> None:
    past = torch.zeros(1, 8, 6)
    still, moving = torch.zeros(1, 8, 6), torch.from_numpy(waves(8)[None]).float()
    for weight, better in ((0.0, still), (1e5, moving)):
        objective = Objective(reconstruction=weight)
        losses = [float(objective(torch.cat((past, new), dim=1), moving)) for new in (still, moving)]
        assert (losses[0] < losses[1]) == (better is still)


@pytest.mark.parametrize(
    ("weights", "said"), [({"reconstruction": -1}, "not reconstruction -1"), ({"reconstruction": float("nan")}, "nan")]
)
def test_a_weight_below_nothing_is_refused(weights: dict[str, float], said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        Objective(**weights)


def test_an_objective_of_nothing_is_refused() -> None:
    with pytest.raises(CalibrationError, match="All weights"):
        Objective(reconstruction=0, connect=0, first=0, second=0)


def test_a_parabola_is_continued_backwards_as_it_is() -> None:
    frames = np.arange(-1, 8)[:, None] * np.ones(6)
    track = 1 + 0.3 * frames + 0.05 * frames**2
    np.testing.assert_allclose(previous_pose(track[None, 1:]), track[None, 0], atol=1e-12)
    window = continued(track[None, 1:])
    np.testing.assert_allclose(window[0, 7], track[0], atol=1e-6)
    np.testing.assert_array_equal(window[0, 8:], track[1:].astype(np.float32))


def test_draws_depend_on_their_step_only_and_targets_go_on_where_the_past_ends(motion: Motion) -> None:
    draws = Draws.of([motion], pull=0.0, seed=3, noise=0.0)
    first, again, other = draws.batch(7, 64), draws.batch(7, 64), draws.batch(8, 64)
    np.testing.assert_array_equal(first.fresh, again.fresh)
    assert not np.array_equal(first.fresh, other.fresh)
    steps = first.target[:, 0] - first.past[:, -1]  # halfway between the steps before and after, as in a smooth motion
    around = (first.target[:, 1] - first.target[:, 0] + first.past[:, -1] - first.past[:, -2]) / 2
    jumps = first.fresh[:, 0] - first.past[:, -1] - around
    assert np.abs(steps - around).mean() < 0.1 * np.abs(jumps).mean()
    np.testing.assert_allclose(np.diff(first.target, axis=1), np.diff(first.fresh, axis=1), atol=1e-6)


def test_a_whole_pull_ends_where_the_generator_is(motion: Motion) -> None:
    batch = Draws.of([motion], pull=1.0, seed=3, noise=0.0).batch(0, 16)
    np.testing.assert_allclose(batch.target[:, -1], batch.fresh[:, -1], atol=1e-6)


def test_what_posnet_is_given_has_noise_that_the_target_has_not(motion: Motion) -> None:
    noisy, clean = (Draws.of([motion], pull=0.0, seed=3, noise=noise).batch(0, 256) for noise in (0.1, 0.0))
    np.testing.assert_array_equal(noisy.target, clean.target)
    apart = np.sqrt(np.mean((noisy.fresh - clean.fresh) ** 2, axis=(0, 1)))
    assert (apart > 0.1 * motion.offset_sd).all()
    assert (apart < 0.5 * motion.offset_sd).all()


@pytest.mark.parametrize("slide", [4, 8, 25])
def test_the_solved_start_carries_the_ends_and_the_mean_of_a_segment_exactly(slide: int) -> None:
    """A target that is linear in what the layers let through is met, whatever the segment."""
    rng = np.random.default_rng(0)
    past, fresh = (torch.from_numpy(rng.normal(size=(400, slide, 6)).astype(np.float32)) for _ in range(2))
    kept = torch.cat((past[:, -1:], fresh[:, [0, 1, -2, -1]], fresh.mean(dim=1, keepdim=True)), dim=1)
    mixing = torch.from_numpy(rng.normal(size=(slide, 6)).astype(np.float32))
    target = mixing @ kept
    network = PosNet(slide, 80)
    solve_start(network, past, fresh, target)
    with torch.no_grad():
        assert float((network.new_pose(past[:, -1], fresh) - target).abs().max()) < 2e-3


def test_what_the_layers_cannot_carry_is_not_met() -> None:
    fresh = torch.randn(400, 25, 6)
    network = PosNet(25, 80)
    solve_start(network, torch.zeros(400, 25, 6), fresh, fresh)
    with torch.no_grad():
        error = (network.new_pose(torch.zeros(400, 6), fresh) - fresh)[:, 10].std()
    assert float(error) > 0.5


class InterruptionError(Exception):
    """Stands for Ctrl-C."""


AS_PUBLISHED: dict[str, Any] = {
    "start": "random",
    "optimizer": "sgd",
    "lr": 1e-3,
    "momentum": 0.9,
    "objective": Objective(reconstruction=1.0),
}


@pytest.mark.parametrize("options", [small(), small(**AS_PUBLISHED)], ids=["adam", "sgd"])
def test_an_interrupted_fit_goes_on_bit_for_bit(motion: Motion, options: FitOptions, tmp_path: Path) -> None:
    whole = fit([motion], options)
    state = tmp_path / "posnet.safetensors.state"

    def interrupt(_: str, done: int, __: int | None) -> None:
        if done == 25:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        fit([motion], options, state=state, progress=interrupt)
    assert state.exists()
    seen: list[int] = []
    resumed = fit([motion], options, state=state, progress=lambda _, done, __: seen.append(done))
    assert seen == list(range(21, 31))
    assert resumed.history == whole.history
    assert resumed.best_step == whole.best_step
    for name, value in whole.state_dict.items():
        assert torch.equal(resumed.state_dict[name], value), name
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_another_fit_is_refused(motion: Motion, tmp_path: Path) -> None:
    state = tmp_path / "state"

    def interrupt(_: str, done: int, __: int | None) -> None:
        if done == 11:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        fit([motion], small(), state=state, progress=interrupt)
    with pytest.raises(CalibrationError, match="with other options or motion"):
        fit([motion], small(seed=1), state=state)
    with safe_open(state, "pt") as file:
        whole, of = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    for name, value in whole.items():
        save_file({**whole, name: torch.zeros(3, *value.shape)}, state, of)
        with pytest.raises(CalibrationError, match="is damaged"):
            fit([motion], small(), state=state)
    for numbers in ("", "[]", '{"steps": 1}', '{"steps": 1, "best_step": 1, "history": [3]}'):
        save_file(whole, state, {**of, "numbers": numbers})
        with pytest.raises(CalibrationError, match="is damaged"):
            fit([motion], small(), state=state)
    save_file({name: value for name, value in whole.items() if "network" not in name}, state, of)
    with pytest.raises(CalibrationError, match="is damaged"):
        fit([motion], small(), state=state)
    state.write_bytes(b"no state")
    with pytest.raises(CalibrationError, match="is no state of a fit"):
        fit([motion], small(), state=state)


def test_a_fit_that_gets_no_better_stops_and_keeps_its_best(motion: Motion) -> None:
    options = small(lr=1e-12, steps=1000, check_every=5, patience=3)
    fitted = fit([motion], options)
    assert fitted.steps < 1000
    assert fitted.steps - fitted.best_step == 15
    assert min(loss for _, loss in fitted.history) == dict(fitted.history)[fitted.best_step]


def test_a_fit_that_diverges_says_so(motion: Motion) -> None:
    with pytest.raises(CalibrationError, match=r"diverged.*smaller --lr than 1\b"):
        fit([motion], small(optimizer="sgd", lr=1.0, objective=Objective(reconstruction=1e20)))


def test_the_papers_own_way_lowers_the_objective(motion: Motion) -> None:
    fitted = fit([motion], small(**AS_PUBLISHED | {"steps": 200}))
    assert fitted.history[-1][1] < 0.9 * fitted.history[0][1]


@pytest.fixture(scope="module")
def solved(motion: Motion) -> dict[str, torch.Tensor]:
    return fit([motion], small(steps=0)).state_dict


def test_jumps_go_and_the_motion_stays_on_a_track_not_seen(solved: dict[str, torch.Tensor]) -> None:
    track = waves(1000, seed=5)
    segments = displaced(track.reshape(-1, SLIDE, 6), 0.5 * track.std(axis=0), np.random.default_rng(1))
    rows = {row.method: row for row in compare([segments], baselines(0.08) | {"PosNet": lambda s: joined(solved, s)})}
    for quantity in (rows["PosNet"].rotation, rows["PosNet"].translation):
        assert quantity.smaller >= 0.9
        assert abs(quantity.energy_change) <= 0.1
    for plain in ("One-Euro filter", "linear cross-fade"):
        assert rows[plain].rotation.smaller < rows["PosNet"].rotation.smaller


def test_the_file_of_a_fit_is_what_export_takes_and_says_how_it_was_made(
    solved: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "posnet.safetensors"
    save_posnet(path, solved, {"slide": SLIDE, "seed": 0})
    network, _ = load_component(path, "posnet")
    assert isinstance(network, PosNet)
    assert network.slide == SLIDE
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["pflx"]) == {"slide": SLIDE, "seed": 0}


def test_the_table_joins_segments_as_the_runtime_does(solved: dict[str, torch.Tensor]) -> None:
    network = PosNet(SLIDE, 72)
    network.load_state_dict(solved)
    coefficients = np.concatenate([np.ones((40, 52)), waves(40)], axis=1).astype(np.float32).reshape(5, 1, SLIDE, 58)

    def run(feeds: Any) -> dict[str, Array]:
        pose = torch.from_numpy(feeds["segment"][..., 52:])
        with torch.inference_mode():
            new = network.new_pose(torch.from_numpy(feeds["last_pose"]), pose).numpy()
        return {"smoothed": np.concatenate([feeds["segment"][..., :52], new], axis=-1), "pose": new[:, -1]}

    f32 = np.dtype(np.float32)
    takes = {"segment": TensorSpec(("samples", SLIDE, 58), f32), "last_pose": TensorSpec(("samples", 6), f32)}
    gives = {"smoothed": TensorSpec(("samples", SLIDE, 58), f32), "pose": TensorSpec(("samples", 6), f32)}
    smoother = Smoother(FakeEngine(run, takes, gives))
    state, shown = smoother.start(), []
    for segment in coefficients:
        smoothed, state = smoother.step(segment, state)
        shown.append(smoothed[0, :, 52:])
    np.testing.assert_allclose(joined(solved, coefficients[:, 0, :, 52:]), np.stack(shown), atol=1e-6)


def test_a_cross_fade_goes_from_the_last_pose_to_the_segment() -> None:
    last, fresh = np.zeros(6), np.ones((4, 6))
    np.testing.assert_allclose(cross_fade(last, fresh)[:, 0], [0.2, 0.4, 0.6, 0.8])


def test_the_rule_moves_a_segment_to_where_the_last_one_ended() -> None:
    segments = waves(80).reshape(-1, SLIDE, 6)
    jumping = displaced(segments, np.full(6, 0.5), np.random.default_rng(0))
    without_drift = jumping - (jumping - segments)  # what a generator without jumps gives
    shown = online(jumping, lambda last, fresh: moved(last, fresh, 0.0))
    np.testing.assert_allclose(np.diff(shown, axis=1), np.diff(jumping, axis=1), atol=1e-6)
    assert np.abs(shown[1:, 0] - shown[:-1, -1]).max() < 2 * np.abs(np.diff(without_drift, axis=1)).max()


def test_the_one_euro_filter_follows_its_formula() -> None:
    """A step of 1 unit after a still start, by hand: cut-offs of 1 Hz, and 0.007 Hz for a unit per second."""
    track = np.zeros((2, 4, 6))
    track[0, 1:, 3] = track[1, :, 3] = 1.0
    rate = 1 / (1 + 25 / (2 * np.pi * 1.0))
    speed = rate * 25.0
    first = 1 / (1 + 25 / (2 * np.pi * (1 + 0.007 * speed)))
    assert one_euro(track)[0, 1, 3] == pytest.approx(first)


def save(path: Path, values: Any) -> Path:
    np.save(path, values)
    return path


def bad_motions() -> list[Any]:
    nan = waves(400)
    nan[17, 2] = np.nan
    still = waves(400)
    still[:, 4] = 0.25
    return [
        pytest.param(waves(100), "has 100 frames; to fit segments of 8 it takes 240", id="too short"),
        pytest.param(nan, "is not finite, first in frame 17", id="NaN"),
        pytest.param(still, "does not move in number 4", id="still"),
        pytest.param(waves(400)[:, :5], r"is float64 \[400, 5\], no motion of a head", id="five numbers"),
        pytest.param(np.array(["a"]), "no motion of a head", id="text"),
    ]


@pytest.mark.parametrize(("values", "said"), bad_motions())
def test_what_cannot_be_fitted_to_is_refused(values: Array, said: str, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=said):
        read_motion(save(tmp_path / "motion.npy", values), SLIDE)


def test_a_file_that_is_no_motion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="does not exist"):
        read_motion(tmp_path / "none.npy", SLIDE)
    (tmp_path / "text.npy").write_text("pitch,yaw")
    with pytest.raises(CalibrationError, match=r"is no \.npy, \.npz or \.csv of numbers"):
        read_motion(tmp_path / "text.npy", SLIDE)
    with pytest.raises(CalibrationError, match="holds no recorded feeds"):
        read_motion(tmp_path, SLIDE)


def run_file(path: Path, segments: Array) -> Path:
    """As `pflx run --coefficients` writes it, of one reaction."""
    poses = segments.reshape(1, -1, 6).astype(np.float32)
    coefficients = np.concatenate([np.zeros((*poses.shape[:2], 52), np.float32), poses], axis=2)
    numbers: dict[str, Any] = {"fps": 25, "hop": segments.shape[1], "untrained": -1}
    np.savez(path, coefficients=coefficients, generated_pose=poses, **numbers)
    return path


def test_a_run_is_taken_as_the_generator_made_it(tmp_path: Path) -> None:
    segments = displaced(waves(1200).reshape(-1, SLIDE, 6), np.full(6, 0.2), np.random.default_rng(0))
    (motion,) = read_motion(run_file(tmp_path / "run.npz", segments), SLIDE)
    np.testing.assert_allclose(motion.windows[:, SLIDE:], segments[:120] - segments.mean(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(motion.offset_sd, 0.2, rtol=0.3)
    assert len(motion.held_out) == len(motion.held_windows) == 30
    with pytest.raises(CalibrationError, match=r"has segments of 8 frames. Fit with --slide 8"):
        read_motion(tmp_path / "run.npz", 25)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"slide": 3}, "slide is 3; the least is 4"),
        ({"hidden": 64}, "hidden is 64; the least is 72"),
        ({"lr": 0.0}, "learning rate is 0"),
        ({"pull": 1.5}, "pull is 1.5"),
    ],
)
def test_options_that_nothing_can_be_fitted_with_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        small(**changes)


def test_nothing_to_fit_to_is_refused() -> None:
    with pytest.raises(CalibrationError, match="nothing to fit to"):
        fit([], small())
