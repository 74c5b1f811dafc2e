"""Rendered pictures: VBench's temporal flickering, FRRea by a small network, and VBench's folder and results."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.evaluation.text_graph import MEAN_COLOURS, write_graph
from support.predictions import numbers, of_run

from pflx.engines import Array, FeedError, OutputError
from pflx.runtime.evaluation import InputError, UndefinedError, judge_pictures, read_predictions
from pflx.runtime.evaluation.pictures.frechet import FeatureNetwork, RealPictures, Spread, frechet_distance
from pflx.runtime.evaluation.pictures.vbench import (
    DIMENSIONS,
    read_vbench,
    vbench_command,
    video_names,
    write_vbench_folder,
)
from pflx.runtime.evaluation.pictures.videos import judge_videos, videos_of
from pflx.runtime.media.video_writer import VideoWriter


def noise(count: int, size: tuple[int, int] = (32, 48), seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def written(path: Path, pictures: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, size=pictures.shape[2:0:-1], audio=False) as writer:
        writer.write(pictures)
    return path


def decoded(path: Path) -> list[Array]:
    """As VBench decodes, whatever its rate."""
    video, pictures = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        pictures.append(read[1])
    return pictures


def flickering(pictures: Sequence[Array]) -> float:
    """VBench 45e79ec, temporal_flickering: a mean in float32 of each pair, and their mean."""
    wide = [picture.astype(np.float32) for picture in pictures]
    apart = [cv2.absdiff(before, after).mean() for before, after in pairwise(wide)]
    return (255.0 - float(np.mean(np.array(apart)))) / 255.0


@pytest.mark.parametrize("size", [(64, 96), (384, 320)])
def test_temporal_flickering_is_that_of_vbench_on_the_file_whatever_its_size(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    pictures = np.stack([cv2.GaussianBlur(each, (0, 0), 3) for each in noise(6, size)])
    video = written(tmp_path / "a.mp4", pictures)
    predictions = read_predictions(
        of_run(tmp_path / "a.npz", coefficients=numbers(1, 6, 58), generated_pose=numbers(1, 6, 6))
    )
    found = judge_videos(video, [video], predictions, hop=None, progress=lambda *_: None)
    assert found.temporal_flickering == pytest.approx(flickering(decoded(video)), abs=1e-6)
    assert found.temporal_flickering < 0.99
    same = found.flicker == pytest.approx(255 * (1 - found.temporal_flickering), abs=1e-9)
    assert same == (min(size) <= 256)


def test_a_picture_that_stands_still_does_not_flicker() -> None:
    assert judge_pictures(noise(1).repeat(3, axis=0)).temporal_flickering == 1


def plain_distance(one: Array, other: Array) -> float:
    """By the eigenvalues of the product of covariances, as a mathematician writes it down."""
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    roots = np.real(np.sqrt(np.linalg.eigvals(a @ b).astype(complex))).sum()
    return float(np.square(one.mean(axis=0) - other.mean(axis=0)).sum() + np.trace(a) + np.trace(b) - 2 * roots)


@pytest.mark.parametrize("layout", MEAN_COLOURS)
def test_the_distance_is_that_of_the_networks_features(tmp_path: Path, layout: str) -> None:
    rendered, real = noise(10) // 2, noise(7, seed=1)
    for index, picture in enumerate(real):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    judge = RealPictures(FeatureNetwork(write_graph(tmp_path / "net.onnx", MEAN_COLOURS[layout])), [tmp_path])
    found = judge.distance_to(rendered)
    means = [pictures.mean(axis=(1, 2)) for pictures in (rendered, real)]
    assert found.fr_rea == pytest.approx(plain_distance(*means), rel=2e-3 if "16" in layout else 1e-5)
    assert (found.features, found.pictures, found.real, found.too_few) == (3, 10, 7, False)
    assert judge.distance_to(rendered[:3]).too_few


@pytest.mark.parametrize(("rows", "features"), [(500, 8), (12, 30)])
def test_the_distance_of_made_up_features_is_the_closed_form_also_where_covariances_are_singular(
    rows: int, features: int
) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, rows, features))
    other = 3 * other[: rows // 2] + 2
    spreads = [Spread(features), Spread(features)]
    for spread, whole in zip(spreads, (one, other), strict=True):
        for portion in np.array_split(whole, 5):
            spread.add(portion)
        np.testing.assert_allclose(spread.covariance, np.cov(whole, rowvar=False), atol=1e-12)
        np.testing.assert_allclose(spread.mean, whole.mean(axis=0), atol=1e-12)
    assert frechet_distance(*spreads) == pytest.approx(plain_distance(one, other), rel=1e-6)
    assert frechet_distance(*spreads) == pytest.approx(frechet_distance(*spreads[::-1]), rel=1e-9)
    assert frechet_distance(spreads[0], spreads[0]) == pytest.approx(0, abs=1e-6)


def test_the_mean_is_not_lost_where_it_is_large_against_the_spread() -> None:
    rows = 1e6 + np.random.default_rng(0).normal(size=(300, 4)) * 1e-3
    spread = Spread(4)
    for portion in np.array_split(rows, 30):
        spread.add(portion)
    np.testing.assert_allclose(spread.covariance, np.cov(rows, rowvar=False), rtol=1e-4, atol=1e-10)


def test_of_a_clip_every_30th_frame_is_a_real_picture(tmp_path: Path) -> None:
    levels = np.arange(62, dtype=np.uint8)
    written(tmp_path / "real" / "a.mp4", np.broadcast_to(levels[:, None, None, None] * 2, (62, 64, 64, 3)))
    (tmp_path / "real" / "notes.txt").write_text("no picture")
    judge = RealPictures(
        FeatureNetwork(write_graph(tmp_path / "net.onnx", MEAN_COLOURS["uint8 [N, H, W, 3]"])), [tmp_path / "real"]
    )
    found = judge.distance_to(noise(5))
    assert found.real == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(float[N,5] a) => (float[N,5] b) {b = Abs (a)}", "takes float32 [N, 5]. Give a graph that takes"),
        ("(int64[N,3,H,W] a) => (int64[N,3,H,W] b) {b = Abs (a)}", "takes int64 [N, 3, H, W]. Give a graph that"),
        ("(float[N,3,H,W] a, float[N] c) => (float[N,3,H,W] b) {b = Abs (a)}", "has inputs a, c and outputs b."),
        ("(float[N,3,H,W] a) => (float[N,3,H,W] b) {b = Abs (a)}", "gives [2, 3, 32, 48] of 2 pictures. It has"),
        ("(float[N,3,H,W] a) => (float[N,C] b) <int64[2] s = {2,3}> {m = ReduceMin<keepdims=0> (a, s)\n b = Log (m)}",
         "features that are not finite. Check its range: float input is 0…1."),
    ],
)  # fmt: skip
def test_a_graph_that_gives_no_features_of_pictures_is_refused(tmp_path: Path, text: str, said: str) -> None:
    pictures = noise(2)
    pictures[:, 0] = 0
    with pytest.raises(InputError) as caught:
        FeatureNetwork(write_graph(tmp_path / "net.onnx", text)).spread(pictures)
    assert said in str(caught.value)


def test_too_little_to_tell_a_distance_by_is_refused(tmp_path: Path) -> None:
    Image.fromarray(noise(1)[0]).save(tmp_path / "one.png")
    graph = FeatureNetwork(write_graph(tmp_path / "net.onnx", MEAN_COLOURS["uint8 [N, H, W, 3]"]))
    with pytest.raises(UndefinedError, match="takes 2 pictures or more, there is 1"):
        RealPictures(graph, [tmp_path / "one.png"]).distance_to(noise(5))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds neither pictures"):
        RealPictures(graph, [tmp_path / "empty"])
    with pytest.raises(InputError, match="does not exist"):
        RealPictures(graph, [tmp_path / "none"])


def results(path: Path, folder: str, scores: dict[str, dict[str, float | bool]]) -> Path:
    """As VBench 45e79ec writes it: what each dimension's function returns, a figure and rows."""
    told: dict[str, object] = {}
    for dimension, each in scores.items():
        rows: list[dict[str, object]] = [
            {"video_path": f"{folder}/{name}", "video_results": score} for name, score in each.items()
        ]
        if dimension == "background_consistency":
            rows = [row | {"video_sim": 29 * float(str(row["video_results"])), "cnt_per_video": 29} for row in rows]
        mean = float(np.mean(list(each.values()))) / (100 if dimension == "imaging_quality" else 1)
        told[dimension] = [mean, rows]
    path.write_text(json.dumps(told, indent=4))
    return path


