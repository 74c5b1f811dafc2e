"""Keys that fit and keys that do not: what is taken, and one short error with the likely cause for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from support.export.reactface_tables import position_tables
from torch import Tensor, nn

from pflx.export import StateDictError, load_component, load_model, untrained
from pflx.export.components import load_generator
from pflx.export.generators import ExportSettings
from pflx.export.models import NETWORKS
from pflx.export.models.keys import Keys, check_strictly, load_strictly, public_shapes
from pflx.export.models.reactface import KEYS

POSITION_CONV = "speaker_reaction_decoder.audio_encoder.wav2vec2.encoder.pos_conv_embed.conv.weight"


@pytest.fixture(scope="module")
def posnet() -> dict[str, Tensor]:
    return untrained("posnet", 0, slide=8)


@pytest.fixture(scope="module")
def reactface() -> dict[str, Tensor]:
    """The public keys and shapes, without numbers: 94 million of them are not looked at here."""
    with torch.device("meta"):
        return {key: torch.empty(shape) for key, shape in public_shapes(NETWORKS["reactface"].build(), KEYS).items()}


def check(name: str, weights: Mapping[str, Tensor]) -> None:
    """As `load_model` does before it takes any number."""
    network = NETWORKS[name]
    with torch.device("meta"):
        draft = network.build()
    check_strictly(name, draft, network.keys, weights)


def refused(name: str, weights: Mapping[str, Tensor]) -> StateDictError:
    with pytest.raises(StateDictError) as caught:
        load_model(name, weights) if name == "posnet" else check(name, weights)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return caught.value


def test_a_network_of_half_the_width_is_told_so_in_few_words() -> None:
    halves = {
        key: value[tuple(slice(max(1, size // 2)) if size > 8 else slice(None) for size in value.shape)]
        for key, value in untrained("pirender", 0).items()
    }
    error = refused("pirender", halves)
    assert len(error.problems) > 200
    assert f"({len(error.problems)} problems): " in str(error)
    assert f"; and {len(error.problems) - 3} more. Its layers are 0.5 times as wide" in str(error)


@pytest.mark.parametrize("spelling", ["old", "new"])
def test_spectral_norm_is_recognised(posnet: dict[str, Tensor], spelling: str) -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(4, 4)

    module = Normed()
    norm = nn.utils.spectral_norm if spelling == "old" else nn.utils.parametrizations.spectral_norm
    norm(module.fc1)
    made = {key: value for key, value in posnet.items() if key != "fc1.weight"} | dict(module.state_dict())
    text = str(refused("posnet", made))
    assert "It has spectral norm: call torch.nn.utils.remove_spectral_norm" in text


def test_removed_weight_norm_is_taken_as_the_weight_it_is() -> None:
    layer, keys = nn.Conv1d(4, 6, 3), Keys(weight_norm={"weight": 2})
    weights = {"weight": torch.randn(6, 4, 3), "bias": torch.randn(6)}
    load_strictly("it", layer, keys, weights)
    assert torch.equal(layer.weight, weights["weight"])
    with pytest.raises(StateDictError) as caught:
        load_strictly("it", layer, keys, weights | {"weight": torch.zeros(5, 4, 3)})
    assert caught.value.problems == ("weight is [5, 4, 3], not [6, 4, 3]",)


def test_the_weight_norm_of_reactface_may_be_removed(reactface: dict[str, Tensor]) -> None:
    left = {key: value for key, value in reactface.items() if key not in (f"{POSITION_CONV}_g", f"{POSITION_CONV}_v")}
    check("reactface", left | {POSITION_CONV: torch.empty(768, 48, 128, device="meta")})
    assert refused("reactface", left).problems == (f"missing {POSITION_CONV}_g", f"missing {POSITION_CONV}_v")


def test_most_of_a_network_missing_is_told_so(reactface: dict[str, Tensor]) -> None:
    part = {key: value for key, value in reactface.items() if key.startswith("video_encoder.")}
    assert "Most of the network is missing" in str(refused("reactface", part))


@pytest.mark.parametrize(
    "shape", [(), (48,), (0, 512), (5, 512), (48, 0), (50, 512), (48, 2_000_000), (6_000_000, 512), (48, 4, 4)]
)
def test_no_memory_is_taken_for_a_size_that_one_layer_tells(posnet: dict[str, Tensor], shape: tuple[int, ...]) -> None:
    error = refused("posnet", posnet | {"fc3.weight": torch.zeros(()).expand(shape)})
    assert any(problem.startswith("fc") for problem in error.problems)


def test_the_file_is_named(tmp_path: Path, posnet: dict[str, Tensor]) -> None:
    path = tmp_path / "it.pth"
    torch.save({key: value for key, value in posnet.items() if key != "fc1.weight"}, path)
    with pytest.raises(StateDictError) as caught:
        load_component(path, "posnet")
    assert str(caught.value) == (
        f"{path}: the state dict does not fit posnet (1 problem): missing fc1.weight. The file holds a part of the "
        "network: save all of model.state_dict()."
    )
    emotion = untrained("perfrdiff", 0)
    emotion.pop("to_3dmm_embed.bias")
    torch.save(emotion, path)
    with pytest.raises(StateDictError) as caught:
        load_generator([path], ExportSettings())
    assert str(caught.value).startswith(f"{path}: the state dict does not fit perfrdiff (1 problem): missing")


# What no step reads


@pytest.mark.parametrize("rows", [None, 8, 64, 750, 6000])
def test_position_tables_of_any_length_are_accepted_if_their_values_are_those_computed(
    reactface: dict[str, Tensor], rows: int | None
) -> None:
    check("reactface", reactface | position_tables(rows))
    check("reactface", reactface | {key: value.half() for key, value in position_tables(rows).items()})


@pytest.mark.parametrize("key", sorted(position_tables(8)))
def test_a_position_table_with_other_values_is_refused_by_name(reactface: dict[str, Tensor], key: str) -> None:
    for table in (
        position_tables()[key] + 0.1,
        torch.zeros_like(position_tables()[key]),
        position_tables()[key].flip(-1),
    ):
        error = refused("reactface", reactface | {key: table})
        assert error.problems == (f"{key} holds other positions than those that the network computes with",)
    shaped = refused("reactface", reactface | {key: torch.zeros(3, 2, 128)})
    assert f"{key} is [3, 2, 128], not [" in shaped.problems[0]


@pytest.mark.parametrize(
    ("network", "key", "dim"), [("transvae", "reaction_decoder.PE.pe", 128), ("perfrdiff", "mem_pos.pe", 512)]
)
def test_tables_of_other_networks_are_looked_at_too(network: str, key: str, dim: int) -> None:
    weights = untrained(network, 0)
    error = refused(network, weights | {key: torch.ones(40, 1, dim)})
    assert error.problems == (f"{key} holds other positions than those that the network computes with",)


def test_a_second_name_must_hold_what_is_under_the_first() -> None:
    weights = untrained("belfusion_mlp", 0)
    first, second = "layers.0.linear_emb.weight", "layers.0.cond_layers.1.weight"
    check("belfusion_mlp", weights | {second: weights[first].clone()})
    error = refused("belfusion_mlp", weights | {second: weights[first] + 1})
    assert error.problems == (f"{second} differs from {first}, whose second name it is",)
    assert refused("belfusion_mlp", weights | {second: weights[first][1:]}).problems[0].startswith(f"{second} is [")


def test_other_unread_keys_are_held_to_their_shape() -> None:
    layer = nn.Linear(2, 2)
    weights = {key: torch.zeros(value.shape) for key, value in layer.state_dict().items()}
    keys = Keys(unused={"head.weight": (5, 2)})
    load_strictly("it", layer, keys, weights | {"head.weight": torch.ones(5, 2)})
    with pytest.raises(StateDictError, match=r"head\.weight is \[2, 5\], not \[5, 2\]"):
        load_strictly("it", layer, keys, weights | {"head.weight": torch.ones(2, 5)})
