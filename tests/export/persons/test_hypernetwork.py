"""The hypernetwork: published edits of the denoiser's weights, and what the edited denoisers make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.export.one_thread import one_thread as one_thread
from support.export.personal_weights import (
    SEED,
    denoiser_weights,
    first_rows,
    gain,
    modifier_shapes,
    modifier_weights,
)
from support.golden_arrays import golden
from torch import Tensor, nn

from pflx.export import load_model
from pflx.export.errors import PersonalisationError
from pflx.export.models import PerFRDiff, PerFRDiffRender, PerFRDiffV1
from pflx.export.models.weights import fill
from pflx.export.persons import Hypernetwork, Mode, edited, edited_weights
from pflx.export.persons.hypernetwork import LAYOUTS

VARIANTS = ("render", "v1")


@dataclass(frozen=True)
class InMemory:
    """Weights in memory, behind what a hypernetwork reads."""

    tensors: Mapping[str, Tensor]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {key: tuple(value.shape) for key, value in self.tensors.items()}

    def rows(self, key: str, start: int, stop: int) -> Tensor:
        return self.tensors[key][start:stop]


@cache
def case() -> dict[str, Any]:
    return golden("persons")


@cache
def hypernetwork(variant: str) -> Hypernetwork:
    return Hypernetwork(InMemory({key: torch.from_numpy(value) for key, value in modifier_weights(variant).items()}))


@cache
def generic(variant: str) -> nn.Module:
    """The denoiser, under the keys that pflx runs it with."""
    published = load_model("perfrdiff_render" if variant == "render" else "perfrdiff_v1", denoiser_weights(variant))
    if isinstance(published, PerFRDiffRender):
        return load_model("perfrdiff", published.v5_weights())
    return published


def style(variant: str, person: int) -> Tensor:
    return torch.from_numpy(case()[f"{variant}_person_proj"][person])


@cache
def personal(variant: str, person: int) -> nn.Module:
    """The denoiser with a person's weights."""
    weights = generic(variant).state_dict()
    own = edited_weights(hypernetwork(variant), style(variant, person), weights, "shift")
    return load_model("perfrdiff" if variant == "render" else "perfrdiff_v1", {**weights, **own})


