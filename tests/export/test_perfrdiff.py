"""PerFRDiff: the published numbers, by the plain networks and by the graphs that are exported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.export.one_thread import one_thread as one_thread
from support.golden_arrays import golden
from torch import Tensor, nn

from pflx.engines import Array, FakeEngine, OrtEngine
from pflx.export import InputError, StateDictError, load_model, untrained
from pflx.export.chain import last_frames
from pflx.export.generators import FAMILIES, ExportSettings
from pflx.export.generators.perfrdiff import PerFRDiffParts
from pflx.export.models import EmotionRegressor, PerFRDiff, PerFRDiffDenoise, PerFRDiffV1, PosNet, unused_keys
from pflx.export.models.layers import sinusoid
from pflx.export.models.weights import fill
from pflx.export.parity import check_graph, graph_errors
from pflx.export.recipes import Recipe
from pflx.export.trace import trace
from pflx.runtime.generators import GeneratorOptions, SpeakerWindow, reach
from pflx.runtime.generators.diffusion import TIMESTEPS, updates
from pflx.runtime.generators.perfrdiff import PerFRDiffGenerator

HEADS = ("to_3dmm_expr.bias", "to_3dmm_pos.bias", "to_emotion_feat.bias")
GRAPHS = ("condition", "denoise", "emotion")


def weights(part: str) -> dict[str, npt.NDArray[np.float32]]:
    """What the fixtures were made with; tables of sines and cosines were left out."""
    shapes = json.loads(str(golden("perfrdiff")[f"{part}_keys"]))
    tables = () if part == "denoiser_v1" else ("query_pos.pe", "mem_pos.pe")
    made = fill({key: tuple(shape) for key, shape in shapes.items() if key not in tables}, 1)
    return made | {key: 0.15 * made[key] for key in HEADS if key in made}


def tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(array)


def error(got: Tensor | Array, expected: npt.NDArray[np.float32]) -> float:
    assert tuple(got.shape) == expected.shape
    return float(np.abs(np.asarray(got) - expected).max())


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    return golden("perfrdiff")


@pytest.fixture(scope="module")
def network() -> PerFRDiff:
    made = load_model("perfrdiff", weights("denoiser_v5"))
    assert isinstance(made, PerFRDiff)
    return made


@pytest.fixture(scope="module")
def regressor() -> EmotionRegressor:
    made = load_model("perfrdiff_emotion", weights("latent_3dmm_embedder"))
    assert isinstance(made, EmotionRegressor)
    return made


def whole_clip_range(audio: Array) -> tuple[float, float]:
    """What the published code scales by; it sees the speaker 25 frames late, after zeros."""
    seen = np.pad(audio[0, :-25], ((25, 0), (0, 0)))
    return float(seen.min()), float(seen.max())


@pytest.fixture(scope="module")
def parts(network: PerFRDiff, regressor: EmotionRegressor, case: dict[str, Any]) -> PerFRDiffParts:
    settings = ExportSettings(mfcc_range=whole_clip_range(case["speaker_audio"]))
    made = FAMILIES["perfrdiff"].make({"perfrdiff": network, "perfrdiff_emotion": regressor}, settings)
    assert isinstance(made, PerFRDiffParts)
    return made


@pytest.fixture(scope="module")
def engines(parts: PerFRDiffParts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, OrtEngine]:
    """The exported graphs by role, each checked against its module."""
    folder, modules, made = tmp_path_factory.mktemp("perfrdiff"), parts.modules(), {}
    for role, recipe in zip(GRAPHS, parts.recipes, strict=True):
        path = folder / f"{recipe.graph}.onnx"
        trace(modules[recipe.graph], recipe, path, precision="fp32")
        made[role] = OrtEngine(path, threads=1)
        check_graph(recipe, graph_errors(modules[recipe.graph], made[role], recipe, recipe.size_sets))
    return made


def windows_of(generator: PerFRDiffGenerator, case: Mapping[str, Any], n_segments: int) -> list[SpeakerWindow]:
    ends = [reach(generator, segment) for segment in range(n_segments)]
    needs = {"coefficients": case["speaker_3dmm"][0], "mfcc": case["speaker_audio"][0]}
    return [{need: last_frames(rows[:end], 50) for need, rows in needs.items()} for end in ends]


def test_the_network_gives_the_published_calls(network: PerFRDiff, case: dict[str, Any]) -> None:
    x, sound, speaker, past = (
        tensor(case[f"den_{name}"]) for name in ("x", "audio01", "speaker_3dmm", "past_listener")
    )
    middle, unseen = torch.tensor(500), torch.tensor([False])
    with torch.inference_mode():
        assert error(network(x, middle, speaker, sound), case["den_cond_t500"]) <= 1e-5
        assert error(network(x, middle, speaker, sound, seen=unseen), case["den_uncond_t500"]) <= 1e-5
        assert error(network.guided(x, middle, speaker, sound, past), case["den_cfg_past_t500"]) <= 1e-4
        for t in (20, 500, 980):
            assert error(network.guided(x, torch.tensor(t), speaker, sound), case[f"den_cfg_t{t}"]) <= 1e-4


def test_the_sampler_gives_the_published_window(
    network: PerFRDiff, parts: PerFRDiffParts, case: dict[str, Any]
) -> None:
    speaker = case["speaker_3dmm"][:, 25:75], case["speaker_audio"][:, 25:75]
    low, high = parts.info.settings["mfcc_min"], parts.info.settings["mfcc_max"]
    with torch.inference_mode():
        scaled = (tensor(speaker[1]) - low) / (high - low)
        made = network.sample(tensor(case["noise_decoder"][0, 0]), tensor(speaker[0]), scaled)
    assert error(made[0], case["windows_3dmm"][0, 0, 2]) <= 5e-4


def test_two_samples_over_two_windows_give_the_published_stream(
    parts: PerFRDiffParts, engines: dict[str, OrtEngine], case: dict[str, Any]
) -> None:
    generator = PerFRDiffGenerator(parts.info, engines, GeneratorOptions())
    published = case["noise_decoder"].reshape(1, -1)
    noise = np.concatenate((published, np.random.default_rng(1).standard_normal(published.shape, np.float32)))
    state, made = generator.start(2), []
    for segment, window in enumerate(windows_of(generator, case, 3)):
        # The noise of later steps is not used.
        reaction, state = generator.step(window, state, noise if segment == 0 else np.full_like(noise, np.nan))
        made.append(reaction)
    coefficients = np.concatenate([reaction.coefficients for reaction in made], axis=1)
    emotion = np.concatenate([reaction.emotion for reaction in made if reaction.emotion is not None], axis=1)
    first, second, _ = case["windows_3dmm"][0, 0]
    assert error(coefficients[0], np.concatenate((first, second[25:]))) <= 5e-4
    assert error(emotion[:1], case["stream_emotion"][0, :, :75]) <= 5e-4
    assert np.abs(coefficients[1] - coefficients[0]).max() > 0.01
    assert error(stitched(coefficients[:1]), case["stream_3dmm"][0, :, :75]) <= 5e-4


def stitched(coefficients: Array) -> Array:
    """PosNet from the second window on: the first two segments are one window."""
    keys = {key: tuple(value.shape) for key, value in PosNet().state_dict().items()}
    posnet = load_model("posnet", fill(keys, 1))
    assert isinstance(posnet, PosNet)
    stream = tensor(coefficients.copy())
    for start in range(50, stream.shape[1], 25):
        new = slice(start, start + 25)
        stream[:, new, 52:] = posnet.new_pose(stream[:, start - 1, 52:], stream[:, new, 52:])
    return stream.numpy()


def module_engine(module: nn.Module, recipe: Recipe) -> FakeEngine:
    """A graph's module behind the engines' protocol."""

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            values = module(*(tensor(feeds[name]) for name in recipe.inputs))
        return {name: value.numpy() for name, value in zip(recipe.outputs, values, strict=True)}

    return FakeEngine(run, recipe.inputs, recipe.outputs)


def test_past_frames_give_the_published_second_window(network: PerFRDiff, case: dict[str, Any]) -> None:
    audio = case["past_speaker_audio"]
    made = PerFRDiffParts(network, None, ExportSettings(mfcc_range=whole_clip_range(audio), use_past_frames=True))
    modules = made.modules()
    by_role = {
        role: module_engine(modules[recipe.graph], recipe) for role, recipe in zip(GRAPHS, made.recipes, strict=False)
    }
    generator = PerFRDiffGenerator(made.info, by_role, GeneratorOptions())
    last, expected = case["past_windows_3dmm"][0, 0]
    noise = case["past_noise_decoder"]
    state = {**generator.start(1), "made": np.array([2]), "noise": noise, "past": last[None]}
    window = {"coefficients": case["past_speaker_3dmm"][0, :50], "mfcc": audio[0, :50]}
    reaction, after = generator.step(window, state, np.zeros((1, 2900), np.float32))
    assert error(reaction.coefficients[0], expected[25:]) <= 2e-3
    assert error(after["past"][0], expected) <= 2e-3


def test_the_original_gives_the_published_call_and_window(case: dict[str, Any]) -> None:
    network = load_model("perfrdiff_v1", weights("denoiser_v1"))
    assert isinstance(network, PerFRDiffV1)
    x = tensor(case["v1_x"])
    speaker = [tensor(case[f"v1_{name}"]) for name in ("speaker_3dmm", "speaker_audio_raw", "speaker_latent")]
    with torch.inference_mode():
        assert error(network.guided(x, torch.tensor(500), *speaker), case["v1_cfg_t500"]) <= 1e-4
        assert error(network.sample(x, *speaker), case["v1_sample50"]) <= 5e-4
    with pytest.raises(InputError, match=r"v1's x is \[B, 50, 25\], got \[1, 50, 58\]"):
        network(torch.zeros(1, 50, 58), torch.tensor(0), *speaker)


def test_a_step_in_half_precision_stays_near(network: PerFRDiff, parts: PerFRDiffParts, tmp_path: Path) -> None:
    recipe, path = parts.recipes[1], tmp_path / "half.onnx"
    module = PerFRDiffDenoise(network)
    trace(module, recipe, path, precision="fp16")
    errors = graph_errors(module, OrtEngine(path, threads=1), recipe, recipe.size_sets)
    assert max(errors.values()) < 0.02
    assert path.stat().st_size < 40e6


def test_untrained_weights_react_lively_within_bounds(case: dict[str, Any]) -> None:
    network = load_model("perfrdiff", untrained("perfrdiff", 3))
    assert isinstance(network, PerFRDiff)
    inputs = (tensor(case[f"den_{name}"]) for name in ("x", "speaker_3dmm", "audio01"))
    x, speaker, sound = inputs
    with torch.inference_mode():
        clean = network.guided(x, torch.tensor(500), speaker, sound)
    assert 0.1 < clean.std() < 0.6
    assert (clean.abs() < 1).float().mean() > 0.8


def test_tables_and_parts_that_no_step_reads_may_be_there(network: PerFRDiff) -> None:
    given: dict[str, Any] = dict(weights("denoiser_v5"))
    assert {"query_pos.pe", "mem_pos.pe", "speaker_emotion_proj.weight"} <= unused_keys("perfrdiff")
    assert "d_rnn.rnn_f.weight_ih" in unused_keys("perfrdiff_emotion")
    tables = {f"{name}_pos.pe": sinusoid(5000, 512)[:, None] for name in ("query", "mem")}
    loaded = load_model("perfrdiff", given | tables)
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    bare = {key: value for key, value in given.items() if key not in unused_keys("perfrdiff")}
    load_model("perfrdiff", bare)
    with pytest.raises(StateDictError, match=r"missing pos_fusion\.bias; unknown pos_fusion\.gain"):
        load_model(
            "perfrdiff", {k: v for k, v in bare.items() if k != "pos_fusion.bias"} | {"pos_fusion.gain": torch.ones(1)}
        )


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((1, 25, 58), (1, 50, 58), (1, 50, 78)), r"x is \[B, 50, 58\], got \[1, 25, 58\]"),
        (((2, 50, 58), (2, 50, 58), (1, 50, 26)), r"mfcc is \[2 or 1, 50, 78\], got \[1, 50, 26\]"),
        (((2, 50, 58), (3, 50, 58), (1, 50, 78)), r"coefficients is \[2 or 1, 50, 58\], got \[3, 50, 58\]"),
    ],
)
def test_input_that_does_not_fit_is_told(network: PerFRDiff, shapes: tuple[tuple[int, ...], ...], words: str) -> None:
    x, speaker, sound = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(InputError, match=words):
        network(x, torch.tensor(0), speaker, sound)


def test_scaling_by_fixed_bounds_changes_a_reaction_less_than_what_it_says(
    parts: PerFRDiffParts, engines: dict[str, OrtEngine], case: dict[str, Any]
) -> None:
    low, high = parts.info.settings["mfcc_min"], parts.info.settings["mfcc_max"]
    reactions = {}
    for name, margin in {"whole clip": 0.0, "same": 0.0, "fixed": 0.25 * (high - low)}.items():
        bounds = ExportSettings(mfcc_range=(low - margin, high + margin))
        info = PerFRDiffParts(PerFRDiff(), None, bounds).info
        generator = PerFRDiffGenerator(info, {**engines}, GeneratorOptions(steps=6))
        window = windows_of(generator, case, 3)[2]
        noise = case["noise_decoder"].reshape(1, -1)
        reactions[name] = generator.step(window, generator.start(1), noise)[0].coefficients
    np.testing.assert_array_equal(reactions["same"], reactions["whole clip"])
    difference = np.sqrt(np.mean((reactions["fixed"] - reactions["whole clip"]) ** 2))
    assert 0.001 < difference < 0.3 * reactions["whole clip"].std()


def test_every_timestep_of_the_table_has_its_row(network: PerFRDiff, case: dict[str, Any]) -> None:
    """The deployed step at rows of the table against the plain network at their timesteps, by the update."""
    module = PerFRDiffDenoise(network).eval()
    parts = PerFRDiffParts(network, None, ExportSettings())
    condition = parts.modules()["perfrdiff_condition"]
    x, speaker, sound = (tensor(case[f"den_{name}"]) for name in ("x", "speaker_3dmm", "audio01"))
    with torch.inference_mode():
        memory = condition(speaker, sound)
        for update in (updates()[0], updates()[24], updates()[48]):
            row, weights_ = torch.tensor([update.row]), tensor(update.weights)
            after, clean = module(x, torch.ones_like(x), row, weights_, *memory)
            expected = network.guided(x, torch.tensor(TIMESTEPS[update.row]), speaker, sound).clamp(-1, 1)
            torch.testing.assert_close(clean, expected, atol=2e-5, rtol=0)
            torch.testing.assert_close(after, weights_[0] * clean + weights_[1] * x + weights_[2], atol=1e-6, rtol=0)
