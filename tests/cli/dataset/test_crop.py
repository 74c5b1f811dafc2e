"""`pflx crop`: the fixtures' regions through the whole command, going on, what is refused, and being stopped."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.commands import pflx, refusal
from support.media.noted import NotedFaces, write_noted
from support.places import GOLDEN, MEDIA

from pflx.engines import PflxError
from pflx.runtime import open_speaker
from pflx.runtime.dataset import WorkerError, crop_folder
from pflx.runtime.dataset.crop_folder import crop_clips
from pflx.runtime.speaker.faces import DetectorFileError, open_packaged
from pflx.runtime.speaker.pfl import centre_square

CASES: list[dict[str, Any]] = json.loads((GOLDEN / "pfl_cases.json").read_text())
WEBCAM, PODIUM = MEDIA / "webcam_cap12_12s.mp4", MEDIA / "podium_speech_8s.mp4"
SECONDS = 1.2
LOST: Any = partial(open_packaged, Path("none.onnx"), "")
FACE = [(60.0, 40.0, 100.0, 110.0)]


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Faces that `support.media.noted` clips show; the first of them in each frame, unless the list is filled."""
    faces: list[Any] = []
    monkeypatch.setattr(crop_folder, "BlazeFace", lambda: NotedFaces(faces or [[FACE] * 64] * 16))
    return faces


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    for number, case in enumerate(CASES):
        write_noted(folder / f"{case['name']}.mp4", number, len(case["faces"]), (case["w"], case["h"]))
    return folder


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three short ones, one of them a folder further down."""
    (tmp_path / "clips" / "more").mkdir(parents=True)
    for number, name in enumerate(("a.mp4", "b.mp4", "more/a.mp4")):
        write_noted(tmp_path / "clips" / name, number, 6, (320, 280))
    (tmp_path / "clips" / "notes.txt").write_text("no clip")
    return tmp_path / "clips"


def cropped(*arguments: str | Path | int, code: int = 0) -> str:
    outcome = pflx("crop", *arguments, "--workers", 1)
    assert outcome.code == code, outcome.err
    return outcome.out


def record(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def rows(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = record(folder / "crop.json")["clips"]
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def of_formula(case: dict[str, Any]) -> list[int]:
    """The paper's rectangle, shifted into the frame, and rounded half up at the end."""
    formula, frame = case["paper_omega256"], (case["w"], case["h"])
    if formula is None:
        square = centre_square(frame, 256)
        return [square.left, square.top, square.right, square.bottom]
    lows, highs = [], []
    for middle, extent, limit in zip((formula["cx"], formula["cy"]), (formula["w"], formula["h"]), frame, strict=True):
        length = min(extent, limit)
        low = min(max(middle - length / 2, 0), limit - length)
        lows.append(math.floor(low + 0.5))
        highs.append(math.floor(low + length + 0.5))
    return [*lows, *highs]


@pytest.mark.parametrize("how", [("release", 256), ("release", 360), ("paper", 256)])
def test_regions_are_those_of_the_fixtures_to_the_pixel(
    cases: Path, stubbed: list[Any], tmp_path: Path, how: tuple[str, int]
) -> None:
    mode, window = how
    stubbed.extend(case["faces"] for case in CASES)
    cropped(cases, "-o", tmp_path / "out", "--pfl", mode, "--window", window)
    for case in CASES:
        found = record(tmp_path / "out" / f"{case['name']}.crop.json")
        expected = of_formula(case) if mode == "paper" else case[f"code_pad20_win{window}"]
        assert found["regions"] == [expected], case["name"]
        assert [box for box in found["boxes"] if box] == case["selected"]
        assert found["faces"] == [len(faces) for faces in case["faces"]]


def test_what_is_written_of_a_real_clip(tmp_path: Path) -> None:
    said = cropped(PODIUM, "-o", tmp_path / "out", "--duration", 1)
    assert {*files(tmp_path / "out")} == {"crop.json", "podium_speech_8s.mp4", "podium_speech_8s.crop.json"}
    found = record(tmp_path / "out" / "podium_speech_8s.crop.json")
    assert (found["fps"], found["frames"], found["frame_size"]) == (25, 25, [320, 240])
    assert all(box is not None for box in found["boxes"])
    assert found["source_sha256"] == hashlib.sha256(PODIUM.read_bytes()).hexdigest()
    made = open_speaker(tmp_path / "out" / "podium_speech_8s.mp4")
    assert (made.width, made.height, made.frames, made.has_audio) == (256, 256, 25, True)
    assert "window larger than the frame (1): podium_speech_8s.mp4" in said