def matrices(variant: str, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Of the branches, as the published code has them."""
    return [torch.cat([tensors[key] for key in branch.tensors]) for branch in LAYOUTS[variant]]


def error(got: Tensor | npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    assert tuple(got.shape) == expected.shape
    return float(np.abs(np.asarray(got) - expected).max())


@pytest.mark.parametrize("person", [0, 1])
@pytest.mark.parametrize("variant", VARIANTS)
def test_edits_and_edited_weights_are_the_published_ones(variant: str, person: int) -> None:
    network = hypernetwork(variant)
    assert network.layout == variant
    assert error(network.shared(style(variant, person)), case()[f"{variant}_p{person}_shared"]) <= 1e-5
    edits = matrices(variant, dict(network.edits(style(variant, person))))
    weights = matrices(variant, personal(variant, person).state_dict())
    for branch, (edit, weight) in enumerate(zip(edits, weights, strict=True)):
        probe = torch.from_numpy(case()[f"{variant}_probe_b{branch}"])
        expected = {what: case()[f"{variant}_p{person}_b{branch}_{what}_probe"] for what in ("delta", "weight")}
        assert error(edit @ probe, expected["delta"]) <= 1e-4
        assert error(weight @ probe, expected["weight"]) <= 1e-4
        # What the published numbers catch: nothing edited, or another person.
        assert error(weight @ probe - edit @ probe, expected["weight"]) > 0.01


def test_branches_in_another_order_are_not_the_published_ones() -> None:
    tensors = {key: torch.from_numpy(value) for key, value in modifier_weights("v1").items()}
    names = {"branches.1": "branches.2", "branches.2": "branches.1"}
    swapped = {f"{names.get(key[:10], key[:10])}{key[10:]}": value for key, value in tensors.items()}
    edits = matrices("v1", dict(Hypernetwork(InMemory(swapped)).edits(style("v1", 0))))
    for branch in (1, 2):
        probe = torch.from_numpy(case()[f"v1_probe_b{branch}"])
        assert error(edits[branch] @ probe, case()[f"v1_p0_b{branch}_delta_probe"]) > 0.1


@pytest.mark.parametrize("person", [0, 1])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_edited_denoiser_gives_the_published_calls(variant: str, person: int) -> None:
    network = cast("PerFRDiff | PerFRDiffV1", personal(variant, person))
    inputs = ("x", "coeffs", "audio") if variant == "render" else ("x", "coeffs", "audio", "latent")
    x, *speaker = (torch.from_numpy(case()[f"{variant}_call_{name}"]) for name in inputs)
    with torch.inference_mode():
        for t in (20, 500, 980):
            made = network.guided(x, torch.tensor(t), *speaker)
            assert error(made, case()[f"{variant}_p{person}_t{t}_cfg"]) <= 1e-4


@pytest.mark.parametrize(("person", "window", "sample"), [(0, 0, 1), (1, 2, 0)])
def test_the_edited_denoiser_gives_the_published_windows(person: int, window: int, sample: int) -> None:
    network = cast(PerFRDiff, personal("render", person))
    sound, speaker = (
        np.pad(case()[f"render_run_{name}"][:, :-25], ((0, 0), (25, 0), (0, 0))) for name in ("audio", "coeffs")
    )
    sound = (sound - sound.min()) / (sound.max() - sound.min())
    seen = slice(25 * window, 25 * window + 50)
    noise = torch.from_numpy(case()["render_run_noise"][0, :, sample])
    with torch.inference_mode():
        made = network.sample(noise, torch.from_numpy(speaker[:, seen]), torch.from_numpy(sound[:, seen]))
    shown = slice(25 * window + 25, 25 * window + 50)
    assert error(made[0, 25:], case()[f"render_p{person}_run"][0, sample, shown]) <= 5e-4


def test_the_edited_original_gives_the_published_window() -> None:
    network = cast(PerFRDiffV1, personal("v1", 1))
    coefficients, sound = (torch.from_numpy(case()[f"v1_run_{name}"][:, :50]) for name in ("coeffs", "audio"))
    noise = torch.from_numpy(case()["v1_run_noise"][2:3])  # window 1 of 2, sample 0 of 2
    with torch.inference_mode():
        made = network.sample(noise, coefficients, sound, latent_of(case()["v1_run_emotion"][:, :50]))
    assert error(made[0], case()["v1_p1_run"][0, 0, 50:]) <= 5e-4


def latent_of(emotion: npt.NDArray[np.float32]) -> Tensor:
    """The speaker's emotion over a window as the original's embedder encodes it, float32 [1, 1, 512]."""
    cell = nn.GRUCell(25, 512)
    weights = fill({f"x_rnn.rnn_f.{key}": tuple(value.shape) for key, value in cell.state_dict().items()}, SEED)
    cell.load_state_dict({key.rpartition(".")[2]: torch.from_numpy(value) for key, value in weights.items()})
    hidden = torch.zeros(1, 512)
    for frame in torch.from_numpy(emotion).unbind(1):
        hidden = cell(frame, hidden)
    return hidden[None]


@dataclass(frozen=True)
class Full:
    """The fixture's hypernetwork as wide as the published ones; rows of the large branches are drawn when read."""

    shapes: Mapping[str, tuple[int, ...]]

    def rows(self, key: str, start: int, stop: int) -> Tensor:
        if key.startswith("branches.") and key.endswith("weight"):
            assert start == 0
            return torch.from_numpy(first_rows(key, stop))
        whole = fill({key: self.shapes[key]}, SEED)[key].astype(np.float64) * gain(key)
        return torch.from_numpy(whole.astype(np.float32)[start:stop])


@pytest.mark.parametrize("variant", VARIANTS)
def test_as_wide_as_published_it_gives_the_published_numbers(variant: str) -> None:
    network = Hypernetwork(Full(modifier_shapes(variant, 1024)))
    for person in (0, 1):
        shared = network.shared(torch.from_numpy(case()["full_person_proj"][person]))
        assert error(shared, case()["full_shared"][person]) <= 1e-5
        for branch, made in enumerate(network.branches):
            width = made.shape[1]
            rows = min(made.shape[0], 32)
            probe = torch.from_numpy(case()[f"full_{variant}_probe_b{branch}"])
            expected = case()[f"full_{variant}_p{person}_b{branch}_delta_probe"][:rows]
            assert (
                error(network.numbers(branch, shared, 0, rows * width).reshape(rows, width) @ probe, expected) <= 1e-4
            )


MODES: Mapping[Mode, Callable[[float, float], float]] = {
    "shift": lambda w, d: w + d,
    "offset": lambda w, d: w * (1 + d),
    "weight": lambda _, d: d,
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_edits_as_it_says(mode: Mode) -> None:
    made = edited(torch.tensor([2.0, -3.0]), torch.tensor([0.5, 0.25]), mode)
    assert made.tolist() == [MODES[mode](2.0, 0.5), MODES[mode](-3.0, 0.25)]


@pytest.mark.parametrize("mode", MODES)
def test_keys_and_values_alone_leave_queries_as_zeros_edit_them(mode: Mode) -> None:
    whole = modifier_weights("v1")
    tensors = {key: torch.from_numpy(value) for key, value in whole.items()}
    kept = {f"branches.{branch}.{leaf}" for branch in (1, 2) for leaf in ("weight", "bias")}
    narrow = Hypernetwork(InMemory({k: v[512 * 512 :] if k in kept else v for k, v in tensors.items()}))
    assert narrow.layout == "v1 kv"
    weights = generic("v1").state_dict()
    made = edited_weights(narrow, style("v1", 0), weights, mode)
    wide = edited_weights(hypernetwork("v1"), style("v1", 0), weights, mode)
    for layer in (4, 6):
        key = f"decoder.layers.{layer}.multihead_attn.in_proj_weight"
        queries = np.zeros((512, 512), np.float32) if mode == "weight" else weights[key][:512].numpy()
        np.testing.assert_array_equal(made[key][:512], queries)
        np.testing.assert_allclose(made[key][512:], wide[key][512:], rtol=0, atol=1e-6)


def refused(tensors: Mapping[str, Tensor]) -> str:
    with pytest.raises(PersonalisationError) as caught:
        Hypernetwork(InMemory(tensors), "modifier.pth")
    return str(caught.value)


def test_layers_that_no_published_one_has_are_refused() -> None:
    with torch.device("meta"):
        tensors = {key: torch.empty(shape) for key, shape in modifier_shapes("v1").items()}
    order = {"branches.0": "branches.2", "branches.1": "branches.0", "branches.2": "branches.1"}
    listed = {f"{order.get(key[:10], key[:10])}{key[10:]}": value for key, value in tensors.items()}
    assert "makes 786432 + 786432 + 12800 numbers: those of a published hypernetwork in another order" in refused(
        listed
    )
    assert "makes 12800 + 786432 numbers, and the published ones make 29696 + 524288 + 524288 (render); " in refused(
        {key: value for key, value in tensors.items() if not key.startswith("branches.2")}
    )
    assert "modifier.pth lacks shared_layers.1.bias: it is no hypernetwork" in refused(
        {key: value for key, value in tensors.items() if key != "shared_layers.1.bias"}
    )
    assert "has shared_layers.0.weight of [16, 512]: it is no" in refused(
        tensors | {"shared_layers.0.bias": torch.empty((), device="meta")}
    )
    assert "has branches.1.weight of [786432, 8]: it is no" in refused(
        tensors | {"branches.1.weight": torch.empty(786432, 8, device="meta")}
    )


def test_edits_that_are_not_numbers_or_fit_nothing_are_refused() -> None:
    weights = generic("render").state_dict()
    with pytest.raises(PersonalisationError, match=r"to_3dmm_expr\.weight has numbers that are not finite"):
        edited_weights(hypernetwork("render"), torch.full((512,), torch.inf), weights, "shift")
    with pytest.raises(PersonalisationError, match=r"edits to_3dmm_expr\.weight \[52, 512\], the denoiser lacks it"):
        edited_weights(hypernetwork("render"), style("render", 0), generic("v1").state_dict(), "shift")


@pytest.mark.parametrize("shape", [(2, 512), (1, 512), (511,)])
def test_a_hypernetwork_edits_for_one_person_at_a_time(shape: tuple[int, ...]) -> None:
    with pytest.raises(PersonalisationError, match=r"reads the style of one person, \[512\], got \["):
        next(hypernetwork("render").edits(torch.zeros(shape)))
