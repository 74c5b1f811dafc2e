"""The examples, and what the documents say about the code."""

from __future__ import annotations

import hashlib
import re
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import contact_sheet
import numpy as np
import pytest
import run_demo
from figures import PAGE, stated, table
from PIL import Image
from support.exported import all_recipes
from support.fakes import ONE_FACE, fake_listener
from support.places import ROOT, python_blocks

from pflx.runtime import FaceState, Listener, ListenerFrame
from pflx.runtime.media.video_writer import VideoWriter

CLIP = ROOT / "tests/media/podium_speech_8s.mp4"


def test_the_lines_of_the_readme_show_a_clip_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "tests/media/portrait_astronaut_256.png", "me.png")
    with VideoWriter("speaker.mp4", size=(64, 48)) as writer:
        writer.write(np.zeros((16, 48, 64, 3), np.uint8))
    snippet, _ = python_blocks(ROOT / "README.md")
    shown: list[Any] = []
    exec(snippet, {"show": shown.append})
    assert [image.shape for image in shown] == [(256, 256, 3)] * 16
    assert len([line for line in snippet.splitlines() if line]) <= 5


def test_the_readme_is_short_and_its_figures_are_those_of_the_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 900
    figures = text[text.index("## Five figures") : text.index("## What else")]
    rows = re.findall(r"^\| .+ \| (\S.*) \|$", figures, re.MULTILINE)
    assert len(rows) == 5
    assert set(rows) <= {*stated()}


def test_the_page_of_figures_says_what_the_files_say() -> None:
    assert table() in PAGE.read_text()