@pytest.fixture
def two_runs(tmp_path: Path) -> dict[str, list[Path]]:
    """Two videos of each of two runs, in folders."""
    runs = {run: [tmp_path / run / "NoXI/1.mp4", tmp_path / run / "NoXI/2.mp4"] for run in ("ours", "their/own")}
    for videos in runs.values():
        for video in videos:
            video.parent.mkdir(parents=True, exist_ok=True)
            video.write_bytes(str(video).encode())
    return runs


NAMES = ["ours--1.mp4", "ours--2.mp4", "their~own--1.mp4", "their~own--2.mp4"]


def test_the_folder_for_vbench_holds_every_video_under_a_name_that_is_read_back(
    tmp_path: Path, two_runs: dict[str, list[Path]]
) -> None:
    names = video_names(two_runs)
    folder = tmp_path / "for vbench"
    for _ in range(2):  # the second time over the first
        write_vbench_folder(folder, names)
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    assert (folder / "their~own--2.mp4").read_bytes() == str(two_runs["their/own"][1]).encode()
    words = shlex.split(vbench_command(folder))
    assert words[:2] == ["vbench", "evaluate"]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options["--videos_path"] == str(folder)
    assert options["--mode"] == "custom_input"
    assert options["--dimension"].split() == list(DIMENSIONS)
    (folder / "another.mp4").touch()
    with pytest.raises(OutputError, match=r"holds another.mp4, which VBench would judge too"):
        write_vbench_folder(folder, names)


