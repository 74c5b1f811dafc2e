"""Benchmarks run, for a moment and without their figures: an API that moves on takes them along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import MEDIA, ROOT
from support.serve.chromium import find_chromium

from pflx.export.checkpoints import read_in_parts
from pflx.export.persons import Hypernetwork


def python(*words: str | Path, **environment: str) -> str:
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_sessions_on_an_imitated_gpu_are_measured() -> None:
    code = "import imitated_gpu; print(imitated_gpu.measure(1, 2).keys())"
    assert "dict_keys(['sessions', 'now', 'before'])" in python("-c", code, PYTHONPATH=str(ROOT / "benchmarks"))


def test_memory_of_a_run_is_measured(exported: Path, tmp_path: Path) -> None:
    code = "import memory, pathlib; memory.synthetic_clip(pathlib.Path('{clip}'), 0.02)"
    clip = tmp_path / "clip.mp4"
    python("-c", code.format(clip=clip), PYTHONPATH=str(ROOT / "benchmarks"))
    printed = python("benchmarks/memory.py", exported, MEDIA / "portrait_astronaut_256.png", "--child", clip)
    assert float(printed.split("PEAK")[1]) > 50


@pytest.mark.slow
def test_visitors_of_a_server_are_measured() -> None:
    code = "import json; from live import visitors; print(json.dumps(visitors.run([1, 2], 2.0, None)))"
    found = json.loads(python("-c", code, PYTHONPATH=str(ROOT / "benchmarks")).splitlines()[-1])
    assert [(row["sessions"], row["refused"]) for row in found] == [(1, 0), (2, 0)]
    for row in found:
        assert 0 < row["frames"] <= 25 * 2 * 2 * row["sessions"]
        assert 0 < row["join_ms"]["p50"] <= row["join_ms"]["p95"]
        assert row["sessions_per_core"] == pytest.approx(1 / row["cpu_s_per_session_s"], rel=0.1)


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed (or name one by PFLX_CHROMIUM)")
def test_a_visitor_in_a_browser_is_measured() -> None:
    code = (
        f"import json, pathlib; from live import browser; print(json.dumps(browser.visit(pathlib.Path('{ROOT}'), 3)))"
    )
    found = json.loads(python("-c", code, PYTHONPATH=str(ROOT / "benchmarks")).splitlines()[-1])
    assert 0 <= found["missed"] <= found["frames"] <= 25 * 6
    assert 0 < found["shown_per_s"] <= 50
    assert found["server_cpu_ms_per_frame"] > 0


def test_a_full_split_is_evaluated_figure_by_figure(tmp_path: Path) -> None:
    code = "import evaluation, json; print(json.dumps(evaluation.full_split(2)))"
    found = json.loads(python("-c", code, PYTHONPATH=str(ROOT / "benchmarks"), TMPDIR=str(tmp_path)))
    assert found["case"] == {"clips": 2, "samples": 10, "frames": 750, "neighbours": 8}
    for features in ("25 features", "58 features"):
        assert {"reading", "FRCorr", "FRDist", "FRDvs", "FRVar", "FRDiv", "FRSyn"} <= found[features]["seconds"].keys()
        assert found[features]["peak_gb"] > 0.05
    assert not list(tmp_path.iterdir())


def test_a_hypernetwork_is_made_up_as_its_training_code_saves_it(tmp_path: Path) -> None:
    path = tmp_path / "modifier.pth"
    code = f"import adding, pathlib; adding.WIDTH = 2; print(adding.hypernetwork(pathlib.Path('{path}')))"
    numbers = 3 * (29696 + 2 * 524288) + 2 * 512 + 2 * 2 + 4
    assert int(python("-c", code, PYTHONPATH=str(ROOT / "benchmarks/persons"))) == numbers
    reader, read = read_in_parts(path, "perfrdiff_modifier")
    assert Hypernetwork(reader).layout == "render"
    assert "optimizer" in " ".join(read.notes)
    assert path.stat().st_size > 2 * 4 * numbers
    assert [*tmp_path.iterdir()] == [path]