def test_the_embedding_yields_every_frame_of_the_clip(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def open_fake(bundle: str, portrait: str) -> Listener:
        assert (bundle, portrait) == ("me.pflx", "me.png")
        return fake_listener(detector=ONE_FACE, lookahead=13)

    monkeypatch.setattr(Listener, "open", open_fake)
    monkeypatch.setattr(sys, "argv", ["embed.py", "me.pflx", "me.png", str(CLIP)])
    runpy.run_path(str(ROOT / "examples/embed.py"))
    *frames, end = capsys.readouterr().out.splitlines()
    assert frames[0].startswith("0.00 s")
    assert len(frames) + int(end.split()[0]) == 219


def test_the_bundle_document_lists_every_tensor_of_every_graph() -> None:
    described = all_recipes()
    rows = re.findall(r"^\| `(\w+)`(.*)$", (ROOT / "docs/bundle.md").read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == list(described)
    for name, row in rows:
        named = set(re.findall(r"`([\w.]+)`", row))
        if "the three above" in row:
            named |= described["pirender_portrait"].outputs.keys()
        assert named == {*described[name].inputs, *described[name].outputs}


def test_the_latency_document_states_the_delay_that_the_listener_computes() -> None:
    table = re.findall(r"^\| (\d+) \| (\d+) ms \| (\d+) ms", (ROOT / "docs/latency.md").read_text(), re.MULTILINE)
    assert len(table) == 3
    for lookahead, at_least, at_most in table:
        with fake_listener(lookahead=int(lookahead)) as listener:
            assert listener.algorithmic_delay_ms == float(at_most)
        assert (int(lookahead) + 1) * 40 == int(at_least)


def test_the_live_session_of_the_readme_shows_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with VideoWriter(tmp_path / "speaker.mp4", size=(64, 48)) as writer:
        writer.write(np.zeros((16, 48, 64, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    shown: list[ListenerFrame] = []
    _, snippet = python_blocks(ROOT / "README.md")
    exec(snippet, {"listener": fake_listener(detector=ONE_FACE), "show": shown.append})
    numbers = [frame.ledger.frame for frame in shown]
    assert numbers  # not all, if this machine was busy elsewhere for a while
    assert numbers == sorted({*numbers} & {*range(16)})


def test_all_links_between_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} → {target}"


def made_run(folder: Path, frames: int = 40) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    video, coefficients = folder / "listener.mp4", folder / "coefficients.npz"
    with VideoWriter(video, size=(128, 64)) as writer:
        writer.write(rng.integers(0, 256, (frames, 64, 128, 3), np.uint8))
    arrays: dict[str, Any] = {
        "coefficients": rng.standard_normal((1, frames, 58), np.float32),
        "generated_pose": rng.standard_normal((1, frames, 6), np.float32),
        "face": np.arange(frames) % 4,
        "region": np.array([-8, 0, 232, 240]),
        "fps": np.array(25),
        "hop": np.array(8),
        "untrained": np.array(0),
    }
    np.savez(coefficients, **arrays)
    return video, coefficients


def test_the_contact_sheet_shows_pictures_poses_and_that_nothing_is_trained(tmp_path: Path) -> None:
    video, coefficients = made_run(tmp_path)
    contact_sheet.draw_contact_sheet(CLIP, video, coefficients, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as opened:
        sheet = np.asarray(opened.convert("RGB")).astype(int)
    tints = contact_sheet.TINTS.values()
    for colour in (contact_sheet.BLUE, contact_sheet.ORANGE, contact_sheet.GREEN, *tints, contact_sheet.WARNING):
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(sheet - rgb).sum(axis=-1) < 12).sum() > 40, colour


def acted(frames: int = 200) -> contact_sheet.Run:
    """A listener who nods about frame 60, blinks at 100, smiles most at 140 and turns most at 180."""
    pose, face, time = np.zeros((frames, 6)), np.zeros((frames, 3)), np.arange(frames)
    for track, axis, height, at in ((pose, 0, 8, 60), (face, 0, 1, 100), (face, 1, 0.3, 140), (pose, 1, -9, 180)):
        track[:, axis] += height * np.exp(-(((time - at) / 4) ** 2))
    faces = [FaceState.LOCKED] * frames
    return contact_sheet.Run(pose.copy(), pose, face, faces, region=None, fps=25, hop=8, untrained=None)


def test_pictures_are_chosen_where_something_happens() -> None:
    moments = contact_sheet.find_moments(acted())
    assert [moment.frame for moment in moments] == sorted(moment.frame for moment in moments)
    chosen = {moment.name: moment.frame for moment in moments}
    assert chosen.pop("rest") not in range(50, 190)
    assert chosen == {"before the nod": 48, "nod": 60, "blink": 100, "smile": 140, "turn": 180}


def test_where_nothing_happens_pictures_lie_far_apart_and_claim_nothing() -> None:
    run = acted()
    still = replace(run, generated=0 * run.generated, smoothed=0 * run.smoothed, face=0 * run.face)
    moments = contact_sheet.find_moments(still)
    assert len(moments) == contact_sheet.COLUMNS
    assert {moment.name for moment in moments} == {"rest", ""}
    assert min(np.diff([moment.frame for moment in moments])) >= 20


def test_scales_are_fixed_and_no_panel_is_empty() -> None:
    run = acted()
    panels = contact_sheet._curves(run)
    assert [panel.title for panel in panels] == ["pitch", "yaw", "roll", "face"]
    assert [panel.span for panel in panels] == [(-10, 10), (-10, 10), (-10, 10), (0, 1)]
    run.smoothed[:, 3] = 0.1
    run.smoothed[30, 2] = -17
    panels = contact_sheet._curves(run)
    assert [panel.title for panel in panels][4:] == ["translation"]
    assert [panel.span for panel in panels] == [(-20, 20), (-20, 20), (-20, 20), (0, 1), (0, 0.2)]


def test_angles_of_the_sheet_are_pitch_yaw_and_roll_about_0() -> None:
    pose = np.array([[np.pi + 0.1, -0.2, 0.3, 1, 2, 3], [0.1 - np.pi, -0.2, 0.3, 1, 2, 3]])
    expected = [*np.degrees([0.1, 0.2, -0.3]), 1, 2, 3]
    np.testing.assert_allclose(contact_sheet._readable(pose), [expected, expected])


def test_steps_at_seams_and_inside_segments_are_told_apart() -> None:
    track = np.repeat(np.arange(4.0), 8)[:, None] * np.ones(3)
    assert contact_sheet._steps(track, hop=8) == (1.0, 0.0)


@pytest.mark.parametrize("span", [(-160.0, 110.0), (0.0, 1e-3), (-2.3, 3.1)])
def test_ticks_are_few_and_within_the_axis(span: tuple[float, float]) -> None:
    ticks = contact_sheet._ticks(*span)
    assert 2 <= len(ticks) <= 6
    assert span[0] <= ticks[0] < ticks[-1] <= span[1]


def test_the_demo_takes_the_clip_from_its_cache_and_knows_it_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr("subprocess.run", download)
    cached = tmp_path / "obama_speech.mp4"
    shutil.copy(CLIP, cached)
    assert run_demo.fetch_clip(tmp_path) == cached
    assert hashlib.sha256(cached.read_bytes()).hexdigest() == run_demo.CLIP_SHA256
    cached.write_bytes(b"another")
    with pytest.raises(ConnectionError):
        run_demo.fetch_clip(tmp_path)