def test_without_links_videos_are_copied(
    tmp_path: Path, two_runs: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    write_vbench_folder(tmp_path / "folder", video_names(two_runs))
    assert (tmp_path / "folder" / "ours--1.mp4").read_bytes() == str(two_runs["ours"][0]).encode()
    assert not (tmp_path / "folder" / "ours--1.mp4").is_symlink()


def test_results_of_vbench_are_read_back_run_by_run(tmp_path: Path, two_runs: dict[str, list[Path]]) -> None:
    names = video_names(two_runs)
    scores: dict[str, dict[str, float | bool]] = {
        "subject_consistency": dict(zip(NAMES, [0.9, 0.8, 0.7, 0.5], strict=True)),
        "background_consistency": dict(zip(NAMES, [0.95, 0.85, 0.75, 0.65], strict=True)),
        "imaging_quality": dict(zip(NAMES, [60.0, 70.0, 40.0, 50.0], strict=True)),
    }
    moves: dict[str, dict[str, float | bool]] = {
        "dynamic_degree": dict(zip(NAMES, [True, False, True, True], strict=True))
    }
    files = [
        results(tmp_path / "results_2026-01-02-03:04:05_eval_results.json", "/data/for vbench", scores),
        results(tmp_path / "b_eval_results.json", "./for vbench", moves),
    ]
    found = read_vbench(files, names)
    assert found["ours"] == pytest.approx(
        {"subject_consistency": 0.85, "background_consistency": 0.9, "imaging_quality": 0.65, "dynamic_degree": 0.5}
    )
    assert found["their/own"] == pytest.approx(
        {"subject_consistency": 0.6, "background_consistency": 0.7, "imaging_quality": 0.45, "dynamic_degree": 1}
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"motion_smoothness": [0.5, [{"video_path": "x/ours--1.mp4", "video_results": 0.5}]]},
         "has no motion_smoothness of ours--2.mp4, their~own--1.mp4, their~own--2.mp4. Run VBench on"),
        ({"motion_smoothness": [0.5, [{"video_path": f"x/{name}", "video_results": 1} for name in [*NAMES, "c.mp4"]]]},
         "tells motion_smoothness of c.mp4, of none of these runs."),
        ({"motion_smoothness": 0.5}, "is no result of VBench. Give its …_eval_results.json"),
        ([], "is no result of VBench."),
        ({}, "tells no dimension. Run VBench with --dimension."),
        ({"motion_smoothness": [0.5, [{"video_path": "x/ours--1.mp4"}]]}, "is no result of VBench."),
    ],
)  # fmt: skip
def test_results_that_are_not_of_these_videos_are_refused(
    tmp_path: Path, two_runs: dict[str, list[Path]], content: object, said: str
) -> None:
    file = tmp_path / "a_eval_results.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_vbench([file], video_names(two_runs))
    assert said in str(caught.value)


