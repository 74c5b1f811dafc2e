"""Trans-VAE: the published numbers, the graphs that are exported, and what their history may be."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.exported_generators import exported_generator
from support.golden_arrays import golden, moving_picture, to_float
from torch import Tensor, nn

from pflx.engines import OrtEngine
from pflx.engines.building.build import build_engine, profile_for
from pflx.export import InputError, ModelOptionError, StateDictError, load_model
from pflx.export.errors import ComponentError
from pflx.export.generators import ExportSettings
from pflx.export.generators.transvae import HISTORY, TransVAEParts
from pflx.export.models import TransVAE, TransVAEFirst, TransVAENext
from pflx.export.models.layers import sinusoid
from pflx.export.models.transvae import LSTM, MAX_FRAMES, Past
from pflx.export.models.weights import fill
from pflx.export.parity import graph_errors
from pflx.export.trace import trace

W = 8
TABLE = "reaction_decoder.PE.pe"


def weights() -> dict[str, npt.NDArray[np.float32]]:
    """Every key of the published network but its table, as the fixture was made with."""
    shapes = json.loads(str(golden("transvae")["keys"]))
    return fill({key: tuple(shape) for key, shape in shapes.items() if key != TABLE}, 1)


def tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(array)


def error(got: Tensor, expected: npt.NDArray[np.float32]) -> float:
    assert got.shape == expected.shape
    return float((got - tensor(expected)).abs().max())


@pytest.fixture(scope="module")
def network() -> TransVAE:
    made = load_model("transvae", weights(), window=W)
    assert isinstance(made, TransVAE)
    return made


@pytest.fixture(scope="module")
def video() -> Tensor:
    """uint8 [1, 24, 224, 224, 3]."""
    return tensor(moving_picture("tv0", 24, 224))[None]


def as_float(video: Tensor) -> Tensor:
    return tensor(to_float(video.numpy()))


def test_three_steps_give_the_published_reaction(network: TransVAE, video: Tensor) -> None:
    case, pictures = golden("transvae"), as_float(video)
    mfcc = tensor(case["speaker_audio"])
    coefficients, emotion = torch.zeros(1, 0, 58), torch.zeros(1, 0, 25)
    for step in range(3):
        seen = slice(0, W * (step + 1))
        made = network(pictures[:, seen], mfcc[:, seen], coefficients, emotion, tensor(case["eps"][step]))
        coefficients, emotion = torch.cat((coefficients, made[0]), 1), torch.cat((emotion, made[1]), 1)
    assert error(coefficients, case["out_3dmm"]) <= 1e-5
    assert error(emotion, case["out_emotion"]) <= 1e-5


def test_features_and_latent_are_the_published_ones(network: TransVAE, video: Tensor) -> None:
    case, pictures = golden("transvae"), as_float(video)
    encoder = network.speaker_behaviour_encoder
    assert error(encoder.video_encoder(pictures[:, :2]), case["video_feature_2frames"]) <= 1e-5
    past = Past(tensor(case["out_3dmm"][:, :16]), tensor(case["out_emotion"][:, :16]))
    speaker = encoder(pictures, tensor(case["speaker_audio"]))
    assert error(speaker, case["speaker_feature_step2"]) <= 1e-5
    assert error(network.fuse(speaker, past, 1), case["fused_feature_step2"]) <= 2e-5
    mean, deviation = network.latent(speaker, past, 1)
    assert error(mean, case["mu"][2]) <= 1e-5
    assert error(deviation, case["std"][2]) <= 1e-5


def test_the_exported_graphs_react_as_the_network_and_keep_what_later_steps_need(
    network: TransVAE, video: Tensor
) -> None:
    case, first, following = golden("transvae"), TransVAEFirst(network), TransVAENext(network)
    mfcc, eps = tensor(case["speaker_audio"]), tensor(case["eps"])
    with torch.inference_mode():
        *reaction, features, moments = first(video[:, :W], mfcc[:, :W], eps[0])
        for now in (W, 2 * W):
            new = slice(now, now + W)
            kept = features, moments, mfcc[:, :now], *reaction
            *made, more_features, more_moments = following(video[:, new], mfcc[:, new], eps[now // W], *kept)
            reaction = [torch.cat(pair, 1) for pair in zip(reaction, made, strict=True)]
            features, moments = torch.cat((features, more_features)), torch.cat((moments, more_moments))
    assert error(reaction[0], case["out_3dmm"]) <= 1e-5
    assert error(reaction[1], case["out_emotion"]) <= 1e-5


def test_the_written_out_lstm_is_pytorchs() -> None:
    torch.manual_seed(0)
    theirs, ours = nn.LSTM(16, 16, batch_first=True), LSTM(16)
    ours.load_state_dict(theirs.state_dict())
    tokens, start = torch.randn(3, 5, 16), torch.randn(3, 16)
    expected, _ = theirs(tokens, (start[None], start[None]))
    torch.testing.assert_close(ours(tokens, start), expected)


@pytest.mark.parametrize(("history", "samples"), [(1, 1), (5, 3), (40, 2)])
def test_the_exported_history_is_as_long_as_one_likes(history: int, samples: int) -> None:
    made = exported_generator("transvae")
    recipe = made.parts.recipes[1]
    module = made.parts.modules()[recipe.graph]
    engine = OrtEngine(made.graphs.path(recipe.graph, "fp32"))
    errors = graph_errors(module, engine, recipe, [{"history": history, "samples": samples}])
    assert max(errors.values()) <= 1e-4


def test_reduced_precision_stays_close_and_keeps_its_interface(tmp_path: Path) -> None:
    parts = TransVAEParts(cast(TransVAE, load_model("transvae", weights(), window=2)))
    recipe = parts.recipes[1]
    module, path = parts.modules()[recipe.graph], tmp_path / "next.onnx"
    trace(module, recipe, path, precision="fp16")
    errors = graph_errors(module, OrtEngine(path), recipe, [{"history": 3, "samples": 2}])
    assert errors["coefficients"] < 2e-2
    assert errors["emotion"] < 2e-2
    assert path.stat().st_size < 4e6


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_every_graph_builds_with_a_growing_history(tmp_path: Path) -> None:
    made = exported_generator("transvae")
    for recipe in made.parts.recipes:
        profile = profile_for(recipe.inputs, {"samples": (1, 1, 4), "history": (1, 64, 64)})
        source, target = made.graphs.path(recipe.graph, "fp32"), tmp_path / f"{recipe.graph}.engine"
        build_engine(source, target, backend="tensorrt-rtx", profile=profile, precision="fp32")
        assert target.stat().st_size > 1_000_000


def test_the_published_network_with_a_bounded_history_begins_later(network: TransVAE, video: Tensor) -> None:
    case = golden("transvae")
    windows = [
        {"video": video[0, now : now + W].numpy(), "mfcc": case["speaker_audio"][0, now : now + W]}
        for now in (0, W, 2 * W)
    ]
    with torch.inference_mode():
        bounded = TransVAEParts(network, history=W).published(windows, case["eps"])
    assert error(bounded[:, : 2 * W], case["out_3dmm"][:, : 2 * W]) <= 1e-5
    assert error(bounded[:, 2 * W :], case["out_3dmm"][:, 2 * W :]) > 1e-3


def test_the_manifest_holds_the_history() -> None:
    network = TransVAE()
    assert TransVAEParts(network).info.settings == {"history": HISTORY}
    assert TransVAEParts(network, 0).info.settings == {"history": 0}
    with pytest.raises(ComponentError, match="Give at most 743, or 0"):
        TransVAEParts(network, 744)
    assert exported_generator("transvae").parts.info.settings == {"history": HISTORY}
    assert replace(ExportSettings(), history=5).given == {"history": 5}


def test_a_table_of_positions_loads_and_other_keys_do_not() -> None:
    given: dict[str, Any] = dict(weights())
    load_model("transvae", given | {TABLE: sinusoid(5000, 128)[:, None]}, window=16)
    with pytest.raises(StateDictError, match=r"reaction_decoder\.PE\.pe holds other positions"):
        load_model("transvae", given | {TABLE: torch.zeros(5000, 1, 128)}, window=16)
    with pytest.raises(StateDictError, match=r"missing fusion\.bias; unknown fusion\.gain"):
        load_model("transvae", {k: v for k, v in given.items() if k != "fusion.bias"} | {"fusion.gain": torch.ones(1)})


@pytest.mark.parametrize("window", [0, MAX_FRAMES + 1])
def test_a_window_beyond_the_masks_is_refused(window: int) -> None:
    with pytest.raises(ModelOptionError, match=f"1 to 751 frames, 8 or 16 usually; got {window}"):
        TransVAE(window)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((1, 8, 3, 96, 96), (1, 8, 78), (1, 0, 58), (1, 0, 25)), r"got \[1, 8, 3, 96, 96\]"),
        (((1, 4, 3, 224, 224), (1, 4, 78), (1, 0, 58), (1, 0, 25)), "takes 8 to 751 frames, got 4"),
        (((1, 8, 3, 224, 224), (1, 8, 26), (1, 0, 58), (1, 0, 25)), r"need \[1, 8, 78\], got \[1, 8, 26\]"),
        (((1, 9, 3, 224, 224), (1, 9, 78), (1, 0, 58), (1, 1, 25)), r"1 of them past, need \[1, 1, 58\]"),
    ],
)
def test_input_that_does_not_fit_is_told(network: TransVAE, shapes: tuple[tuple[int, ...], ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        network(*(torch.zeros(shape) for shape in shapes), torch.zeros(1, 128))
