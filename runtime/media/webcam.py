"""A camera and a microphone of this machine, as a source of a live session."""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from pflx.engines import DeviceError, FeedError
from pflx.runtime.frames.arrays import Float32Array
from pflx.runtime.frames.timing import NS_PER_S, SAMPLE_RATE_HZ, Clock, samples_per_frame
from pflx.runtime.media.errors import MediaError
from pflx.runtime.media.sound import Downmix, MonoResampler, channels_of, names_of, tell_cancelled
from pflx.runtime.media.sources import Timed

if TYPE_CHECKING:
    from av.container import InputContainer

_PATIENCE_NS = 2_000_000_000  # a camera that fails for longer has stopped; some need a second to wake up
_PAUSE_S = 0.02  # before a device that had nothing is asked again
_RELEASE_S = 0.25  # how long close() waits for a read to end; after that the reading thread lets the device go
_SHORTEST_BLOCK_S = 0.01  # some devices hand out single samples
_DARK_SIDE = 256  # of the black picture that stands for those of no camera
_ALSA_DIR = Path("/usr/share/alsa")

_CAMERA_HELP = {
    "linux": "make sure that this user may read it (`ls -l /dev/video*`, group video)",
    "darwin": "allow it under System Settings > Privacy & Security > Camera",
    "win32": "allow it under Settings > Privacy & security > Camera",
}
_MICROPHONE_HELP = {
    "linux": "name the device itself, such as 'plughw:0' (`arecord -l` lists them; the user must be in group audio)",
    "darwin": "allow it under System Settings > Privacy & Security > Microphone",
    "win32": "allow it under Settings > Privacy & security > Microphone",
}


