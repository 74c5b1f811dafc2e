"""Which network a checkpoint holds, and where it goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.places import GOLDEN
from torch import Tensor

from pflx.export import UnknownComponentError, WrongComponentError, detect_component, load_component

KEYS = json.loads((GOLDEN / "keys.json").read_text())


def save(path: Path, content: dict[str, Tensor]) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", ["pirender", "pirender73", "posnet", "reactface"])
def test_a_component_is_known_by_its_keys(name: str) -> None:
    assert detect_component(KEYS[name]) == name


def test_unknown_keys_are_shown() -> None:
    with pytest.raises(UnknownComponentError, match="the first of 4 keys are a, b, c"):
        detect_component(dict.fromkeys("abcd", 0))


def test_a_component_in_the_wrong_slot_is_told_where_to_go(tmp_path: Path) -> None:
    generator = save(tmp_path / "g.pth", {"video_encoder.Conv3D.conv1.weight": torch.zeros(1)})
    with pytest.raises(WrongComponentError) as raised:
        load_component(generator, "posnet")
    assert str(raised.value) == f"--posnet {generator} holds a ReactFace generator, not PosNet: pass it to --generator."
    original = save(tmp_path / "r.pth", {"mapping_net.first.0.weight": torch.zeros(1)})
    with pytest.raises(WrongComponentError, match=r"\(73 coefficients\), not .*\(58 coefficients\): pass one with"):
        load_component(original, "pirender")
