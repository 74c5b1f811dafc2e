"""A bundle made without any checkpoint: what is in it, and that everything that takes a bundle takes this one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.commands import pflx
from support.places import MEDIA

from pflx.cli.export import Kind, Sources, UsageError
from pflx.engines import Bundle, Provenance
from pflx.engines.bundle.mean_face import MeanFaceError, read_mean_face
from pflx.export import ComponentError, ExportSettings, load_components, untrained, untrained_components
from pflx.export.components import default_posnet
from pflx.export.recipes import posnet_recipe, warp_recipes
from pflx.runtime import EngineSettings, Listener, open_speaker
from pflx.runtime.builtin import DEFAULT_POSNET

CLIP, PORTRAIT = MEDIA / "podium_speech_8s.mp4", MEDIA / "portrait_astronaut_256.png"
RECIPES = {recipe.graph: recipe for recipe in (posnet_recipe(8), *warp_recipes())}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle of `pflx export -o me.pflx`, and what the command said."""
    path = tmp_path_factory.mktemp("default") / "me.pflx"
    done = pflx("export", "-o", path)
    assert done.code == 0, done.err
    return path, done.out


@pytest.fixture(scope="module")
def bundle(made: tuple[Path, str]) -> Bundle:
    return Bundle.open(made[0])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ("transvae", "pirender"):
        torch.save(untrained(name, 0), folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in ("transvae", "pirender")}


def test_it_holds_a_listener_without_weights(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.untrained is None
    assert (manifest.generator.name, manifest.generator.graphs) == ("backchannel", {})
    assert manifest.generator.needs == ["audio", "coefficients"]
    assert (manifest.generator.window, manifest.generator.hop, manifest.smoother.slide) == (8, 8, 8)
    assert (manifest.renderer.name, manifest.renderer.size, manifest.preview) == ("warp", 256, None)
    assert manifest.sample_rate_hz == 16_000
    assert manifest.mean_face.source == "upright"
    assert manifest.mean_face.values == [0.0] * 52 + [pytest.approx(math.pi)] + [0.0] * 5
    for slot in ("generator", "renderer"):
        (entry,) = (entry for entry in manifest.provenance if entry.slot == slot)
        assert entry == Provenance(slot=slot, source="pflx", sha256="", keys=0, note="no weights")


def test_its_graphs_are_those_of_the_recipes(bundle: Bundle) -> None:
    assert bundle.manifest.graphs.keys() == RECIPES.keys()
    for name, info in bundle.manifest.graphs.items():
        assert info.inputs == dict(RECIPES[name].inputs)
        assert info.outputs == dict(RECIPES[name].outputs)
    assert sum(info.bytes for info in bundle.manifest.files.values()) < 8e6


def test_its_chain_was_compared_all_the_same(bundle: Bundle) -> None:
    report = json.loads((bundle.path / "report.json").read_text())
    assert report["graphs"].keys() == RECIPES.keys()
    assert report["end_to_end"]["fp32"]["max_levels"] <= 1
    assert report["end_to_end"]["fp32"]["coefficients_max_abs_error"] <= 1e-4


def test_the_command_says_what_has_no_weights(made: tuple[Path, str]) -> None:
    assert "Without weights: generator and renderer." in made[1]
    assert "ntrained" not in made[1]


def test_a_listener_of_it_reacts_without_being_told_anything(bundle: Bundle) -> None:
    with Listener.open(bundle.path, PORTRAIT, engines=EngineSettings(threads=1)) as listener:
        assert listener.algorithmic_delay_ms == 40
        assert not listener.reads_pictures
        frames = list(listener.react(open_speaker(CLIP).limited(2.0), samples=2))
    assert [(frame.ledger.frame, frame.sample) for frame in frames] == [(k, m) for k in range(50) for m in range(2)]
    assert frames[0].image.shape == (256, 256, 3)
    pose = np.stack([frame.generated_pose for frame in frames if not frame.sample])
    assert np.abs(pose[:, 0] - math.pi).max() < 0.3
    assert np.ptp(pose[:, 1]) > 1e-3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("inspect",), ("generator backchannel: window 8, hop 8", "mean face upright", "generator pflx, 0 tensors")),
        (
            ("bench-latency", "--mode", "engine", "--duration", "0.01"),
            ("generator (no graph), PosNet and 8 renderings",),
        ),
        (("bench-latency", "--mode", "single-stream", "--duration", "2"), ("coefficients from landmarks/5",)),
    ],
)
def test_commands_take_it(bundle: Bundle, arguments: tuple[str, ...], said: tuple[str, ...]) -> None:
    verb, *options = arguments
    done = pflx(verb, bundle.path, *options)
    assert done.code == 0, done.err
    for line in said:
        assert line in " ".join(done.out.split())


