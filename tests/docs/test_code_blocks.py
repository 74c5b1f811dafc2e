"""Blocks of Python in the documents: each one is run here, or is a file that other tests run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock, create_autospec

import cv2
import numpy as np
import pytest
from PIL import Image
from support.fakes import ONE_FACE, fake_listener
from support.media.clips import PictureTrack, greys, write_tracks
from support.media.noted import NotedFaces, write_noted
from support.persons.tiny_bundle import made_up_person, personal_bundle
from support.places import MEDIA, ROOT, python_blocks

from pflx.engines.gpu.device import Device
from pflx.runtime import EngineSettings, Listener, ListenerFrame, LiveSettings, open_speaker
from pflx.runtime.builtin import DEMO, builtin_bundle
from pflx.runtime.bundle_engines import open_engine
from pflx.runtime.dataset import crop
from pflx.runtime.dataset.crop_record import read_record
from pflx.runtime.media.video_writer import VideoWriter
from pflx.runtime.persons import write_person

RUN_HERE = {
    "cropping.md": 2,
    "datasets.md": 1,
    "features.md": 1,
    "gpu.md": 2,
    "honest_use.md": 1,
    "inputs.md": 1,
    "live.md": 1,
    "persons.md": 1,
    "warp.md": 1,
}
RUN_ELSEWHERE = {
    "README.md": 2,  # tests/examples/test_examples.py
    "hub.md": 1,  # tests/engines/hub/test_fetch.py
    "embedding.md": 7,  # files in examples/, word for word: tests/examples/test_embedding.py
}


def blocks(document: str) -> list[str]:
    folder = ROOT if document == "README.md" else ROOT / "docs"
    return python_blocks(folder / document)


def ran(block: str, names: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(names)
    exec(block, found)
    return found


def test_every_block_is_run_somewhere() -> None:
    names = ["README.md", *(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))]
    assert {name: len(found) for name in names if (found := blocks(name))} == RUN_HERE | RUN_ELSEWHERE


def test_a_clip_is_read_as_the_page_on_inputs_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    track = PictureTrack(greys(60, (48, 96)), facts={"sample_aspect_ratio": Fraction(2)})
    write_tracks(tmp_path / "speaker.mp4", track)
    ran(blocks("inputs.md")[0], {})
    assert capsys.readouterr().out.splitlines() == [
        "96 96 48 96 True False",
        "0.0 (25, 96, 96, 3) (16000,)",
        "1.0 (25, 96, 96, 3) (16000,)",
    ]


def test_a_picture_is_marked_as_the_page_on_honest_use_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tracks(tmp_path / "speaker.mp4", PictureTrack(greys(30, (48, 96))))
    shutil.copy(MEDIA / "portrait_astronaut_256.png", tmp_path / "me.png")
    found = ran(blocks("honest_use.md")[0], {})
    assert "compositeWithTrainedAlgorithmicMedia" in Image.open(tmp_path / "listener.webp").info["xmp"].decode()
    np.testing.assert_array_equal(found["frame"].image[8, 24:28].max(axis=1) < 120, True)  # the label's ground


def test_a_clip_is_cropped_as_the_page_on_cropping_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_noted(tmp_path / "speaker.mp4", 0, 3, (320, 280))
    faces = NotedFaces([[[(60, 40, 100, 110)]] * 3])
    monkeypatch.setattr(crop, "BlazeFace", lambda: faces)
    ran(blocks("cropping.md")[0], {})
    region = "Region(left=60, top=40, right=160, bottom=150)"
    assert capsys.readouterr().out.splitlines() == [f"{region} 3 ()", *["(256, 256, 3)"] * 3]
    assert open_speaker(tmp_path / "crop.mp4").frames == 3


def test_clips_are_cropped_by_the_released_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    write_noted(tmp_path / "clips" / "a.mp4", 0, 2, (320, 280))
    cascade = Mock()
    cascade.detectMultiScale.return_value = np.array([[60, 40, 100, 110]], np.int32)
    monkeypatch.setattr(cv2, "CascadeClassifier", lambda path: cascade, raising=False)
    ran(blocks("cropping.md")[1], {"__name__": "__main__"})
    found = read_record(tmp_path / "crops" / "a.mp4")
    assert found is not None
    assert found.setup.detector == "__main__.Haar"
    assert found.boxes == ((60.0, 40.0, 100.0, 110.0),) * 2
    grey, scale, neighbours = cascade.detectMultiScale.call_args.args
    assert (grey.shape, scale, neighbours) == ((280, 320), 1.1, 6)


def test_a_listener_is_two_persons_as_the_page_on_persons_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    personal_bundle(tmp_path / "me.pflx")
    shutil.copy(DEMO / "portrait.png", tmp_path / "me.png")
    persons = [made_up_person(seed, name) for seed, name in enumerate(("ada", "bob"))]
    for person in persons:
        write_person(person, tmp_path / f"{person.name}.person")
    found = ran(blocks("persons.md")[0], {})
    for stream, person in zip((found["hers"], found["his"]), persons, strict=True):
        assert stream.snapshot()["person"].tobytes().hex() == person.sha256


def test_the_fitted_extractor_scales_and_passes_on_that_there_is_no_face() -> None:
    fitted = ran(blocks("features.md")[0], {})["Fitted"]
    found: list[Any] = [np.full(58, 2.0, np.float32), None]
    extractor = create_autospec(type("Extractor", (), {"extract": lambda self, picture, frame: None}), instance=True)
    extractor.extract.side_effect = found
    one = fitted(extractor, scale=3.0, offset=1.0)
    assert one.size == 58
    assert np.array_equal(one.extract(None, None), np.full(58, 7.0, np.float32))
    assert one.extract(None, None) is None


def test_a_listener_opens_in_half_precision_where_there_is_no_gpu() -> None:
    opened = create_autospec(Listener.open, return_value=nullcontext())
    ran(blocks("gpu.md")[0], {"EngineSettings": EngineSettings, "Listener": type("Listener", (), {"open": opened})})
    assert opened.call_args.kwargs["engines"] == EngineSettings(precision="fp16", fallback=True)


def test_a_graph_runs_on_arrays_of_another_library() -> None:
    torch = pytest.importorskip("torch")
    device = create_autospec(Device)
    device.open.return_value = None  # the CPU, in this one place
    segment, last_pose = np.ones((1, 8, 58), np.float32), np.ones((1, 6), np.float32)
    names = {
        "Device": device,
        "EngineSettings": EngineSettings,
        "open_engine": open_engine,
        "bundle": builtin_bundle(),
        "torch": torch,
        "a_torch_tensor": segment,
        "another": last_pose,
    }
    smoothed = ran(blocks("gpu.md")[1], names)["smoothed"]
    assert smoothed.shape == (1, 8, 58)
    assert np.isfinite(smoothed.numpy()).all()


def test_live_sessions_show_a_clip_and_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "tests/media/portrait_astronaut_256.png", "me.png")
    with VideoWriter("speaker.mp4", size=(64, 48)) as writer:
        writer.write(np.zeros((16, 48, 64, 3), np.uint8))
    monkeypatch.setattr(Listener, "open", lambda bundle, portrait: fake_listener(detector=ONE_FACE))
    shown: list[ListenerFrame] = []
    names = {"Listener": Listener, "LiveSettings": LiveSettings, "show": shown.append}
    ran(blocks("live.md")[0], names | {"WebcamSource": lambda microphone: "speaker.mp4"})
    numbers = [frame.ledger.frame for frame in shown]
    assert numbers  # not all, if this machine was busy elsewhere for a while
    assert {*numbers} <= {*range(16)}
    assert max(map(numbers.count, numbers)) <= 2  # two sessions


def test_a_listener_of_another_size_is_opened_as_the_page_on_the_renderer_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "tests/media/portrait_astronaut_256.png", "me.png")
    with VideoWriter("speaker.mp4", size=(64, 48)) as writer:
        writer.write(np.zeros((8, 48, 64, 3), np.uint8))
    image = ran(blocks("warp.md")[0], {"Listener": Listener})["image"]
    assert image.shape == (512, 512, 3)


def test_a_data_set_is_made_and_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    shutil.copyfile(ROOT / "tests/media/podium_speech_8s.mp4", "clips/a.mp4")
    (tmp_path / "clips" / "b.mp4").touch()
    ran(blocks("datasets.md")[0], {})
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == "1/2 a made "
    assert second == "2/2 b failed clips/b.mp4 is empty. Record or copy it again."
    assert last.startswith("(1, 3, 25, 58) [Missing(row=Row(id='b', ")
