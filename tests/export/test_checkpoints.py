from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.places import GOLDEN
from torch import Tensor

from pflx.engines import PflxError
from pflx.export import (
    CheckpointError,
    StateDictError,
    UnknownComponentError,
    WrongComponentError,
    detect_component,
    load_component,
    read_checkpoint,
    untrained,
)
from pflx.export.models import PosNet

KEYS = (GOLDEN / "keys.json").read_text()


class Surprise:
    """Whatever class a training script may have pickled along."""


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return untrained("posnet", 0, slide=8)


def save(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def message(path: Path | str) -> str:
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(path)
    assert isinstance(raised.value, PflxError)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("wrap", "nesting"),
    [
        (lambda w: w, ""),
        (lambda w: {"state_dict": w, "epoch": 3, "optimizer": {"state": {}}}, "state_dict"),
        (lambda w: {"model": w, "state_dict": {"other": torch.zeros(1)}}, "model"),
        (lambda w: {"net_G": {"other": torch.zeros(1)}, "net_G_ema": w, "opt_G": {}}, "net_G_ema"),
        (lambda w: {"net_G": {f"module.{key}": value for key, value in w.items()}}, "net_G"),
        (lambda w: {"model": {"state_dict": w}}, "model.state_dict"),
        (lambda w: {f"module.{key.replace('.', '.module.', 1)}": value for key, value in w.items()}, ""),
    ],
)
def test_weights_are_found_wherever_training_code_puts_them(
    tmp_path: Path, weights: dict[str, Tensor], wrap: Callable[[dict[str, Tensor]], object], nesting: str
) -> None:
    path = save(tmp_path / "it.pth", wrap(weights))
    checkpoint = read_checkpoint(path)
    assert checkpoint.nesting == nesting
    assert checkpoint.state_dict.keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in checkpoint.state_dict.items())
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors", "-legacy.pth"])
def test_every_file_format_gives_the_same_weights(tmp_path: Path, weights: dict[str, Tensor], suffix: str) -> None:
    path = tmp_path / f"it{suffix}"
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        save(path, weights, _use_new_zipfile_serialization="legacy" not in suffix)
    network, checkpoint = load_component(path, "posnet")
    assert isinstance(network, PosNet)
    assert network.slide == 8
    assert checkpoint.state_dict.keys() == weights.keys()


def test_what_was_set_aside_is_noted(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    wrapped = {f"module.{key}": value for key, value in weights.items()} | {"version": 2}
    path = save(tmp_path / "it.pth", {"epoch": 1, "state_dict": wrapped, "optimizer": {}})
    assert read_checkpoint(path).notes == (
        "not read beside state_dict: epoch, optimizer",
        "no tensors: version",
        "'module.' removed from keys",
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_needs_arbitrary_pickle_is_refused(tmp_path: Path, zipped: bool) -> None:
    path = save(tmp_path / "it.pth", {"extra": Surprise()}, _use_new_zipfile_serialization=zipped)
    text = message(path)
    assert "Surprise, which could run any code, so it was not loaded" in text
    assert "torch.save(model.state_dict(), path)" in text


def test_a_plain_pickle_is_refused_unopened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    for protocol in (2, 4):
        path = tmp_path / f"{protocol}.pth"
        path.write_bytes(pickle.dumps({"state_dict": Bomb()}, protocol))
        assert "could run any code, so it was not loaded" in message(path)
    assert not (tmp_path / "ran").exists()


def test_damaged_files_say_so_in_one_line(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    content = save(tmp_path / "it.pth", weights).read_bytes()
    legacy = save(tmp_path / "old.pth", weights, _use_new_zipfile_serialization=False).read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    cases = {
        "truncated.pth": content[: len(content) // 2],
        "flipped.pth": bytes(flipped),
        "truncated-legacy.pth": legacy[: len(legacy) // 2],
        "noise.pth": bytes(range(1, 256)) * 9,
        "page.pth": b"<!DOCTYPE html><html>Not found</html>",
        "text.pth": b"hello\n" * 50,
        "noise.safetensors": bytes(range(256)) * 9,
    }
    for name, damaged in cases.items():
        path = tmp_path / name
        path.write_bytes(damaged)
        text = message(path)
        assert text.startswith(str(path))
        assert "damaged" in text or "is no PyTorch checkpoint" in text
        assert "copy or download it again" in text


def test_a_path_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    assert message(tmp_path / "missing.pth").endswith("missing.pth does not exist.")
    assert message(tmp_path / "empty.pth").endswith("is empty; copy or download it again.")
    assert message(tmp_path).endswith("is a directory; pass the checkpoint file in it.")


def test_a_file_without_named_tensors_is_refused(tmp_path: Path) -> None:
    assert "holds a list, not a state dict" in message(save(tmp_path / "list.pth", [torch.zeros(2)]))
    assert "holds no named tensors" in message(save(tmp_path / "none.pth", {"state_dict": {"epoch": 3}}))
    both = {"a": torch.zeros(1), "module.a": torch.zeros(1)}
    assert "differ only by 'module.'" in message(save(tmp_path / "both.pth", both))


@pytest.mark.parametrize("name", ["pirender", "pirender73", "posnet", "reactface"])
def test_a_component_is_known_by_its_keys(name: str) -> None:
    assert detect_component(json.loads(KEYS)[name]) == name


def test_unknown_keys_are_shown(tmp_path: Path) -> None:
    with pytest.raises(UnknownComponentError, match="the first of 4 keys are a, b, c"):
        detect_component(dict.fromkeys("abcd", 0))
    path = save(tmp_path / "it.pth", {"conv1.weight": torch.zeros(1)})
    with pytest.raises(UnknownComponentError, match=r"it\.pth: These are not the weights of pirender"):
        load_component(path, "posnet")


def test_a_component_in_the_wrong_slot_is_told_where_to_go(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    generator = save(tmp_path / "g.pth", {"video_encoder.Conv3D.conv1.weight": torch.zeros(1)})
    with pytest.raises(WrongComponentError) as raised:
        load_component(generator, "posnet")
    assert str(raised.value) == f"--posnet {generator} holds a ReactFace generator, not PosNet: pass it to --generator."
    original = save(tmp_path / "r.pth", {"mapping_net.first.0.weight": torch.zeros(1)})
    with pytest.raises(WrongComponentError, match=r"\(73 coefficients\), not .*\(58 coefficients\): pass one with"):
        load_component(original, "pirender")


def test_a_component_with_missing_weights_lists_them(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    del (fewer := dict(weights))["fc1.weight"]
    with pytest.raises(StateDictError, match=r"does not fit posnet \(1 problem\): missing fc1\.weight"):
        load_component(save(tmp_path / "it.pth", fewer), "posnet")
