"""`pflx calibrate posnet`: from a file of motion to weights, and one clear line for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from support.commands import pflx, refusal
from support.places import MEDIA

from pflx.calibration.errors import CalibrationError
from pflx.calibration.feeds.feeds import INDEX, ArrayStore, FeedIndex, FeedInfo, GraphFeeds, encode_index
from pflx.calibration.posnet.fit import FitOptions
from pflx.calibration.posnet.motion import previous_pose, read_motion
from pflx.engines import Array
from pflx.export import load_component
from pflx.export.models import PosNet

TRACK = MEDIA / "head_cap13_31s.npy"
QUICK = ("--slide", 8, "--hidden", 72, "--steps", 3)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_track_becomes_weights_that_export_takes(work: Path) -> None:
    outcome = pflx("calibrate", "posnet", TRACK, *QUICK, "-o", "mine.safetensors", "--json", "mine.json")
    assert outcome.code == 0, outcome.err
    said = outcome.out.splitlines()
    assert said[0].startswith("3 steps; the objective of what was held out went from ")
    methods = ("untouched", "One-Euro filter", "linear cross-fade", "moved by rule", "PosNet")
    assert [line[:22].strip() for line in said[4:9]] == list(methods)
    assert said[9:] == ["Wrote mine.safetensors", "Wrote mine.json"]
    assert sorted(path.name for path in work.iterdir()) == ["mine.json", "mine.safetensors"]
    network, checkpoint = load_component(work / "mine.safetensors", "posnet")
    assert isinstance(network, PosNet)
    assert (network.slide, network.fc1.out_features, len(checkpoint.state_dict)) == (8, 72, 10)


def test_figures_and_origin_are_in_the_weights_and_in_the_json(work: Path) -> None:
    pflx("calibrate", "posnet", TRACK, *QUICK, "-o", "mine.safetensors", "--json", "mine.json")
    figures = json.loads((work / "mine.json").read_text())
    with safe_open(work / "mine.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["pflx"])
    assert {name: figures[name] for name in facts} == facts
    assert facts["motion"][0]["name"] == TRACK.name
    assert len(facts["motion"][0]["sha256"]) == 64
    assert facts["options"]["objective"]["second"] == 0.2
    posnet = facts["held_out"][-1]
    assert posnet["method"] == "PosNet"
    assert posnet["rotation"]["smaller"] > 0.9
    assert abs(posnet["rotation"]["energy_change"]) < 0.1
    assert figures["history"][0][0] == 0


def test_the_same_command_gives_the_same_file(work: Path) -> None:
    for name in ("one", "two"):
        pflx("calibrate", "posnet", TRACK, *QUICK, "-o", f"{name}.safetensors")
    assert (work / "one.safetensors").read_bytes() == (work / "two.safetensors").read_bytes()


def test_the_papers_way_can_be_asked_for(work: Path) -> None:
    way = ("--start", "random", "--optimizer", "sgd", "--momentum", "0.9", "--objective", "released")
    outcome = pflx("calibrate", "posnet", TRACK, *QUICK, *way, "-o", "mine.safetensors", "--json", "mine.json")
    assert outcome.code == 0, outcome.err
    options = json.loads((work / "mine.json").read_text())["options"]
    assert (options["lr"], options["momentum"], options["objective"]["reconstruction"]) == (1e-3, 0.9, 1.0)
    assert (options["objective"]["second"], options["objective"]["signed_second"]) == (0.0, 0.2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((TRACK, "--slide", "50", "-o", "a.safetensors"), "to fit segments of 50 it takes 1500. Give a longer motion."),
        ((TRACK, "--slide", "8", "-o", "a.pth"), "a.pth does not end in .safetensors. Try a.safetensors."),
        (("none.npy", "--slide", "8", "-o", "a.safetensors"), "none.npy does not exist. Check the path."),
    ],
)
def test_what_cannot_be_fitted_is_one_clear_line(work: Path, arguments: tuple[Any, ...], said: str) -> None:
    assert said in refusal("calibrate", "posnet", *arguments)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--slide", "2"), "--slide is '2'; give a whole number, 4 or more."),
        (("--slide", "8", "--pull", "2"), "--pull is '2'; give a number from 0 to 1."),
    ],
)
def test_a_number_that_nothing_is_fitted_with_is_refused(work: Path, arguments: tuple[str, ...], said: str) -> None:
    refused = refusal("calibrate", "posnet", TRACK, *arguments, "-o", "a.safetensors", code=2)
    assert refused == f"pflx: {said}"
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"slide": 2}, "slide is 2; the least is 4"),
        ({"pull": 2.0}, "The pull is 2"),
        ({"hidden": 10**9}, "hidden is 1000000000; the most is 8192"),
        ({"lr": 2.0}, "The learning rate is 2"),
        ({"momentum": 1.0}, "momentum is 1"),
        ({"weight_decay": -1.0}, "weight_decay is -1"),
    ],
)
def test_so_it_is_in_python(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        FitOptions(**{"slide": 8, **setting})


def recorded(folder: Path, segments: Array, last_poses: Array) -> Path:
    """A folder of `pflx calibrate record` with calls of PosNet."""
    (folder / "arrays").mkdir(parents=True)
    store = ArrayStore(folder / "arrays")
    feeds = []
    for pose, last in zip(segments, last_poses, strict=True):
        segment = np.concatenate([np.zeros((len(pose), 52)), pose], axis=1).astype(np.float32)[None]
        arrays = {"segment": segment, "last_pose": last.astype(np.float32)[None]}
        feeds.append(FeedInfo(clip="it.mp4", arrays=store.put_all(arrays)))
    graphs = {"posnet": GraphFeeds(seen=len(feeds), feeds=feeds)}
    index = FeedIndex(pflx="0", bundle="it.pflx", graph_sha256={}, seed=0, limit=500, graphs=graphs)
    (folder / INDEX).write_bytes(encode_index(index))
    return folder


def test_recorded_feeds_are_fitted_to_with_the_jumps_they_had(work: Path) -> None:
    track = np.load(TRACK)
    segments = track[:760].reshape(-1, 8, 6)
    last_poses = previous_pose(segments) + np.random.default_rng(0).normal(0, 0.1, (95, 6))
    folder = recorded(work / "feeds", segments, last_poses)
    (motion,) = read_motion(folder, 8)
    np.testing.assert_allclose(motion.offset_sd, 0.1 / np.sqrt(2), rtol=0.25)
    np.testing.assert_allclose(motion.windows[:, 8:], segments[:76], atol=1e-6)
    outcome = pflx("calibrate", "posnet", folder, *QUICK, "-o", "mine.safetensors")
    assert outcome.code == 0, outcome.err
    assert "No segments in a row were held out" in outcome.out


def test_feeds_of_another_hop_or_too_few_are_refused(work: Path) -> None:
    segments = np.load(TRACK)[:80].reshape(-1, 8, 6)
    folder = recorded(work / "feeds", segments, segments[:, 0])
    with pytest.raises(CalibrationError, match="has segments of 8 frames"):
        read_motion(folder, 25)
    with pytest.raises(CalibrationError, match=r"holds 10 segments, it takes 30.*--limit"):
        read_motion(folder, 8)
