"""BeLFusion: the published numbers, what its checkpoints hold, and the one graph that is exported."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.exported_generators import exported_generator
from support.golden_arrays import golden
from torch import Tensor, nn

from pflx.engines import OrtEngine
from pflx.engines.building.build import build_engine, profile_for
from pflx.export import InputError, StateDictError, load_model, untrained
from pflx.export.generators.belfusion import RECIPE
from pflx.export.models import BeLFusion, BeLFusionWindow, EmotionVAE, SkipMLP, belfusion
from pflx.export.models.belfusion import cosine_schedule, gru_update
from pflx.export.models.weights import fill
from pflx.export.parity import graph_errors
from pflx.export.recipes import floats
from pflx.export.trace import trace


def weights(part: str) -> dict[str, Any]:
    """Every key of a published part, as the fixture was made with; second names hold what the first do."""
    shapes = json.loads(str(golden("belfusion")[f"{part}_keys"]))
    made = fill({key: tuple(shape) for key, shape in shapes.items()}, 1)
    if part == "mlp":
        made["layers.9.linear.bias"] *= np.float32(0.3)  # the fixture scales the last layer whole
        for alias in [key for key in made if ".cond_layers.1." in key]:
            made[alias] = made[alias.replace("cond_layers.1", "linear_emb")]
    return dict(made)


def statistics() -> dict[str, Any]:
    case = golden("belfusion")
    return {"statistics.min": case["stat_min"], "statistics.max": case["stat_max"]}


@pytest.fixture(scope="module")
def network() -> BeLFusion:
    made = load_model("belfusion", weights("mlp") | weights("vae") | statistics())
    assert isinstance(made, BeLFusion)
    return made


@pytest.fixture(scope="module")
def windows() -> Tensor:
    """The speaker's emotion, float32 [3, 50, 25], delayed by one window."""
    emotion = golden("belfusion")["speaker_emotion"][0, :100]
    return torch.from_numpy(np.concatenate((np.zeros((50, 25), np.float32), emotion)).reshape(3, 50, 25))


def tensor(name: str) -> Tensor:
    return torch.from_numpy(golden("belfusion")[name])


def error(got: Tensor, expected: npt.NDArray[np.float32]) -> float:
    assert got.shape == expected.shape
    return float((got - torch.from_numpy(expected)).abs().max())


def test_windows_give_the_published_reaction(network: BeLFusion, windows: Tensor) -> None:
    case = golden("belfusion")
    coefficients, emotion = network(windows, tensor("noise"))
    assert error(coefficients.reshape(1, 150, 58), case["prediction_3dmm"]) <= 1e-5
    assert error(emotion.reshape(1, 150, 25), case["prediction_emotion"]) <= 1e-5


def test_conditions_and_single_predictions_are_the_published_ones(network: BeLFusion, windows: Tensor) -> None:
    case = golden("belfusion")
    assert error(network.statistics.scale(network.vae.encode(windows)), case["cond"]) <= 1e-6
    for t in (0, 5, 9):
        assert error(network.mlp(tensor("noise"), t, tensor("cond")), case[f"mlp_out_t{t}"]) <= 1e-5
    np.testing.assert_allclose(cosine_schedule().kept, case["alphas_cumprod"], rtol=1e-12)


def test_the_exported_graph_reacts_as_the_network_with_all_that_is_hoisted(network: BeLFusion, windows: Tensor) -> None:
    case, graph = golden("belfusion"), BeLFusionWindow(network)
    with torch.inference_mode():
        for index in range(3):
            now = slice(50 * index, 50 * index + 50)
            coefficients, emotion = graph(windows[index : index + 1], tensor("noise")[index : index + 1])
            assert error(coefficients, case["prediction_3dmm"][:, now]) <= 1e-5
            assert error(emotion, case["prediction_emotion"][:, now]) <= 1e-5


def test_samples_in_one_batch_equal_single_runs(network: BeLFusion, windows: Tensor) -> None:
    graph, noise = BeLFusionWindow(network), torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = graph(windows[1:2], noise)
        for sample in range(3):
            alone = graph(windows[1:2], noise[sample : sample + 1])
            for ours, theirs in zip(together, alone, strict=True):
                torch.testing.assert_close(ours[sample : sample + 1], theirs, atol=1e-5, rtol=0)


