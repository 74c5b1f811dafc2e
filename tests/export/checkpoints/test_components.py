"""Checkpoints to generators: which files make one, what fits it, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pflx.engines import Provenance
from pflx.export import (
    CheckpointError,
    ComponentError,
    ExportSettings,
    StateDictError,
    WrongComponentError,
    detect_component,
    load_component,
    read_checkpoint,
    untrained,
    untrained_components,
)
from pflx.export.components import load_generator, untrained_generator
from pflx.export.generators import FAMILIES, GeneratorParts

PLAIN = ExportSettings()
# A key of each part of PerFRDiff that its reaction does not depend on, with its shape.
NOT_NEEDED = {
    "perfrdiff_prior": ("null_s_latent_embed", (1, 1, 512)),
    "perfrdiff_latent": ("coeff_reg.0.weight", (512, 25)),
}
# Likewise of those that make persons, with its option.
FOR_PERSONS = {
    "perfrdiff_person": ("embed_layer.weight", (512, 58), "--person-encoder"),
    "perfrdiff_modifier": ("shared_layers.0.weight", (16, 512), "--modifier"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of every network of PerFRDiff and BeLFusion, and of what PerFRDiff has besides."""
    folder = tmp_path_factory.mktemp("checkpoints")
    bounds = {"min": torch.full((128,), -1.5), "max": torch.full((128,), 1.5)}
    contents: dict[str, Any] = {
        "perfrdiff": untrained("perfrdiff", 0),
        "perfrdiff_emotion": untrained("perfrdiff_emotion", 0),
        "perfrdiff_v1": {"to_emotion_embed.weight": torch.zeros(512, 25)},
        "belfusion_mlp": untrained("belfusion_mlp", 0),
        "belfusion_vae": {"epoch": 3, "state_dict": untrained("belfusion_vae", 0), "statistics": bounds},
        "posnet": untrained("posnet", 0),
    }
    contents |= {part: {key: torch.zeros(shape)} for part, (key, shape) in NOT_NEEDED.items()}
    contents |= {part: {key: torch.zeros(shape)} for part, (key, shape, _) in FOR_PERSONS.items()}
    for name, content in contents.items():
        torch.save(content, folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in contents}


def load(*paths: Path, settings: ExportSettings = PLAIN) -> tuple[GeneratorParts, list[Provenance]]:
    return load_generator(paths, settings)


def refused(*paths: Path, settings: ExportSettings = PLAIN) -> str:
    with pytest.raises(ComponentError) as caught:
        load(*paths, settings=settings)
    return str(caught.value)


def test_every_file_is_known_for_what_it_holds(files: dict[str, Path]) -> None:
    for name, path in files.items():
        assert detect_component(read_checkpoint(path).state_dict) == name


def test_a_generator_is_known_by_its_files_in_any_order(files: dict[str, Path]) -> None:
    for order in (("belfusion_mlp", "belfusion_vae"), ("belfusion_vae", "belfusion_mlp")):
        parts, provenance = load(*(files[name] for name in order))
        assert parts.name == "belfusion"
        assert [entry.slot for entry in provenance] == ["generator belfusion_mlp", "generator belfusion_vae"]


def test_what_adds_to_a_generator_may_be_there_or_not(files: dict[str, Path]) -> None:
    alone, _ = load(files["perfrdiff"])
    both, provenance = load(files["perfrdiff_emotion"], files["perfrdiff"])
    assert alone.name == both.name == "perfrdiff"
    assert [entry.slot for entry in provenance] == ["generator", "generator perfrdiff_emotion"]
    assert set(both.info.graphs.values()) > set(alone.info.graphs.values())


def test_a_missing_part_is_named(files: dict[str, Path]) -> None:
    assert refused(files["belfusion_mlp"]) == (
        "belfusion needs belfusion_vae beside belfusion_mlp. Pass its checkpoint with another --generator."
    )
    assert "perfrdiff needs perfrdiff beside perfrdiff_emotion." in refused(files["perfrdiff_emotion"])


def test_parts_of_two_generators_are_refused(files: dict[str, Path]) -> None:
    line = refused(files["perfrdiff"], files["belfusion_mlp"])
    assert line.startswith("One bundle holds one generator, these are of 2: ")
    assert f"{files['perfrdiff']} is of perfrdiff" in line
    assert f"{files['belfusion_mlp']} is of belfusion" in line


def test_one_part_twice_is_refused(files: dict[str, Path]) -> None:
    assert "both hold perfrdiff. Leave one of the two out." in refused(files["perfrdiff"], files["perfrdiff"])


@pytest.mark.parametrize("part", NOT_NEEDED)
def test_a_part_that_never_reaches_the_reaction_is_told_so(files: dict[str, Path], part: str) -> None:
    with pytest.raises(WrongComponentError, match="it never reaches the reaction, leave it out") as caught:
        load(files["perfrdiff"], files[part])
    assert str(caught.value).startswith(f"--generator {files[part]} holds PerFRDiff's ")


