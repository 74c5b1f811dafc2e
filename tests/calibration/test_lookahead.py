"""The delay-quality curve of the renderer's look-ahead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import pflx, refusal
from support.fakes import HOP, SIZE, fake_engines, open_fake, portrait_of, write_fake_bundle
from support.places import MEDIA

from pflx.calibration.feeds import record as recording
from pflx.calibration.feeds.feeds import Feeds
from pflx.calibration.feeds.record import RecordOptions, record
from pflx.calibration.feeds.replay import react
from pflx.calibration.lookahead import LookaheadCurve, lookahead_curve, picture_jumps, seam_shots, smallest_good
from pflx.engines import Array, Bundle, Engine
from pflx.runtime import open_speaker
from pflx.runtime.evaluation.smoothness import judge_motion
from pflx.runtime.frames.foresight import Foresight


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(write_fake_bundle(tmp_path_factory.mktemp("bundle") / "fake.pflx"))


@pytest.fixture(scope="module")
def feeds(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Feeds:
    """Two takes of six segments, of a listener made of functions."""
    folder = tmp_path_factory.mktemp("recorded")
    Image.fromarray(portrait_of()).save(folder / "portrait.png")
    clips = [open_speaker(MEDIA / name).limited(5.8) for name in ("webcam_cap12_12s.mp4", "podium_speech_8s.mp4")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "OrtEngine", open_fake)
        return record(bundle, clips, folder / "portrait.png", folder / "feeds", options=RecordOptions(limit=1))


def level(coefficient: Array) -> Array:
    grey: Array = np.clip(128 + 40 * coefficient, 0, 255).astype(np.uint8)
    return grey


def flat(row: int) -> dict[str, object]:
    """A renderer whose pictures have one grey, which is the first coefficient of one row of the window."""

    def frame(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        at = int(feeds["frames"][0])
        return {"image": np.full((1, 1, SIZE, SIZE, 3), level(feeds["coefficients"][0, at - 13 + row, 0]), np.uint8)}

    return {"pirender_frame": frame}


def curve_of(bundle: Bundle, feeds: Feeds, row: int) -> LookaheadCurve:
    return lookahead_curve(bundle, feeds, fake_engines(**flat(row)), precision="fp32")  # type: ignore[arg-type]


def test_a_renderer_that_reads_no_future_gains_nothing(bundle: Bundle, feeds: Feeds) -> None:
    curve = curve_of(bundle, feeds, row=13)
    assert [point.lookahead for point in curve.points] == list(range(14))
    assert {point.psnr_db for point in curve.points} == {100.0}
    assert len({point.seam_z for point in curve.points}) == 1
    assert smallest_good(curve, 38.0) == 0


def test_delay_is_that_of_the_listener(bundle: Bundle, feeds: Feeds) -> None:
    points = curve_of(bundle, feeds, row=13).points
    assert [point.added_ms for point in points] == [40.0 * n for n in range(14)]
    assert [point.delay_ms for point in points] == [40.0 * (HOP + n) for n in range(14)]


def test_difference_and_jumps_are_those_of_the_frames_that_a_session_shows(bundle: Bundle, feeds: Feeds) -> None:
    """Grey of the window's last frame: what a session knows of frame k + 13 when it renders frame k."""
    curve = curve_of(bundle, feeds, row=26)
    shown: dict[int, list[Array]] = {0: [], 5: [], 13: []}
    for take in feeds.takes():
        track = react(take, bundle.manifest, fake_engines())[1][0, :, 0]
        shots = seam_shots(HOP, len(track))
        for lookahead, greys in shown.items():
            closed = np.minimum(((shots + lookahead) // HOP + 1) * HOP, len(track))
            greys.append(level(track[np.minimum(shots + 13, closed - 1)]).astype(float))
    shots = seam_shots(HOP, 6 * HOP)
    for lookahead, greys in shown.items():
        point = curve.points[lookahead]
        apart = np.concatenate(greys) - np.concatenate(shown[13])
        assert point.levels == pytest.approx(np.abs(apart).mean())
        for told, before in ((point.jump, 0), (point.reach_jump, lookahead)):
            jumps = [abs(g[i] - g[i - 1] - (g[i - 1] - g[i - 2] + g[i + 1] - g[i]) / 2)
                     for g in greys for i in range(2, len(shots) - 1) if (shots[i] + before) % HOP == 0]  # fmt: skip
            assert told == pytest.approx(np.mean(jumps))
    assert curve.points[13].psnr_db == 100.0
    assert curve.points[13].same == 1.0
    assert curve.points[0].lowest_psnr_db < 38.0
    assert 0 < smallest_good(curve, 38.0) <= 13


def test_foretold_frames_are_those_that_a_session_foretells(bundle: Bundle, feeds: Feeds) -> None:
    """Grey of the window's last frame, where the last step is foretold to go on."""
    foresight = Foresight(np.broadcast_to(np.arange(1, 14)[None, :, None], (58, 13, 1)).astype(np.float32), HOP)
    engines: Mapping[str, Engine] = fake_engines(**flat(26))  # type: ignore[arg-type]
    point = lookahead_curve(bundle, feeds, engines, precision="fp32", foresight=foresight).points[0]
    apart = []
    for take in feeds.takes():
        track = react(take, bundle.manifest, fake_engines())[1][0, :, 0]
        for shot in seam_shots(HOP, len(track)):
            closed, last = (shot // HOP + 1) * HOP, shot + 13
            shown = track[min(last, len(track) - 1)]
            if last >= closed and closed < len(track):
                shown = track[closed - 1] + (last - closed + 1) * (track[closed - 1] - track[closed - 2])
            apart.append(level(shown).astype(float) - level(track[min(last, len(track) - 1)]))
    assert np.abs(apart).max() > 0
    assert point.levels == pytest.approx(np.abs(apart).mean(), abs=0.02)


def test_jumps_of_pictures_are_those_of_motion() -> None:
    levels = np.random.default_rng(0).integers(0, 256, 40)
    images = np.broadcast_to(levels[:, None, None, None], (40, 4, 4, 3)).astype(np.uint8)
    jumps = picture_jumps(images, np.arange(40), 40)
    motion = np.zeros((1, 40, 3))
    motion[0, :, 0] = levels
    expected = judge_motion(motion, fps=25, hop=8).jump
    assert expected is not None
    assert jumps[0, np.arange(8, 39, 8) - 2].mean() == pytest.approx(expected.at_borders)


def test_a_jump_is_told_of_frames_whose_neighbours_were_rendered() -> None:
    images = np.zeros((5, 2, 2, 3), np.uint8)
    known = np.isfinite(picture_jumps(images, np.array([3, 4, 5, 6, 20]), 30)[0])
    assert (np.flatnonzero(known) + 2).tolist() == [5]


@pytest.mark.parametrize(("hop", "count"), [(8, 48), (25, 150), (50, 300)])
def test_seams_of_any_hop_are_looked_at_with_what_is_around_them(hop: int, count: int) -> None:
    shots = seam_shots(hop, count)
    for border in range(hop, count, hop)[:5]:
        assert set(range(border - 15, border + 3)) - set(range(-20, 0)) <= set(shots.tolist())
    assert len(shots) <= 105


def test_the_command_writes_table_curve_and_plot(
    bundle: Bundle, feeds: Feeds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pflx.runtime.bundle_engines.OrtEngine", open_fake)
    given = ("calibrate", "lookahead", bundle.path, "--feeds", feeds.folder)
    done = pflx(*given, "--json", tmp_path / "curve.json", "--plot", tmp_path / "curve.png")
    assert done.code == 0, done.err
    assert "Untrained weights (seed 7)" in done.err
    assert "every picture has 38 dB or more" in done.out
    written = json.loads((tmp_path / "curve.json").read_text())
    assert len(written["points"]) == 14
    assert written["feeds_sha256"] == feeds.sha256()
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size[0] > 800
    assert ".json" in refusal(*given, "--json", tmp_path / "curve.txt")
    assert "holds no recorded feeds" in refusal("calibrate", "lookahead", bundle.path, "--feeds", tmp_path)
