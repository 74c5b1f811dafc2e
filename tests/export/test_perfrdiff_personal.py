"""PerFRDiff's graph for persons: the published numbers of two of them, and nobody's as before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.export.one_thread import one_thread as one_thread
from support.export.personal_weights import denoiser_weights, modifier_weights
from support.golden_arrays import golden

from pflx.engines import Array, Bundle, OrtEngine, TensorSpec
from pflx.engines.building.build import build_engine
from pflx.engines.bundle.engine_passport import Profile
from pflx.export import untrained
from pflx.export.chain import last_frames
from pflx.export.generators import FAMILIES, ExportSettings
from pflx.export.generators.perfrdiff import PerFRDiffParts
from pflx.export.models import PerFRDiff, PerFRDiffPersonal, load_model
from pflx.export.parity import ParityError, check_graph, graph_errors
from pflx.export.persons.gate import check_person
from pflx.export.trace import trace
from pflx.runtime.generators import GeneratorOptions, SpeakerWindow, reach
from pflx.runtime.generators.diffusion import TIMESTEPS
from pflx.runtime.generators.perfrdiff import PerFRDiffGenerator

Weights = dict[str, npt.NDArray[np.float32]]
FEED_FORWARD = ("decoder.layers.6.linear1.weight", "decoder.layers.6.linear2.weight")


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    return {
        name.removeprefix("render_"): value for name, value in golden("persons").items() if name.startswith("render_")
    }


def as_v5(head: npt.NDArray[np.float32], leaf: str) -> Weights:
    """A head of 58 coefficients under the keys of the denoiser v5."""
    return {f"to_3dmm_expr.{leaf}": head[:52], f"to_3dmm_pos.{leaf}": head[52:]}


@pytest.fixture(scope="module")
def network() -> PerFRDiff:
    """The published denoiser under the keys of v5, without a person."""
    weights: dict[str, Any] = denoiser_weights("render")
    for leaf in ("weight", "bias"):
        weights |= as_v5(weights.pop(f"to_3dmm_feat.{leaf}"), leaf)
    weights["pos_fusion.weight"] = np.eye(6, 12, dtype=np.float32)
    weights["pos_fusion.bias"] = np.zeros(6, np.float32)
    made = load_model("perfrdiff", weights)
    assert isinstance(made, PerFRDiff)
    return made


@pytest.fixture(scope="module")
def persons(network: PerFRDiff, case: dict[str, Any]) -> list[Weights]:
    """The edited weights of two persons, by the formula of the published hypernetwork."""
    generic = {key: value.numpy() for key, value in network.state_dict().items()}
    modifier = modifier_weights("render")
    head = np.concatenate([generic["to_3dmm_expr.weight"], generic["to_3dmm_pos.weight"]])
    whole = {"to_3dmm_feat.weight": head, **{key: generic[key] for key in FEED_FORWARD}}
    made = []
    for style in case["person_proj"]:
        for layer in ("shared_layers.0", "shared_layers.1"):
            style = np.maximum(modifier[f"{layer}.weight"] @ style + modifier[f"{layer}.bias"], 0)
        shifts = [modifier[f"branches.{n}.weight"] @ style + modifier[f"branches.{n}.bias"] for n in range(3)]
        edited = {
            key: (value + shift.reshape(value.shape)).astype(np.float32)
            for (key, value), shift in zip(whole.items(), shifts, strict=True)
        }
        made.append(as_v5(edited.pop("to_3dmm_feat.weight"), "weight") | edited)
    return made


def whole_clip_range(audio: Array) -> tuple[float, float]:
    """What the published code scales by; it sees the speaker 25 frames late, after zeros."""
    seen = np.pad(audio[0, :-25], ((25, 0), (0, 0)))
    return float(seen.min()), float(seen.max())


@pytest.fixture(scope="module")
def parts(network: PerFRDiff, case: dict[str, Any]) -> PerFRDiffParts:
    settings = ExportSettings(mfcc_range=whole_clip_range(case["run_audio"]), persons=True)
    made = FAMILIES["perfrdiff"].make({"perfrdiff": network}, settings)
    assert isinstance(made, PerFRDiffParts)
    return made


@pytest.fixture(scope="module")
def graphs(parts: PerFRDiffParts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The exported graphs by role."""
    folder, modules = tmp_path_factory.mktemp("personal"), parts.modules()
    paths = {role: folder / f"{graph}.onnx" for role, graph in parts.info.graphs.items()}
    for recipe in parts.recipes:
        trace(modules[recipe.graph], recipe, folder / f"{recipe.graph}.onnx", precision="fp32")
    return paths


