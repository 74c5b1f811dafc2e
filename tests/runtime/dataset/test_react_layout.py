"""The REACT challenge's layout, made up here as its public code reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.dataset.react import PAIRS, write_react
from support.dataset.sets import arrays_of

from pflx.runtime import open_speaker
from pflx.runtime.dataset import DatasetSettings, RowError, collect, react_dataset, read_react


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_react(tmp_path_factory.mktemp("react") / "data")


def test_a_split_is_every_pair_and_then_every_pair_with_its_roles_exchanged(root: Path) -> None:
    rows = read_react(root, "val")
    assert [row.id for row in rows] == [PAIRS[0][0], PAIRS[1][0], PAIRS[0][1], PAIRS[1][1]]
    val = root / "val"
    first, last = rows[0], rows[-1]
    assert first.speaker == val / "Video_files/NoXI/001_Paris/Expert_video/1.mp4"
    assert first.portrait == val / "Video_files/NoXI/001_Paris/Novice_video/1.mp4"
    assert first.sound == val / "Audio_files/NoXI/001_Paris/Expert_video/1.wav"
    assert first.coefficients == val / "3D_FV_files/NoXI/001_Paris/Expert_video/1.npy"
    assert first.emotion == val / "Emotion/NoXI/001_Paris/P1/1.csv"
    assert first.listener == (
        val / "3D_FV_files/NoXI/001_Paris/Novice_video/1.npy",
        val / "Emotion/NoXI/001_Paris/P2/1.csv",
    )
    assert last.emotion == val / "Emotion/RECOLA/group-1/P2/2.csv"
    assert last.listener[1] == val / "Emotion/RECOLA/group-1/P1/2.csv"
    assert {row.portrait for row in read_react(root, "val", portraits=False)} == {None}


def test_the_sound_is_that_of_the_other_file_and_the_recorded_coefficients_are_read(root: Path, tmp_path: Path) -> None:
    rows = read_react(root, "val")
    results = list(react_dataset(rows, tmp_path / "out", settings=DatasetSettings(duration_s=1.0)))
    assert [result.status for result in results] == ["made"] * 4
    silent = rows[2].speaker  # a webcam's clip, which has no sound of its own
    assert not open_speaker(silent).has_audio
    heard = open_speaker(silent).with_sound(open_speaker(rows[2].sound or ""))
    assert heard.has_audio
    loudest = max(float(np.abs(chunk.audio).max()) for chunk in heard.limited(1.0).chunks())
    assert 0.25 < loudest < 0.35
    own = arrays_of(tmp_path / "out" / f"{rows[0].id}.npz")
    found = collect(tmp_path / "out", frames=25)
    assert [row.id for row in found.rows] == [row.id for row in rows]
    np.testing.assert_array_equal(found.arrays["coefficients"][0], own["coefficients"][:, :25])
    np.testing.assert_array_equal(found.arrays["listener_gt"][0], np.load(rows[0].listener[0])[:25, 0])
    assert rows[0].coefficients is not None
    np.testing.assert_array_equal(found.arrays["speaker"][0], np.load(rows[0].coefficients)[:25, 0])
    assert not found.left_out


def test_other_numbers_of_the_speaker_give_another_reaction(root: Path, tmp_path: Path) -> None:
    with_mirroring = read_react(root, "val")[:1]
    settings = DatasetSettings(duration_s=2.0)
    list(react_dataset(with_mirroring, tmp_path / "a", settings=settings))
    other = root / "val" / "3D_FV_files" / f"{PAIRS[1][0]}.npy"
    changed = [type(row)(**{**vars(row), "coefficients": other}) for row in with_mirroring]
    list(react_dataset(changed, tmp_path / "b", settings=settings))
    one, two = (arrays_of(tmp_path / name / f"{PAIRS[0][0]}.npz")["coefficients"] for name in "ab")
    assert not np.array_equal(one, two)


def test_what_a_row_lacks_is_left_out_or_noted(root: Path, tmp_path: Path) -> None:
    val = tmp_path / "bare" / "val" / "Video_files"
    (val / "A/1").mkdir(parents=True)
    (val / "A/1/1.png").touch()
    (tmp_path / "bare" / "val.csv").write_text(",speaker_path,listener_path\n0,A/1,B/1\n")
    rows = read_react(tmp_path / "bare")
    assert (rows[0].sound, rows[0].coefficients, rows[0].emotion, rows[0].listener) == (None, None, None, ())
    errors = [result.error or "" for result in react_dataset(rows, tmp_path / "out")]
    assert (
        "A/1 is a folder, no clip. If it holds numbered pictures, make one of them: ffmpeg -framerate 25" in errors[0]
    )
    assert errors[1] == f"{val / 'B/1.mp4'} does not exist. Check the path."


def test_what_is_no_such_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RowError, match=r"val\.csv does not exist\. Give the folder that holds it"):
        read_react(tmp_path)
    (tmp_path / "val.csv").write_text(",speaker_path,listener_path\n0,A/1\n")
    with pytest.raises(RowError, match=r"val has no folder Video_files"):
        read_react(tmp_path)
    (tmp_path / "val" / "Video_files").mkdir(parents=True)
    with pytest.raises(RowError, match=r"val\.csv, line 2: no number, speaker and listener\. Give all three\."):
        read_react(tmp_path)
