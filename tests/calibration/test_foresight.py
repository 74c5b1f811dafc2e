"""Fitting what stands for frames that were not waited for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import pflx, refusal

from pflx.calibration.errors import CalibrationError
from pflx.calibration.foresight import fit_foresight
from pflx.engines import Array
from pflx.runtime.frames.foresight import Foresight

HOP = 8


def write_run(path: Path, track: Array, hop: int = HOP) -> Path:
    """As of `pflx run --coefficients`, of tracks [K, T, 58]."""
    fields: dict[str, Any] = {
        "coefficients": track,
        "generated_pose": track[..., 52:],
        "fps": 25,
        "hop": hop,
        "untrained": 4,
    }
    np.savez(path, **fields)
    return path


def waves(count: int, samples: int = 3) -> Array:
    """Each coefficient a sum of two sines, at 0.3 to 1.2 Hz: 4 steps tell how it goes on. The last one rests."""
    rng = np.random.default_rng(0)
    time = np.arange(count)[None, :, None] / 25
    pace = rng.uniform(0.3, 1.2, (2, 1, 1, 58)) * 2 * np.pi
    phase = rng.uniform(0, 2 * np.pi, (2, samples, 1, 58))
    track = np.sin(pace * time + phase).sum(axis=0)
    track[..., 57] = 0.5
    return np.asarray(track, np.float32)


def test_a_regular_motion_is_foretold_better_than_repeated_and_what_rests_rests(tmp_path: Path) -> None:
    foresight, report = fit_foresight([write_run(tmp_path / "run.npz", waves(400))])
    assert (report.hop, report.untrained, report.moving) == (HOP, [4], 57)
    assert report.fitted + report.held_out == 3 * 48
    assert all(each.foretold < 0.5 * each.repeated for each in report.ahead)
    track = waves(400)[0]
    assert np.abs(foresight.after(track[35:40])[3] - track[43]).mean() < 0.3 * np.abs(track[39] - track[43]).mean()
    np.testing.assert_array_equal(foresight.weights[57], 0)


def test_what_cannot_be_foretold_is_repeated(tmp_path: Path) -> None:
    """A walk without memory: nothing in its steps says where it goes."""
    walk = np.random.default_rng(1).standard_normal((2, 2000, 58)).cumsum(axis=1).astype(np.float32)
    foresight, report = fit_foresight([write_run(tmp_path / "run.npz", walk)])
    assert np.abs(foresight.weights).mean() < 0.1
    for each in report.ahead:
        assert each.foretold == pytest.approx(each.repeated, rel=0.05)


def test_segments_of_another_length_too_few_or_unknown_are_refused(tmp_path: Path) -> None:
    run, other = write_run(tmp_path / "run.npz", waves(400)), write_run(tmp_path / "other.npz", waves(400), hop=25)
    with pytest.raises(CalibrationError, match=r"other\.npz has segments of 25 frames, .*run\.npz of 8"):
        fit_foresight([run, other])
    with pytest.raises(CalibrationError, match=r"There are \d+ ends of segments .* it takes 30"):
        fit_foresight([write_run(tmp_path / "short.npz", waves(80))])
    np.save(tmp_path / "plain.npy", waves(400))
    with pytest.raises(CalibrationError, match="does not say where its segments end"):
        fit_foresight([tmp_path / "plain.npy"])


def test_the_command_writes_what_the_listener_reads(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.npz", waves(400))
    done = pflx("calibrate", "foresight", run, "-o", tmp_path / "f.npz", "--json", tmp_path / "f.json")
    assert done.code == 0, done.err
    assert "smaller by" in done.out
    expected, report = fit_foresight([run])
    np.testing.assert_array_equal(Foresight.read(tmp_path / "f.npz", HOP).weights, expected.weights)
    written = json.loads((tmp_path / "f.json").read_text())
    assert (written["fitted"], written["motion"]) == (report.fitted, report.motion)
    assert "does not exist" in refusal("calibrate", "foresight", tmp_path / "none.npz", "-o", tmp_path / "g.npz")
