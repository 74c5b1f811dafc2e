"""Weights below other entries and behind prefixes, found by their keys; averages before raw copies."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from pflx.export import CheckpointError, UnknownComponentError, load_component, read_checkpoint, untrained
from pflx.export.components import load_generator
from pflx.export.generators import ExportSettings

Weights = dict[str, Tensor]
OTHER = {"other": torch.zeros(1)}


@pytest.fixture(scope="module")
def weights() -> Weights:
    return untrained("posnet", 0, slide=8)


@pytest.fixture(scope="module")
def raw() -> Weights:
    return untrained("posnet", 1, slide=8)


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}{key}": value for key, value in weights.items()}


@pytest.mark.parametrize(
    ("wrap", "nesting"),
    [
        (lambda w: w, ""),
        (
            lambda w: {"state_dict": w, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(2)}}}},
            "state_dict",
        ),
        (lambda w: {"model": w, "state_dict": OTHER}, "model"),
        (lambda w: {"net_G": OTHER, "net_G_ema": w, "opt_G": {}}, "net_G_ema"),
        (lambda w: {"net_G": prefixed("module.", w)}, "net_G"),
        (lambda w: {"model": {"state_dict": w}}, "model.state_dict"),
        (lambda w: {"model_state_dict": w}, "model_state_dict"),
        (lambda w: {"generator": {"params_ema": w}}, "generator.params_ema"),
        (lambda w: {"something": {"nobody": {"thought": {"of": OrderedDict(w)}}}}, "something.nobody.thought.of"),
        (lambda w: {f"module.{key.replace('.', '.module.', 1)}": value for key, value in w.items()}, ""),
        (lambda w: {key.replace(".", "._orig_mod.", 1): value for key, value in w.items()}, ""),
        (lambda w: prefixed("_orig_mod.module.", w), ""),
    ],
)
def test_weights_are_found_wherever_training_code_puts_them(
    tmp_path: Path, weights: Weights, wrap: Callable[[Weights], object], nesting: str
) -> None:
    checkpoint = read_checkpoint(save(tmp_path / "it.pth", wrap(weights)))
    assert checkpoint.nesting == nesting
    assert same(checkpoint.state_dict, weights)


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "net.", "netG.", "posnet.", "any.thing.at.all.", "model.module."]
)
@pytest.mark.parametrize("nested", [False, True])
def test_one_prefix_common_to_all_keys_is_removed_with_a_note(
    tmp_path: Path, weights: Weights, prefix: str, nested: bool
) -> None:
    content: Any = prefixed(prefix, weights) | {"criterion.scale": torch.zeros(1)}
    found = read_checkpoint(save(tmp_path / "it.pth", {"state_dict": content} if nested else content))
    assert same(found.state_dict, weights)
    assert f"'{prefix.replace('module.', '') or prefix}' removed from keys" in found.notes
    assert "1 keys without that not read" in found.notes


def test_what_pytorch_itself_makes_of_a_network_is_read(tmp_path: Path, weights: Weights) -> None:
    network, _ = load_component(save(tmp_path / "it.pth", weights), "posnet")
    averaged = torch.optim.swa_utils.AveragedModel(network)
    for made in (averaged, torch.nn.DataParallel(network), cast(torch.nn.Module, torch.compile(network))):
        content = made.state_dict()
        assert content.keys() != weights.keys()
        again, found = load_component(save(tmp_path / "made.pth", content), "posnet")
        assert same(dict(again.state_dict()), dict(network.state_dict()))
        assert any("removed from keys" in note for note in found.notes)


def test_what_was_set_aside_is_noted(tmp_path: Path, weights: Weights) -> None:
    wrapped = prefixed("module.", weights) | {"version": 2}
    path = save(tmp_path / "it.pth", {"epoch": 1, "state_dict": wrapped, "optimizer": {}})
    assert read_checkpoint(path).notes == (
        "not read beside state_dict: epoch, optimizer",
        "no tensors: version",
        "'module.' removed from keys",
    )


@pytest.mark.parametrize(
    ("copies", "chosen", "left"),
    [
        (("model", "ema"), "ema", "model"),
        (("ema", "model"), "ema", "model"),
        (("state_dict", "model_ema"), "model_ema", "state_dict"),
        (("params", "params_ema"), "params_ema", "params"),
        (("net_G", "net_G_ema"), "net_G_ema", "net_G"),
        (("g", "g_ema"), "g_ema", "g"),
        (("state_dict", "ema_state_dict"), "ema_state_dict", "state_dict"),
        (("netG", "netGEma"), "netGEma", "netG"),
        (("model", "modelEMA"), "modelEMA", "model"),
        (("model", "model-ema"), "model-ema", "model"),
    ],
)
def test_an_average_is_preferred_and_the_choice_is_said(
    tmp_path: Path, weights: Weights, raw: Weights, copies: tuple[str, str], chosen: str, left: str
) -> None:
    path = save(tmp_path / "it.pth", {name: weights if name == chosen else raw for name in copies})
    found = read_checkpoint(path)
    assert same(found.state_dict, weights)
    assert found.notes[0] == f"took {chosen}, an average of weights, and not {left}"


def test_an_average_behind_another_prefix_of_the_same_entry_is_preferred(
    tmp_path: Path, weights: Weights, raw: Weights
) -> None:
    content = {"state_dict": prefixed("net.", raw) | prefixed("ema_net.module.", weights)}
    found = read_checkpoint(save(tmp_path / "it.ckpt", content))
    assert same(found.state_dict, weights)
    assert found.notes[0] == "took state_dict.ema_net, an average of weights, and not state_dict.net"


def test_of_copies_without_an_average_the_first_is_taken_and_said(
    tmp_path: Path, weights: Weights, raw: Weights
) -> None:
    found = read_checkpoint(save(tmp_path / "it.pth", {"generator": weights, "model": raw}))
    assert same(found.state_dict, weights)
    assert found.notes[0] == "took generator, and not model"


def test_a_name_with_these_letters_in_it_is_no_average(tmp_path: Path, weights: Weights, raw: Weights) -> None:
    found = read_checkpoint(save(tmp_path / "it.pth", {"model": weights, "schema": raw}))
    assert same(found.state_dict, weights)


def test_an_average_of_a_part_is_left_and_said(tmp_path: Path, weights: Weights, raw: Weights) -> None:
    part = {key: value for key, value in raw.items() if not key.startswith("fc1")}
    found = read_checkpoint(save(tmp_path / "it.pth", {"model": weights, "ema": part}))
    assert same(found.state_dict, weights)
    assert found.notes[0] == "took model, and not ema"


def test_an_average_without_names_is_said_and_not_taken(tmp_path: Path, weights: Weights, raw: Weights) -> None:
    """As torch_ema keeps it: a list, in the order of the parameters."""
    average = {"decay": 0.99, "shadow_params": [*raw.values()]}
    found = read_checkpoint(save(tmp_path / "it.pth", {"model": weights, "ema": average}))
    assert same(found.state_dict, weights)
    said = "ema.shadow_params is an average of weights without their names, and was not taken"
    assert len([note for note in found.notes if note.startswith(said)]) == 1
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(save(tmp_path / "alone.pth", {"ema": average}))


def test_a_file_with_several_networks_serves_every_slot(tmp_path: Path, weights: Weights) -> None:
    mlp = untrained("belfusion_mlp", 0)
    path = save(tmp_path / "all.ckpt", {"state_dict": prefixed("posnet.", weights) | prefixed("generator.", mlp)})
    assert same(load_component(path, "posnet")[1].state_dict, weights)
    assert same(load_component(path, "belfusion_mlp")[1].state_dict, mlp)


def test_a_dictionary_that_contains_itself_is_refused(tmp_path: Path, weights: Weights) -> None:
    for entry in ("state_dict", "anything"):
        around: dict[str, Any] = {"epoch": 1} | dict(weights)
        around[entry] = around
        deep: dict[str, Any] = {"a": {"b": {}}}
        deep["a"]["b"][entry] = deep["a"]
        for content in (around, deep):
            path = save(tmp_path / "it.pth", content)
            with pytest.raises(CheckpointError, match=f"a dictionary that contains itself, as '{entry}'"):
                read_checkpoint(path)


def test_one_dictionary_under_many_names_is_looked_at_once(tmp_path: Path, weights: Weights) -> None:
    content: dict[str, Any] = {"state_dict": weights}
    for _ in range(40):
        content = {"left": content, "right": content}
    with pytest.raises(CheckpointError, match="holds no named tensors"):
        read_checkpoint(save(tmp_path / "deep.pth", content))  # below 40 levels
    assert read_checkpoint(save(tmp_path / "it.pth", {"one": weights, "two": weights})).nesting == "one"


def test_a_file_without_named_tensors_is_refused(tmp_path: Path) -> None:
    for content, said in (
        ([torch.zeros(2)], "holds a list, not a state dict"),
        ({"state_dict": {"epoch": 3}}, "holds no named tensors; it holds state_dict"),
        ({}, "holds no named tensors; it holds nothing"),
        ({"a": torch.zeros(1), "module.a": torch.zeros(1)}, "differ only by 'module.'"),
        ({"_orig_mod.a": torch.zeros(1), "a": torch.zeros(1)}, "differ only by '_orig_mod.'"),
    ):
        path = save(tmp_path / "it.pth", content)
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(path)
        assert said in str(caught.value)


def test_unknown_weights_are_listed_with_how_to_extract_them(tmp_path: Path) -> None:
    content = {"teacher": {"conv1.weight": torch.zeros(1)}, "student": dict.fromkeys("abcd", torch.zeros(1))}
    path = save(tmp_path / "it.pth", content)
    with pytest.raises(UnknownComponentError) as caught:
        load_component(path, "posnet")
    text = str(caught.value)
    assert text.startswith(f"{path}: These are not the weights of pirender")
    assert "It holds teacher: 1 tensors (conv1.weight); student: 4 tensors (a, b, c, ...)." in text
    assert "torch.save(network.state_dict(), 'weights.pth')" in text
    with pytest.raises(UnknownComponentError, match="It holds teacher"):
        load_generator([path], ExportSettings())
