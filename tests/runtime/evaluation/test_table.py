"""Several runs side by side: the figures of each alone, the best in bold, and runs that are nothing to compare."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from support.commands import Outcome, pflx, refusal
from support.evaluation.text_graph import MEAN_COLOURS, write_graph
from support.golden_arrays import golden
from support.predictions import numbers, of_run

from pflx.engines import Array
from pflx.runtime.evaluation.comparison import Comparison, Run
from pflx.runtime.evaluation.results import Challenge, Evaluation
from pflx.runtime.evaluation.table import table_of, write_table
from pflx.runtime.media.video_writer import VideoWriter


def done(*arguments: str | Path | int) -> Outcome:
    outcome = pflx("evaluate", *arguments)
    assert outcome.code == 0, outcome.err
    return outcome


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text)))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published case as `theirs.npz`, and reactions that resemble the true ones more as `ours.npz`."""
    monkeypatch.chdir(tmp_path)
    arrays: dict[str, Any] = {
        key: golden("evaluation_emotion25")[key] for key in ("pred", "listener_gt", "speaker", "neighbour")
    }
    np.savez("theirs.npz", **arrays)
    closer = (arrays["pred"] + 3 * arrays["listener_gt"][:, None]) / 4
    np.savez("ours.npz", **(arrays | {"pred": closer}))


def test_a_row_of_the_table_has_the_figures_of_the_run_alone(runs: None, tmp_path: Path) -> None:
    text = done("theirs.npz", "ours.npz", "--table", "csv").out
    rows = {row["run"]: row for row in rows_of(text)}
    assert list(rows) == ["theirs", "ours"]
    assert list(rows["ours"]) == ["run", "FRDvs", "FRVar", "FRDiv", "FRCorr", "FRSyn", "FRDist"]
    for name, row in rows.items():
        done(f"{name}.npz", "--json", "alone.json")
        (alone,) = json.loads(Path("alone.json").read_bytes())["challenge"]
        assert {key: float(value) for key, value in row.items() if key != "run"} == {
            key: alone[key] for key in alone if key in row
        }
    (all_samples,) = rows_of(done("theirs.npz", "--all-samples", "--table", "csv").out)
    assert float(all_samples["FRSyn_all"]) == pytest.approx(float(golden("evaluation_emotion25")["FRSyn_all"]))
    assert float(rows["theirs"]["FRDist"]) == pytest.approx(float(golden("evaluation_emotion25")["FRDist"]), abs=1e-6)
    done("theirs.npz", "ours.npz", "--json", "both.json")
    told = json.loads(Path("both.json").read_bytes())
    assert [(run["name"], run["evaluation"]["predictions"]) for run in told["runs"]] == [
        ("theirs", "theirs.npz"),
        ("ours", "ours.npz"),
    ]
    assert told["features"] == 25


def test_the_best_of_each_figure_is_in_bold_by_its_direction(runs: None) -> None:
    outcome = done("theirs.npz", "ours.npz", "--name", "their | own", "--name", "ours", "-o", "table.md")
    assert outcome.out == "Wrote table.md\n"
    header, rule, theirs, ours = Path("table.md").read_text().splitlines()
    assert header == "| run | FRDvs ↑ | FRVar ↑ | FRDiv ↑ | FRCorr ↑ | FRSyn ↓ | FRDist ↓ |"
    assert rule.count("---:") == 6
    cells = [[cell.strip() for cell in row.replace("\\|", "/").split("|")[1:-1]] for row in (theirs, ours)]
    assert (cells[0][0], cells[1][0]) == ("their / own", "ours")
    for name, higher, one, other in zip(header.split("|")[2:-1], "hhhhll", *(row[1:] for row in cells), strict=True):
        values = [float(cell.strip("*")) for cell in (one, other)]
        best = max(values) if higher == "h" else min(values)
        assert [cell.startswith("**") for cell in (one, other)] == [value == best for value in values], name
    assert cells[1][4].startswith("**")
    assert cells[1][6].startswith("**")
    part = done("theirs.npz", "ours.npz", "--part", "pose")
    assert part.out.splitlines()[0] == "| run |"
    assert part.err == "smoothness: it is that of the pose, which 25 features do not have.\n"
    assert "FRRea: pass --video FILE or FOLDER, --fid-network" in outcome.err
    assert "VBench: pass --vbench RESULT.json" in outcome.err


def test_the_table_in_latex_can_be_set(runs: None) -> None:
    done("theirs.npz", "ours.npz", "--name", "50%_a&b", "--name", "ours", "-o", "table.tex")
    lines = Path("table.tex").read_text().splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrrrr}"
    assert lines[2].startswith(r"run & FRDvs $\uparrow$ & FRVar $\uparrow$ & ")
    assert lines[2].endswith(r" & FRDist $\downarrow$ \\")
    assert lines[4].startswith(r"50\%\_a\&b & ")
    assert r"\textbf{" in lines[5]
    assert {line.count("&") - line.count(r"\&") for line in lines[2:6:2]} == {6}
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]