@pytest.fixture(scope="module")
def engines(graphs: dict[str, Path]) -> dict[str, OrtEngine]:
    return {role: OrtEngine(path, threads=1) for role, path in graphs.items()}


def test_the_graph_takes_the_weights_as_a_checkpoint_has_them(
    parts: PerFRDiffParts, engines: dict[str, OrtEngine], network: PerFRDiff
) -> None:
    own = {name: spec for name, spec in engines["personal"].inputs.items() if name not in engines["denoise"].inputs}
    assert list(own) == list(PerFRDiffPersonal.EDITED)
    for name, spec in own.items():
        assert spec == TensorSpec(tuple(network.state_dict()[name].shape), np.dtype(np.float32))
    recipe, module = parts.recipes[2], parts.modules()["perfrdiff_personal"]
    check_graph(recipe, graph_errors(module, engines["personal"], recipe, recipe.size_sets))


@pytest.mark.parametrize("person", [0, 1])
def test_a_call_gives_the_published_numbers_of_a_person(
    engines: dict[str, OrtEngine], persons: list[Weights], case: dict[str, Any], person: int
) -> None:
    for item in range(2):
        x, speaker, sound = (case[f"call_{name}"][item : item + 1] for name in ("x", "coeffs", "audio"))
        memory = engines["condition"].run({"coefficients": speaker, "mfcc": sound})
        for t in (20, 500, 980):
            step = {"step": np.array([TIMESTEPS.index(t)]), "update": np.array([1, 0, 0], np.float32)}
            made = engines["personal"].run({"x": x, "previous": x, **step, **memory, **persons[person]})
            expected = case[f"p{person}_t{t}_cfg"][item : item + 1].clip(-1, 1)
            assert np.abs(made["clean"] - expected).max() <= 1e-4


def bundle_of(parts: PerFRDiffParts, graphs: dict[str, Path]) -> Bundle:
    """What of a bundle of these graphs counts for the gate."""
    named = {parts.info.graphs[role]: path for role, path in graphs.items()}
    infos = {each.graph: SimpleNamespace(inputs=each.inputs, files={"fp32": ""}) for each in parts.recipes}
    manifest = SimpleNamespace(generator=parts.info, graphs=infos)
    return cast(Bundle, SimpleNamespace(manifest=manifest, graph_path=lambda name, _: named[name]))


def test_every_person_is_held_against_the_exported_denoiser_with_its_weights_inside(
    parts: PerFRDiffParts, graphs: dict[str, Path], network: PerFRDiff, persons: list[Weights]
) -> None:
    bundle = bundle_of(parts, graphs)
    generic = {key: network.state_dict()[key].numpy() for key in PerFRDiffPersonal.EDITED}
    for person in persons:
        assert check_person(bundle, generic, person) <= 2e-5
    other = generic | {FEED_FORWARD[1]: generic[FEED_FORWARD[1]] + 1}
    with pytest.raises(ParityError, match=rf"denoise holds no {re.escape(FEED_FORWARD[1])} as persons"):
        check_person(bundle, other, persons[0])


def windows_of(generator: PerFRDiffGenerator, case: Mapping[str, Any]) -> list[SpeakerWindow]:
    needs = {"coefficients": case["run_coeffs"][0], "mfcc": case["run_audio"][0]}
    ends = [reach(generator, segment) for segment in range(4)]
    return [{need: last_frames(rows[:end], 50) for need, rows in needs.items()} for end in ends]


