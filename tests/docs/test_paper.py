"""The commands of docs/paper.md, as they stand there, on a made-up data set in the challenge's layout."""

from __future__ import annotations

import csv
import json
import re
import shlex
from io import StringIO
from pathlib import Path
from string import Template

import numpy as np
import pytest
from PIL import Image
from support.commands import pflx
from support.dataset.react import FRAMES, PAIRS, write_react
from support.evaluation.text_graph import MEAN_COLOURS, write_graph
from support.fakes import open_fake, write_fake_bundle
from support.places import ROOT

from pflx.runtime import bundle_engines

PAGE = ROOT / "docs" / "paper.md"
THIRD = ("NoXI/002_Paris/Expert_video/3", "NoXI/002_Paris/Novice_video/3")
RUNS = ["full", "no_posnet", "floating", "adjusted"]


def blocks() -> list[list[list[str]]]:
    """The words of each line of each fenced block of shell, in their order."""
    found = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [[shlex.split(line) for line in block.splitlines()] for block in found]


def words_of(line: list[str], values: dict[str, str]) -> list[str]:
    """A line as a shell would pass it on: variables and patterns replaced."""
    words = (Template(word).substitute(values) for word in line)
    return [each for word in words for each in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]


def vbench(words: list[str]) -> None:
    """In the place of VBench: made-up scores, in a file as it writes them."""
    options = dict(zip(words[2::2], words[3::2], strict=True))
    names = sorted(path.name for path in Path(options["--videos_path"]).iterdir())
    told = {}
    for index, dimension in enumerate(options["--dimension"].split()):
        scores = [60.0 + len(name) if dimension == "imaging_quality" else 0.5 + index / 10 for name in names]
        rows = [
            {"video_path": f"{options['--videos_path']}/{n}", "video_results": s}
            for n, s in zip(names, scores, strict=True)
        ]
        told[dimension] = [float(np.mean(scores)), rows]
    folder = Path(options["--output_path"])
    folder.mkdir()
    (folder / "results_2026-01-02-03:04:05_eval_results.json").write_text(json.dumps(told, indent=4))


def rows_of(table: str) -> list[dict[str, str]]:
    """The rows of a table in Markdown, without bold."""
    lines = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in Path(table).read_text().splitlines()]
    text = StringIO()
    csv.writer(text).writerows([lines[0], *lines[2:]])
    return list(csv.DictReader(StringIO(text.getvalue())))


@pytest.mark.slow
def test_every_command_of_the_page_runs_and_its_tables_have_the_columns_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given, *commands = blocks()
    values = {"DATA": "data", "BUNDLE": "me.pflx", "SAMPLES": "2", "FRAMES": str(FRAMES)}
    assert [line[0].partition("=")[0] for line in given] == list(values)
    write_react(Path("data"), [*PAIRS, THIRD], cut=True)
    np.save("data/neighbour_emotion_val.npy", np.eye(6) + np.roll(np.eye(6), 1, axis=1))
    monkeypatch.setattr(bundle_engines, "OrtEngine", open_fake)
    write_fake_bundle(Path("me.pflx"))
    write_graph(Path("inception.onnx"), MEAN_COLOURS["float [N, 3, H, W]"])
    Path("real").mkdir()
    for index in range(8):
        Image.fromarray(np.full((64, 64, 3), 30 * index, np.uint8)).save(f"real/{index}.png")
    printed = ""
    for words in (words_of(line, values) for block in commands for line in block):
        if words[0] == "vbench":
            assert shlex.join(words) in printed
            vbench(words)
            continue
        assert words[0] == "pflx"
        outcome = pflx(*words[1:])
        assert outcome.code == 0, (words, outcome.err)
        printed = outcome.out
    found = rows_of("table4.md")
    assert [row["run"] for row in found] == RUNS
    assert {
        "FRDvs ↑",
        "FRVar ↑",
        "FRDiv ↑",
        "FRCorr ↑",
        "FRSyn ↓",
        "rotation jump, deg ↓",
        "rotation jerk, deg/s³ ↓",
    } <= found[0].keys()
    full, no_posnet, floating, adjusted = (float(row["rotation jump, deg ↓"]) for row in found)
    assert max(full, floating, adjusted) < no_posnet
    assert len({row["FRVar ↑"] for row in found}) == len(RUNS)
    assert "\\textbf{" in Path("table4.tex").read_text()
    assert json.loads(Path("table4.json").read_bytes())["features"] == 58
    smooth = rows_of("table1.md")
    assert [row["run"] for row in smooth] == ["full_films", "no_posnet_films"]
    assert [row["subject consistency ↑"] for row in smooth] == ["0.5", "0.5"]
    assert float(smooth[0]["imaging quality ↑"]) < float(smooth[1]["imaging quality ↑"])  # of longer names
    assert {"temporal flickering ↑", "flow (DIS), px/frame", "dynamic degree (RAFT)", "motion smoothness ↑"} <= smooth[
        0
    ].keys()
    assert 0 < float(smooth[0]["temporal flickering ↑"]) <= 1
    assert all(float(row["FRRea ↓"].replace(",", "")) > 0 for row in rows_of("realism.md"))


def test_every_row_that_the_page_describes_is_one_of_its_runs() -> None:
    described = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert described == RUNS[1:]