def test_the_update_from_gates_is_pytorchs_gru_cell() -> None:
    torch.manual_seed(0)
    cell, frame, state = nn.GRUCell(5, 7), torch.randn(3, 5), torch.randn(3, 7)
    from_input = nn.functional.linear(frame, cell.weight_ih, cell.bias_ih)
    from_state = nn.functional.linear(state, cell.weight_hh, cell.bias_hh)
    torch.testing.assert_close(gru_update(from_input, from_state, state), cell(frame, state))


def test_the_onnx_graph_serves_any_number_of_samples() -> None:
    made = exported_generator("belfusion")
    engine = OrtEngine(made.graphs.path("belfusion", "fp32"))
    module = made.parts.modules()["belfusion"]
    assert max(graph_errors(module, engine, RECIPE, [{"samples": 1}, {"samples": 7}], seed=2).values()) <= 2e-5


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, network: BeLFusion) -> tuple[nn.Module, Any]:
    """The exported module with three steps and six frames, for its size is of no matter, and its recipe."""
    monkeypatch.setattr(belfusion, "STEPS", 3)
    monkeypatch.setattr(belfusion, "WINDOW", 6)
    outputs = {"coefficients": floats("samples", 6, 58), "emotion": floats("samples", 6, 25)}
    inputs = {"speaker_emotion": floats(1, 6, 25), "noise": floats("samples", 128)}
    return BeLFusionWindow(network), replace(RECIPE, inputs=inputs, outputs=outputs)


def test_reduced_precision_stays_close_keeps_its_interface_and_builds(
    short: tuple[nn.Module, Any], tmp_path: Path
) -> None:
    module, recipe = short
    path = tmp_path / "belfusion.onnx"
    trace(module, recipe, path, precision="fp16")
    errors = graph_errors(module, OrtEngine(path), recipe, recipe.size_sets)
    assert 0 < max(errors.values()) < 5e-3
    if find_spec("tensorrt_rtx"):
        profile = profile_for(recipe.inputs, {"samples": (1, 1, 4)})
        engine = tmp_path / "belfusion.engine"
        build_engine(path, engine, backend="tensorrt-rtx", profile=profile, precision="fp16")
        assert engine.stat().st_size > 1_000_000


def test_each_part_loads_alone_with_the_second_names_and_what_is_not_used() -> None:
    mlp, vae = load_model("belfusion_mlp", weights("mlp")), load_model("belfusion_vae", weights("vae") | statistics())
    assert isinstance(mlp, SkipMLP)
    assert isinstance(vae, EmotionVAE)
    emotion = torch.rand(2, 50, 25)
    assert vae(emotion).shape == emotion.shape
    lean = {k: v for k, v in weights("mlp").items() if "cond_layers" not in k}
    assert len(weights("mlp")) - len(lean) == 18
    load_model("belfusion_mlp", lean)


def test_bounds_of_the_latent_are_needed_and_its_other_moments_are_not() -> None:
    union = weights("mlp") | weights("vae")
    with pytest.raises(StateDictError, match=r"2 problems\): missing statistics\.min; missing statistics\.max"):
        load_model("belfusion", union)
    moments = {f"statistics.{name}": torch.zeros(128) for name in ("mean", "std", "var")}
    load_model("belfusion", union | statistics() | moments)


def test_untrained_bounds_enclose_something() -> None:
    made = untrained("belfusion", 3)
    assert (made["statistics.max"] - made["statistics.min"] > 0.5).all()


def test_input_that_does_not_fit_is_told(network: BeLFusion) -> None:
    with pytest.raises(InputError, match=r"emotion is \[B, 50, 25\], got \[1, 49, 25\]"):
        network(torch.zeros(1, 49, 25), torch.zeros(1, 128))
    with pytest.raises(InputError, match=r"noise is \[2, 128\], got \[1, 128\]"):
        network(torch.zeros(2, 50, 25), torch.zeros(1, 128))