@pytest.mark.parametrize("person", [0, 1])
def test_fifty_steps_over_three_windows_give_the_published_reaction_of_a_person(
    parts: PerFRDiffParts, engines: dict[str, OrtEngine], persons: list[Weights], case: dict[str, Any], person: int
) -> None:
    generator = PerFRDiffGenerator(parts.info, engines, GeneratorOptions()).as_person(persons[person], "ab")
    noise = case["run_noise"].reshape(2, -1)
    state, made = generator.start(2), []
    for window in windows_of(generator, case):
        reaction, state = generator.step(window, state, noise)
        made.append(reaction.coefficients)
    assert np.abs(np.concatenate(made, axis=1) - case[f"p{person}_run"][0]).max() <= 5e-4


def test_a_folded_network_and_the_graph_of_a_person_agree_where_poses_are_mixed(persons: list[Weights]) -> None:
    """A denoiser v5, whose `pos_fusion` is no identity, in PyTorch with the weights put in."""
    weights: dict[str, Any] = dict(untrained("perfrdiff", 5))
    generic, folded = load_model("perfrdiff", weights), load_model("perfrdiff", weights | persons[0])
    assert isinstance(generic, PerFRDiff)
    assert isinstance(folded, PerFRDiff)
    module = PerFRDiffPersonal(generic)
    condition = FAMILIES["perfrdiff"].make({"perfrdiff": generic}, ExportSettings()).modules()["perfrdiff_condition"]
    rng = torch.Generator().manual_seed(1)
    x, speaker = torch.randn(1, 50, 58, generator=rng), torch.randn(1, 50, 58, generator=rng)
    sound = torch.rand(1, 50, 78, generator=rng)
    own = [torch.from_numpy(persons[0][name].copy()) for name in PerFRDiffPersonal.EDITED]
    with torch.inference_mode():
        _, clean = module(x, x, torch.tensor([24]), torch.tensor([1.0, 0, 0]), *condition(speaker, sound), *own)
        expected = folded.guided(x, torch.tensor(500), speaker, sound).clamp(-1, 1)
        without = generic.guided(x, torch.tensor(500), speaker, sound).clamp(-1, 1)
    torch.testing.assert_close(clean, expected, atol=1e-4, rtol=0)
    assert (without - expected).abs().max() > 0.1


def test_nobody_is_exported_as_if_there_were_no_persons(
    network: PerFRDiff, graphs: dict[str, Path], tmp_path: Path
) -> None:
    """The very bytes of the graph that a bundle without persons has, and so the very bits of its reactions."""
    without = PerFRDiffParts(network, None, ExportSettings())
    assert "personal" not in without.info.graphs
    recipe = without.recipes[1]
    trace(without.modules()[recipe.graph], recipe, tmp_path / "denoise.onnx", precision="fp32")
    assert (tmp_path / "denoise.onnx").read_bytes() == graphs["denoise"].read_bytes()


def test_a_person_in_half_precision_stays_near(
    parts: PerFRDiffParts, engines: dict[str, OrtEngine], persons: list[Weights], tmp_path: Path
) -> None:
    recipe, path = parts.recipes[2], tmp_path / "half.onnx"
    trace(parts.modules()[recipe.graph], recipe, path, precision="fp16")
    assert path.stat().st_size < 38e6
    feeds: dict[str, Array] = {**recipe.example(1, {"samples": 1}), **persons[0]}
    made, expected = OrtEngine(path, threads=1).run(feeds), engines["personal"].run(feeds)
    for name, value in expected.items():
        assert np.abs(made[name] - value).max() < 0.02
    if find_spec("tensorrt_rtx"):
        shape = (1, 50, 58)
        profile: Profile = dict.fromkeys(("x", "previous"), (shape, shape, (4, 50, 58)))
        build_engine(path, tmp_path / "half.plan", backend="tensorrt-rtx", profile=profile, precision="fp16")
        assert (tmp_path / "half.plan").stat().st_size > 30e6
