"""The examples of embedding, run as they stand, and the document that shows them."""

from __future__ import annotations

import asyncio
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import asyncio_frames
import cv2
import numpy as np
import pytest
from support.fakes import ONE_FACE, SIZE, fake_listener, frames_of, sound_of
from support.places import ROOT

from pflx.runtime import IterableSource, Listener, Timed
from pflx.runtime.media.video_writer import VideoWriter

EXAMPLES = ROOT / "examples"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What listeners were opened with; each is a fake one."""
    calls: list[tuple[Any, ...]] = []

    def open_fake(*given: Any, **options: Any) -> Listener:
        calls.append(given)
        return fake_listener(detector=ONE_FACE, **options)

    monkeypatch.setattr(Listener, "open", open_fake)
    return calls


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / "speaker.mp4", size=(64, 48)) as writer:
        writer.write(np.zeros((16, 48, 64, 3), np.uint8))
    return tmp_path / "speaker.mp4"


def shown_examples() -> dict[str, str]:
    text = (ROOT / "docs/embedding.md").read_text()
    return dict(re.findall(r"<!-- examples/(\w+\.py) -->\n```python\n(.*?)```", text, re.DOTALL))


def test_the_document_shows_the_examples_as_they_are() -> None:
    shown = shown_examples()
    assert set(shown) == {
        *("embed.py", "webcam_window.py", "push.py", "asyncio_frames.py", "fastapi_endpoint.py", "frame_consumer.py"),
        "turns.py",
    }
    for name, code in shown.items():
        assert (EXAMPLES / name).read_text() == code, f"docs/embedding.md shows another {name}"


@pytest.mark.parametrize("name", ["embed.py", "webcam_window.py"])
def test_the_two_short_ones_are_short(name: str) -> None:
    assert len([line for line in (EXAMPLES / name).read_text().splitlines() if line]) <= 15


def test_the_webcam_window_shows_frames_until_it_is_closed(
    opened: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[np.ndarray] = []

    class Window:
        def show(self, frame: Any) -> None:
            shown.append(frame.image)

        def close(self, error: BaseException | None) -> None:
            assert error is None

    def camera(**options: Any) -> IterableSource:
        assert options == {"microphone": "default", "sample_rate_hz": 16_000}
        frames, sound = frames_of(16), sound_of(16)
        return IterableSource(
            [Timed(n / 25, frames[n], sound[640 * n : 640 * n + 640]) for n in range(16)], sample_rate_hz=16_000
        )

    monkeypatch.setattr("pflx.runtime.WindowSink", Window)
    monkeypatch.setattr("pflx.runtime.WebcamSource", camera)
    monkeypatch.setattr(sys, "argv", ["webcam_window.py", "me.pflx", "me.png"])
    runpy.run_path(str(EXAMPLES / "webcam_window.py"))
    assert opened == [("me.pflx", "me.png")]
    assert {image.shape for image in shown} == {(SIZE, SIZE, 3)}
    assert "'FULL'" in capsys.readouterr().out


def test_what_is_pushed_is_reacted_to(
    opened: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["push.py", "me.pflx", "me.png"])
    runpy.run_path(str(EXAMPLES / "push.py"))
    assert opened == [("me.pflx", "me.png")]
    lines = [
        re.fullmatch(r"(\d+\.\d\d) s  due at (\d+) \(64, 64, 4\)", line)
        for line in capsys.readouterr().out.splitlines()
    ]
    assert len(lines) > 25
    due = [int(line[2]) for line in lines if line]
    assert len(due) == len(lines)
    assert min(np.diff(due)) >= 39_000_000


def test_a_cue_is_told_of_with_the_frame_it_begins_in(
    opened: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with VideoWriter(tmp_path / "long.mp4", size=(64, 48)) as writer:
        writer.write(np.zeros((150, 48, 64, 3), np.uint8))
    monkeypatch.setattr(sys, "argv", ["turns.py", "me.pflx", "me.png", str(tmp_path / "long.mp4")])
    runpy.run_path(str(EXAMPLES / "turns.py"))
    lines = [
        re.fullmatch(r"(\d\.\d\d) s  (nod|blink) (cue|)  \d\.\d\d s", line)
        for line in capsys.readouterr().out.splitlines()
    ]
    assert all(lines)
    (cued,) = (float(line[1]) for line in lines if line and line[3] == "cue")
    assert 5.0 <= cued <= 5.32


def test_the_event_loop_gets_frames_with_their_times(
    opened: list[tuple[Any, ...]], clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(asyncio_frames.watch("me.pflx", "me.png", str(clip)))
    assert opened == [("me.pflx", "me.png")]
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(re.fullmatch(r"0\.\d\d s (FULL|HALF_RATE|HOLD) \(64, 64, 3\)", line) for line in lines)


def test_the_endpoint_answers_pictures_with_pictures(
    opened: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    testclient = pytest.importorskip("fastapi.testclient", reason="fastapi is not installed")
    import fastapi_endpoint

    monkeypatch.setenv("PFLX_BUNDLE", "me.pflx")
    monkeypatch.setenv("PFLX_PORTRAIT", "me.png")
    replies = []
    with (
        testclient.TestClient(fastapi_endpoint.app) as client,
        client.websocket_connect("/listen") as one,
        client.websocket_connect("/listen") as other,
    ):
        for frame in frames_of(16):
            jpeg = cv2.imencode(".jpg", frame)[1].tobytes()
            one.send_bytes(jpeg)
            other.send_bytes(jpeg)
        one.send_bytes(b"no picture")
        for socket in (one, other):
            replies.append([socket.receive_bytes() for _ in range(16)])
    assert opened == [("me.pflx", "me.png")]  # one listener for both
    pictures = [cv2.imdecode(np.frombuffer(reply, np.uint8), cv2.IMREAD_COLOR) for reply in replies[0]]
    assert {picture.shape for picture in pictures if picture is not None} == {(SIZE, SIZE, 3)}
    assert replies[0] == replies[1]


def test_the_consumer_reads_frames_without_a_copy(
    opened: list[tuple[Any, ...]], clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from torch.utils import dlpack

    kept: list[tuple[int, int]] = []
    real = dlpack.from_dlpack

    def from_dlpack(image: np.ndarray) -> torch.Tensor:
        tensor: torch.Tensor = real(image)
        kept.append((tensor.data_ptr(), image.ctypes.data))
        return tensor

    monkeypatch.setattr(dlpack, "from_dlpack", from_dlpack)
    monkeypatch.setattr(sys, "argv", ["frame_consumer.py", "me.pflx", "me.png", str(clip)])
    runpy.run_path(str(EXAMPLES / "frame_consumer.py"))
    assert len(kept) == 16
    assert all(tensor == array for tensor, array in kept)
    assert len(re.findall(r"brightness 0\.\d{3}  jaw [+-]\d\.\d\d", capsys.readouterr().out)) == 16