def run_of(name: str, challenge: dict[str, float | None]) -> Run:
    told = Challenge(track="emotion", features=25, **challenge)  # type: ignore[arg-type]
    evaluation = Evaluation(
        pflx="0", predictions=name, clips=2, samples=2, frames=60, fps=25, hop=None, untrained=None, neighbours=None,
        challenge=[told], motion=[], left_out=[],
    )  # fmt: skip
    return Run(name=name, evaluation=evaluation)


def test_what_is_written_alike_is_best_together_and_a_run_without_a_figure_is_none() -> None:
    figures: Sequence[dict[str, float | None]] = [
        {"fr_corr": 0.30001, "fr_syn": 8.0, "fr_dist": 0.0},
        {"fr_corr": 0.30002, "fr_syn": None, "fr_dist": 0.0},
        {"fr_corr": 0.2, "fr_syn": 9.0, "fr_dist": 0.0},
    ]
    runs = [run_of(str(index), each) for index, each in enumerate(figures)]
    text = write_table(table_of(Comparison(features=25, runs=runs)), "md")
    assert text.splitlines()[2:] == ["| 0 | **0.3** | **8** | 0 |", "| 1 | **0.3** | n/a | 0 |", "| 2 | 0.2 | 9 | 0 |"]
    alone = write_table(table_of(Comparison(features=25, runs=runs[:1])), "md")
    assert alone.splitlines()[2] == "| 0 | 0.3 | 8 | 0 |"


def saved(name: str, **changes: Array) -> str:
    track = numbers(3, 60, 25)
    arrays = {"pred": numbers(3, 2, 60, 25), "listener_gt": track, "neighbour": np.eye(3), "speaker": track}
    np.savez(f"{name}.npz", **(arrays | changes))  # type: ignore[arg-type]
    return f"{name}.npz"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pred": numbers(3, 4, 60, 25)}, "a has 2 reactions to each clip, b 4, and FRCorr and FRDist are sums"),
        ({"pred": numbers(3, 2, 59, 25), "listener_gt": numbers(3, 59, 25), "speaker": numbers(3, 59, 25)},
         "a has 60 frames, b 59; take as many with pflx collect --frames"),
        ({"pred": numbers(2, 2, 60, 25), "listener_gt": numbers(2, 60, 25), "neighbour": np.eye(2),
          "speaker": numbers(2, 60, 25)}, "a has 3 clips, b 2; react to the same clips"),
        ({"pred": numbers(3, 2, 60, 58)}, "a has 25 features, b 58; choose those of both with --features"),
        ({"neighbour": np.ones((3, 3))}, "a has 1 appropriate reactions to a clip on average, b has others, 3"),
        ({"listener_gt": numbers(3, 60, 25) + 1}, "a holds other true reactions than b; pass one --listener for both"),
        ({"speaker": numbers(3, 60, 25) + 1}, "a holds other speakers than b; pass one --speaker for both"),
        ({"ids": np.array(["x", "z", "y"])}, "clip 1 is y in a and z in b; react to the same clips"),
    ],
)  # fmt: skip
def test_runs_that_are_nothing_to_compare_are_refused_in_one_line_that_names_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Array], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pair = saved("a", ids=np.array(["x", "y", "z"])), saved("b", **change)
    assert refusal("evaluate", *pair).startswith(f"pflx: a and b cannot be compared: {said}")
    assert refusal("evaluate", *pair, "-o", "a.csv").startswith("pflx: a and b cannot be compared")
    assert not Path("a.csv").exists()


def test_what_all_runs_are_held_against_can_be_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pair = saved("a"), saved("b", neighbour=np.ones((3, 3)))
    np.save("near.npy", np.ones((3, 3)))
    one, other = rows_of(done(*pair, "--neighbours", "near.npy", "--table", "csv").out)
    assert one["FRCorr"] == other["FRCorr"]


def test_a_run_is_shown_with_posnet_unless_asked_otherwise_and_by_its_emotion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        of_run(Path(f"{name}.npz"), emotion=numbers(2, 30, 25))
    done("a.npz", "--json", "a.json")
    alone = json.loads(Path("a.json").read_bytes())
    jerks = {row["track"]: row["jerk"] for row in alone["motion"] if row["quantity"] == "rotation"}
    spread = {row["track"]: row["FRVar"] for row in alone["challenge"]}
    for words, pose, track in (
        ([], "with PosNet", "emotion"),
        (["--without-posnet"], "without PosNet", "emotion"),
        (["--features", "58"], "with PosNet", "with PosNet"),
    ):
        row, _ = rows_of(done("a.npz", "b.npz", "--table", "csv", *words).out)
        assert float(row["rotation jerk, deg/s³"]) == jerks[pose]
        assert float(row["FRVar"]) == spread[track]