def test_a_clip_is_run_and_evaluated(bundle: Bundle, tmp_path: Path) -> None:
    video, track = tmp_path / "out.mp4", tmp_path / "out.npz"
    options = ("-b", bundle.path, "-p", PORTRAIT, "-o", video, "--coefficients", track, "--duration", "2")
    done = pflx("run", CLIP, *options)
    assert done.code == 0, done.err
    assert "trails the speaker by 40 ms at most" in done.out
    done = pflx("evaluate", track, "--video", video)
    assert done.code == 0, done.err


def names(**paths: Any) -> tuple[str, str]:
    parts = load_components(**paths)
    return parts.generator.name, parts.renderer.name


def test_what_is_not_given_comes_with_pflx(checkpoints: dict[str, Path]) -> None:
    assert names() == ("backchannel", "warp")
    assert names(renderer=checkpoints["pirender"], mean_face="zero") == ("backchannel", "pirender")
    assert names(generator=[checkpoints["transvae"]], mean_face="zero") == ("transvae", "warp")


def test_trained_weights_still_need_a_mean_face(checkpoints: dict[str, Path]) -> None:
    for given in ({"renderer": checkpoints["pirender"]}, {"generator": [checkpoints["transvae"]]}):
        with pytest.raises(MeanFaceError, match="No mean face"):
            names(**given)


def test_the_listener_takes_no_settings_of_others() -> None:
    with pytest.raises(ComponentError, match="--window is for reactface and transvae, not for backchannel"):
        load_components(settings=ExportSettings(window=8))


def test_an_upright_face_is_neutral_and_turned_by_half() -> None:
    face = read_mean_face("upright")
    assert face.source == "upright"
    assert face.values[52] == pytest.approx(math.pi)
    assert np.count_nonzero(face.values) == 1


def test_the_default_posnet_fits_the_segments() -> None:
    components = load_components()
    assert components.posnet.slide == components.generator.hop
    entry = next(entry for entry in components.provenance if entry.slot == "posnet")
    assert entry.source == default_posnet(8).name
    assert DEFAULT_POSNET in entry.note


def test_made_up_networks_go_with_it_too() -> None:
    parts = untrained_components(3, kind="backchannel")
    assert (parts.generator.name, parts.renderer.name, parts.untrained) == ("backchannel", "pirender", 3)
    assert [entry.source for entry in parts.provenance] == ["pflx", "untrained", "untrained"]


def sources(**given: Any) -> Sources:
    nothing: dict[str, Any] = {
        "generator": [],
        "posnet": None,
        "renderer": None,
        "mean_face": None,
        "untrained": None,
        "kind": None,
    }
    return Sources(**{**nothing, **given})


def test_a_kind_without_weights_goes_without_a_seed() -> None:
    sources(kind=Kind.BACKCHANNEL)
    sources(kind=Kind.BACKCHANNEL, renderer=Path("a.pt"))
    with pytest.raises(UsageError, match="--kind belfusion goes with --untrained"):
        sources(kind=Kind.BELFUSION)
