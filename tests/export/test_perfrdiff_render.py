"""PerFRDiffRender's denoiser: the published numbers, as itself and under the keys of PerFRDiff's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.commands import pflx
from support.export.personal_weights import denoiser_weights
from support.golden_arrays import golden

from pflx.engines import Bundle
from pflx.export import StateDictError, WrongComponentError, detect_component, load_component
from pflx.export.checkpoints import generator_part, read_generator
from pflx.export.models import PerFRDiff, PerFRDiffRender, load_model
from pflx.export.models.layers import sinusoid
from pflx.export.persons.denoiser import denoiser_of


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """With the position tables of the public file."""
    tables = {f"{name}_pos.pe": sinusoid(5000, 512)[:, None] for name in ("query", "mem")}
    return {key: torch.from_numpy(value) for key, value in denoiser_weights("render").items()} | tables


@pytest.fixture(scope="module")
def checkpoint(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the public training code saves it."""
    path = tmp_path_factory.mktemp("render") / "epoch_300_checkpoint.pth"
    torch.save({"epoch": 300, "state_dict": weights, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path


def published_call_error(network: PerFRDiff) -> float:
    case: dict[str, Any] = {
        name: torch.from_numpy(value)
        for name, value in golden("persons").items()
        if name.startswith("render_")
        if value.dtype == np.float32
    }
    x, speaker, sound = (case[f"render_call_{name}"] for name in ("x", "coeffs", "audio"))
    with torch.inference_mode():
        made = network.guided(x, torch.tensor(500), speaker, sound)
    return float((made - case["render_generic_t500_cfg"]).abs().max())


def test_it_is_known_as_itself_and_gives_the_published_call(checkpoint: Path) -> None:
    network, read = load_component(checkpoint, "perfrdiff_render")
    assert isinstance(network, PerFRDiffRender)
    assert detect_component(read.state_dict) == "perfrdiff_render"
    assert published_call_error(network) <= 1e-4


def test_for_a_bundle_it_is_the_denoiser_of_perfrdiff(checkpoint: Path) -> None:
    read = read_generator(checkpoint)
    assert generator_part(read) == "perfrdiff"
    assert "to_3dmm_feat split" in read.notes[-1]
    network = load_model("perfrdiff", read.state_dict)
    assert isinstance(network, PerFRDiff)
    assert published_call_error(network) <= 1e-4


def test_with_a_past_listener_both_forms_agree(checkpoint: Path) -> None:
    network, _ = load_component(checkpoint, "perfrdiff_render")
    noise = torch.Generator().manual_seed(1)
    x, speaker, past = torch.randn(3, 2, 50, 58, generator=noise)
    given = x, torch.tensor(20), speaker, torch.rand(2, 50, 78, generator=noise), past
    with torch.inference_mode():
        expected = network(*given)
        made = load_model("perfrdiff", read_generator(checkpoint).state_dict)(*given)
    assert expected.std() > 0.1
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


def test_an_incomplete_one_is_told_in_its_own_keys(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "part.pth"
    torch.save({key: value for key, value in weights.items() if key != "to_3dmm_feat.bias"}, path)
    with pytest.raises(StateDictError, match=r"perfrdiff_render \(1 problem\): missing to_3dmm_feat\.bias"):
        read_generator(path)


def test_asked_for_as_the_other_it_is_told_what_it_is(checkpoint: Path) -> None:
    with pytest.raises(WrongComponentError, match="holds PerFRDiffRender's denoiser, not PerFRDiff's denoiser"):
        load_component(checkpoint, "perfrdiff")


def test_exported_it_is_a_bundle_that_knows_its_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "me.pflx"
    outcome = pflx("export", "--generator", checkpoint, "--mean-face", "zero", "--persons", "-o", path)
    assert outcome.code == 0, outcome.err
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    assert manifest.generator.name == "perfrdiff"
    assert "perfrdiff_personal" in manifest.graphs
    source = manifest.provenance[0]
    assert (source.slot, source.sha256) == ("generator", hashlib.sha256(checkpoint.read_bytes()).hexdigest())
    assert "PerFRDiffRender" in source.note
    denoiser, weights = denoiser_of(bundle), denoiser_weights("render")
    assert denoiser.sha256 == source.sha256
    head = torch.cat([denoiser.weights[f"to_3dmm_{part}.weight"] for part in ("expr", "pos")])
    assert torch.equal(head, torch.from_numpy(weights["to_3dmm_feat.weight"]))
    for layer in ("linear1", "linear2"):
        key = f"decoder.layers.6.{layer}.weight"
        assert torch.equal(denoiser.weights[key], torch.from_numpy(weights[key]))
    assert len(denoiser.weights) == 4
