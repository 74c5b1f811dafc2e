"""The speaker of a measurement: a face and a voice, with an event every one or two seconds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count as endless

import numpy as np
import numpy.typing as npt

from pflx.engines import FeedError
from pflx.runtime.bench.measure.drawing import draw_face
from pflx.runtime.frames.arrays import Float32Array, UInt8Array
from pflx.runtime.frames.timing import FPS, SAMPLE_RATE_HZ, samples_per_frame
from pflx.runtime.media.clip import SpeakerFile
from pflx.runtime.media.sources import Timed
from pflx.runtime.rendering.portrait import load_portrait
from pflx.runtime.rendering.renderers import Portrait
from pflx.runtime.text_table import count

_QUIET_S = 0.5  # before the first event
_PAUSES_S = (1.2, 1.8)  # from one event to the next
_LIGHT = 0.6  # of the altered picture: as in a room whose lamp went out
_TONE_HZ = 440.0
_TONE = 0.3
_HUM = 0.02  # of the voice that is always there
_HUM_FRAMES = 40  # after which it repeats
_SWAY_FRAMES = 48  # of the made-up speaker from side to side and back
_SWAY = 0.1  # of the picture's width


class Stimulus:
    """A speaker at 25 fps whom something happens to at random moments that are known.

    At an event the speaker's picture is mirrored and darkens, and a tone begins; the next event undoes it. A picture
    of frame k is of media time k / 25 s, the tone begins and ends between two samples. All of it is a function of the
    seed, so that the same input, and the same without one of the events, can be fed again.

    It is a `Source`. The portrait, which a face detector finds, sways over a plain background; or a clip is looped.

    Args:
        duration_s: how long it speaks.
        seed: of the events' moments.
        portrait: the speaker's face; None draws one.
        clip: a clip in place of it, sound included.
        size: width and height of the pictures, where there is no clip.
        sample_rate_hz: of the sound, a multiple of 25.

    Raises:
        PortraitError: the portrait cannot be read.
        FeedError: it is to speak for less than a frame.
    """

    live = False

    def __init__(
        self,
        duration_s: float,
        seed: int,
        *,
        portrait: Portrait | None = None,
        clip: SpeakerFile | None = None,
        size: tuple[int, int] = (640, 480),
        sample_rate_hz: int = SAMPLE_RATE_HZ,
    ) -> None:
        self.frames = math.floor(duration_s * FPS + 1e-9)
        if self.frames < 1:
            raise FeedError(f"duration is {duration_s} s; take {1 / FPS} or more.")
        self.impulse_times_s = _times(self.frames / FPS, seed)
        self._times_s = np.array(self.impulse_times_s)
        self.sample_rate_hz = sample_rate_hz
        self._per_frame = samples_per_frame(sample_rate_hz)
        self._clip = clip.at_rate(sample_rate_hz) if clip else None
        face = draw_face() if portrait is None else load_portrait(portrait)
        self._views = [] if clip else _views(face, size)
        self._dark_views = [_darkened(view) for view in self._views]
        self._hum = _hum(sample_rate_hz)
        self._size = (clip.width, clip.height) if clip else size
        self._closed = False

    @property
    def description(self) -> str:
        """What is fed, in words."""
        width, height = self._size
        what = f"{self._clip.path.name}, looped" if self._clip else "a face that sways and hums"
        return f"{what}, {width}x{height} px, {count(len(self.impulse_times_s), 'event')}"

    def tracks(self) -> Sequence[Iterator[Timed]]:
        """Picture and sound by turns."""
        return [self._items()]

    def close(self) -> None:
        """End it; closing twice is harmless."""
        self._closed = True

    def slots(self) -> Iterator[tuple[UInt8Array, Float32Array]]:
        """Picture and sound of every frame without any event."""
        base = self._made_up() if self._clip is None else _looped(self._clip)
        for _, slot in zip(range(self.frames), base, strict=False):
            yield slot

    def alter(
        self, number: int, picture: UInt8Array, sound: Float32Array, *, without: int | None = None
    ) -> tuple[UInt8Array, Float32Array]:
        """What becomes of a frame by the events.

        Args:
            number: of the frame.
            picture: of `slots`.
            sound: of `slots`.
            without: index of an event that is left out.
        """
        times_s = self._times_s if without is None else np.delete(self._times_s, without)
        samples = number * self._per_frame + np.arange(self._per_frame)
        if np.searchsorted(times_s, number / FPS, side="right") % 2:
            picture = _darkened(picture) if self._clip else self._dark_views[_place(number)]
        heard = np.searchsorted(times_s, samples / self.sample_rate_hz, side="right") % 2
        if heard.any():
            sound = np.asarray(sound + heard * _tone(samples, self.sample_rate_hz), np.float32)
        return picture, sound

    def _items(self) -> Iterator[Timed]:
        for number, (picture, sound) in enumerate(self.slots()):
            time_s = number / FPS
            picture, sound = self.alter(number, picture, sound)
            for item in (Timed(time_s, video=picture), Timed(time_s, audio=sound)):
                if self._closed:
                    return
                yield item

    def _made_up(self) -> Iterator[tuple[UInt8Array, Float32Array]]:
        for number in endless():
            yield self._views[_place(number)], self._hum[number % _HUM_FRAMES]


def _times(duration_s: float, seed: int) -> list[float]:
    """Moments of events: random pauses, and so random phases in the frames and segments."""
    rng = np.random.default_rng((seed, 0x1A7E))
    times_s: list[float] = []
    time_s = _QUIET_S
    while (time_s := time_s + float(rng.uniform(*_PAUSES_S))) < duration_s:
        times_s.append(time_s)
    return times_s


def _place(number: int) -> int:
    """Which view frame `number` shows: there and back."""
    half = _SWAY_FRAMES // 2
    return half - abs(number % _SWAY_FRAMES - half)


def _views(face: UInt8Array, size: tuple[int, int]) -> list[UInt8Array]:
    """The face on a plain background, at places from the left to the right."""
    width, height = size
    side = min(face.shape[0], width, height)
    face = face[:side, :side]
    background = np.empty((height, width, 3), np.uint8)
    background[:] = np.linspace(90, 150, width).astype(np.uint8)[:, None]
    views = []
    for place in range(_SWAY_FRAMES // 2 + 1):
        shift = -math.cos(2 * math.pi * place / _SWAY_FRAMES)
        left = round((width - side) / 2 + shift * min(_SWAY * width, (width - side) / 2))
        view = background.copy()
        view[(height - side) // 2 :, left : left + side][:side] = face
        views.append(view)
    return views


def _darkened(picture: UInt8Array) -> UInt8Array:
    import cv2

    return np.asarray(cv2.convertScaleAbs(cv2.flip(picture, 1), alpha=_LIGHT), np.uint8)


def _hum(rate_hz: int) -> Float32Array:
    """A voice of a few partials that swells three times a second, without a seam: float32 [_HUM_FRAMES, a frame's]."""
    per_frame = samples_per_frame(rate_hz)
    time_s = np.arange(_HUM_FRAMES * per_frame) / rate_hz
    partials = (np.sin(2 * np.pi * 120 * partial * time_s) / partial for partial in (1, 2, 3, 5, 8))
    wave = _HUM * sum(partials) * (1 + np.sin(2 * np.pi * 3.125 * time_s))
    return np.asarray(wave, np.float32).reshape(_HUM_FRAMES, per_frame)


def _tone(samples: npt.NDArray[np.int64], rate_hz: int) -> Float32Array:
    """A square wave: a step, at whatever moment it begins."""
    return np.asarray(_TONE * np.sign(np.cos(2 * np.pi * _TONE_HZ / rate_hz * samples)), np.float32)


def _looped(clip: SpeakerFile) -> Iterator[tuple[UInt8Array, Float32Array]]:
    for _ in endless():
        for chunk in clip.chunks(1):
            yield chunk.video[0], chunk.audio