class WebcamSource:
    """A camera and, if wanted, a microphone of this machine, each a track of its own.

    Pictures and sound are stamped with the moment of capture: when the driver handed the picture out; when the
    block of sound was read, less its length. The camera may deliver another size and rate than it was asked for,
    and sizes that change are passed on as they come.

    Args:
        camera: its number, or a path or address that OpenCV opens; None for a speaker who is only heard.
        microphone: its name, "default", or None for no sound. On Linux an ALSA (or PulseAudio) device such as
            "plughw:0", on macOS and Windows the name that the system shows.
        size: wanted (width, height) in pixels.
        fps: wanted pictures per second.
        sample_rate_hz: of the sound to give, whatever the device's own; a multiple of 25.
        clock: monotonic, in ns; its seconds are the stamps.

    Raises:
        FeedError: the rate is no multiple of 25, or there is neither camera nor microphone.
        DeviceError: no such camera or microphone, no permission, or another program holds it.
    """

    live = True

    def __init__(
        self,
        camera: int | str | None = 0,
        microphone: str | None = None,
        *,
        size: tuple[int, int] = (640, 480),
        fps: int = 30,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        samples_per_frame(sample_rate_hz)
        self._sample_rate_hz = None if microphone is None else sample_rate_hz
        self._clock, self._sees = clock, camera is not None
        if camera is None and microphone is None:
            raise FeedError("Without a camera and without a microphone there is nobody. Name one of them.")
        self._devices: list[_Device] = [] if camera is None else [_Camera(camera, size, fps, clock)]
        if microphone is not None:
            try:
                self._devices.append(_Microphone(microphone, sample_rate_hz, clock))
            except BaseException:
                self.close()
                raise

    @property
    def sample_rate_hz(self) -> int | None:
        """See the class; None without a microphone."""
        return self._sample_rate_hz

    def tracks(self) -> Sequence[Iterator[Timed]]:
        """The pictures, or one dark one; and the sound, if there is a microphone.

        Reading raises MediaError when a device stops delivering.
        """
        return [*([] if self._sees else [self._darkness()]), *(iter(device) for device in self._devices)]

    def _darkness(self) -> Iterator[Timed]:
        yield Timed(self._clock() / NS_PER_S, video=np.zeros((_DARK_SIDE, _DARK_SIDE, 3), np.uint8), dark=True)

    def close(self) -> None:
        """Let the devices go, from any thread; closing twice is harmless."""
        for device in self._devices:
            device.close()


class _Device(ABC):
    """A camera or a microphone that one thread reads and any thread may close."""

    def __init__(self) -> None:
        self._in_use = Lock()  # drivers do not survive being released while they are read
        self._ended = Event()

    def __iter__(self) -> Iterator[Timed]:
        while not self._ended.is_set():
            with self._in_use:
                item = None if self._ended.is_set() else self._read()
            if item is not None:
                yield item
        self.close()

    def close(self) -> None:
        self._ended.set()
        if self._in_use.acquire(timeout=_RELEASE_S):
            try:
                self._release()
            finally:
                self._in_use.release()

    @abstractmethod
    def _read(self) -> Timed | None:
        """The next item, or None if there is none yet."""

    @abstractmethod
    def _release(self) -> None:
        """Give the device back; again is harmless."""


class _Camera(_Device):
    def __init__(self, camera: int | str, size: tuple[int, int], fps: int, clock: Clock) -> None:
        import cv2

        super().__init__()
        self._name = f"Camera {camera}"
        self._clock = clock
        self._last: int | None = None
        self._capture = _video_capture(camera)
        if not self._capture.isOpened():
            self._capture.release()
            raise DeviceError(
                f"{self._name} cannot be opened. Plug it in, close other programs that use it, "
                f"and {_CAMERA_HELP.get(sys.platform, _CAMERA_HELP['linux'])}."
            )
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        self._capture.set(cv2.CAP_PROP_FPS, fps)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # where the driver takes it: no old pictures

    def _read(self) -> Timed | None:
        import cv2

        if self._last is None:
            self._last = self._clock()
        grabbed, now = self._capture.grab(), self._clock()
        if grabbed and (picture := self._capture.retrieve())[0]:
            self._last = now
            return Timed(now / 1e9, video=np.asarray(cv2.cvtColor(picture[1], cv2.COLOR_BGR2RGB), np.uint8))
        if now - self._last > _PATIENCE_NS:
            raise MediaError(
                f"{self._name} stopped delivering pictures. Check its cable, and whether another program took it."
            )
        self._ended.wait(_PAUSE_S)
        return None

    def _release(self) -> None:
        self._capture.release()


class _Microphone(_Device):
    def __init__(self, name: str, sample_rate_hz: int, clock: Clock) -> None:
        from av.error import FFmpegError

        super().__init__()
        self._name = f"Microphone '{name}'"
        self._clock = clock
        self._rate_hz = sample_rate_hz
        self._fresh = False
        try:
            self._container = _audio_input(name)
        except (FFmpegError, OSError, ValueError) as error:
            raise DeviceError(_microphone_sentence(self._name, error)) from error
        self._packets = self._container.demux(audio=0)
        self._downmix = Downmix(partial(tell_cancelled, self._name))
        self._resampler: MonoResampler | None = None

    def _read(self) -> Timed | None:
        """The next block of sound.

        What waited in the driver's buffer since the device was opened comes faster than it was captured; it is left
        out, for it is older than its stamp would say.
        """
        start = self._clock()
        audio = self._block()
        now, length_ns = self._clock(), len(audio) * NS_PER_S // self._rate_hz
        self._fresh = self._fresh or now - start > length_ns / 2
        return Timed((now - length_ns) / 1e9, audio=audio) if self._fresh and len(audio) else None

    def _block(self) -> Float32Array:
        parts: list[Float32Array] = []
        while sum(map(len, parts)) < _SHORTEST_BLOCK_S * self._rate_hz and not self._ended.is_set():
            parts += self._next_parts()
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def _next_parts(self) -> list[Float32Array]:
        """The next packet, resampled; nothing if the device has none yet."""
        from av.error import FFmpegError

        try:
            frames: list[Any] = next(self._packets).decode()
        except BlockingIOError:  # macOS does not wait for sound; the failure ends the iterator
            self._packets = self._container.demux(audio=0)
            self._ended.wait(_PAUSE_S / 4)
            return []
        except (FFmpegError, OSError, StopIteration) as error:
            raise MediaError(f"{self._name} stopped delivering sound. Check its cable, or choose another.") from error
        if self._resampler is None and frames:
            self._resampler = MonoResampler(frames[0].sample_rate, self._rate_hz)
        # The samples are contiguous, whatever the driver's clock says.
        mixed = [self._downmix.mix(channels_of(frame), names_of(frame)) for frame in frames]
        return [] if self._resampler is None else [self._resampler.push(block) for block in mixed]

    def _release(self) -> None:
        self._container.close()


def _video_capture(camera: int | str) -> Any:
    import cv2

    # A stalled camera would block a read for 10 s. OpenCV has no other way to say so for Video4Linux.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "1")
    return cv2.VideoCapture(camera)


def _audio_input(name: str) -> InputContainer:
    import av

    # The ALSA library in PyAV's wheels looks for its configuration where it was built.
    if sys.platform == "linux" and _ALSA_DIR.is_dir():
        os.environ.setdefault("ALSA_CONFIG_DIR", str(_ALSA_DIR))
    file, kind = _microphone_address(name, sys.platform)
    # DirectShow would gather half a second of sound before it hands it out.
    return av.open(file, format=kind, options={"audio_buffer_size": "40"} if kind == "dshow" else {})


def _microphone_address(name: str, platform: str) -> tuple[str, str]:
    """How FFmpeg calls the microphone, and the input format that opens it."""
    import av

    if platform == "darwin":
        return f":{name}", "avfoundation"
    if platform == "win32":
        return f"audio={_first_microphone() if name == 'default' else name}", "dshow"
    return name, "pulse" if "pulse" in av.formats_available else "alsa"


def _first_microphone() -> str:
    """DirectShow knows no default."""
    import av

    devices = [device for device in av.enumerate_input_devices("dshow") if "audio" in device.media_types]
    if not devices:
        raise OSError("Windows lists no microphone")
    return max(devices, key=lambda device: device.is_default).name


def _microphone_sentence(name: str, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or error
    advice = _MICROPHONE_HELP.get(sys.platform, _MICROPHONE_HELP["linux"])
    return f"{name} cannot be opened ({reason}). Plug it in, close other programs that use it, and {advice}."
