"""`pflx batch` and `pflx collect`: what they say, and real processes that are stopped and go on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from support.commands import pflx, refusal
from support.dataset.react import write_react
from support.dataset.sets import PODIUM, arrays_of, files_of, leftovers, manifest_of, some_rows
from support.fakes import open_fake, portrait_of, write_fake_bundle

from pflx.engines import Bundle
from pflx.runtime import bundle_engines
from pflx.runtime.builtin import export_builtin
from pflx.runtime.evaluation import read_predictions

ANSWER = "pflx: Stopping after the rows that run; once more stops at once. The same command goes on from there."
STOPPED = "pflx: Stopped. Nothing half-written was left."
N_ROWS = 8

with_ray = [pytest.mark.slow, pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return manifest_of(tmp_path_factory.mktemp("rows") / "rows.csv", some_rows(N_ROWS))


@pytest.fixture(scope="module")
def whole(manifest: Path) -> Path:
    folder = manifest.parent / "whole"
    outcome = pflx("batch", manifest, "-o", folder, "--duration", 2)
    assert outcome.out == f"{folder}: made {N_ROWS}, had 0 already, 0 failed.\n"
    assert (outcome.code, told(outcome.err)) == (0, [])
    return folder


def told(err: str) -> list[str]:
    """What was said but for progress, which a busy machine makes it tell."""
    return [line for line in err.splitlines() if line and not re.search(r", after \d+ s$", line)]


def begun(manifest: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    """The command as its own group of processes, once its first row is done."""
    command = [sys.executable, "-m", "pflx", "batch", str(manifest), "-o", str(folder), "--duration", "2", *options]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for _ in range(600):
        if files_of(folder) or running.poll() is not None:
            break
        time.sleep(0.1)
    return running


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("how", "workers"),
    [
        (signal.SIGINT, "--workers 1"),
        (signal.SIGTERM, "--workers 2"),
        pytest.param(signal.SIGTERM, "--ray --workers 2", marks=with_ray),
    ],
)
def test_it_stops_after_the_running_rows_and_goes_on_where_it_stopped(
    manifest: Path, whole: Path, tmp_path: Path, how: signal.Signals, workers: str
) -> None:
    folder = tmp_path / "out"
    running = begun(manifest, folder, *workers.split())
    os.killpg(running.pid, how)  # as a terminal does: to all of them
    _, said = running.communicate(timeout=120)
    assert running.returncode == 128 + how, said
    assert told(said) == [ANSWER, STOPPED]
    done = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}
    assert 1 <= len(done) < N_ROWS
    assert not leftovers(folder)
    outcome = pflx("batch", manifest, "-o", folder, "--duration", 2)
    assert outcome.out == f"{folder}: made {N_ROWS - len(done)}, had {len(done)} already, 0 failed.\n"
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert files_of(folder) == files_of(whole)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("workers", ["--workers 1", pytest.param("--ray --workers 2", marks=with_ray)])
def test_killed_it_leaves_whole_files_alone_and_goes_on(
    manifest: Path, whole: Path, tmp_path: Path, workers: str
) -> None:
    folder = tmp_path / "out"
    running = begun(manifest, folder, *workers.split())
    family = psutil.Process(running.pid).children(recursive=True)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert files_of(folder).items() <= files_of(whole).items()
    assert pflx("batch", manifest, "-o", folder, "--duration", 2).code == 0
    assert files_of(folder) == files_of(whole)
    assert not leftovers(folder)


def test_the_bundle_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, opened = tmp_path / "own.pflx", list[Path]()
    export_builtin(bundle)
    opens = Bundle._open.__func__  # type: ignore[attr-defined] # what reads manifest and hashes

    def counted(cls: type[Bundle], root: Path, verify: bool) -> Bundle:
        opened.append(root)
        found: Bundle = opens(cls, root, verify)
        return found

    monkeypatch.setattr(Bundle, "_open", classmethod(counted))
    rows = manifest_of(tmp_path / "rows.csv", some_rows(2))
    assert pflx("batch", rows, "-o", tmp_path / "out", "--duration", 1, "-b", bundle).code == 0
    assert opened == [bundle]


def test_rows_that_failed_are_told_and_the_exit_code_says_so(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "good.mp4").symlink_to(PODIUM)
    (tmp_path / "clips" / "bad.mp4").touch()
    outcome = pflx("batch", tmp_path / "clips", "-o", tmp_path / "out", "--duration", 1)
    assert outcome.code == 1
    assert outcome.out == f"{tmp_path / 'out'}: made 1, had 0 already, 1 failed.\n"
    clip = tmp_path / "clips" / "bad.mp4"
    assert told(outcome.err) == [f"pflx: bad: {clip} is empty. Record or copy it again."]
    collected = pflx("collect", tmp_path / "out", "-o", tmp_path / "pred.npz")
    assert collected.code == 1
    assert collected.err.splitlines() == [
        f"pflx: bad is missing. {clip} is empty. Record or copy it again.",
        "pflx: 1 of 2 rows are missing, and nothing was written. Run `pflx batch` again, or take what there is with "
        "--allow-missing.",
    ]
    assert not (tmp_path / "pred.npz").exists()
    outcome = pflx("collect", tmp_path / "out", "-o", tmp_path / "pred.npz", "--allow-missing")
    assert outcome.code == 0
    assert arrays_of(tmp_path / "pred.npz")["ids"].tolist() == ["good"]


def test_what_is_collected_is_evaluated_clip_by_clip(whole: Path, tmp_path: Path) -> None:
    outcome = pflx("collect", whole, "-o", tmp_path / "pred.npz")
    assert outcome.out.splitlines()[-3:] == [
        f"coefficients [{N_ROWS}, 1, 50, 58]",
        f"generated_pose [{N_ROWS}, 1, 50, 6]",
        f"Wrote {tmp_path / 'pred.npz'}",
    ]
    read = read_predictions(tmp_path / "pred.npz")
    for number, row in enumerate(some_rows(N_ROWS)):
        one = arrays_of(whole / f"{row.id}.npz")["coefficients"]
        np.testing.assert_array_equal(read.tracks["without PosNet"][number], one)
    outcome = pflx("evaluate", tmp_path / "pred.npz")
    assert outcome.code == 0
    assert f"{N_ROWS} clips, 1 reaction to each, 50 frames" in outcome.out
    assert "segments of 8 frames, without PosNet, crop release" in outcome.out


def test_what_run_and_batch_are_told_they_do_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_engines, "OrtEngine", open_fake)
    bundle, portrait = write_fake_bundle(tmp_path / "me.pflx"), tmp_path / "me.png"
    Image.fromarray(portrait_of()).save(portrait)
    (tmp_path / "rows.csv").write_text(f"id,speaker,seed\na,{PODIUM},4\n")
    common = ("-b", bundle, "-p", portrait, "--duration", 1)
    shown = {}
    for index, options in enumerate(
        [("--lookahead", 5), ("--lookahead", 0), ("--without-posnet",), ("--generator-history", "adjusted")]
    ):
        out, video, track = (tmp_path / f"{index}{name}" for name in ("", ".mp4", ".npz"))
        assert pflx("batch", tmp_path / "rows.csv", "-o", out, "--video", *common, *options).code == 0
        assert pflx("run", PODIUM, "-o", video, "--coefficients", track, "--seed", 4, *common, *options).code == 0
        assert (out / "a.mp4").read_bytes() == video.read_bytes()
        of_batch, of_run = arrays_of(out / "a.npz"), arrays_of(track)
        assert of_batch.keys() - {"seal"} == of_run.keys()
        for name, array in of_run.items():
            np.testing.assert_array_equal(of_batch[name], array)
        shown[options] = video.read_bytes()
    assert len({*shown.values()}) == len(shown)


def test_another_crop_is_refused_or_made_again_where_that_is_wanted(tmp_path: Path) -> None:
    manifest, out = manifest_of(tmp_path / "rows.csv", some_rows(2)), tmp_path / "out"
    command = ("batch", manifest, "-o", out, "--duration", "0.4")
    assert pflx(*command).out == f"{out}: made 2, had 0 already, 0 failed.\n"
    assert refusal(*command, "--crop", "floating") == (
        f"pflx: {out / '0/0.npz'} was made with crop release, not floating. Choose another folder, or have what was "
        "made otherwise made again: --redo, in Python redo=True."
    )
    outcome = pflx(*command, "--crop", "floating", "--redo")
    assert outcome.out == f"{out}: made 2, had 0 already, 0 failed.\n"
    assert json.loads((out / "dataset.json").read_text())["seal"]["crop"] == "floating"


def test_the_challenges_layout_is_taken(tmp_path: Path) -> None:
    root, out = write_react(tmp_path / "data"), tmp_path / "out"
    outcome = pflx("batch", "--react", root, "--split", "val", "-o", out, "--duration", 1, "--shard", "2/2")
    assert (outcome.code, outcome.out) == (0, f"{out}: made 2, had 0 already, 0 failed.\n")
    assert set(files_of(out)) == {"RECOLA/group-1/P25/2", "RECOLA/group-1/P26/2"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("-o out", "Give either CLIPS or --react ROOT: what to react to."),
        ("clips -o out --react data", "Give either CLIPS or --react ROOT: what to react to."),
        ("clips -o clips/out", "--output clips/out lies in CLIPS clips. Choose a place outside of it."),
        ("clips -o out --shard 3", "--shard is '3'; give I/N, like 1/4."),
        ("clips -o out --shard 3/2", "Shard 3 of 2 is none. Give I/N with I from 1 to N, like 1/2."),
        ("clips -o out --video", "Row 'a' has no portrait, and pictures are wanted. Give one for all rows, or for it."),
        (
            "--ray clips -o out",
            "ray is 'clips'; give the cluster's HOST:PORT, 'auto' for the one that this machine belongs to, or 'local' "
            "(behind --ray: nothing) for a Ray of its own on this machine.",
        ),
        ("clips --ray -o out --device cuda:1", "With ray, device is cpu or cuda, not cuda:1: Ray deals out the GPUs."),
        ("none.csv -o out", "none.csv does not exist. Check the path."),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").symlink_to(PODIUM)
    assert refusal("batch", *arguments.split()) == f"pflx: {said}"
    assert {path.name for path in tmp_path.iterdir()} == {"clips"}
