"""The PosNet that comes with pflx: what it does to a head it was not fitted to, and when export takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from support.places import MEDIA
from torch import Tensor, nn

from pflx.calibration.posnet.fit import joined
from pflx.calibration.posnet.motion import displaced
from pflx.calibration.posnet.table import Row, baselines, compare
from pflx.engines import Array, Provenance
from pflx.export import ComponentError, load_components, read_checkpoint, untrained
from pflx.export import components as components_module
from pflx.export.checkpoints import Checkpoint, load_component
from pflx.export.components import default_posnet
from pflx.export.models import PosNet, load_model
from pflx.runtime.builtin import DEFAULT_POSNET

SLIDES = (8, 16, 25)
TRACK = MEDIA / "head_cap13_31s.npy"


def segments(slide: int) -> Array:
    """A head that nothing was fitted to, cut, each segment displaced by half a standard deviation."""
    track = np.load(TRACK)
    whole = track[: len(track) // slide * slide].reshape(-1, slide, 6)
    return displaced(whole, 0.5 * track.std(axis=0), np.random.default_rng(1))


def weights(slide: int) -> dict[str, Tensor]:
    return read_checkpoint(default_posnet(slide)).state_dict


def rows(slide: int) -> dict[str, Row]:
    posnet = {"PosNet": lambda jumping: joined(weights(slide), jumping)}
    return {row.method: row for row in compare([segments(slide)], baselines(0.08) | posnet)}


def test_eight_frames_keep_their_motion_and_lose_nine_tenths_of_their_jumps() -> None:
    found = rows(8)
    for quantity in (found["PosNet"].rotation, found["PosNet"].translation):
        assert quantity.smaller >= 0.9
        assert abs(quantity.energy_change) <= 0.1
        assert quantity.z is not None
        assert quantity.z < 8
    for plain in ("untouched", "One-Euro filter", "linear cross-fade"):
        assert found[plain].rotation.jump > 2 * found["PosNet"].rotation.jump


@pytest.mark.parametrize("slide", [16, 25])
def test_longer_segments_lose_their_jumps_and_some_fast_motion(slide: int) -> None:
    found = rows(slide)["PosNet"]
    for quantity in (found.rotation, found.translation):
        assert quantity.smaller >= 0.9
        assert abs(quantity.energy_change) <= 0.2


@pytest.mark.parametrize("slide", SLIDES)
def test_a_head_that_stands_elsewhere_moves_as_before(slide: int) -> None:
    """A generator's mean pose need not be that of the tracks."""
    shift = np.array([0.5, -0.5, 0.3, 0.5, -0.5, 1.0], np.float32)
    here, there = joined(weights(slide), segments(slide)), joined(weights(slide), segments(slide) + shift)
    assert np.abs(there - shift - here).max() < 0.02


def test_the_head_stays_with_the_generator() -> None:
    """Over 95 segments the shown pose does not wander off: it lies no farther than twice the displacements."""
    given = segments(8)
    shown = joined(weights(8), given)
    apart = (shown - given).reshape(-1, 6).std(axis=0)
    assert (apart < 2 * 0.5 * np.load(TRACK).std(axis=0)).all()


def test_the_files_say_how_they_were_made() -> None:
    from safetensors import safe_open

    for slide in SLIDES:
        with safe_open(default_posnet(slide), "pt") as file:
            facts = json.loads(file.metadata()["pflx"])
        assert facts["slide"] == slide
        assert [motion["name"] for motion in facts["motion"]] == ["franck.npy"]


def test_a_narrow_posnet_loads_beside_the_published_width() -> None:
    narrow, published = load_model("posnet", weights(8)), load_model("posnet", untrained("posnet", 0))
    assert isinstance(narrow, PosNet)
    assert isinstance(published, PosNet)
    assert (narrow.fc1.out_features, published.fc1.out_features) == (72, 512)
    assert default_posnet(8).stat().st_size < 200_000


class Parts:
    """Stands for a generator."""

    name = "reactface"

    def __init__(self, hop: int) -> None:
        self.hop = hop


def loaded(monkeypatch: pytest.MonkeyPatch, hop: int, posnet: Path | None) -> Any:
    """Components of stand-ins for all but PosNet."""
    renderer = Checkpoint(Path("pirender.pt"), "00", {}, "", ())

    def load(path: Path, expected: str) -> tuple[nn.Module, Checkpoint]:
        return load_component(path, expected) if expected == "posnet" else (nn.Linear(1, 1), renderer)

    def generator(*_: object) -> tuple[Any, list[Provenance]]:
        return cast(Any, Parts(hop)), []

    monkeypatch.setattr(components_module, "load_generator", generator)
    monkeypatch.setattr(components_module, "load_component", load)
    return load_components(generator=[Path("it.pth")], posnet=posnet, renderer=Path("pirender.pt"), mean_face="zero")


@pytest.mark.parametrize("slide", SLIDES)
def test_without_a_posnet_export_takes_the_default_of_the_hop_and_says_so(
    monkeypatch: pytest.MonkeyPatch, slide: int
) -> None:
    found = loaded(monkeypatch, slide, None)
    entry = found.provenance[0]
    assert found.posnet.slide == slide
    assert (entry.slot, entry.source, entry.keys) == ("posnet", f"posnet_{slide}.safetensors", 10)
    assert DEFAULT_POSNET in entry.note


def test_a_posnet_that_is_given_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save(untrained("posnet", 0, slide=8), tmp_path / "mine.pth")
    found = loaded(monkeypatch, 8, tmp_path / "mine.pth")
    assert found.provenance[0].source == "mine.pth"
    assert DEFAULT_POSNET not in found.provenance[0].note


def test_a_hop_without_a_default_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ComponentError, match=r"no default PosNet for segments of 50 frames.*--slide 50"):
        loaded(monkeypatch, 50, None)