def test_a_second_run_does_nothing_and_a_changed_or_lost_one_is_done_again(
    clips: Path, stubbed: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert cropped(clips, "-o", out).splitlines()[0].startswith("3 clips: 3 cropped now in ")
    assert {*rows(out)} == {"a.mp4", "b.mp4", "more/a.mp4"}
    before, stamps = files(out), {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    assert cropped(clips, "-o", out) == (
        f"3 clips: 0 cropped now; 3 before; 0 left out; 0 failed\nWrote {out / 'crop.json'}\n"
    )
    assert files(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")} == stamps
    (out / "a.mp4").unlink()
    write_noted(clips / "b.mp4", 1, 9, (320, 280))
    (out / "more" / "a.crop.json").write_bytes(before["more/a.crop.json"][:-20])
    assert ": 3 cropped now" in cropped(clips, "-o", out)
    assert {name for name, content in files(out).items() if content != before[name]} == {
        "b.mp4",
        "b.crop.json",
        "crop.json",
    }
    assert rows(out)["b.mp4"]["frames"] == 9


def test_other_settings_are_refused_or_done_anew(clips: Path, stubbed: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    cropped(clips, "-o", out)
    before = files(out)
    asked = ("crop", clips, "-o", out, "--pfl", "paper", "--size", 128)
    assert refusal(*asked) == (
        f"pflx: {out} holds crops of other settings (release, window 256, size 256, faces by <lambda>) than asked for "
        "(paper, window 256, size 128, faces by <lambda>). Give those, another folder, or --redo to crop all anew."
    )
    assert files(out) == before
    said = cropped(clips / "a.mp4", "-o", out, "--pfl", "paper", "--size", 128, "--redo")
    assert said.startswith("1 clip: 1 cropped now in ")
    assert {*rows(out)} == {"a.mp4"}  # the others are not what the folder says
    assert ": 2 cropped now" in cropped(clips, "-o", out, "--pfl", "paper", "--size", 128)
    assert {row["region"][2] - row["region"][0] for row in rows(out).values()} == {100}


def test_a_bad_clip_is_noted_and_the_others_go_on(clips: Path, stubbed: list[Any], tmp_path: Path) -> None:
    out, bad = tmp_path / "out", clips / "bad.mov"
    bad.write_text("no clip")
    shutil.copyfile(MEDIA / "dialogue_19s.flac", clips / "sound.mp4")
    outcome = pflx("crop", clips, clips / "lost.mp4", "-o", out, "--workers", 1)
    assert outcome.code == 1
    assert outcome.err == "pflx: 3 of 6 could not be cropped. Mend or remove what failed, and run again.\n"
    assert f"failed: {bad} is text, no clip." in outcome.out
    assert f"failed: {clips / 'sound.mp4'} holds sound and no pictures." in outcome.out
    assert f"failed: {clips / 'lost.mp4'} does not exist." in outcome.out
    assert {name for name, row in rows(out).items() if row["error"]} == {"bad.mp4", "sound.mp4", "lost.mp4"}
    (clips / "sound.mp4").unlink()
    shutil.copyfile(clips / "a.mp4", bad)
    said = cropped(clips, "-o", out)
    assert ": 1 cropped now" in said
    assert rows(out)["bad.mp4"]["error"] is None


def test_outliers_are_listed_and_left_out_on_wish(clips: Path, stubbed: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    stubbed.extend([[FACE] * 6, [[]] * 6, [FACE * 2] * 6])
    said = cropped(clips, "-o", out)
    assert "  no face (1): b.mp4\n  several faces (1): more/a.mp4\n" in said
    said = cropped(clips, "-o", out, "--leave-out-outliers")
    assert said.startswith("3 clips: 2 cropped now in ")
    assert "; 1 before; 2 left out; 0 failed\n" in said
    assert {name for name in files(out) if name.endswith(".mp4")} == {"a.mp4"}
    assert record(out / "b.crop.json")["video"] is None
    assert "0 cropped now; 3 before; 2 left out" in cropped(clips, "-o", out, "--leave-out-outliers")
    assert ": 2 cropped now" in cropped(clips, "-o", out)
    assert (out / "b.mp4").is_file()


def test_crops_inside_of_the_folder_of_clips_are_no_clips(clips: Path, stubbed: list[Any]) -> None:
    cropped(clips, "-o", clips / "crops")
    assert "0 cropped now; 3 before" in cropped(clips, "-o", clips / "crops")


def test_places_that_cannot_be_meant_are_refused(clips: Path, tmp_path: Path) -> None:
    assert "which would be replaced" in refusal("crop", clips, "-o", clips)
    assert refusal("crop", clips / "a.mp4", "-o", clips) == (
        f"pflx: {clips / 'a.mp4'} lies where crops are written, {clips}. Choose another place for them."
    )
    said = refusal("crop", tmp_path / "lost.mp4", tmp_path / "none" / "lost.mp4", "-o", tmp_path / "out")
    assert "would both become" in said
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    assert refusal("crop", clips, "-o", tmp_path / "other") == (
        f"pflx: {tmp_path / 'other'} is there and holds no crops. Choose a new folder."
    )
    assert refusal("crop", tmp_path / "other", "-o", tmp_path / "out") == (
        f"pflx: There is no clip in {tmp_path / 'other'}. Give clips, or a folder of them."
    )
    shutil.copyfile(clips / "a.mp4", clips / "a.mov")
    assert refusal("crop", clips, "-o", tmp_path / "out") == (
        f"pflx: {clips / 'a.mov'} and {clips / 'a.mp4'} would both become {tmp_path / 'out' / 'a.mp4'}. Rename one, or "
        "crop them into folders of their own."
    )
    assert not (tmp_path / "out").exists()


def test_what_a_run_that_was_killed_left_is_in_nobodys_way(clips: Path, stubbed: list[Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".pflx-0123456789abcdef.part").write_bytes(b"half")
    cropped(clips, "-o", tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*"))


def test_an_index_that_is_none_is_refused(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "crop.json").write_text("{}")
    assert f"{tmp_path / 'out' / 'crop.json'} is no index of crops" in refusal("crop", clips, "-o", tmp_path / "out")


def test_workers_that_cannot_begin_are_told(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"A worker process ended with exit code -6 while it began.*fewer workers"):
        crop_clips([clips], tmp_path / "out", workers=2, detector=os.abort)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_clip_whose_worker_is_killed_is_cropped_by_another(
    long_clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    victims: list[int] = []

    def kill_one(doing: str, done: float, total: float | None) -> None:
        if done > 1 and not victims:  # one clip is done, and others are under way
            workers = [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]
            victims.extend(each.pid for each in workers)
            for pid in victims:
                os.kill(pid, signal.SIGKILL)

    found = crop_clips([long_clips], tmp_path / "out", duration_s=SECONDS, workers=2, progress=kill_one)
    assert len(victims) == 2
    assert "its worker process ended with exit code -9; it is begun again." in caplog.text
    assert [each.row.error for each in found] == [None] * 4
    cropped(long_clips, "-o", tmp_path / "alone", "--duration", str(SECONDS))
    assert files(tmp_path / "alone") == files(tmp_path / "out")


def test_a_detector_that_cannot_be_opened_says_why(clips: Path, tmp_path: Path) -> None:
    kinds: dict[int, type[PflxError]] = {1: DetectorFileError, 2: WorkerError}
    for workers, kind in kinds.items():
        with pytest.raises(kind, match=r"Cannot read none\.onnx"):
            crop_clips([clips], tmp_path / "out", workers=workers, detector=LOST)


@pytest.fixture
def long_clips(tmp_path: Path) -> Path:
    """One that is done at once, and three that take longer."""
    (tmp_path / "long").mkdir()
    write_noted(tmp_path / "long" / "0.mp4", 0, 4, (320, 280))
    for number in (1, 2, 3):
        shutil.copyfile(WEBCAM, tmp_path / "long" / f"{number}.mp4")
    return tmp_path / "long"


def stopped(clips: Path, out: Path, when: Callable[[psutil.Process], bool]) -> None:
    """Press Ctrl-C, which goes to all processes of a terminal."""
    running = subprocess.Popen(command(clips, out), stderr=subprocess.PIPE, text=True, start_new_session=True)
    process = psutil.Process(running.pid)
    while not when(process):
        assert running.poll() is None
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)
    said = running.communicate(timeout=60)[1]
    assert (running.returncode, said) == (
        130,
        "Clips that are done stay; the same command goes on with the others.\n"
        "pflx: Stopped. Nothing half-written was left.\n",
    )
    assert not list(out.glob(".*"))


def command(clips: Path, out: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "pflx",
        "crop",
        str(clips),
        "-o",
        str(out),
        "--duration",
        str(SECONDS),
        "--workers",
        "2",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_leaves_whole_files_and_the_next_run_goes_on_to_the_same(long_clips: Path, tmp_path: Path) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone"
    stopped(long_clips, out, lambda process: any(out.glob("*.crop.json")))
    done = [path.name for path in out.glob("*.crop.json")]
    assert 1 <= len(done) < 4
    whole = files(out)
    told: list[tuple[str, float, float | None]] = []
    again = crop_clips([long_clips], out, duration_s=SECONDS, workers=2, progress=lambda *each: told.append(each))
    assert [each.is_new for each in again] == [f"{number}.crop.json" not in done for number in range(4)]
    shares = [share for _, share, _ in told]
    assert shares == sorted(shares)
    assert told[-1] == ("cropping", 4, 4)
    found = files(out)
    assert {name: found[name] for name in whole if name != "crop.json"} == {
        name: content for name, content in whole.items() if name != "crop.json"
    }
    cropped(long_clips, "-o", alone, "--duration", str(SECONDS))
    assert files(alone) == found


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_while_workers_begin_is_answered_once(long_clips: Path, tmp_path: Path) -> None:
    stopped(long_clips, tmp_path / "out", lambda process: len(process.children()) >= 3)  # one of them counts semaphores
