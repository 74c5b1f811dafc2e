"""Streams to servers that the test starts itself, and to files."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest
from support.fakes import fake_listener
from support.live.live_sessions import Show, speaker, still
from support.media.frames import frame
from support.places import ROOT

from pflx.engines import FeedError
from pflx.runtime import LiveSettings, MediaError, StreamSink

SERVER = ROOT / "tests/support/media/stream_server.py"
N = 30


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody listens at a TCP port; without a connection, which would be the one that it waits for."""
    wanted = f"0100007F:{port:04X}"
    return any(line.split()[1] == wanted and line.split()[3] == "0A" for line in Path("/proc/net/tcp").open())


@contextmanager
def server(*words: str, port: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A server that takes one stream."""
    with subprocess.Popen([sys.executable, str(SERVER), *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            until = time.monotonic() + 20
            while port is not None and not listens(port) and process.poll() is None and time.monotonic() < until:
                time.sleep(0.02)
            if port is None:
                time.sleep(1.5)  # nothing tells that somebody waits for datagrams
            yield process
        finally:
            process.kill()


def got_by(process: subprocess.Popen[str]) -> dict[str, Any]:
    text, _ = process.communicate(timeout=30)
    found: dict[str, Any] = json.loads(text)
    return found


def send(sink: StreamSink, numbers: Sequence[int] = range(N), pause_s: float = 0.0) -> None:
    for number in numbers:
        sink.show(frame(number, 5 * number % 150))
        time.sleep(pause_s)
    sink.close(None)


needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells who listens")


@needs_proc
@pytest.mark.parametrize("silence", [True, False])
def test_a_tcp_server_gets_every_picture(silence: bool) -> None:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with server(f"{address}?listen=1", "mpegts", port=port) as process:
        send(StreamSink(address, silence=silence))
        got = got_by(process)
    assert got["streams"] == ["h264", "aac"][: 1 + silence]
    assert (got["video"], got["size"]) == (N, [64, 48])
    assert all(abs(level - 5 * number) < 9 for number, level in enumerate(got["levels"]))
    assert [round(stamp - got["stamps"][0], 2) for stamp in got["stamps"]] == [round(k / 25, 2) for k in range(N)]
    assert got["loudest"] == 0
    assert (got["samples"] >= N * 1920) == silence


@needs_proc
@pytest.mark.parametrize("protocol", ["rtmp", "rtsp"])
def test_a_media_server_gets_every_picture(protocol: str) -> None:
    port = free_port()
    address = f"{protocol}://127.0.0.1:{port}/live/key"
    listening = {"rtmp": ["listen=1"], "rtsp": ["rtsp_flags=listen", "listen_timeout=20"]}[protocol]
    with server(address, "", *listening, port=port) as process:
        send(StreamSink(address), pause_s=0.01)
        got = got_by(process)
    assert sorted(got["streams"]) == ["aac", "h264"]
    assert N - 2 <= got["video"] <= N  # whoever analyses a stream first may lose its end
    assert got["size"] == [64, 48]
    assert got["loudest"] == 0


def test_datagrams_arrive_without_anybody_having_to_listen() -> None:
    port = free_port(socket.SOCK_DGRAM)
    address = f"udp://127.0.0.1:{port}"
    send(StreamSink(address))  # nobody there: nothing to fail
    with server(address, "mpegts") as process:
        send(StreamSink(address), range(75), pause_s=0.02)
        got = got_by(process)
    assert got["video"] > 40
    assert got["streams"] == ["h264", "aac"]


@pytest.mark.parametrize("suffix", ["mkv", "ts", "flv"])
def test_a_file_keeps_the_distance_of_frames_that_were_left_out(tmp_path: Path, suffix: str) -> None:
    numbers = [5, 6, 7, 12, 13, 100_000, 100_001]  # the last after the clock was set
    send(StreamSink(str(tmp_path / f"out.{suffix}")), numbers)
    with av.open(str(tmp_path / f"out.{suffix}")) as container:
        stamps = [float(picture.time or 0) for picture in container.decode(video=0)]
    expected = [number / 25 for number in (0, 1, 2, 7, 8, 9, 10)]
    assert [stamp - stamps[0] for stamp in stamps] == pytest.approx(expected, abs=0.002)


def test_odd_pictures_are_sent_even(tmp_path: Path) -> None:
    sink = StreamSink(str(tmp_path / "out.mkv"), silence=False)
    sink.show(frame(0, 90, size=(63, 47)))
    sink.close(None)
    with av.open(str(tmp_path / "out.mkv")) as container:
        (picture,) = container.decode(video=0)
    assert (picture.width, picture.height) == (64, 48)


def test_other_reactions_are_passed_over(tmp_path: Path) -> None:
    sink = StreamSink(str(tmp_path / "out.mkv"), sample=1)
    for number in range(4):
        for sample in range(2):
            sink.show(frame(number, 100 * sample, sample))
    sink.close(None)
    with av.open(str(tmp_path / "out.mkv")) as container:
        levels = [picture.to_ndarray(format="gray").mean() for picture in container.decode(video=0)]
    assert levels == pytest.approx([100] * 4, abs=4)


def test_what_is_dead_is_said_without_its_secrets() -> None:
    sink = StreamSink(f"rtmp://me:password@127.0.0.1:{free_port()}/live/key?token=1")
    with pytest.raises(
        MediaError, match=r"Nothing can be sent to rtmp://127\.0\.0\.1:\d+/… \(Connection refused\)"
    ) as told:
        sink.show(frame(0))
    assert not any(secret in str(told.value) for secret in ("password", "key", "token"))
    with pytest.raises(MediaError, match="is closed"):
        sink.show(frame(1))
    sink.close(None)


def test_a_dead_target_stops_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    alive = Show()
    with fake_listener(lookahead=0).live(speaker(20), [StreamSink(address), alive], LiveSettings()) as session:
        assert session.wait(20)
    assert alive.frames
    (error,) = session.sink_errors
    assert isinstance(error.__cause__, MediaError)
    assert any(address in line and "The other sinks go on" in line for line in caplog.messages)
    assert not still(5)


@needs_proc
def test_a_server_that_goes_away_is_said() -> None:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with server(f"{address}?listen=1", "mpegts", port=port) as process:
        sink = StreamSink(address)
        sink.show(frame(0))
        process.kill()
        process.wait(10)
        with pytest.raises(MediaError, match="Nothing can be sent"):
            send(sink, range(1, 500), pause_s=0.001)
    sink.close(None)


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        ("srt://host:1", {}, r"srt:// is none of rtmp://.*format="),
        ("out.mkv", {"codec": "no_such"}, "no encoder 'no_such'"),
        ("out.mkv", {"codec": "aac"}, "'aac' encodes audio"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(url: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(FeedError, match=told):
        StreamSink(url, **options)


def test_a_file_of_an_unknown_kind_is_said(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"Nothing can be sent to .*out\.nonsense"):
        StreamSink(str(tmp_path / "out.nonsense")).show(frame(0))