def test_a_dimension_that_is_told_twice_is_refused(tmp_path: Path, two_runs: dict[str, list[Path]]) -> None:
    each: dict[str, dict[str, float | bool]] = {"motion_smoothness": dict.fromkeys(NAMES, 0.9)}
    files = [results(tmp_path / name, "x", each) for name in ("a.json", "b.json")]
    with pytest.raises(InputError, match=r"a.json and .*b.json both tell motion_smoothness"):
        read_vbench(files, video_names(two_runs))


def test_videos_that_vbench_could_not_tell_apart_or_read_are_refused(tmp_path: Path) -> None:
    clash = {"a": [tmp_path / "x" / "y.mp4", tmp_path / "x~y.mp4"]}
    with pytest.raises(FeedError, match=r"would both be a--x~y.mp4"):
        video_names(clash)
    with pytest.raises(FeedError, match=r"VBench takes .mp4, and .*a.mkv is none"):
        video_names({"a": [tmp_path / "a.mkv"]})


def test_the_videos_of_a_run_are_found_by_the_names_of_its_clips(tmp_path: Path) -> None:
    ids = np.array(["NoXI/b", "NoXI/a"])
    pair: dict[str, object] = {"coefficients": numbers(2, 2, 6, 58), "generated_pose": numbers(2, 2, 6, 6)}
    run = read_predictions(of_run(tmp_path / "run.npz", **pair, ids=ids))
    wanted = [tmp_path / "films" / f"NoXI/{name}.mp4" for name in ("b-0", "b-1", "a-0", "a-1")]
    for video in wanted[:3]:
        video.parent.mkdir(parents=True, exist_ok=True)
        video.touch()
    with pytest.raises(InputError, match=r"lacks 1 of the 4 videos of .*run.npz, the first .*NoXI/a-1.mp4"):
        videos_of(tmp_path / "films", run)
    wanted[3].touch()
    assert videos_of(tmp_path / "films", run) == wanted
    nameless = read_predictions(of_run(tmp_path / "nameless.npz", **pair))
    assert videos_of(tmp_path / "films", nameless) == sorted(wanted)
    (tmp_path / "films" / "more.mp4").touch()
    with pytest.raises(InputError, match=r"holds 5 videos .* of 2 clips and 2 reactions"):
        videos_of(tmp_path / "films", nameless)
    with pytest.raises(FeedError, match=r"is one clip, .* holds 2. Give the folder"):
        videos_of(tmp_path / "a.mp4", run)
