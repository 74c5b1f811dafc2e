"""What an installed wheel must do on any supported Python: run by tools/try_wheel.py, away from the checkout.

Named so that pytest does not collect it by itself: there, `pflx` would be the checkout.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pflx
from pflx.runtime import Listener, ListenerFrame, open_speaker

MEDIA = Path(__file__).parent / "media"
CLIP, PORTRAIT = MEDIA / "podium_speech_8s.mp4", MEDIA / "portrait_astronaut_256.png"
LOOPBACK_ONLY = "import aioice.ice; aioice.ice.get_host_addresses = lambda **_: ['127.0.0.1']"


def command(*arguments: str | Path, cwd: Path | None = None) -> str:
    """What the installed command prints; it must end well and print no traceback."""
    script = Path(sys.executable).with_name("pflx")
    done = subprocess.run([script, *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `pflx export` without checkpoints."""
    path = tmp_path_factory.mktemp("bundle") / "me.pflx"
    command("export", "-o", path)
    return path


def test_it_is_the_wheel_that_is_tried() -> None:
    files = {Path(str(file.locate())).resolve() for file in distribution("pflx").files or ()}
    assert Path(pflx.__file__).resolve() in files


def test_doctor_finds_nothing_broken() -> None:
    found = command("doctor")
    assert "broken" not in found
    assert re.search(r"PyAV \d+", found)


def test_a_clip_with_sound_becomes_a_video_with_sound(bundle: Path, tmp_path: Path) -> None:
    video = tmp_path / "listener.mp4"
    command("run", CLIP, "-b", bundle, "-p", PORTRAIT, "-o", video, "--duration", "2", "--side-by-side")
    made = open_speaker(video)
    assert (made.has_audio, made.source_fps, made.frames) == (True, 25.0, 50)
    chunks = list(made.chunks())
    source = next(open_speaker(CLIP).chunks(50))
    heard = np.concatenate([chunk.audio for chunk in chunks])
    assert sum(len(chunk.video) for chunk in chunks) == 50
    assert np.corrcoef(heard[1600:28800], source.audio[1600:28800])[0, 1] > 0.9, "the sound is the clip's"


def test_a_clip_and_a_picture_are_enough(tmp_path: Path) -> None:
    said = command("run", CLIP, "-p", PORTRAIT, "--duration", "1", cwd=tmp_path)
    assert f"Wrote {CLIP.stem}.listener.mp4" in said
    assert open_speaker(tmp_path / f"{CLIP.stem}.listener.mp4").frames == 25
    with Listener.open(portrait=PORTRAIT) as listener:
        assert len(list(listener.react(open_speaker(CLIP).limited(0.4)))) == 10


def test_a_clip_is_read_picture_by_picture() -> None:
    chunks = list(open_speaker(CLIP).chunks())
    assert sum(len(chunk.video) for chunk in chunks) == 219
    assert chunks[-1].skipped == 0
    assert np.abs(np.concatenate([chunk.audio for chunk in chunks])).max() > 0.1


def test_a_clip_is_listened_to_live(bundle: Path) -> None:
    frames: list[ListenerFrame] = []
    clip = open_speaker(CLIP).limited(2)
    with Listener.open(bundle, PORTRAIT) as listener, listener.live(clip, frames.append) as session:
        assert session.wait(timeout_s=60)
    numbers = [frame.ledger.frame for frame in frames]
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(range(50))
    assert len(numbers) >= 25, "a busy machine may drop frames, not most of them"
    assert all(frame.image.shape == (256, 256, 3) and frame.image.std() > 10 for frame in frames)


@pytest.fixture
def site(bundle: Path) -> Iterator[str]:
    """The address of a server of its own process, whose media goes over the loopback address."""
    start = f"{LOOPBACK_ONLY}; from pflx.cli import main; main()"
    options = ["serve", str(bundle), "-p", str(PORTRAIT), "--port", "0"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it, and its children do
    with subprocess.Popen([sys.executable, "-c", start, *options], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            greeting = server.stdout.readline()
            address = re.search(r"http://\S+", greeting)
            assert address, greeting
            yield address[0]
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=20) in (0, 130)
        finally:
            server.kill()  # `with` would wait for one that does not end


def test_a_visitor_sees_a_listener(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda **_: ["127.0.0.1"])
    pictures = asyncio.run(visit(site, wanted=25))
    assert [picture.shape for picture in pictures] == [(256, 256, 3)] * 25
    assert all(picture.std() > 10 for picture in pictures)


async def visit(site: str, wanted: int) -> list[np.ndarray]:
    """Send a camera and silence, and take so many pictures."""
    from aiortc import RTCPeerConnection, RTCSessionDescription
    from aiortc.mediastreams import AudioStreamTrack, MediaStreamTrack, VideoStreamTrack
    from av import VideoFrame
    from websockets.asyncio.client import connect
    from websockets.typing import Origin

    class Camera(VideoStreamTrack):
        async def recv(self) -> VideoFrame:
            pts, time_base = await self.next_timestamp()
            frame = VideoFrame.from_ndarray(np.full((240, 320, 3), 128, np.uint8), format="rgb24")
            frame.pts, frame.time_base = pts, Fraction(time_base)
            return frame

    async def watch(track: MediaStreamTrack) -> list[np.ndarray]:
        frames = [await track.recv() for _ in range(wanted)]
        return [frame.to_ndarray(format="rgb24") for frame in frames if isinstance(frame, VideoFrame)]

    tracks: asyncio.Queue[MediaStreamTrack] = asyncio.Queue()
    connection = RTCPeerConnection()
    connection.on("track", tracks.put_nowait)
    connection.addTrack(Camera())
    connection.addTrack(AudioStreamTrack())
    try:
        await connection.setLocalDescription(await connection.createOffer())
        async with (
            connect(f"{site.replace('http', 'ws')}/api/session", origin=Origin(site)) as page,
            asyncio.timeout(60),
        ):
            await ask(page, 1, "begin")
            answer = await ask(page, 2, "offer", sdp=connection.localDescription.sdp)
            await connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
            return await watch(await tracks.get())
    finally:
        await connection.close()


async def ask(page: Any, number: int, type: str, **more: str) -> dict[str, str]:
    """Ask something of the server; the reply."""
    await page.send(json.dumps({"ask": number, "type": type, **more}))
    while (reply := json.loads(await page.recv())).get("ask") != number:
        pass
    granted: dict[str, str] = reply["ok"]
    return granted
