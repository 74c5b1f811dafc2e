"""Cameras and microphones as sources, made of Python and of files."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from av.device import DeviceInfo
from support.media.timed_items import UInt8Array, bgr, pictures, sound

from pflx.engines import DeviceError, FeedError
from pflx.runtime import MediaError
from pflx.runtime.media import webcam
from pflx.runtime.media.sources import Timed, as_source
from pflx.runtime.media.webcam import WebcamSource

MS = 1_000_000


class Ticks:
    """A clock that goes on by the same step whenever it is read."""

    def __init__(self, step_ms: int = 20) -> None:
        self.now = 0
        self._step = step_ms * MS

    def __call__(self) -> int:
        self.now += self._step
        return self.now


class FakeCamera:
    """What cv2.VideoCapture is to a source; None in the list is a read that fails."""

    def __init__(self, pictures: Sequence[UInt8Array | None], opened: bool = True) -> None:
        self._pictures = iter(pictures)
        self._opened = opened
        self._picture: UInt8Array | None = None
        self.released = 0
        self.settings: dict[int, float] = {}

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self._opened

    def set(self, key: int, value: float) -> bool:
        self.settings[key] = value
        return False

    def grab(self) -> bool:
        assert not self.released
        self._picture = next(self._pictures, None)
        return self._picture is not None

    def retrieve(self) -> tuple[bool, UInt8Array | None]:
        return self._picture is not None, self._picture

    def release(self) -> None:
        self.released += 1


def use_camera(monkeypatch: pytest.MonkeyPatch, camera: FakeCamera) -> FakeCamera:
    monkeypatch.setattr(webcam, "_video_capture", lambda _: camera)
    return camera


def use_microphone(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr(webcam, "_audio_input", lambda _: av.open(str(file)))


def tone(seconds: float, rate: int) -> npt.NDArray[np.int16]:
    return np.asarray(np.sin(np.arange(round(seconds * rate)) / rate * 440 * 2 * np.pi) * 20_000, np.int16)


def write_wav(path: Path, seconds: float, rate: int = 48_000, channels: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(np.repeat(tone(seconds, rate)[:, None], channels, axis=1).tobytes())
    return path


def until_it_stops(track: Iterator[Timed]) -> tuple[list[Timed], MediaError]:
    items: list[Timed] = []
    try:
        for item in track:
            items.append(item)
    except MediaError as error:
        return items, error
    raise AssertionError("the device never stopped")


def test_a_source_without_sound_suits_every_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    use_camera(monkeypatch, FakeCamera([]))
    source = WebcamSource(clock=Ticks())
    assert source.sample_rate_hz is None
    assert as_source(source, 44_100) is source


def test_a_camera_gives_rgb_pictures_stamped_when_they_were_grabbed(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = use_camera(monkeypatch, FakeCamera([bgr(1), bgr(2)]))
    source = WebcamSource(size=(800, 600), fps=60, clock=Ticks(40))
    assert source.live
    (track,) = source.tracks()
    items = list(islice(track, 2))
    assert [picture[0, 0].tolist() for picture in pictures(items)] == [[10, 1, 200], [10, 2, 200]]
    assert [item.time_s for item in items] == [0.08, 0.12]
    assert camera.settings == {
        cv2.CAP_PROP_FRAME_WIDTH: 800,
        cv2.CAP_PROP_FRAME_HEIGHT: 600,
        cv2.CAP_PROP_FPS: 60,
        cv2.CAP_PROP_BUFFERSIZE: 1,
    }


def test_a_camera_that_cannot_be_opened_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = use_camera(monkeypatch, FakeCamera([], opened=False))
    for platform, advice in (("linux", "/dev/video"), ("darwin", "Privacy"), ("win32", "Privacy"), ("other", "/dev")):
        monkeypatch.setattr(sys, "platform", platform)
        with pytest.raises(DeviceError, match=f"Camera 3 cannot be opened.*{advice}"):
            WebcamSource(3)
    assert camera.released == 4


def test_a_machine_without_that_camera_says_so() -> None:
    with pytest.raises(DeviceError, match="Camera 987 cannot be opened"):
        WebcamSource(987)


def test_a_camera_may_fail_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    use_camera(monkeypatch, FakeCamera([None, bgr(1), None, None, bgr(2)]))
    (track,) = WebcamSource(clock=Ticks(500)).tracks()
    assert [picture[0, 0, 1] for picture in pictures(list(islice(track, 2)))] == [1, 2]


@pytest.mark.parametrize("before", [[], [bgr(1), bgr(2)]])
def test_a_camera_that_stops_is_named(monkeypatch: pytest.MonkeyPatch, before: list[UInt8Array]) -> None:
    use_camera(monkeypatch, FakeCamera(before))
    (track,) = WebcamSource(1, clock=Ticks(500)).tracks()
    items, error = until_it_stops(track)
    assert len(items) == len(before)
    assert str(error).startswith("Camera 1 stopped delivering pictures. Check")


def test_a_camera_that_changes_size_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    use_camera(monkeypatch, FakeCamera([bgr(), bgr(size=(48, 64))]))
    (track,) = WebcamSource(clock=Ticks()).tracks()
    assert [picture.shape for picture in pictures(list(islice(track, 2)))] == [(48, 64, 3), (64, 48, 3)]


def test_closing_releases_the_camera_and_ends_the_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = use_camera(monkeypatch, FakeCamera([bgr()] * 9))
    source = WebcamSource(clock=Ticks())
    (track,) = source.tracks()
    next(track)
    source.close()
    source.close()
    assert camera.released
    assert list(track) == []


def test_a_camera_that_hangs_is_released_by_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webcam, "_RELEASE_S", 0.0)
    reading, go_on = threading.Event(), threading.Event()

    class Hanging(FakeCamera):
        def grab(self) -> bool:
            reading.set()
            return go_on.wait(10) and super().grab()

    camera = use_camera(monkeypatch, Hanging([bgr()] * 9))
    source = WebcamSource(clock=Ticks())
    read: list[Timed] = []
    thread = threading.Thread(target=lambda: read.extend(source.tracks()[0]))
    thread.start()
    assert reading.wait(10)
    source.close()
    assert not camera.released
    go_on.set()
    thread.join(10)
    assert not thread.is_alive()
    assert camera.released
    assert len(read) <= 1


@pytest.mark.parametrize("wanted", [16_000, 44_100])
@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (44_100, 1), (16_000, 1), (8_000, 1)])
def test_a_microphone_gives_mono_of_the_wanted_rate_until_it_stops(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rate: int, channels: int, wanted: int
) -> None:
    use_camera(monkeypatch, FakeCamera([]))
    use_microphone(monkeypatch, write_wav(tmp_path / "voice.wav", 2.0, rate, channels))
    source = WebcamSource(microphone="default", sample_rate_hz=wanted, clock=Ticks(1000))
    assert source.sample_rate_hz == wanted
    items, error = until_it_stops(source.tracks()[1])
    heard = sound(items)
    assert str(error).startswith("Microphone 'default' stopped delivering sound.")
    assert heard.dtype == np.float32
    assert len(heard) == pytest.approx(2 * wanted, abs=wanted / 40)
    spectrum = np.abs(np.fft.rfft(heard[wanted // 2 : wanted // 2 + wanted]))
    assert np.argmax(spectrum) == 440
    assert 0.6 < np.abs(heard).max() < 1


def test_sound_is_stamped_with_the_moment_of_its_first_sample(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_camera(monkeypatch, FakeCamera([]))
    use_microphone(monkeypatch, write_wav(tmp_path / "voice.wav", 1.0))
    _, track = WebcamSource(microphone="default", clock=Ticks(100)).tracks()
    for reads, item in enumerate(islice(track, 10)):
        assert item.audio is not None
        assert item.time_s + len(item.audio) / 16_000 == pytest.approx(0.2 + 0.2 * reads, abs=1e-6)


def test_sound_that_waited_in_the_driver_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_camera(monkeypatch, FakeCamera([]))
    use_microphone(monkeypatch, write_wav(tmp_path / "voice.wav", 1.0, rate=16_000, channels=1))
    clock = Ticks(0)
    source = WebcamSource(microphone="default", clock=clock)
    waiting = source._devices[1]
    assert [waiting._read() for _ in range(3)] == [None] * 3
    clock._step = 1000 * MS
    assert waiting._read() is not None
    clock._step = 0
    assert waiting._read() is not None


def test_a_microphone_without_a_camera_is_heard_in_the_dark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_microphone(monkeypatch, write_wav(tmp_path / "voice.wav", 0.5))
    seen, heard = WebcamSource(None, "default", clock=Ticks(1000)).tracks()
    (dark,) = seen
    assert dark.dark
    assert dark.video is not None
    assert not dark.video.any()
    assert next(heard).audio is not None


def test_neither_camera_nor_microphone_is_refused() -> None:
    with pytest.raises(FeedError, match="there is nobody"):
        WebcamSource(None)


def test_a_microphone_that_has_nothing_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Reluctant:
        """As on macOS: every second read fails, and the iterator with it."""

        def __init__(self, file: Path) -> None:
            self._container = av.open(str(file))

        def demux(self, audio: int) -> Iterator[Any]:
            yield next(self._container.demux(audio=audio))
            raise BlockingIOError("Resource temporarily unavailable")

        def close(self) -> None:
            self._container.close()

    use_camera(monkeypatch, FakeCamera([]))
    voice = write_wav(tmp_path / "voice.wav", 1.0)
    monkeypatch.setattr(webcam, "_audio_input", lambda _: Reluctant(voice))
    _, track = WebcamSource(microphone="default", clock=Ticks(1000)).tracks()
    items, _ = until_it_stops(track)
    assert len(sound(items)) == pytest.approx(16_000, abs=400)


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), ValueError("no container format 'pulse'")])
def test_a_microphone_that_cannot_be_opened_says_what_to_do_and_frees_the_camera(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(_: str) -> Any:
        raise failure

    camera = use_camera(monkeypatch, FakeCamera([]))
    monkeypatch.setattr(webcam, "_audio_input", fail)
    for platform, advice in (("linux", "plughw"), ("darwin", "Privacy"), ("win32", "Privacy")):
        monkeypatch.setattr(sys, "platform", platform)
        with pytest.raises(DeviceError, match=rf"Microphone 'Desk' cannot be opened \(.*\)\..*{advice}"):
            WebcamSource(microphone="Desk")
    assert camera.released == 3


def test_each_platform_opens_its_own_kind_of_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "formats_available", {"alsa"})
    assert webcam._microphone_address("default", "linux") == ("default", "alsa")
    assert webcam._microphone_address("default", "darwin") == (":default", "avfoundation")
    assert webcam._microphone_address("Desk", "win32") == ("audio=Desk", "dshow")
    monkeypatch.setattr(av, "formats_available", {"alsa", "pulse"})
    assert webcam._microphone_address("default", "linux") == ("default", "pulse")


def test_the_default_microphone_of_windows_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def device(name: str, default: bool, kind: str) -> Any:
        return DeviceInfo(name, name, default, [kind])

    found = [device("Cam", True, "video"), device("Line", False, "audio"), device("Desk", True, "audio")]
    monkeypatch.setattr(av, "enumerate_input_devices", lambda _: found)
    assert webcam._microphone_address("default", "win32") == ("audio=Desk", "dshow")
    monkeypatch.setattr(av, "enumerate_input_devices", lambda _: [])
    with pytest.raises(OSError, match="no microphone"):
        webcam._microphone_address("default", "win32")


@pytest.mark.skipif(sys.platform != "linux" or "alsa" not in av.formats_available, reason="needs ALSA")
def test_a_real_alsa_device_is_heard(tmp_path: Path) -> None:
    """ALSA itself plays a file as if it were a microphone, one sample at a time."""
    np.repeat(tone(2.0, 48_000)[:, None], 2, axis=1).tofile(tmp_path / "mic.raw")
    (tmp_path / "alsa.conf").write_text(
        'pcm.desk { type file file "/dev/null" slave.pcm { type null } '
        f'infile "{tmp_path / "mic.raw"}" format "raw" }}\n'
    )
    code = (
        "import os, sys; from itertools import count, islice; import numpy as np\n"
        "os.environ['ALSA_CONFIG_PATH'] = sys.argv[1]\n"
        "from pflx.runtime.media.webcam import _Microphone\n"
        "ticks = count(0, 10**9)\n"
        "blocks = islice(_Microphone('desk', 16_000, lambda: next(ticks)), 60)\n"
        "sound = np.concatenate([block.audio for block in blocks])\n"
        "print(len(sound), np.argmax(np.abs(np.fft.rfft(sound[-8000:]))) * 2)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "alsa.conf")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    samples, hertz = map(int, result.stdout.split())
    assert 60 * 160 <= samples <= 60 * 200
    assert abs(hertz - 440) <= 2


def test_a_microphone_closed_from_another_thread_ends_its_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_camera(monkeypatch, FakeCamera([]))
    use_microphone(monkeypatch, write_wav(tmp_path / "voice.wav", 20.0))
    source = WebcamSource(microphone="default", clock=Ticks(1000))
    _, track = source.tracks()
    next(track)
    closing = threading.Thread(target=source.close)
    closing.start()
    closing.join(10)
    assert list(track) == []


def test_the_default_clock_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    use_camera(monkeypatch, FakeCamera([bgr()]))
    before = time.perf_counter_ns()
    item = next(iter(WebcamSource().tracks()[0]))
    assert before / 1e9 <= item.time_s <= time.perf_counter_ns() / 1e9