@pytest.mark.parametrize("part", FOR_PERSONS)
def test_what_makes_persons_is_told_where_to_go(files: dict[str, Path], part: str) -> None:
    with pytest.raises(WrongComponentError, match=f": pass it to {FOR_PERSONS[part][2]} of pflx person make") as caught:
        load(files["perfrdiff"], files[part])
    assert str(caught.value).startswith(f"--generator {files[part]} holds PerFRDiff's ")


def test_a_generator_without_coefficients_is_told_why_it_makes_no_bundle(files: dict[str, Path]) -> None:
    with pytest.raises(WrongComponentError, match="it yields emotion and no coefficients to render"):
        load(files["perfrdiff_v1"])


def test_a_network_of_another_slot_is_told_where_to_go(files: dict[str, Path]) -> None:
    with pytest.raises(WrongComponentError, match=r"holds PosNet, .*: pass it to --posnet"):
        load(files["posnet"])
    with pytest.raises(WrongComponentError, match="holds PerFRDiff's denoiser, not PosNet: pass it to --generator"):
        load_component(files["perfrdiff"], "posnet")


@pytest.mark.parametrize("kind", [torch.Tensor, np.ndarray])
def test_statistics_beside_the_weights_are_read(tmp_path: Path, kind: type) -> None:
    values = {name: torch.arange(128.0) + shift for shift, name in enumerate(("min", "max", "mean", "std", "var"))}
    statistics = {name: value if kind is torch.Tensor else value.double().numpy() for name, value in values.items()}
    for nested in (True, False):
        path = tmp_path / "vae.pth"
        weights = untrained("belfusion_vae", 0)
        torch.save(
            {"state_dict": weights, "statistics": statistics} if nested else weights | {"statistics": statistics}, path
        )
        read = read_checkpoint(path)
        for name, value in values.items():
            torch.testing.assert_close(read.state_dict[f"statistics.{name}"].float(), value)
        assert not [note for note in read.notes if "statistics" in note]


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vae.pth"
    torch.save({"state_dict": {}, "statistics": {"min": np.array([Path("/")], dtype=object)}}, path)
    with pytest.raises(CheckpointError, match="could run any code, so it was not loaded"):
        read_checkpoint(path)


def test_an_autoencoder_without_statistics_is_told_what_it_lacks(files: dict[str, Path], tmp_path: Path) -> None:
    bare = tmp_path / "bare.pth"
    weights = {k: v for k, v in untrained("belfusion_vae", 0).items() if not k.startswith("statistics.")}
    torch.save(weights, bare)
    with pytest.raises(StateDictError, match=r"missing statistics\.min; missing statistics\.max"):
        load(files["belfusion_mlp"], bare)


def test_what_no_step_reads_is_noted(tmp_path: Path) -> None:
    weights: dict[str, Tensor] = untrained("perfrdiff_emotion", 0)
    extra = {f"fc_{name}_enc.weight": torch.zeros(512, 512) for name in ("mu", "logvar")}
    path = tmp_path / "embedder.pth"
    torch.save({"state_dict": weights | extra, "statistics": {"min": torch.zeros(512)}}, path)
    _, checkpoint = load_component(path, "perfrdiff_emotion")
    assert checkpoint.notes == (
        "statistics not used",
        "2 keys that no step reads: fc_mu_enc.weight, fc_logvar_enc.weight",
    )


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("belfusion", ExportSettings(window=8), "--window is for reactface and transvae, not for belfusion"),
        ("reactface", ExportSettings(history=8), "--history is for transvae, not for reactface"),
        ("belfusion", ExportSettings(mfcc_range=(0, 1)), "--mfcc-range is for perfrdiff, not for belfusion"),
        ("transvae", ExportSettings(use_past_frames=True), "--use-past-frames is for perfrdiff, not for transvae"),
    ],
)
def test_a_setting_of_another_generator_is_refused(kind: str, settings: ExportSettings, said: str) -> None:
    with pytest.raises(ComponentError) as caught:
        untrained_generator(kind, 0, settings)
    assert str(caught.value) == f"{said}. Leave it out."


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mfcc_range": (1.0, 1.0)}, "An MFCC range from 1 to 1 is empty"),
        ({"mfcc_range": (0.0, float("nan"))}, "An MFCC range from 0 to nan is empty"),
        ({"history": -1}, "A history of -1 frames is none"),
    ],
)
def test_a_setting_that_no_generator_can_work_with_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ComponentError, match=said):
        ExportSettings(**settings)


def test_an_unknown_generator_is_named_with_the_choices() -> None:
    with pytest.raises(ComponentError, match=f"no generator 'wav2lip'. Choose one of {', '.join(FAMILIES)}"):
        untrained_components(0, kind="wav2lip")