def test_what_seam_scores_lack_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, hop in (("none", 0), ("few", 25), ("many", 4)):
        of_run(Path(f"{name}.npz"), hop=np.array(hop))
    for name, columns, notes in (
        ("none", {"rotation jerk, deg/s³"}, "seam score: pass --hop N, the frames of a segment.\n"),
        (
            "few",
            {"rotation jerk, deg/s³", "rotation jump, deg"},
            "seam score: 2 borders between segments are too few; it takes 4: give a longer motion.\n",
        ),
        ("many", {"rotation jerk, deg/s³", "rotation jump, deg", "rotation seam score"}, ""),
    ):
        told = done(f"{name}.npz", "--table", "csv", "--part", "pose")
        known = {"rotation jerk, deg/s³", "rotation jump, deg", "rotation seam score"}
        assert known & rows_of(told.out)[0].keys() == columns
        assert told.err == notes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.npz", "a.npz"], "Two runs are called a. Name each: --name A --name B."),
        (["a.npz", "b.npz", "--name", "x"], "--name is given 1 times for 2 runs. Give it once for each."),
        (
            ["a.npz", "b.npz", "--video", "x.mp4"],
            "--video is given 1 times for 2 runs. Give it once for each.",
        ),
        (["a.npz", "b.npz", "--plot", "x.png"], "--plot draws one run. Leave it out, or evaluate that run alone."),
        (["a.npz", "--part", "pose"], "--part is for tables. Leave it out, or add --table md."),
        (["a.npz", "--features", "25"], "--features is for tables. Leave it out, or add --table md."),
        (["a.npz", "b.npz", "--features", "58"], "a has tracks of 25 features, none of 58. Leave out --features 58."),
        (["a.npz", "--vbench", "x.json"], "VBench judges videos. Give those of each run: --video."),
        (
            ["a.npz", "--fid-network", "x.onnx"],
            "FRRea takes both --fid-network NET.onnx and --real, pictures or clips.",
        ),
        (["a.npz", "b.npz", "-o", "x.txt"], "x.txt does not end in .md. Try x.md."),
        (["a.npz", "b.npz", "-o", "x.md", "--table", "tex"], "x.md does not end in .tex. Try x.tex."),
    ],
)
def test_what_a_table_cannot_be_made_of_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        saved(name)
    assert said in refusal("evaluate", *words)


def film(path: Path, seed: int, frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = np.random.default_rng(seed).integers(0, 256, (frames, 64, 64, 3), dtype=np.uint8)
    with VideoWriter(path, size=(64, 64), audio=False) as writer:
        writer.write(np.stack([cv2.GaussianBlur(each, (0, 0), 4 + seed) for each in pictures]))


def test_pictures_real_ones_and_what_vbench_said_come_into_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ids = np.array(["NoXI/1", "NoXI/2"])
    for number, name in enumerate("ab"):
        arrays = {"coefficients": numbers(2, 1, 35, 58), "generated_pose": numbers(2, 1, 35, 6)}
        of_run(Path(f"{name}.npz"), **arrays, ids=ids)
        for clip, frames in (("1", 35), ("2", 36)):  # one goes on after what was collected
            film(Path(f"films_{name}/NoXI/{clip}.mp4"), 2 * number, frames)
    Path("real").mkdir()
    for index in range(6):
        Image.fromarray(np.full((64, 64, 3), 40 * index, np.uint8)).save(f"real/{index}.png")
    write_graph(Path("net.onnx"), MEAN_COLOURS["uint8 [N, H, W, 3]"])
    given = ("a.npz", "b.npz", "--video", "films_a", "--video", "films_b")
    told = done(*given, "--vbench-folder", "judge").out.splitlines()
    assert told[0] == "Wrote judge, 4 videos. VBench judges them, on a GPU, by:"
    assert told[1].startswith("  vbench evaluate --videos_path judge --dimension 'subject_consistency ")
    names = sorted(path.name for path in Path("judge").iterdir())
    rows = [{"video_path": f"judge/{name}", "video_results": 0.9 + index / 100} for index, name in enumerate(names)]
    Path("r_eval_results.json").write_text(json.dumps({"motion_smoothness": [0.915, rows]}))
    options = ("--vbench", "r_eval_results.json", "--fid-network", "net.onnx", "--real", "real")
    outcome = done(*given, *options, "--table", "csv")
    one, other = rows_of(outcome.out)
    assert [float(row["motion smoothness"]) for row in (one, other)] == pytest.approx([0.905, 0.925])
    assert 0 < float(one["temporal flickering"]) < float(other["temporal flickering"]) < 1  # the second is more blurred
    assert float(one["FRRea"]) > 1000  # grey of six levels against noise of one
    assert "subject consistency" not in one
    assert "FRRea of" not in outcome.err  # 4 pictures of each run, 3 features
    realism = done(*given, *options[2:], "--table", "csv", "--part", "challenge", "--json", "realism.json")
    assert [row["FRRea"] for row in rows_of(realism.out)] == [one["FRRea"], other["FRRea"]]
    assert json.loads(Path("realism.json").read_bytes())["runs"][0]["evaluation"]["pictures"] is None
    few = done(
        *given[:2],
        "--video",
        "films_a",
        "--video",
        "films_a",
        *options[2:4],
        "--real",
        "real/0.png",
        "--real",
        "real/1.png",
    )
    assert "FRRea of a: 2 pictures are too few for 3 features; it is not to be compared." in few.err
